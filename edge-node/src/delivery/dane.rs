//! DANE for SMTP (RFC 7672, 6698, 7671): whether a host's certificates are those that its TLSA records name. Pure: what
//! DNS has proved goes in, and what the host has shown.

use std::sync::Arc;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError, RootCertStore};
use sha2::{Digest, Sha256, Sha512};
use shared::smtp::client::Judge;

/// Records of one host that are looked at.
const RECORDS_MAX: usize = 64;

/// A TLSA record, as it is in DNS (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsaRecord {
    /// The certificate usage.
    pub usage: u8,
    /// The selector.
    pub selector: u8,
    /// The matching type.
    pub matching: u8,
    /// The certificate association data.
    pub data: Vec<u8>,
}

/// Whose certificate a record names. Those of the public authorities, 0 and 1, are none that SMTP can use (RFC 7672
/// §3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// DANE-TA(2): one that the host's leads to.
    TrustAnchor,
    /// DANE-EE(3): the host's own.
    EndEntity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selector {
    /// Cert(0).
    Certificate,
    /// SPKI(1).
    PublicKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matching {
    /// Full(0).
    Full,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Association {
    usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Vec<u8>,
}

impl Association {
    /// `None` if SMTP cannot use the record.
    fn of(record: &TlsaRecord) -> Option<Self> {
        let usage = match record.usage {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match record.selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let (matching, fits) = match record.matching {
            0 => (Matching::Full, !record.data.is_empty()),
            1 => (Matching::Sha256, record.data.len() == 32),
            2 => (Matching::Sha512, record.data.len() == 64),
            _ => return None,
        };
        fits.then(|| Self { usage, selector, matching, data: record.data.clone() })
    }

    fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            Selector::Certificate => certificate.to_vec(),
            Selector::PublicKey => match ParsedCertificate::try_from(certificate) {
                Ok(parsed) => parsed.subject_public_key_info().to_vec(),
                Err(_) => return false,
            },
        };
        match self.matching {
            Matching::Full => self.data == selected,
            Matching::Sha256 => self.data == Sha256::digest(&selected).as_slice(),
            Matching::Sha512 => self.data == Sha512::digest(&selected).as_slice(),
        }
    }
}

/// What a host's certificates have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dane {
    associations: Vec<Association>,
    /// The names of which the host's certificate has to be for one, where it is an authority that is named.
    names: Vec<ServerName<'static>>,
}

/// Why the certificates are not those.
#[derive(Debug, thiserror::Error)]
enum NotDane {
    #[error("no TLSA record matches its certificates")]
    NoMatch,
    #[error("its certificate leads to what a TLSA record names, and is not for its name")]
    AnotherName,
}

impl From<NotDane> for rustls::Error {
    fn from(why: NotDane) -> Self {
        CertificateError::Other(OtherError(Arc::new(why))).into()
    }
}

impl Dane {
    /// What `records` ask for; `None` if SMTP can use none of them. `names` are those that a certificate may be for.
    pub fn new(records: &[TlsaRecord], names: &[String]) -> Option<Self> {
        let mut associations: Vec<_> = records.iter().take(RECORDS_MAX).filter_map(Association::of).collect();
        // The weaker digest does not count beside the stronger one (RFC 7671 §9).
        let strong: Vec<_> = associations
            .iter()
            .filter(|association| association.matching == Matching::Sha512)
            .map(|association| (association.usage, association.selector))
            .collect();
        associations.retain(|association| {
            association.matching != Matching::Sha256
                || !strong.contains(&(association.usage, association.selector))
        });
        if associations.is_empty() {
            return None;
        }
        let names = names.iter().filter_map(|name| ServerName::try_from(name.clone()).ok()).collect();
        Some(Self { associations, names })
    }

    fn names(&self, usage: Usage, certificate: &CertificateDer<'_>) -> bool {
        let associations = self.associations.iter();
        associations
            .filter(|association| association.usage == usage)
            .any(|association| association.is_of(certificate))
    }

    /// The authorities that are named: among what the host has sent, or whole in a record.
    fn anchors(&self, intermediates: &[CertificateDer<'_>]) -> RootCertStore {
        let mut anchors = RootCertStore::empty();
        let is_whole = |association: &&Association| {
            association.usage == Usage::TrustAnchor
                && association.selector == Selector::Certificate
                && association.matching == Matching::Full
        };
        let whole = self.associations.iter().filter(is_whole).map(|association| association.data.clone());
        let sent = intermediates.iter().filter(|sent| self.names(Usage::TrustAnchor, sent));
        anchors.add_parsable_certificates(
            whole.map(CertificateDer::from).chain(sent.cloned().map(CertificateDer::into_owned)),
        );
        anchors
    }
}

impl Judge for Dane {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // The record says that this is the host: neither its name nor its dates count (RFC 7672 §3.1.1).
        if self.names(Usage::EndEntity, end_entity) {
            return Ok(());
        }
        let anchors = self.anchors(intermediates);
        if anchors.is_empty() {
            return Err(NotDane::NoMatch.into());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &anchors, intermediates, now, algorithms)?;
        match self.names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
            true => Ok(()),
            false => Err(NotDane::AnotherName.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};

    use super::*;

    const HOST: &str = "mx.remote.example";

