//! Covers: what makes the end of a travel window final.
//!
//! A window's private key is locked under its password, and lies in the store like that. But what a store deletes
//! lies on the disk until something else is written there, and a password may be learnt later. So the locked key is
//! covered once more, under a random key in a file of its own, which is overwritten where it lies when the window
//! ends. What is left of the locked key then is noise. A file system that writes elsewhere instead of in place, or a
//! disk that does, keeps the old cover for a while; the README says so.
//!
//! Covers are no part of a backup: a restored edge is told its windows anew.
//!
//! There is one more cover, of a window that is nobody's: so that a login of a name that does not exist reads one, too.

use std::io;
use std::sync::Arc;

use shared::id::{MessageId, random};
use shared::store::Disk;
use shared::unit::{Id, Window};
use zeroize::Zeroizing;

/// The window of names that do not exist.
pub const NOBODY: Id = [0; 16];
const COVER_BYTES: usize = 32;
const CONTEXT: &str = "sallypost 1 cover of a window's locked key";

/// The covers of this node's windows: a file for each.
#[derive(Clone, Debug)]
pub struct Covers(Arc<dyn Disk>);

impl Covers {
    /// Those on `disk`, which holds nothing else.
    pub fn on(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// On a disk of their own, for tests.
    #[cfg(test)]
    pub fn simulated() -> Self {
        Self::on(Arc::new(shared::store::sim::SimDisk::new(shared::store::sim::Faults::default())))
    }

    /// Covers a window's locked keys. Its cover is durable before this returns.
    pub fn cover(&self, window: &mut Window) -> io::Result<()> {
        let key = match self.read(&window.window) {
            Ok(key) => key,
            // Not there, or not whole: no row that a commit holds can be under it.
            Err(error) if is_no_cover(&error) => self.make(&window.window)?,
            Err(error) => return Err(error),
        };
        turn(&key, window);
        Ok(())
    }

    /// Uncovers them; an error if the cover is not there.
    pub fn uncover(&self, window: &mut Window) -> io::Result<()> {
        let key = self.read(&window.window)?;
        turn(&key, window);
        Ok(())
    }

    fn read(&self, window: &Id) -> io::Result<Zeroizing<[u8; COVER_BYTES]>> {
        let mut key = Zeroizing::new([0; COVER_BYTES]);
        self.0.open(&name(window))?.read_at(0, key.as_mut_slice())?;
        match key.iter().all(|byte| *byte == 0) {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, "the cover was destroyed")),
            false => Ok(key),
        }
    }

    fn make(&self, window: &Id) -> io::Result<Zeroizing<[u8; COVER_BYTES]>> {
        let key = Zeroizing::new(random::<COVER_BYTES>());
        let file = self.0.create(&name(window))?;
        file.write_at(0, key.as_slice())?;
        file.sync()?;
        self.0.sync_names()?;
        Ok(key)
    }

    /// Overwrites a window's cover where it lies, and removes it.
    pub fn destroy(&self, window: &Id) -> io::Result<()> {
        let name = name(window);
        match self.0.open(&name) {
            Ok(file) => {
                file.write_at(0, &[0; COVER_BYTES])?;
                file.sync()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        self.0.remove(&name)?;
        self.0.sync_names()
    }

    /// The windows that have a cover, without the one that is nobody's.
    pub fn windows(&self) -> io::Result<Vec<Id>> {
        let names = self.0.list()?;
        let windows = names.iter().filter_map(|name| name.parse::<MessageId>().ok()).map(|window| window.0);
        Ok(windows.filter(|window| *window != NOBODY).collect())
    }
}

/// Whether a cover could not be read because there is none, or not a whole one; else there may be one.
fn is_no_cover(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

fn name(window: &Id) -> String {
    MessageId(*window).to_string()
}

/// Covers or uncovers: a stream that is another one for each credential, over its locked key.
fn turn(key: &[u8; COVER_BYTES], window: &mut Window) {
    let key = Zeroizing::new(blake3::derive_key(CONTEXT, key));
    let former = window.former.as_mut().map(|former| &mut former.credential);
    for credential in std::iter::once(&mut window.credential).chain(former) {
        let mut stream = Zeroizing::new(vec![0; credential.locked_private_key.len()]);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&credential.stored_key).finalize_xof().fill(&mut stream);
        credential.locked_private_key.iter_mut().zip(stream.iter()).for_each(|(byte, over)| *byte ^= over);
    }
}

#[cfg(test)]
mod tests {
    use shared::credential::Credential;
    use shared::seal::PrivateKey;
    use shared::store::sim::{Faults, SimDisk};
    use shared::unit::Former;

    use super::*;

    fn window() -> Window {
        let (private, public) = PrivateKey::generate();
        let (_, former) = Credential::generate(&private, [9; 16]);
        let (_, credential) = former.rotate(&private);
        let former = Some(Former { credential: former, until: 9 });
        Window { former, ..Window::new(random(), [2; 16], public.0, credential) }
    }

    #[test]
    fn what_is_covered_comes_back_until_its_cover_is_destroyed() {
        let covers = Covers::simulated();
        assert_eq!(covers.windows().expect("reads"), Vec::<Id>::new());
        let plain = window();
        let mut covered = plain.clone();
        covers.cover(&mut covered).expect("covers");
        let locked = |window: &Window| window.credential.locked_private_key.clone();
        let former =
            |window: &Window| window.former.clone().map(|former| former.credential.locked_private_key);
        assert_ne!((locked(&covered), former(&covered)), (locked(&plain), former(&plain)));
        let mut opened = covered.clone();
        covers.uncover(&mut opened).expect("uncovers");
        assert_eq!(opened, plain);
        // Another credential of the same window is under another stream.
        let mut same = window();
        same.window = plain.window;
        let mut once = same.clone();
        covers.cover(&mut once).expect("covers");
        let over = |one: &Window, other: &Window| {
            locked(one).iter().zip(locked(other)).map(|(one, other)| one ^ other).collect::<Vec<_>>()
        };
        assert_ne!(over(&covered, &plain), over(&once, &same));
        assert_eq!(covers.windows().expect("reads"), [plain.window]);

        covers.destroy(&plain.window).expect("destroys");
        covers.destroy(&plain.window).expect("once more changes nothing");
        assert!(covers.uncover(&mut covered).is_err());
        assert_eq!(covers.windows().expect("reads"), Vec::<Id>::new());
    }

    #[test]
    fn a_cover_that_was_not_written_whole_is_made_anew() {
        let disk = Arc::new(SimDisk::new(Faults::default()));
        let covers = Covers::on(Arc::<SimDisk>::clone(&disk));
        let mut window = window();
        for broken in [&b"half"[..], &[0; COVER_BYTES]] {
            let file = disk.create(&name(&window.window)).expect("is made");
            file.set_len(0).and_then(|()| file.write_at(0, broken)).expect("writes");
            assert!(covers.uncover(&mut window.clone()).is_err());
            covers.cover(&mut window).expect("covers");
            covers.uncover(&mut window).expect("uncovers");
        }
    }
}
