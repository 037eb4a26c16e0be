//! The hashes of a body, should a signature be over it: of one that is at hand, and of one that passes by.

use shared::dkim::{BodyHash, Form};
use shared::mime::{Field, fields};
use tokio::task::{JoinHandle, spawn_blocking};

/// Octets that are hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// SHA-256 of a body in the *simple* form and in the *relaxed* one.
pub type BodyHashes = [[u8; 32]; 2];

/// Hashes a body that is at hand.
pub fn hashed(header: &[u8], body: &[u8]) -> BodyHashes {
    let mut forms = Forms::of(header);
    forms.update(body);
    forms.finish()
}

/// Both forms, if anything in the header is a signature.
#[derive(Debug)]
struct Forms(Option<Box<[BodyHash; 2]>>);

impl Forms {
    fn of(header: &[u8]) -> Self {
        let is_signature = |field: Field<'_>| field.is("DKIM-Signature") || field.is("ARC-Message-Signature");
        let is_signed = fields(header).any(is_signature);
        Self(is_signed.then(|| Box::new([BodyHash::new(Form::Simple), BodyHash::new(Form::Relaxed)])))
    }

    fn update(&mut self, octets: &[u8]) {
        self.0.iter_mut().flat_map(|forms| forms.iter_mut()).for_each(|form| form.update(octets));
    }

    fn finish(self) -> BodyHashes {
        self.0.map(|forms| forms.map(BodyHash::finish)).unwrap_or_default()
    }
}

/// Hashes a body that passes by: piece by piece, on threads that may block, one piece behind what is written.
#[derive(Debug)]
pub struct Hashing {
    at_work: JoinHandle<Forms>,
    piece: Vec<u8>,
}

impl Hashing {
    /// For the body behind `header`.
    pub fn of(header: &[u8]) -> Self {
        let forms = Forms::of(header);
        Self { at_work: spawn_blocking(move || forms), piece: Vec::new() }
    }

    /// Takes the next octets; false if there are no threads any more, because the node goes down.
    pub async fn push(&mut self, octets: &[u8]) -> bool {
        self.piece.extend_from_slice(octets);
        self.piece.len() < PIECE_BYTES || self.hash().await
    }

    async fn hash(&mut self) -> bool {
        let Ok(mut forms) = (&mut self.at_work).await else { return false };
        let piece = std::mem::take(&mut self.piece);
        self.at_work = spawn_blocking(move || {
            forms.update(&piece);
            forms
        });
        true
    }

    /// The hashes of all of it; `None` if the node goes down.
    pub async fn finish(mut self) -> Option<BodyHashes> {
        let is_whole = self.hash().await;
        if is_whole { self.at_work.await.ok().map(Forms::finish) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_hashed_for_a_signature_and_in_pieces_as_in_one() {
        let unsigned = b"From: a@example.com\r\nX: DKIM-Signature\r\n\r\n";
        assert_eq!(hashed(unsigned, b"text"), BodyHashes::default());
        let body = "a line \t of text \r\n\r\n".repeat(PIECE_BYTES / 10);
        for signed in [&b"dkim-signature: v=1\r\n\r\n"[..], b"ARC-Message-Signature: i=1\r\n\r\n"] {
            let hash = |form| {
                let mut hash = BodyHash::new(form);
                hash.update(body.as_bytes());
                hash.finish()
            };
            let expected = [hash(Form::Simple), hash(Form::Relaxed)];
            assert_eq!(hashed(signed, body.as_bytes()), expected);
            let mut passing = Hashing::of(signed);
            for piece in body.as_bytes().chunks(10_007) {
                assert!(passing.push(piece).await);
            }
            assert_eq!(passing.finish().await, Some(expected));
        }
    }
}
