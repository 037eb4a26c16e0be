//! A trip whose mail, password and keys are looked for on the edge's disk and in its memory, byte by byte.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use big_node::record::{AfterFetch, Scope, WINDOW_KEYS, WINDOWS, WindowKey, WindowRow};
use big_node::request::Started;
use shared::credential::Credential;
use shared::id::MessageId;
use shared::sasl::Credentials;
use shared::state::State;
use shared::store::Rows;

use crate::proc;
use crate::process::Node;
use crate::wait::{SOON, Trouble, until};
use crate::world::{ALICE, BOB, World};

const SUBJECT: &str = "k7Qz-canary-subject-Wm3x";
const BODY: &str = "J9pL-canary-body-Tf5v";
const SENDER: &str = "h4Xc-canary-sender@remote.example";
const NAME: &str = "Rd2y-canary-name-Bq6s";
const FILE: &str = "Vn8e-canary-file-Yk1m";
const ATTACHED: &str = "Zp3u-canary-attached-Gj7o";

/// Octets of a key that are looked for: those that arithmetic with it changes, at either end, are left out.
const KEY_MIDDLE: std::ops::Range<usize> = 4..28;

/// What nobody may find on an edge's disk, and the cover of the window's key, which goes with the window.
#[derive(Debug)]
pub struct Canary {
    /// The trip.
    pub trip: Started,
    /// What was read and written.
    text: Vec<(&'static str, Vec<u8>)>,
    /// What opens it.
    keys: Vec<(&'static str, Vec<u8>)>,
    cover: Vec<u8>,
}

/// The covers of the keys of open windows, as they lie on the edge's disk.
pub fn covers(world: &World) -> Result<Vec<Vec<u8>>, Trouble> {
    let nobody = MessageId([0; 16]).to_string();
    let mut covers = Vec::new();
    for file in fs::read_dir(world.nodes.state_of(Node::Edge).join("windows"))? {
        let file = file?;
        // One cover is of names that do not exist, and always there.
        if ![OsStr::new("lock"), OsStr::new(&nobody)].contains(&file.file_name().as_os_str()) {
            covers.push(fs::read(file.path())?);
        }
    }
    Ok(covers)
}

impl Canary {
    /// Alice travels, collects mail from outside and from inside, and answers. Big is stopped and started again in
    /// the end, for its store to be looked into.
    pub async fn released(world: &mut World) -> Result<Self, Trouble> {
        let trip = world.desk("alice").travel(Scope::All, AfterFetch::Keep).await?;
        let text = format!(
            "From: {NAME} <{SENDER}>\r\nTo: {ALICE}\r\nSubject: {SUBJECT}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{BODY}\r\n--b\r\n\
             Content-Disposition: attachment; filename={FILE}\r\n\r\n{ATTACHED}\r\n--b--\r\n"
        );
        world.receive(&[ALICE], text.as_bytes()).await?;
        world.desk("bob").send(ALICE, SUBJECT, BODY).await?;
        until("both are in the maildrop, and read as they were", SOON, async || {
            let Ok(mut session) = world.pop3s(&trip.user, &trip.password).await else { return Ok(None) };
            let count = session.stat().await?.0;
            for number in 1..=count {
                let message = String::from_utf8(session.retr(number).await?)?;
                if !message.contains(SUBJECT) || !message.contains(BODY) {
                    return Err("a message was altered".into());
                }
            }
            session.quit().await?;
            Ok((count == 2).then_some(()))
        })
        .await?;
        let mut session = world.submission(&trip.user, &trip.password).await?;
        let answer = format!("From: {ALICE}\r\nSubject: {SUBJECT}\r\n\r\n{BODY}\r\n");
        session.send(ALICE, &[BOB], answer.as_bytes()).await?;
        world.quiet().await?;
        world.nodes.stop(Node::Big).await?;
        let (private, credential) = keys_at_home(world)?;
        world.nodes.start_big().await?;
        world.linked().await?;
        let plain = format!("\0{}\0{}", trip.user, trip.password);
        let claimed = Credentials::new(trip.user.clone(), trip.password.clone().into())?;
        let client_key = credential.client_key(&claimed.secret);
        let text = vec![
            ("the subject", SUBJECT.into()),
            ("the body", BODY.into()),
            ("the sender's address", SENDER.into()),
            ("the sender's name", NAME.into()),
            ("the name of an attachment", FILE.into()),
            ("an attachment", ATTACHED.into()),
        ];
        let keys = vec![
            ("the password", trip.password.clone().into_bytes()),
            ("the password without hyphens", trip.password.replace('-', "").into_bytes()),
            ("the password in base64", STANDARD.encode(&trip.password).into_bytes()),
            ("the response of PLAIN", STANDARD.encode(plain).into_bytes()),
            ("the ClientKey", client_key.to_vec()),
            ("the private key", private[KEY_MIDDLE].to_vec()),
            ("the locked private key without its cover", credential.locked_private_key),
        ];
        let cover = covers(world)?.pop().ok_or("an open window has a cover")?;
        Ok(Self { trip, text, keys, cover })
    }

    /// Which secrets stand in these files, or in files below these folders, and where.
    pub fn found(&self, places: &[&Path]) -> Result<Vec<String>, Trouble> {
        let mut found = Vec::new();
        for (what, secret) in self.text.iter().chain(&self.keys) {
            found.extend(holding(places, secret)?.into_iter().map(|file| format!("{what} in {file}")));
        }
        Ok(found)
    }

    /// Which of what opens the window stands in the edge's memory, and where.
    pub fn found_in_memory(&self, world: &World) -> Result<Vec<String>, Trouble> {
        let edge = world.nodes.edge_ready().pid;
        let mut found = Vec::new();
        for (what, secret) in &self.keys {
            found.extend(
                proc::holding(edge, secret)?.into_iter().map(|mapping| format!("{what} in {mapping}")),
            );
        }
        Ok(found)
    }

    /// Where the cover stands.
    pub fn cover_found(&self, places: &[&Path]) -> Result<Vec<String>, Trouble> {
        holding(places, &self.cover)
    }

    /// The same search where there is something to be found: on big.
    pub fn found_at_home(&self, world: &World) -> Result<Vec<String>, Trouble> {
        self.found(&[&world.nodes.state_of(Node::Big)])
    }
}

/// The files that hold these bytes, of these files and those below these folders.
pub fn holding(places: &[&Path], needle: &[u8]) -> Result<Vec<String>, Trouble> {
    let mut left: Vec<_> = places.iter().map(|place| place.to_path_buf()).collect();
    let mut holding = Vec::new();
    while let Some(place) = left.pop() {
        // A file that a node has removed meanwhile holds nothing.
        let Ok(kind) = fs::symlink_metadata(&place) else { continue };
        if kind.is_dir() {
            for entry in fs::read_dir(&place)? {
                left.push(entry?.path());
            }
        } else if kind.is_file() {
            let content = match fs::read(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                content => content?,
            };
            if memchr::memmem::find(&content, needle).is_some() {
                holding.push(place.display().to_string());
            }
        }
    }
    Ok(holding)
}

/// The private key of the only open window, and its credential, out of big's store.
fn keys_at_home(world: &World) -> Result<([u8; 32], Credential), Trouble> {
    let store = State::open(&world.nodes.state_of(Node::Big))?.store()?;
    let rows = store.read()?;
    let (id, key) = rows.prefix::<WindowKey>(WINDOW_KEYS, &[], 2)?.pop().ok_or("a window is open")?;
    let row: WindowRow = rows.get(WINDOWS, &id)?.ok_or("a key has a window")?;
    Ok((key.0, row.window.credential))
}
