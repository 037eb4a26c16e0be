//! The way back from a drop gateway: pairs of files, `NAME.json` and `NAME.eml`, that another mail system has
//! put into a folder, taken in as mail of that gateway.
//!
//! The envelope says how long the message is, so nothing half written is taken. A pair is removed only after
//! the commit, and its id follows from its name and envelope, so it is the same message when it is found again.
//! A pair that cannot be taken is put into `bad` with the reason. Whoever writes here is not trusted with the
//! rest of the disk: links are not followed, and only plain files are read. What goes round is set aside, too.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
use shared::tls_wish::TlsWish;

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
    /// It goes on under TLS only (RFC 8689).
    #[serde(default)]
    require_tls: bool,
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

/// What is remembered of a gateway from one look to the next.
#[derive(Default)]
struct Look {
    /// What was said of it, which is not said again every two seconds.
    said: Option<String>,
    /// The last name that was looked at.
    after: Option<String>,
}

/// Runs for ever.
pub async fn run(node: Arc<Node>) {
    let mut looks: HashMap<String, Look> = HashMap::new();
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
            let look = looks.entry(gateway.name.clone()).or_default();
            let picked =
                pick_up(&node.store, &node.site, &gateway.name, Path::new(folder), &mut look.after).await;
            match picked {
                Ok(taken) => {
                    look.said = None;
                    if taken > 0 {
                        node.queued();
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if look.said.as_ref() != Some(&error) {
                        tracing::warn!(
                            gateway = gateway.name,
                            error,
                            "mail cannot be picked up; it is tried again"
                        );
                        look.said = Some(error);
                    }
                }
            }
        }
    }
}