    /// An authority, and a host that has its certificate from it.
    struct Pki {
        authority: Certificate,
        authority_key: Vec<u8>,
        host: Certificate,
        host_key: Vec<u8>,
    }

    fn pki(name: &str) -> Pki {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let authority = params.self_signed(&key).expect("signs");
        let authority_key = key.subject_public_key_info();
        let issuer = Issuer::new(params, key);
        let host_key = KeyPair::generate().expect("a key");
        let host = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let host = host.signed_by(&host_key, &issuer).expect("signs");
        Pki { authority, authority_key, host, host_key: host_key.subject_public_key_info() }
    }

    fn record(usage: u8, selector: u8, matching: u8, of: &[u8]) -> TlsaRecord {
        let data = match matching {
            1 => Sha256::digest(of).to_vec(),
            2 => Sha512::digest(of).to_vec(),
            _ => of.to_vec(),
        };
        TlsaRecord { usage, selector, matching, data }
    }

    /// In the words of ours, or in the library's.
    fn judged(records: &[TlsaRecord], names: &[&str], pki: &Pki) -> Result<(), String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let dane = Dane::new(records, &names).expect("usable records");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from("whatever.example").expect("a name");
        let judged = dane.judge(pki.host.der(), &[pki.authority.der().clone()], &name, now);
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn the_hosts_own_certificate_is_named_whole_or_by_its_key_or_by_digests() {
        let (ours, other) = (pki(HOST), pki(HOST));
        for matching in 0..=2 {
            for (selector, of, not_of) in [
                (0, ours.host.der().to_vec(), other.host.der().to_vec()),
                (1, ours.host_key.clone(), other.host_key.clone()),
            ] {
                // Whatever it is called.
                assert_eq!(judged(&[record(3, selector, matching, &of)], &[], &ours), Ok(()));
                let wrong = judged(&[record(3, selector, matching, &not_of)], &[HOST], &ours);
                assert!(wrong.is_err_and(|why| why.contains("no TLSA record matches")), "{matching}");
                let either = [record(3, selector, matching, &not_of), record(3, selector, matching, &of)];
                assert_eq!(judged(&either, &[], &ours), Ok(()));
            }
        }
        // An authority's record is not of the host's own certificate, nor the other way round.
        assert!(judged(&[record(3, 1, 1, &ours.authority_key)], &[HOST], &ours).is_err());
        assert!(judged(&[record(2, 1, 1, &ours.host_key)], &[HOST], &ours).is_err());
    }

    #[test]
    fn an_authority_is_named_and_vouches_for_the_name() {
        let (ours, other) = (pki(HOST), pki(HOST));
        for matching in 0..=2 {
            for (selector, of) in [(0, ours.authority.der().to_vec()), (1, ours.authority_key.clone())] {
                let records = [record(2, selector, matching, &of)];
                assert_eq!(judged(&records, &[HOST], &ours), Ok(()));
                assert_eq!(judged(&records, &["remote.example", HOST], &ours), Ok(()));
                let elsewhere = judged(&records, &["remote.example"], &ours);
                assert!(elsewhere.is_err_and(|why| why.contains("not for its name")));
            }
        }
        assert!(judged(&[record(2, 0, 1, other.authority.der())], &[HOST], &ours).is_err());
        // The host sends an authority's certificate that is named, and has none of its own from there.
        let mixed = Pki { authority: other.authority, ..ours };
        assert!(judged(&[record(2, 0, 1, mixed.authority.der())], &[HOST], &mixed).is_err());
        // Nor is one that is out of date good.
        let dane = Dane::new(&[record(2, 0, 1, mixed.authority.der())], &[HOST.into()]).expect("usable");
        let late = UnixTime::since_unix_epoch(Duration::from_secs(100_000_000_000));
        let name = ServerName::try_from(HOST).expect("a name");
        assert!(dane.judge(mixed.host.der(), &[mixed.authority.der().clone()], &name, late).is_err());
    }

    #[test]
    fn what_smtp_cannot_use_does_not_count() {
        let digest = vec![1; 32];
        let of = |usage, selector, matching, data: &[u8]| {
            Dane::new(&[TlsaRecord { usage, selector, matching, data: data.to_vec() }], &[])
        };
        assert!(of(3, 1, 1, &digest).is_some());
        for (usage, selector, matching, data) in [
            (0, 0, 1, &digest[..]),
            (1, 1, 1, &digest),
            (4, 1, 1, &digest),
            (3, 2, 1, &digest),
            (3, 1, 3, &digest),
            (3, 1, 2, &digest),
            (3, 1, 1, &digest[1..]),
            (3, 0, 0, &[]),
        ] {
            assert_eq!(of(usage, selector, matching, data), None, "{usage} {selector} {matching}");
        }
        assert_eq!(Dane::new(&[], &[]), None);
    }

    #[test]
    fn a_weak_digest_does_not_count_beside_a_strong_one() {
        let (ours, other) = (pki(HOST), pki(HOST));
        let (weak, strong) = (record(3, 1, 1, &ours.host_key), record(3, 1, 2, &other.host_key));
        assert!(judged(&[weak.clone(), strong.clone()], &[], &ours).is_err());
        // It does beside one of something else.
        let elsewhere = TlsaRecord { selector: 0, ..strong };
        assert_eq!(judged(&[weak, elsewhere], &[], &ours), Ok(()));
    }
}
