//! The way back from a drop gateway: pairs of files, `NAME.json` and `NAME.eml`, that another mail system has
//! put into a folder, taken in as mail of that gateway.
//!
//! The envelope says how long the message is, so nothing half written is taken. A pair is removed only after
//! the commit, and its id follows from its name and envelope, so it is the same message when it is found again.
//! A pair that cannot be taken is put into `bad` with the reason. Whoever writes here is not trusted with the
//! rest of the disk: links are not followed, and only plain files are read. What goes round is set aside, too.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use shared::address::Address;
use shared::id::{MessageId, unix_millis};
use shared::mime::header_len;
use shared::origin::Channel;
use shared::smtp::return_path;
use shared::store::Store;

use super::dropped::put;
use super::hop;
use crate::directory::{self, Policy};
use crate::error::Refused;
use crate::inbound;
use crate::mail::{self, Site};
use crate::node::{self, Node};
use crate::record::Transport;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(2);
/// Pairs of one folder that are taken in one look.
const AT_ONCE: usize = 100;
/// What is wrong with a pair may still be mended for so long after its envelope was written.
const SETTLING: Duration = Duration::from_secs(10);
/// Octets of an envelope.
const ENVELOPE_MAX: u64 = 1024 * 1024;
/// Recipients of one message.
const RECIPIENTS_MAX: usize = 1000;
/// Octets of a name without its ending.
const NAME_MAX: usize = 200;
/// The folder for what cannot be taken.
const BAD: &str = "bad";

/// The envelope, as it is read.
#[derive(Debug, Deserialize)]
struct Envelope {
    /// Empty for the null reverse-path.
    reverse_path: String,
    recipients: Vec<String>,
    /// Octets of the message.
    size: u64,
    /// Of the message, in hex.
    blake3: Option<String>,
}

/// A pair that can be taken.
struct Pair {
    id: MessageId,
    envelope: Envelope,
    content: Vec<u8>,
}

/// What is found under a name.
enum Found {
    Pair(Pair),
    /// It was taken in before, and its removal was cut short.
    Taken,
    /// It cannot be taken: why, and whether that may still be mended.
    Flawed(String, bool),
}

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    // What was said of a gateway is not said again every two seconds.
    let mut said: HashMap<String, String> = HashMap::new();
    loop {
        tokio::time::sleep(ROUND).await;
        let gateways = match node.store.read().and_then(|rows| directory::gateways(&rows)) {
            Ok(gateways) => gateways,
            Err(error) => {
                tracing::warn!(%error, "the gateways cannot be read");
                continue;
            }
        };
        for gateway in gateways {
            let Transport::Drop { pickup: Some(folder), .. } = &gateway.transport else { continue };
            if !node.pressure().mail_level().takes_mail() {
                continue;
            }
            match pick_up(&node.store, &node.site, &gateway.name, Path::new(folder)).await {
                Ok(taken) => {
                    said.remove(&gateway.name);
                    if taken > 0 {
                        node.queued();
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if said.get(&gateway.name) != Some(&error) {
                        tracing::warn!(
                            gateway = gateway.name,
                            error,
                            "mail cannot be picked up; it is tried again"
                        );
                        said.insert(gateway.name, error);
                    }
                }
            }
        }
    }
}

