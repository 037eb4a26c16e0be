//! The smart host: who takes the mail that does not go to the hosts of its domain (design §6).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use shared::sasl::Credentials;
use shared::smtp::client::{TlsPolicy, opportunistic, verified};
use shared::topology::{self, Mode, Place, RelayTls};
use zeroize::Zeroizing;

use super::security::Security;

/// Octets of a file with a login.
const LOGIN_BYTES_MAX: u64 = 4_096;

/// How mail leaves, ready to be used.
#[derive(Debug)]
pub enum Route {
    /// To the hosts that serve each domain.
    Direct,
    /// All of it to the smart host.
    Relay(SmartHost),
    /// To the smart host what cannot be routed to the hosts of its domain.
    DirectThenRelay(SmartHost),
}

impl Route {
    /// As the topology has it.
    ///
    /// # Errors
    /// [`RelayError`] if the files that it names cannot be used.
    pub fn open(mode: &Mode) -> Result<Self, RelayError> {
        Ok(match mode {
            Mode::Direct => Self::Direct,
            Mode::Relay(host) => Self::Relay(SmartHost::open(host)?),
            Mode::DirectThenRelay(host) => Self::DirectThenRelay(SmartHost::open(host)?),
        })
    }
}

/// A smart host, and how it is spoken to.
#[derive(Debug)]
pub struct SmartHost {
    pub(super) place: Place,
    pub(super) policy: TlsPolicy,
    pub(super) security: Security,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) login: Option<Credentials>,
}

/// Why the smart host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A file cannot be read.
    #[error("{}: {source}; see [edge.outbound] in the topology", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner can read the login.
    #[error("others can read the login {}: chmod 600 it", .0.display())]
    OpenLogin(PathBuf),
    /// The file holds no login.
    #[error("{} holds no login: write the user in its first line and the password in its second", .0.display())]
    NoLogin(PathBuf),
    /// The file holds no certificates.
    #[error("{} holds no certificates in PEM form: {reason}", .path.display())]
    NoRoots {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: pem::Error,
    },
    /// The system trusts nobody.
    #[error(
        "this system has no certificates to check the smart host's with; install the package ca-certificates, or name \
         a file with `relay_roots`"
    )]
    NoSystemRoots,
}

impl SmartHost {
    fn open(host: &topology::SmartHost) -> Result<Self, RelayError> {
        let (policy, security) = match host.tls {
            RelayTls::Opportunistic => (TlsPolicy::Opportunistic, Security::Opportunistic),
            RelayTls::StartTls => (TlsPolicy::Required, Security::Certificate),
            RelayTls::Implicit => (TlsPolicy::Implicit, Security::Certificate),
        };
        let tls = match &security {
            Security::Opportunistic => opportunistic(),
            _ => verified(roots(host.roots.as_deref())?),
        };
        let login = host.login.as_deref().map(login).transpose()?;
        Ok(Self { place: host.place.clone(), policy, security, tls: Arc::new(tls), login })
    }
}

fn login(path: &Path) -> Result<Credentials, RelayError> {
    let file = |source| RelayError::File { path: path.into(), source };
    let found = fs::metadata(path).map_err(file)?;
    if found.mode() & 0o077 != 0 {
        return Err(RelayError::OpenLogin(path.into()));
    }
    let nothing = || RelayError::NoLogin(path.into());
    if found.len() > LOGIN_BYTES_MAX {
        return Err(nothing());
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(file)?);
    let mut lines = text.lines();
    let (Some(user), Some(password), None) = (lines.next(), lines.next(), lines.next()) else {
        return Err(nothing());
    };
    Credentials::new(user.to_owned(), Zeroizing::new(password.to_owned())).map_err(|_| nothing())
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, RelayError> {
    let mut roots = RootCertStore::empty();
    match path {
        Some(path) => add_certificates(&mut roots, path)?,
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() { Err(RelayError::NoSystemRoots) } else { Ok(roots) }
}

/// Trusts the certificates in a PEM file, too.
///
/// # Errors
/// [`RelayError`] if it cannot be read, or holds none.
pub(super) fn add_certificates(roots: &mut RootCertStore, path: &Path) -> Result<(), RelayError> {
    let bytes = fs::read(path).map_err(|source| RelayError::File { path: path.into(), source })?;
    let no_roots = |reason| RelayError::NoRoots { path: path.into(), reason };
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(no_roots)?);
    if added == 0 { Err(no_roots(pem::Error::NoItemsFound)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_login_is_two_lines_that_only_its_owner_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |content: &str, mode| {
            let path = folder.path().join("login");
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            login(&path)
        };
        for good in ["alice\nse cret\n", "alice\nse cret"] {
            let read = write(good, 0o600).expect("a login");
            assert_eq!(read, Credentials::new("alice".into(), "se cret".to_owned().into()).expect("fit"));
        }
        assert!(matches!(write("alice\nsecret\n", 0o640), Err(RelayError::OpenLogin(_))));
        let long = format!("alice\n{}", "x".repeat(5_000));
        for bad in ["", "alice", "alice\n\n", "\nsecret", "alice\nsecret\nmore\n", &long] {
            assert!(matches!(write(bad, 0o600), Err(RelayError::NoLogin(_))), "{bad:?}");
        }
        assert!(matches!(login(&folder.path().join("absent")), Err(RelayError::File { .. })));
    }

    #[test]
    fn roots_are_certificates_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("roots.pem");
        for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, bad).expect("written");
            assert!(matches!(roots(Some(&path)), Err(RelayError::NoRoots { .. })), "{bad:?}");
        }
        assert!(matches!(roots(Some(&folder.path().join("absent"))), Err(RelayError::File { .. })));
    }
}
