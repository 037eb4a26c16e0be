//! What a host has to prove before it gets mail, by what its domain has published: DANE, or else MTA-STS.

use std::sync::Arc;

use rustls::ClientConfig;
use shared::smtp::client::{Class, Judge, REQUIRETLS_NEEDED, Status, TlsPolicy, judged};
use shared::tls_wish::TlsWish;

use super::dane::Dane;
use super::mta_sts::{Mode, StsRow, allows};
use super::resolve::{MailHost, Published, UNPROVED};

/// What a host has to prove. Sessions are good for messages that ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Nothing: TLS if it is offered, with any certificate (RFC 7435).
    Opportunistic,
    /// Nothing, under TLS: it has TLSA records, and none that SMTP can use (RFC 7672 §2.2).
    Encrypted,
    /// That its certificates are those of its TLSA records.
    Dane(Arc<Dane>),
    /// That its certificate is for its name and leads to whom we trust, by its domain's MTA-STS policy.
    MtaSts(Trusted),
    /// That its certificate is for its name and leads to whom we trust, for the sender wishes it so (RFC 8689).
    Named(Trusted),
    /// What the topology asks of the smart host: that its certificate is for its name, from whom we trust.
    Certificate,
}

/// TLS in which a host has to prove its name to those who trust certain certificates.
#[derive(Clone, Debug)]
pub(super) struct Trusted(pub Arc<ClientConfig>);

impl PartialEq for Trusted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trusted {}

/// What a domain asks of its hosts by MTA-STS.
#[derive(Clone, Debug)]
pub(super) struct Sts {
    /// Its policy.
    pub policy: StsRow,
    /// To whom its hosts prove their names.
    pub trusted: Trusted,
    /// The same, where it is only looked at whether they do.
    pub judge: Arc<dyn Judge>,
}

/// Why a host is not to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotToBeUsed {
    /// What it has to prove cannot be known now.
    #[error("DNS does not say how {host} proves itself (TLSA): {why}")]
    Unknown {
        /// Its name.
        host: String,
        /// What DNS says instead.
        why: String,
    },
    /// The sender wishes for a host that proves its name, and its domain's policy, which might prove it, cannot be known now.
    #[error(
        "the sender wants it only where TLS is certain (REQUIRETLS), and whether an MTA-STS policy proves that {host} is its \
         domain's host cannot be known now: {why}"
    )]
    PolicyUnknown {
        /// Its name.
        host: String,
        /// Why it cannot.
        why: String,
    },
    /// What is kept of policies cannot be read.
    #[error("the MTA-STS policy of its domain cannot be read at the moment")]
    Unreadable,
    /// It is none of those that the policy names.
    #[error("{0} is none of the hosts that its domain's MTA-STS policy names")]
    NotNamed(String),
    /// The sender wishes for a host that proves its name, and nothing does of this one.
    #[error(
        "the sender wants it only where TLS is certain (REQUIRETLS), and neither DNSSEC nor an MTA-STS policy proves that \
         {0} is its domain's host"
    )]
    NotProved(String),
    /// The sender wishes for a host that proves its name, and there is nobody to whom it could.
    #[error(
        "the sender wants it only where TLS is certain (REQUIRETLS), and no certificates are checked here, so that {0} cannot \
         prove itself: that takes [edge.outbound] `mta_sts`, and certificates that this system trusts"
    )]
    NotChecked(String),
}

impl NotToBeUsed {
    /// The same, where for this reason it cannot be known now whether its domain has a policy.
    pub fn without_policy(self, why: &str) -> Self {
        match self {
            Self::NotProved(host) => Self::PolicyUnknown { host, why: why.to_owned() },
            other => other,
        }
    }

    /// What becomes of mail for it: it waits, or nobody will ever fulfil its sender's wish there (RFC 8689 §4.2.1).
    pub fn status(&self) -> Status {
        let (class, enhanced) = match self {
            Self::Unknown { .. } | Self::PolicyUnknown { .. } | Self::Unreadable | Self::NotNamed(_) => {
                (Class::Temporary, UNPROVED)
            }
            Self::NotProved(_) | Self::NotChecked(_) => (Class::Permanent, REQUIRETLS_NEEDED),
        };
        Status::ours(class, enhanced, &self.to_string())
    }
}

