//! Disks that lie: a bit flipped in what a node has stored.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shared::id::MessageId;

use crate::wait::Trouble;

/// Octets of what each record of a segment begins with, the first one at the segment's beginning; a message's
/// id follows.
const MARKER_BYTES: usize = 8;
/// Well inside the body of any test message.
const OFFSET: usize = 1000;

/// Flips a bit in the stored body of a message, wherever its record lies under `state`; flipped twice, it
/// is as it was. The node may run: no other byte is written.
///
/// # Errors
/// No segment holds that message, or its file cannot be written.
pub fn flip(state: &Path, message: &str) -> Result<(), Trouble> {
    let id = message.parse::<MessageId>()?;
    for path in segments(state)? {
        let bytes = fs::read(&path)?;
        let Some(marker) = bytes.get(..MARKER_BYTES) else { continue };
        let head = [marker, &id.0].concat();
        if let Some(record) = memchr::memmem::find(&bytes, &head) {
            let place = record + OFFSET;
            let byte = bytes.get(place).ok_or("a body that short")?;
            return Ok(OpenOptions::new()
                .write(true)
                .open(&path)?
                .write_all_at(&[byte ^ 1], place as u64)?);
        }
    }
    Err("no segment holds that message".into())
}

/// The message whose body was stored last under `state`.
///
/// # Errors
/// There is none.
pub fn newest(state: &Path) -> Result<String, Trouble> {
    for path in segments(state)?.into_iter().rev() {
        let bytes = fs::read(&path)?;
        let Some(marker) = bytes.get(..MARKER_BYTES) else { continue };
        let id = memchr::memmem::rfind(&bytes, marker)
            .and_then(|record| bytes[record + MARKER_BYTES..].first_chunk());
        if let Some(id) = id {
            return Ok(MessageId(*id).to_string());
        }
    }
    Err("no segment holds a message".into())
}

/// The segments under `state`, oldest first.
fn segments(state: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(state.join("store"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "seg") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
