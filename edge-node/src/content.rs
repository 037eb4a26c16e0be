//! Reading a sealed body that the node holds the key to, piece by piece. No piece leaves its key on the stack.

use shared::chunk;
use shared::seal::{FileKey, Opener, Sealed};
use shared::store::{BodyReader, StoreError};
use shared::wipe;

/// A sealed body that is being opened.
#[derive(Debug)]
pub struct Content {
    /// What is still to be read; `None` once the last chunk has been opened, for a reader keeps its segment from being
    /// given back.
    rest: Option<(BodyReader, Opener)>,
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
    /// Opens what `reader` reads with `key`. Whoever has a key that is to leave no trace wipes the stack behind this
    /// ([`wipe::stack`]).
    #[inline(never)]
    pub fn new(reader: BodyReader, key: &FileKey) -> Self {
        Self { rest: Some((reader, Opener::new(key))), begun: None }
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
        if self.rest.is_none() {
            return Ok(None);
        }
        let piece = self.open_next();
        wipe::stack();
        piece
    }

    /// Opens the next piece, and leaves its key on the stack: in frames of its own, below its caller's.
    #[inline(never)]
    fn open_next(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        while let Some((mut reader, mut opener)) = self.rest.take() {
            let Some(piece) = reader.next_piece()? else {
                return Ok(Some(chunk::decode(&opener.finish()?)?));
            };
            let mut plain = Vec::new();
            opener.push(&piece, |payload| {
                plain.extend_from_slice(&chunk::decode(payload)?);
                Ok::<(), Unreadable>(())
            })?;
            self.rest = Some((reader, opener));
            if !plain.is_empty() {
                return Ok(Some(plain));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::seal::BodySealer;
    use shared::store::sim::SimDisk;
    use shared::store::{BodyKey, Store};

    use super::*;
    use crate::record::INBOUND_KIND;

    const SEGMENT_BYTES: u64 = 128 * 1024;
    const FIRST_SEGMENT: &str = "00000001.seg";

    /// Stores octets as a body.
    fn put(store: &Store, number: u8, bytes: &[u8]) {
        let mut writer = store.body_writer(BodyKey([number; 32]), INBOUND_KIND);
        writer.write(bytes).expect("writes");
        let stored = writer.finish(Vec::new()).expect("writes");
        store.commit_blocking(move |txn| txn.keep_body(&stored)).expect("commits");
    }

    fn release(store: &Store, number: u8) {
        store.commit_blocking(move |txn| txn.release_body(BodyKey([number; 32]))).expect("commits");
    }

    #[test]
    fn what_has_been_opened_to_its_end_keeps_no_segment() {
        let disk = SimDisk::default();
        let store = Store::open_with(Arc::new(disk.clone()), SEGMENT_BYTES).expect("opens");
        let (key, text) = (FileKey::generate(), b"opened ahead\r\n");
        let (mut sealer, mut sealed) = (BodySealer::new(&key), Vec::new());
        sealer.push(text, &mut sealed);
        sealer.finish(&mut sealed);
        put(&store, 1, &sealed);
        let [mut begun, unread] =
            [1, 1].map(|number| Content::new(store.body(BodyKey([number; 32])).expect("is there"), &key));
        begun.begin().expect("opens");
        // Others fill the segment, and go as well.
        let filling = vec![0; 2 * SEGMENT_BYTES as usize];
        put(&store, 2, &filling);
        put(&store, 3, &filling);
        release(&store, 1);
        release(&store, 2);
        assert!(disk.length(FIRST_SEGMENT) > 0, "somebody may still read in it");
        drop(unread);
        release(&store, 3);
        assert_eq!(disk.length(FIRST_SEGMENT), 0, "nobody does");
        assert_eq!(begun.next().expect("is open"), Some(text.to_vec()));
        assert_eq!(begun.next().expect("is open"), None);
    }
}