impl Security {
    /// What a host has to prove, by DANE, and else by its domain's policy.
    ///
    /// # Errors
    /// [`NotToBeUsed`] says why it gets nothing, whatever it proves.
    pub fn of(host: &MailHost, sts: Option<&Sts>) -> Result<Self, NotToBeUsed> {
        let least = match &host.published {
            Published::Nothing => Self::Opportunistic,
            Published::Records { records, names, .. } => match Dane::new(records, names) {
                // A policy does not excuse from it (RFC 8461 §2).
                Some(dane) => return Ok(Self::Dane(Arc::new(dane))),
                None => Self::Encrypted,
            },
            Published::Unknown(why) => {
                return Err(NotToBeUsed::Unknown { host: host.name.clone(), why: why.clone() });
            }
        };
        match sts.filter(|sts| sts.policy.mode == Mode::Enforce) {
            None => Ok(least),
            Some(sts) if allows(&sts.policy.mx, &host.name) => Ok(Self::MtaSts(sts.trusted.clone())),
            Some(_) => Err(NotToBeUsed::NotNamed(host.name.clone())),
        }
    }

    /// What a host has to prove for mail whose sender has this wish; `trusted` are those to whom names are proved, if there
    /// are any.
    ///
    /// # Errors
    /// [`NotToBeUsed`] says why it does not get that mail.
    pub fn wished(
        wish: TlsWish,
        host: &MailHost,
        sts: Option<&Sts>,
        trusted: Option<&Trusted>,
    ) -> Result<Self, NotToBeUsed> {
        match (wish, Self::of(host, sts)) {
            (TlsWish::Unsaid, asked) => asked,
            // Whatever the domain has published (RFC 8689 §4.3).
            (TlsWish::Dispensable, _) => Ok(Self::Opportunistic),
            (TlsWish::Required, asked) => match asked? {
                proving @ (Self::Dane(_) | Self::MtaSts(_)) => Ok(proving),
                _ => {
                    let policy = sts.map(|sts| &sts.policy).filter(|policy| policy.mode != Mode::None);
                    let is_named =
                        host.is_proved || policy.is_some_and(|policy| allows(&policy.mx, &host.name));
                    match trusted {
                        Some(trusted) if is_named => Ok(Self::Named(trusted.clone())),
                        Some(_) => Err(NotToBeUsed::NotProved(host.name.clone())),
                        None => Err(NotToBeUsed::NotChecked(host.name.clone())),
                    }
                }
            },
        }
    }

    /// Whether one of these hosts has to prove what its domain's policy asks for, if there is one: whoever proves itself by
    /// DANE does not (RFC 8461 §2).
    pub fn asks_policy(hosts: &[MailHost]) -> bool {
        !hosts.iter().all(|host| matches!(Self::of(host, None), Ok(Self::Dane(_))))
    }

