//! A message as files in a drop directory: `ID.eml`, the exact bytes, and `ID.json`, the envelope.
//!
//! Both are written under other names, synced and renamed, the envelope last: a message is there when its
//! envelope is. Done again after a crash, it makes the same files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use shared::id::MessageId;
use shared::smtp::client::{Class, Status};
use shared::smtp::{Enhanced, Recipient};
use shared::store::Store;
use shared::tls_wish::TlsWish;

use super::attempt::Content;
use super::queue::Report;
use crate::record::Message;

/// For us and, by the folder's group, for the system behind it.
const MODE: u32 = 0o640;

/// The envelope, as it is written.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    /// Empty for the null reverse-path.
    reverse_path: &'a str,
    recipients: Vec<String>,
    /// Octets of the message.
    size: u64,
    /// Of the message, in hex.
    blake3: String,
    /// Accepted, milliseconds since 1970.
    accepted_at: u64,
    /// It came with REQUIRETLS (RFC 8689): whoever has it goes on with it under TLS only.
    require_tls: bool,
}

/// Puts a message into `folder`. A report for each recipient.
pub async fn attempt(
    store: &Store,
    folder: &str,
    id: MessageId,
    message: &Message,
    recipients: Vec<(u32, Recipient)>,
) -> Vec<Report> {
    let names: Vec<_> = recipients.iter().map(|(_, recipient)| recipient.to_string()).collect();
    let written = tokio::task::block_in_place(|| write(store, Path::new(folder), id, message, names));
    let status = match written {
        Ok(()) => Status::ours(Class::Delivered, Enhanced(2, 0, 0), &format!("put into the folder as {id}")),
        Err(error) => {
            tracing::warn!(message = %id, folder, %error, "a message cannot be put into a gateway's folder");
            let text = format!("cannot be put into the gateway's folder: {error}");
            Status::ours(Class::Temporary, Enhanced(4, 3, 0), &text)
        }
    };
    let report = |(recipient, _)| Report {
        recipient,
        status: status.clone(),
        host: None,
        tls: None,
        host_reports: false,
    };
    recipients.into_iter().map(report).collect()
}

fn write(
    store: &Store,
    folder: &Path,
    id: MessageId,
    message: &Message,
    recipients: Vec<String>,
) -> io::Result<()> {
    let origin = &message.origin;
    // Another recipient's earlier text may lie there still.
    let name = if message.revision == 0 { id.to_string() } else { format!("{id}.{}", message.revision) };
    let mut content = Content::of(store.body(message.body()).map_err(io::Error::other)?);
    put(folder, &format!("{name}.eml"), |file| {
        let mut hasher = blake3::Hasher::new();
        while let Some(piece) = content.next().map_err(io::Error::other)? {
            hasher.update(&piece);
            file.write_all(&piece)?;
        }
        match hasher.finalize() == origin.body {
            true => Ok(()),
            false => Err(io::Error::other("the stored message is damaged")),
        }
    })?;
    let envelope = Envelope {
        reverse_path: origin.reverse_path.as_deref().unwrap_or_default(),
        recipients,
        size: origin.size,
        blake3: blake3::Hash::from_bytes(origin.body).to_hex().to_string(),
        accepted_at: origin.accepted_at,
        require_tls: origin.tls_wish == TlsWish::Required,
    };
    put(folder, &format!("{name}.json"), |file| Ok(serde_json::to_writer_pretty(file, &envelope)?))?;
    File::open(folder)?.sync_all()
}

/// Makes a file whole under its name, or not at all. What lies under the unfinished name, a link perhaps, is
/// removed and never written through.
pub(super) fn put(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.part"));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&unfinished)?;
    fill(&mut file)?;
    file.sync_all()?;
    fs::rename(unfinished, folder.join(name))
}