/// Takes in what is ready in `folder`. Returns how many messages that was.
pub async fn pick_up(
    store: &Store,
    site: &Arc<Site>,
    gateway: &str,
    folder: &Path,
) -> Result<usize, Refused> {
    let failed = |error: io::Error| Refused::new(format!("{}: {error}", folder.display()));
    let (mut taken, mut failure) = (0, None);
    for name in names(folder).map_err(failed)? {
        let found = tokio::task::block_in_place(|| read(store, site, gateway, folder, &name))?;
        match found {
            Found::Pair(Pair { id, envelope, content }) => {
                let channel = Channel::Gateway { name: gateway.to_owned() };
                let reverse_path = Some(envelope.reverse_path).filter(|path| !path.is_empty());
                let passes = inbound::passes(&content[..header_len(&content)], &site.policy);
                let trace = trace(&site.policy, gateway, id, reverse_path.as_deref());
                let content = [trace.as_bytes(), &content].concat();
                let mut incoming = tokio::task::block_in_place(|| {
                    let recipients = envelope.recipients;
                    node::written(
                        store,
                        id,
                        node::traced_origin(channel, reverse_path, recipients, &content, trace.len()),
                        &content,
                    )
                })?;
                incoming.passes = passes;
                let incoming = tokio::task::block_in_place(|| node::signed(store, site, incoming, &content))?;
                let site = Arc::clone(site);
                let entered =
                    store.commit(move |txn| mail::receive(txn, &site, incoming, &[], unix_millis()));
                if let Err(refused) = entered.await {
                    // It may be mended; the others go on.
                    failure = Some(refused);
                    continue;
                }
                taken += 1;
            }
            Found::Taken => {}
            Found::Flawed(_, true) => continue,
            Found::Flawed(reason, false) => {
                match set_aside(folder, &name, &reason) {
                    Ok(()) => tracing::warn!(gateway, name, reason, "what was to be picked up is set aside"),
                    // The others go on.
                    Err(error) => {
                        failure = Some(Refused::new(format!("{}, {name}: {error}", folder.display())))
                    }
                }
                continue;
            }
        }
        // The envelope last: as long as it is there, the pair is found and known.
        for ending in ["eml", "json"] {
            gone(fs::remove_file(folder.join(format!("{name}.{ending}")))).map_err(failed)?;
        }
    }
    match failure {
        Some(failure) if taken == 0 => Err(failure),
        Some(failure) => {
            tracing::warn!(gateway, %failure, "some of what was to be picked up cannot be taken now");
            Ok(taken)
        }
        None => Ok(taken),
    }
}

/// The trace that is put before what was picked up (RFC 5321 §4.4), as the edge does with what it receives.
fn trace(policy: &Policy, gateway: &str, id: MessageId, reverse_path: Option<&str>) -> String {
    // The envelope was read already: what is no address is the null reverse-path.
    let reverse_path: Option<Address> = reverse_path.and_then(|path| path.parse().ok());
    return_path(reverse_path.as_ref()) + &hop::received(policy, gateway, id).unwrap_or_default()
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names of some envelopes. What begins with a full stop is being written.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let plain = !stem.is_empty() && !stem.starts_with('.') && !stem.chars().any(char::is_control);
        if plain && stem.len() <= NAME_MAX {
            names.push(stem.to_owned());
        }
        if names.len() >= AT_ONCE {
            break;
        }
    }
    names.sort();
    Ok(names)
}

fn read(store: &Store, site: &Site, gateway: &str, folder: &Path, name: &str) -> Result<Found, Refused> {
    let flawed = |reason: String, young| Ok(Found::Flawed(reason, young));
    let (written, modified) = match plain_file(&folder.join(format!("{name}.json")), ENVELOPE_MAX) {
        Ok(read) => read,
        Err(error) => return flawed(format!("the envelope: {error}"), is_young(folder, name)),
    };
    let young = is_young(folder, name);
    let id = id_of(gateway, name, &written, modified);
    if mail::is_known(&store.read()?, id)? {
        return Ok(Found::Taken);
    }
    match open(folder, name, &written, site.content_bytes_max) {
        Ok((envelope, content)) => match hop::goes_round(&content[..header_len(&content)], &site.policy) {
            None => Ok(Found::Pair(Pair { id, envelope, content })),
            Some(reason) => flawed(reason, false),
        },
        Err(reason) => flawed(reason, young),
    }
}