    /// The name by which a host is asked for under TLS: with TLSA records it is theirs (RFC 7672 §8.1), and else its own,
    /// which a policy wants its certificate to be for (RFC 8461 §4.1).
    pub fn asked<'h>(&self, host: &'h MailHost) -> &'h str {
        match (self, &host.published) {
            (Self::Dane(_) | Self::Encrypted, Published::Records { base, .. }) => base,
            _ => &host.name,
        }
    }

    /// How much TLS that takes.
    pub fn tls_policy(&self) -> TlsPolicy {
        match self {
            Self::Opportunistic => TlsPolicy::Opportunistic,
            Self::Encrypted | Self::Dane(_) | Self::MtaSts(_) | Self::Named(_) | Self::Certificate => {
                TlsPolicy::Required
            }
        }
    }

    /// The TLS in which one of a domain's hosts is asked to prove it; `any` is for those that prove nothing.
    pub fn tls(&self, any: &Arc<ClientConfig>) -> Arc<ClientConfig> {
        match self {
            Self::Dane(dane) => Arc::new(judged(Arc::<Dane>::clone(dane))),
            Self::MtaSts(trusted) | Self::Named(trusted) => Arc::clone(&trusted.0),
            Self::Opportunistic | Self::Encrypted | Self::Certificate => Arc::clone(any),
        }
    }

    /// What it asks for, for people.
    pub fn asks(&self) -> &'static str {
        match self {
            Self::Opportunistic => "nothing: TLS if it offers it, with any certificate",
            Self::Encrypted => "TLS with any certificate: its TLSA records cannot be used",
            Self::Dane(_) => "TLS with the certificate that its TLSA records name (DANE)",
            Self::MtaSts(_) => "TLS with a certificate for its name (MTA-STS)",
            Self::Named(_) | Self::Certificate => "TLS with a certificate for its name",
        }
    }

    /// What it comes to that a host has taken mail under this version of TLS.
    pub fn shown(&self, version: &str) -> String {
        match self {
            Self::Opportunistic => version.to_owned(),
            Self::Encrypted => format!("{version}, its TLSA records cannot be used"),
            Self::Dane(_) => format!("{version}, verified by DANE"),
            Self::MtaSts(_) => format!("{version}, verified by MTA-STS"),
            Self::Named(_) | Self::Certificate => format!("{version}, verified by its certificate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use shared::smtp::client::{ByName, opportunistic};

    use super::super::dane::TlsaRecord;
    use super::*;

    fn host(name: &str, published: Published) -> MailHost {
        MailHost { name: name.into(), preference: 10, addresses: Vec::new(), is_proved: false, published }
    }

    fn records(usage: u8) -> Published {
        let record = TlsaRecord { usage, selector: 1, matching: 1, data: vec![1; 32] };
        Published::Records { base: "mx.a.example".into(), names: Vec::new(), records: vec![record] }
    }

    fn sts(mode: Mode) -> Sts {
        let policy = StsRow { id: "1".into(), mode, mx: vec!["mx.a.example".into()], fetched: 0, ends: 1 };
        let judge = Arc::new(ByName(RootCertStore::empty()));
        Sts { policy, trusted: Trusted(Arc::new(opportunistic())), judge }
    }

    #[test]
    fn dane_comes_before_mta_sts_and_that_before_nothing() {
        let enforce = sts(Mode::Enforce);
        let of = |name: &str, published, sts: Option<&Sts>| Security::of(&host(name, published), sts);
        let by_policy = Ok(Security::MtaSts(enforce.trusted.clone()));
        assert_eq!(of("mx.a.example", Published::Nothing, Some(&enforce)), by_policy);
        assert_eq!(of("mx.a.example", records(1), Some(&enforce)), by_policy);
        for sts in [None, Some(&sts(Mode::Testing)), Some(&sts(Mode::None))] {
            assert_eq!(of("mx.b.example", Published::Nothing, sts), Ok(Security::Opportunistic));
            assert_eq!(of("mx.b.example", records(1), sts), Ok(Security::Encrypted));
        }
        let not_named = NotToBeUsed::NotNamed("mx.b.example".into());
        assert_eq!(of("mx.b.example", Published::Nothing, Some(&enforce)), Err(not_named));
        // Who proves itself by DANE need not be named.
        for name in ["mx.a.example", "mx.b.example"] {
            assert!(matches!(of(name, records(3), Some(&enforce)), Ok(Security::Dane(_))), "{name}");
            let unknown = of(name, Published::Unknown("SERVFAIL".into()), Some(&enforce));
            assert!(matches!(unknown, Err(NotToBeUsed::Unknown { .. })), "{name}");
        }
    }

    /// RFC 8689 §4.2.1 and §4.3.
    #[test]
    fn who_wishes_for_certain_tls_gets_it_from_hosts_whose_name_is_proved_or_not_at_all() {
        let (enforce, testing, none) = (sts(Mode::Enforce), sts(Mode::Testing), sts(Mode::None));
        let trusted = &enforce.trusted;
        let named = Ok(Security::Named(trusted.clone()));
        let not_proved = |name: &str| Err(NotToBeUsed::NotProved(name.into()));
        let unknown = Published::Unknown("SERVFAIL".into());
        let required = |host: &MailHost, sts: Option<&Sts>| {
            Security::wished(TlsWish::Required, host, sts, Some(trusted))
        };
        let plain = host("mx.a.example", Published::Nothing);
        assert_eq!(required(&plain, None), not_proved("mx.a.example"));
        assert_eq!(required(&plain, Some(&none)), not_proved("mx.a.example"));
        assert_eq!(required(&plain, Some(&testing)), named, "a policy names it, though it does not insist");
        assert_eq!(required(&plain, Some(&enforce)), Ok(Security::MtaSts(trusted.clone())));
        let other = host("mx.b.example", Published::Nothing);
        assert_eq!(required(&other, Some(&testing)), not_proved("mx.b.example"));
        for published in [Published::Nothing, records(1)] {
            let proved = MailHost { is_proved: true, ..host("mx.b.example", published) };
            assert_eq!(required(&proved, None), named);
            let unchecked = Security::wished(TlsWish::Required, &proved, None, None).expect_err("by nobody");
            let Status { class, enhanced, text, .. } = unchecked.status();
            assert_eq!((class, enhanced), (Class::Permanent, REQUIRETLS_NEEDED));
            assert!(text.contains("`mta_sts`"), "{text}");
        }
        assert!(matches!(required(&host("mx.b.example", records(3)), None), Ok(Security::Dane(_))));
        let waits = required(&host("mx.a.example", unknown.clone()), None).expect_err("is unknown");
        assert_eq!((waits.status().class, waits.status().enhanced), (Class::Temporary, UNPROVED));
        let fails = required(&plain, None).expect_err("is not proved").status();
        assert_eq!((fails.class, fails.enhanced), (Class::Permanent, REQUIRETLS_NEEDED));
        // Nothing stands in the way of mail that is to arrive.
        for published in [Published::Nothing, records(1), records(3), unknown] {
            let host = host("mx.b.example", published);
            let asked = Security::wished(TlsWish::Dispensable, &host, Some(&enforce), Some(trusted));
            assert_eq!(asked, Ok(Security::Opportunistic));
            assert_eq!(
                Security::wished(TlsWish::Unsaid, &host, Some(&enforce), Some(trusted)),
                Security::of(&host, Some(&enforce))
            );
        }
    }

    #[test]
    fn a_policy_that_cannot_be_known_now_is_waited_for() {
        let wished = |is_proved| {
            let host = MailHost { is_proved, ..host("mx.a.example", Published::Nothing) };
            let trusted = sts(Mode::Enforce).trusted;
            Security::wished(TlsWish::Required, &host, None, Some(&trusted))
                .map_err(|none| none.without_policy("no answer").status())
        };
        let status = wished(false).expect_err("nothing proves it");
        assert_eq!((status.class, status.enhanced), (Class::Temporary, UNPROVED));
        assert!(status.text.ends_with("cannot be known now: no answer"), "{}", status.text);
        assert!(matches!(wished(true), Ok(Security::Named(_))), "it needs no policy");
        let other = NotToBeUsed::NotNamed("mx.a.example".into());
        assert_eq!(other.clone().without_policy("no answer"), other);
    }

    #[test]
    fn a_policy_is_asked_for_unless_all_hosts_prove_themselves_by_dane() {
        let enforce = sts(Mode::Enforce);
        let chosen = |published: Published| {
            let hosts = [host("mx.a.example", published)];
            Security::of(&hosts[0], Security::asks_policy(&hosts).then_some(&enforce))
        };
        let by_policy = Ok(Security::MtaSts(enforce.trusted.clone()));
        assert_eq!(chosen(Published::Nothing), by_policy);
        assert_eq!(chosen(records(1)), by_policy, "records that cannot be used do not set a policy aside");
        assert!(matches!(chosen(records(3)), Ok(Security::Dane(_))));
        let mixed = [host("mx.a.example", records(3)), host("mx.b.example", records(1))];
        assert!(Security::asks_policy(&mixed));
        assert!(!Security::asks_policy(&mixed[..1]));
    }

    #[test]
    fn a_host_is_asked_for_by_the_name_that_it_has_to_prove() {
        let alias = |published| host("mail.alias.example", published);
        let enforce = Sts {
            policy: StsRow { mx: vec!["mail.alias.example".into()], ..sts(Mode::Enforce).policy },
            ..sts(Mode::Enforce)
        };
        for (published, sts, asked) in [
            (records(3), Some(&enforce), "mx.a.example"),
            (records(1), None, "mx.a.example"),
            (records(1), Some(&enforce), "mail.alias.example"),
            (Published::Nothing, Some(&enforce), "mail.alias.example"),
            (Published::Nothing, None, "mail.alias.example"),
        ] {
            let host = alias(published);
            let security = Security::of(&host, sts).expect("usable");
            assert_eq!(security.asked(&host), asked, "{security:?}");
        }
    }

    #[test]
    fn only_who_has_nothing_to_prove_gets_mail_in_clear() {
        let trusted = sts(Mode::Enforce).trusted;
        for security in [Security::Encrypted, Security::MtaSts(trusted.clone()), Security::Certificate] {
            assert_eq!(security.tls_policy(), TlsPolicy::Required);
        }
        assert_eq!(Security::Opportunistic.tls_policy(), TlsPolicy::Opportunistic);
        // One session is not good for another's demands, nor for those of other trust.
        assert_ne!(Security::MtaSts(trusted), Security::MtaSts(sts(Mode::Enforce).trusted));
    }
}
