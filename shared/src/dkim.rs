//! The body of a message as DKIM hashes it (RFC 6376 §3.4.3, §3.4.4): what signs needs it, and what verifies.

use sha2::{Digest as _, Sha256};

/// How a body is brought into the form that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is, without the empty lines at its end.
    Simple,
    /// The same, blanks counting as one within a line and not at all at its end.
    Relaxed,
}

/// A body's hash, as it passes by in pieces of any size.
#[derive(Debug)]
pub struct BodyHash {
    form: Form,
    hasher: Sha256,
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

impl BodyHash {
    /// Octets that wait to be hashed, at most.
    const OUT_MAX: usize = 16 * 1024;

    /// Nothing was hashed yet.
    pub fn new(form: Form) -> Self {
        Self {
            form,
            hasher: Sha256::new(),
            line_ends: 0,
            blanks: false,
            return_pending: false,
            begun: false,
            out: Vec::new(),
        }
    }

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
                b' ' | b'\t' if self.form == Form::Relaxed => self.blanks = true,
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
        // A last line that does not end is ended, as it is when it leaves; an empty body is a line only when *simple*.
        if self.begun || self.form == Form::Simple {
            self.out.extend_from_slice(b"\r\n");
        }
        self.flush();
        self.hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, body: &str, hashed: &str) {
        let expected: [u8; 32] = Sha256::digest(hashed).into();
        for cut in 0..=body.len() {
            let (first, rest) = body.as_bytes().split_at(cut);
            let mut hash = BodyHash::new(form);
            hash.update(first);
            hash.update(rest);
            assert_eq!(hash.finish(), expected, "{form:?} {body:?} cut at {cut}");
        }
    }

    #[test]
    fn bodies_are_hashed_in_both_forms() {
        for (body, relaxed, simple) in [
            ("", "", "\r\n"),
            ("\r\n\r\n", "", "\r\n"),
            (" \t\r\n \r\n", "", " \t\r\n \r\n"),
            (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n", " C \r\nD \t E\r\n"),
            ("\r\n\r\nx", "\r\n\r\nx\r\n", "\r\n\r\nx\r\n"),
            ("hello\r\n \r\n\r\n", "hello\r\n", "hello\r\n \r\n"),
            ("a \r b\r\n", "a \r b\r\n", "a \r b\r\n"),
            ("a\r", "a\r\r\n", "a\r\r\n"),
            ("a  ", "a\r\n", "a  \r\n"),
        ] {
            check(Form::Relaxed, body, relaxed);
            check(Form::Simple, body, simple);
        }
        let long = format!("x{}y", "\r\n".repeat(20_000));
        let mut hash = BodyHash::new(Form::Relaxed);
        hash.update(long.as_bytes());
        assert_eq!(hash.finish(), <[u8; 32]>::from(Sha256::digest(format!("{long}\r\n"))));
    }
}
