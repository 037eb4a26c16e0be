//! The form of a message that is signed: *relaxed* for header and body (RFC 6376 §3.4.2, §3.4.4), which bears what
//! relays do to blanks.

use ring::digest::{Context, SHA256};
use shared::mime::Field;

/// A body's hash, as it passes by in pieces of any size.
pub struct BodyHash {
    hasher: Context,
    /// Line ends since the last octet that counted: those at the body's end do not count.
    line_ends: u64,
    /// Blanks were met that count as one, should anything follow them in their line.
    blanks: bool,
    /// A CR was met, and what follows it says whether the line ends.
    return_pending: bool,
    /// Whether anything counted yet.
    begun: bool,
    /// What is hashed next; kept for its room.
    out: Vec<u8>,
}

impl Default for BodyHash {
    fn default() -> Self {
        Self {
            hasher: Context::new(&SHA256),
            line_ends: 0,
            blanks: false,
            return_pending: false,
            begun: false,
            out: Vec::new(),
        }
    }
}

impl std::fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHash").finish_non_exhaustive()
    }
}

impl BodyHash {
    /// Octets that wait to be hashed, at most.
    const OUT_MAX: usize = 16 * 1024;

    /// Takes the next octets of the body.
    pub fn update(&mut self, octets: &[u8]) {
        for octet in octets {
            if std::mem::take(&mut self.return_pending) {
                if *octet == b'\n' {
                    self.line_ends += 1;
                    self.blanks = false;
                    continue;
                }
                self.count(b'\r');
            }
            match octet {
                b'\r' => self.return_pending = true,
                b' ' | b'\t' => self.blanks = true,
                _ => self.count(*octet),
            }
        }
        self.flush();
    }

    fn count(&mut self, octet: u8) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            self.out.extend_from_slice(b"\r\n");
            if self.out.len() >= Self::OUT_MAX {
                self.flush();
            }
        }
        if std::mem::take(&mut self.blanks) {
            self.out.push(b' ');
        }
        self.out.push(octet);
        self.begun = true;
        if self.out.len() >= Self::OUT_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.out);
        self.out.clear();
    }

    /// The SHA-256 of all of it.
    pub fn finish(mut self) -> [u8; 32] {
        if std::mem::take(&mut self.return_pending) {
            self.count(b'\r');
        }
        if self.begun {
            // A last line that does not end is ended, as it is when it leaves.
            self.out.extend_from_slice(b"\r\n");
        }
        self.flush();
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hasher.finish().as_ref());
        hash
    }
}

/// Appends a header field to what is signed, without the end of its line.
pub fn field(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend(field.name.bytes().map(|byte| byte.to_ascii_lowercase()));
    out.push(b':');
    let words = field.raw.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    for (n, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}