/// Takes in what is ready in `folder`, of the names behind `after`: some at once, and those that follow the next time.
/// Returns how many messages that was. A pair that cannot be taken now is passed over, or some of them would keep all that
/// lies behind them waiting.
pub async fn pick_up(
    store: &Store,
    site: &Arc<Site>,
    gateway: &str,
    folder: &Path,
    after: &mut Option<String>,
) -> Result<usize, Refused> {
    let failed = |error: io::Error| Refused::new(format!("{}: {error}", folder.display()));
    let (mut taken, mut failure) = (0, None);
    // The folder is another system's, and may be large.
    let names = tokio::task::block_in_place(|| names(folder, after.as_deref())).map_err(failed)?;
    *after = names.last().filter(|_| names.len() == AT_ONCE).cloned();
    for name in names {
        match take(store, site, gateway, folder, &name).await {
            Ok(new) => taken += usize::from(new),
            Err(refused) => failure = Some(refused),
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

/// Takes a pair in, or sets it aside. Returns whether it is a message that has not been taken in before.
async fn take(
    store: &Store,
    site: &Arc<Site>,
    gateway: &str,
    folder: &Path,
    name: &str,
) -> Result<bool, Refused> {
    let failed = |error: io::Error| Refused::new(format!("{}, {name}: {error}", folder.display()));
    let is_new = match tokio::task::block_in_place(|| read(store, site, gateway, folder, name))? {
        Found::Pair(pair) => {
            enter(store, site, gateway, pair).await?;
            true
        }
        Found::Taken => false,
        Found::Flawed(_, true) => return Ok(false),
        Found::Flawed(reason, false) => {
            set_aside(folder, name, &reason).map_err(failed)?;
            tracing::warn!(gateway, name, reason, "what was to be picked up is set aside");
            return Ok(false);
        }
    };
    // The envelope last: as long as it is there, the pair is found and known.
    for ending in ["eml", "json"] {
        gone(fs::remove_file(folder.join(format!("{name}.{ending}")))).map_err(failed)?;
    }
    Ok(is_new)
}

/// Makes a pair a message, in one commit.
async fn enter(store: &Store, site: &Arc<Site>, gateway: &str, pair: Pair) -> Result<(), Refused> {
    let Pair { id, envelope, content } = pair;
    let channel = Channel::Gateway { name: gateway.to_owned() };
    let reverse_path = Some(envelope.reverse_path).filter(|path| !path.is_empty());
    let passes = inbound::passes(&content[..header_len(&content)], &site.policy);
    let trace = trace(&site.policy, gateway, id, reverse_path.as_deref());
    let content = [trace.as_bytes(), &content].concat();
    let mut incoming = tokio::task::block_in_place(|| {
        let recipients = envelope.recipients;
        let mut origin = node::traced_origin(channel, reverse_path, recipients, &content, trace.len());
        origin.tls_wish = TlsWish::of(envelope.require_tls, origin.tls_wish == TlsWish::Dispensable);
        node::written(store, id, origin, &content)
    })?;
    incoming.passes = passes;
    let incoming = tokio::task::block_in_place(|| node::signed(store, site, incoming, &content))?;
    let site = Arc::clone(site);
    store.commit(move |txn| mail::receive(txn, &site, incoming, &[], unix_millis())).await.map(drop)
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

/// The names of some envelopes: the first ones behind `after`. What begins with a full stop is being written.
fn names(folder: &Path, after: Option<&str>) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let plain = !stem.is_empty() && !stem.starts_with('.') && !stem.chars().any(char::is_control);
        if plain && stem.len() <= NAME_MAX && after.is_none_or(|after| stem > after) {
            names.insert(stem.to_owned());
        }
        if names.len() > AT_ONCE {
            names.pop_last();
        }
    }
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
    let aside = name_aside(folder, &bad, name)?;
    put(&bad, &format!("{aside}.reason"), |file| writeln!(file, "{reason}"))?;
    for ending in ["eml", "json"] {
        let (from, to) = (folder.join(format!("{name}.{ending}")), bad.join(format!("{aside}.{ending}")));
        match fs::rename(&from, &to) {
            // The first version of Landlock lets nothing be moved to another folder, however much may be written in both.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => carry(&from, &to)?,
            moved => gone(moved)?,
        }
    }
    Ok(())
}

/// The name under which a pair is set aside: its own, or, where another one lies there, with its envelope's time behind it.
fn name_aside(folder: &Path, bad: &Path, name: &str) -> io::Result<String> {
    let is_there = |path: PathBuf| fs::symlink_metadata(path).is_ok();
    // What was set aside lacks its envelope as long as that is not over.
    let is_free = |aside: &str| {
        let message =
            is_there(folder.join(format!("{name}.eml"))) && is_there(bad.join(format!("{aside}.eml")));
        !message && !is_there(bad.join(format!("{aside}.json")))
    };
    if is_free(name) {
        return Ok(name.to_owned());
    }
    let modified = fs::symlink_metadata(folder.join(format!("{name}.json")))?.modified()?;
    let aside = format!("{name}.{}", modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
    match is_free(&aside) {
        true => Ok(aside),
        false => Err(io::Error::other("another pair of that name and time lies in bad; take it away")),
    }
}

/// Moves a plain file to a folder that it cannot be renamed into.
fn carry(from: &Path, to: &Path) -> io::Result<()> {
    let (mut file, _) = open_plain(from)?;
    let (Some(folder), Some(name)) = (to.parent(), to.file_name().and_then(OsStr::to_str)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    put(folder, name, |copy| io::copy(&mut file, copy).map(drop))?;
    fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_set_aside_lies_beside_what_was_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let lies = |name: &str| fs::read_to_string(at("bad").join(name)).unwrap_or_default();
        for text in ["first", "second"] {
            fs::write(at("a.json"), text).expect("written");
            fs::write(at("a.eml"), text).expect("written");
            set_aside(dir.path(), "a", text).expect("is set aside");
        }
        let mut names: Vec<_> = fs::read_dir(at("bad"))
            .expect("a folder")
            .map(|entry| entry.expect("reads").file_name().into_string().expect("UTF-8"))
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .collect();
        names.sort();
        assert!(names.len() == 2 && names[0] == "a" && names[1].starts_with("a."), "{names:?}");
        for (name, text) in names.iter().zip(["first", "second"]) {
            assert_eq!(lies(&format!("{name}.json")), text);
            assert_eq!(lies(&format!("{name}.eml")), text);
            assert_eq!(lies(&format!("{name}.reason")), format!("{text}\n"));
        }
        // Cut short behind the message: the envelope joins it.
        fs::remove_file(at("bad/a.json")).expect("is removed");
        fs::write(at("a.json"), "first").expect("written");
        set_aside(dir.path(), "a", "first").expect("is set aside");
        assert_eq!(lies("a.json"), "first");
    }

    #[test]
    fn what_cannot_be_renamed_is_carried_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("bad")).expect("made");
        fs::write(at("a.eml"), "text").expect("written");
        carry(&at("a.eml"), &at("bad/a.eml")).expect("carried");
        assert_eq!(fs::read(at("bad/a.eml")).expect("there"), b"text");
        assert!(!at("a.eml").exists());
        fs::write(at("secret"), "mine").expect("written");
        symlink(at("secret"), at("link.eml")).expect("linked");
        fs::hard_link(at("secret"), at("hard.eml")).expect("linked");
        for name in ["link.eml", "hard.eml"] {
            carry(&at(name), &at("bad").join(name)).expect_err("not a plain file");
            assert!(at(name).exists() && !at("bad").join(name).exists());
        }
    }
}
