//! An MTA that runs: what it offers, what it has got, and what it says.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use tests::client::smtp::SmtpClient;
use tests::ledger::{HEADER, Token};
use tests::wait::{SOON, Trouble, until};

use super::daemon::{Daemon, with_log};
use super::{MAIL_OWNER, Mta, unpacked};
use crate::certificates::Certified;
use crate::dovecot::open_to_all;
use crate::namespaces::Namespaces;
use crate::send::crlf;

/// Octets of a message in which its mark is looked for.
const MARKED_WITHIN: u64 = 16 * 1024;

/// An MTA that runs. It ends when it is dropped.
pub struct RunningMta {
    /// What it is.
    pub mta: &'static Mta,
    folder: PathBuf,
    daemon: Daemon,
}

impl RunningMta {
    /// Starts it with its files in `folder`, from these packages, and waits until it listens; it may ask for policies at `sts`.
    pub async fn start(
        mta: &'static Mta,
        packages: &[PathBuf],
        certified: &Certified,
        namespaces: &Namespaces,
        folder: &Path,
        sts: Option<SocketAddr>,
    ) -> Result<Self, Trouble> {
        for name in ["mail", "log"] {
            fs::create_dir_all(folder.join(name))?;
        }
        open_to_all(folder)?;
        chown(folder.join("mail"), Some(MAIL_OWNER), Some(MAIL_OWNER))?;
        unpacked::unpack(packages, &folder.join("program")).await?;
        fs::write(folder.join("chain.pem"), &certified.chain)?;
        fs::write(folder.join("roots.pem"), &certified.root)?;
        certified.write_key(&folder.join("key.pem"))?;
        let daemon = (mta.start)(mta, namespaces, folder, sts)?;
        let running = Self { mta, folder: folder.to_owned(), daemon };
        running
            .look_at(namespaces)
            .await
            .map_err(|trouble| running.with_log(&running.daemon.with_log(&trouble)))?;
        Ok(running)
    }

    /// Sees that it offers what is known of it: a STARTTLS that fails here would make mail that waits look right.
    async fn look_at(&self, namespaces: &Namespaces) -> Result<(), Trouble> {
        let mut client = until(&format!("{} listens", self.mta.name), SOON, async || {
            Ok(self.session(namespaces).await.ok())
        })
        .await?;
        let (tls, utf8) = (self.mta.tls, self.mta.utf8);
        if client.offers("SMTPUTF8") != utf8 {
            return Err(format!("whether it offers SMTPUTF8 is not {utf8}, as expected").into());
        }
        let chunking = self.mta.words.taken.is_some();
        if client.offers("CHUNKING") != chunking {
            return Err(format!("whether it offers CHUNKING is not {chunking}, as expected").into());
        }
        match (client.start_tls().await, tls) {
            (Err(trouble), true) => return Err(format!("its STARTTLS fails: {trouble}").into()),
            (Ok(_), false) => return Err("its STARTTLS works, which was known to fail".into()),
            (Ok(_), true) | (Err(_), false) => {}
        }
        // One whose STARTTLS fails has hung up.
        let _ = client.quit().await;
        Ok(())
    }

    /// A session with it, after EHLO, from a host that it relays for.
    pub async fn session(&self, namespaces: &Namespaces) -> Result<SmtpClient, Trouble> {
        let wire = namespaces.connect_on_internet(SocketAddr::from((self.mta.address, 25)))?;
        Ok(SmtpClient::ready_over(wire, None).await?)
    }

    /// The message that it has got with this mark, in CRLF lines.
    pub fn received(&self, token: Token) -> Option<Vec<u8>> {
        let mark = format!("{HEADER}: {token}\n");
        let files = fs::read_dir(self.folder.join("mail/new")).ok()?.flatten().map(|entry| entry.path());
        let mut marked = files.filter(|path| is_marked(path, mark.as_bytes()));
        Some(crlf(&fs::read(marked.next()?).ok()?))
    }

    /// Whether a line of its log is about this recipient or host, and says that.
    pub fn says(&self, about: &str, words: &str) -> bool {
        !self.lines(about, words).is_empty()
    }

    /// Lines of its log that are about this host and say that.
    pub fn lines(&self, about: &str, words: &str) -> Vec<String> {
        let log = fs::read(self.folder.join(self.mta.log)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(about) && line.contains(words)).map(str::to_owned).collect()
    }

    /// The trouble, and the end of its log.
    pub fn with_log(&self, trouble: &Trouble) -> Trouble {
        with_log(trouble, &self.folder.join(self.mta.log))
    }
}

fn is_marked(path: &Path, mark: &[u8]) -> bool {
    let mut start = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MARKED_WITHIN).read_to_end(&mut start));
    read.is_ok() && memchr::memmem::find(&start, mark).is_some()
}