/// The envelope that was written, and the message that it is of.
fn open(folder: &Path, name: &str, written: &[u8], size_max: u64) -> Result<(Envelope, Vec<u8>), String> {
    let envelope: Envelope =
        serde_json::from_slice(written).map_err(|error| format!("the envelope: {error}"))?;
    if !(1..=RECIPIENTS_MAX).contains(&envelope.recipients.len()) {
        return Err(format!("a message has 1 to {RECIPIENTS_MAX} recipients"));
    }
    let reverse_path = Some(&envelope.reverse_path).filter(|path| !path.is_empty());
    for text in envelope.recipients.iter().chain(reverse_path) {
        text.parse::<Address>().map_err(|error| format!("{text:?}: {error}"))?;
    }
    if envelope.size > size_max {
        return Err(format!("a message has {size_max} octets at most"));
    }
    let (content, _) = plain_file(&folder.join(format!("{name}.eml")), size_max)
        .map_err(|error| format!("the message: {error}"))?;
    if content.len() as u64 != envelope.size {
        return Err(format!("the message has {} octets, not {}", content.len(), envelope.size));
    }
    let hash = blake3::hash(&content).to_hex();
    if envelope.blake3.as_ref().is_some_and(|told| !told.eq_ignore_ascii_case(&hash)) {
        return Err("the message is not the one whose hash the envelope names".into());
    }
    let ends_well = |at: usize| at > 0 && content.get(at - 1) == Some(&b'\r');
    let bare = content.iter().enumerate().any(|(at, byte)| match byte {
        b'\n' => !ends_well(at),
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        0 => true,
        _ => false,
    });
    match bare {
        true => Err("lines end in CR and LF, and there is no NUL; the message has others".into()),
        false => Ok((envelope, content)),
    }
}

/// Opens a plain file with one name.
fn open_plain(path: &Path) -> io::Result<(File, Metadata)> {
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::other("not a plain file with this name only"));
    }
    Ok((file, metadata))
}

/// The bytes of a plain file with one name, and when it was changed, nanoseconds since 1970.
fn plain_file(path: &Path, max: u64) -> io::Result<(Vec<u8>, u128)> {
    let (file, metadata) = open_plain(path)?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("more than {max} octets")));
    }
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((bytes, modified.as_nanos()))
}

/// Whether the envelope was written a moment ago.
fn is_young(folder: &Path, name: &str) -> bool {
    let metadata = fs::symlink_metadata(folder.join(format!("{name}.json")));
    let modified = metadata.and_then(|metadata| metadata.modified()).ok();
    modified.is_some_and(|at| at.elapsed().is_ok_and(|age| age < SETTLING))
}

/// The id of a pair's message: its time, and what it is.
fn id_of(gateway: &str, name: &str, envelope: &[u8], modified: u128) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    for part in [gateway.as_bytes(), name.as_bytes(), envelope] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    hasher.update(&modified.to_be_bytes());
    let mut id = [0; 16];
    let millis = u64::try_from(modified / 1_000_000).unwrap_or_default();
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    MessageId(id)
}

/// Moves a pair out of the way, the envelope last, and says why. Links are moved, not what they lead to.
fn set_aside(folder: &Path, name: &str, reason: &str) -> io::Result<()> {
    let bad = folder.join(BAD);
    match fs::create_dir(&bad) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !fs::symlink_metadata(&bad)?.is_dir() {
        return Err(io::Error::other("bad is not a folder"));
    }
    put(&bad, &format!("{name}.reason"), |file| writeln!(file, "{reason}"))?;
    for ending in ["eml", "json"] {
        let file = format!("{name}.{ending}");
        match fs::rename(folder.join(&file), bad.join(&file)) {
            // The first version of Landlock lets nothing be moved to another folder, however much may be written in both.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => carry(folder, &bad, &file)?,
            moved => gone(moved)?,
        }
    }
    Ok(())
}

/// Moves a plain file to a folder that it cannot be renamed into.
fn carry(folder: &Path, into: &Path, name: &str) -> io::Result<()> {
    let path = folder.join(name);
    let (mut from, _) = open_plain(&path)?;
    put(into, name, |file| io::copy(&mut from, file).map(drop))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_cannot_be_renamed_is_carried_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("bad")).expect("made");
        fs::write(at("a.eml"), "text").expect("written");
        carry(dir.path(), &at("bad"), "a.eml").expect("carried");
        assert_eq!(fs::read(at("bad/a.eml")).expect("there"), b"text");
        assert!(!at("a.eml").exists());
        fs::write(at("secret"), "mine").expect("written");
        symlink(at("secret"), at("link.eml")).expect("linked");
        fs::hard_link(at("secret"), at("hard.eml")).expect("linked");
        for name in ["link.eml", "hard.eml"] {
            carry(dir.path(), &at("bad"), name).expect_err("not a plain file");
            assert!(at(name).exists() && !at("bad").join(name).exists());
        }
    }
}
