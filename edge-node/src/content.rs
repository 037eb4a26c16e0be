//! Reading a sealed body that the node holds the key to, piece by piece.

use shared::chunk;
use shared::seal::{FileKey, Opener, Sealed};
use shared::store::{BodyReader, StoreError};

/// A sealed body that is being opened.
#[derive(Debug)]
pub struct Content {
    reader: BodyReader,
    /// `None` once the last chunk has been opened.
    opener: Option<Opener>,
    /// The first piece, if it was opened before it was asked for.
    begun: Option<Vec<u8>>,
}

/// A sealed body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The store cannot give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not open with this key.
    #[error(transparent)]
    Sealed(#[from] Sealed),
    /// It is not a body in chunks.
    #[error(transparent)]
    Broken(#[from] chunk::Broken),
}

impl Content {
    /// Opens what `reader` reads with `key`.
    pub fn new(reader: BodyReader, key: &FileKey) -> Self {
        Self { reader, opener: Some(Opener::new(key)), begun: None }
    }

    /// Opens the first piece, before it is asked for.
    pub fn begin(&mut self) -> Result<(), Unreadable> {
        self.begun = self.next()?;
        Ok(())
    }

    /// The next plain bytes; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        if let Some(begun) = self.begun.take() {
            return Ok(Some(begun));
        }
        while let Some(mut opener) = self.opener.take() {
            let Some(piece) = self.reader.next_piece()? else {
                return Ok(Some(chunk::decode(&opener.finish()?)?));
            };
            let mut plain = Vec::new();
            opener.push(&piece, |payload| {
                plain.extend_from_slice(&chunk::decode(payload)?);
                Ok::<(), Unreadable>(())
            })?;
            self.opener = Some(opener);
            if !plain.is_empty() {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }
}
