//! `[edge]` and its tables.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_spanned::Spanned;

use super::super::refusal::{Source, TopologyError};
use super::super::{
    Acknowledge, Acme, Authentication, BOUND_OCTETS, CONCURRENCY, CertificateSource, Confinement,
    DELAY_NOTICE, Dmarc, DnsList, Dnssec, EXPIRE, Edge, GREETING_PAUSE, GREYLIST_DELAY, GREYLIST_WINDOW,
    Greylist, LISTS_MAX, LOGIN_DELAY, Lists, Mode, MtaSts, Outbound, Place, PublicPorts, RECEIVERS,
    RETRIES_MAX, RETRY, RelayTls, Reports, SIZE_MAX, STALE_AFTER, SmartHost, TlsFiles, is_reached,
};
use super::{Number, Text, Texts};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEdge {
    hostname: Text,
    pub(super) state: Text,
    #[serde(default)]
    smtp: Vec<Text>,
    #[serde(default)]
    submission: Vec<Text>,
    #[serde(default)]
    submissions: Vec<Text>,
    #[serde(default)]
    pop3: Vec<Text>,
    #[serde(default)]
    pop3s: Vec<Text>,
    receivers: Option<Number>,
    size_max: Option<Number>,
    spool_max: Option<Number>,
    stale_after: Option<Number>,
    ack: Option<Text>,
    login_delay: Option<Number>,
    greeting_pause: Option<Number>,
    binarymime: Option<bool>,
    sandbox: Option<Confinement>,
    #[serde(default)]
    authentication: RawAuthentication,
    #[serde(default)]
    lists: RawLists,
    greylist: Option<RawGreylist>,
    #[serde(default)]
    reports: RawReports,
    #[serde(default)]
    public: RawPublic,
    tls: Option<RawTls>,
    acme: Option<Spanned<RawAcme>>,
    #[serde(default)]
    outbound: RawOutbound,
    #[serde(default)]
    dns: RawDns,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthentication {
    dmarc: Option<Text>,
    #[serde(default)]
    trusted_sealers: Vec<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLists {
    #[serde(default)]
    block: Vec<Text>,
    #[serde(default)]
    allow: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGreylist {
    delay: Option<Number>,
    window: Option<Number>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReports {
    tls: Option<bool>,
    dmarc: Option<Spanned<bool>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublic {
    submission: Option<Number>,
    submissions: Option<Number>,
    pop3: Option<Number>,
    pop3s: Option<Number>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: Text,
    key: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAcme {
    directory: Text,
    terms_agreed: Spanned<bool>,
    http: Texts,
    contact: Option<Text>,
    roots: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutbound {
    mode: Option<Text>,
    relay: Option<Text>,
    relay_tls: Option<Text>,
    relay_login: Option<Text>,
    relay_roots: Option<Text>,
    private_addresses: Option<bool>,
    port: Option<Number>,
    retry: Option<Spanned<Vec<Number>>>,
    expire: Option<Number>,
    delay_notice: Option<Number>,
    concurrency: Option<Number>,
    mta_sts: Option<bool>,
    mta_sts_roots: Option<Text>,
    mta_sts_port: Option<Number>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDns {
    #[serde(default)]
    servers: Vec<Text>,
    dnssec: Option<bool>,
    trust_anchors: Option<Text>,
}

impl Source<'_> {
    pub(super) fn edge(&self, raw: &RawEdge) -> Result<Edge, TopologyError> {
        let nowhere = Vec::new();
        let http = raw.acme.as_ref().map_or(&nowhere, |acme| acme.get_ref().http.get_ref());
        self.no_address_twice(&[&raw.smtp, &raw.submission, &raw.submissions, &raw.pop3, &raw.pop3s, http])?;
        Ok(Edge {
            hostname: self.domain(&raw.hostname)?,
            state: self.path(&raw.state)?,
            smtp: self.addresses(&raw.smtp)?,
            submission: self.addresses(&raw.submission)?,
            submissions: self.addresses(&raw.submissions)?,
            pop3: self.addresses(&raw.pop3)?,
            pop3s: self.addresses(&raw.pop3s)?,
            receivers: self.number(raw.receivers.as_ref(), "receivers", RECEIVERS, 50)?,
            size_max: self.number(raw.size_max.as_ref(), "size_max", SIZE_MAX, 52_428_800)?,
            spool_max: self.number(raw.spool_max.as_ref(), "spool_max", BOUND_OCTETS, 10_737_418_240)?,
            stale_after: Duration::from_secs(self.number(
                raw.stale_after.as_ref(),
                "stale_after",
                STALE_AFTER,
                600,
            )?),
            ack: self.acknowledge(raw.ack.as_ref())?,
            login_delay: Duration::from_secs(self.number(
                raw.login_delay.as_ref(),
                "login_delay",
                LOGIN_DELAY,
                0,
            )?),
            authentication: self.authentication(&raw.authentication)?,
            lists: self.lists(&raw.lists)?,
            greylist: raw.greylist.as_ref().map(|raw| self.greylist(raw)).transpose()?,
            greeting_pause: Duration::from_secs(self.number(
                raw.greeting_pause.as_ref(),
                "greeting_pause",
                GREETING_PAUSE,
                2,
            )?),
            binarymime: raw.binarymime.unwrap_or(false),
            sandbox: raw.sandbox.unwrap_or_default(),
            reports: self.reports(raw)?,
            public: self.public(raw)?,
            certificate: self.certificate(raw)?,
            outbound: self.outbound(raw)?,
            dns_servers: self.dns_servers(&raw.dns.servers)?,
            dnssec: self.dnssec(&raw.dns)?,
        })
    }

    fn certificate(&self, raw: &RawEdge) -> Result<CertificateSource, TopologyError> {
        match (&raw.tls, &raw.acme) {
            (None, None) => Ok(CertificateSource::SelfSigned),
            (Some(tls), None) => {
                let (certificate, key) = (self.path(&tls.certificate)?, self.path(&tls.key)?);
                Ok(CertificateSource::Files(TlsFiles { certificate, key }))
            }
            (None, Some(acme)) => self.acme(acme.get_ref()).map(CertificateSource::Acme),
            (Some(_), Some(acme)) => {
                let reason = "with [edge.tls] the certificate comes from files";
                Err(self.refuse(acme.span(), reason, "leave one of [edge.tls] and [edge.acme] out"))
            }
        }
    }

    fn acme(&self, raw: &RawAcme) -> Result<Acme, TopologyError> {
        let directory = raw.directory.get_ref().parse().map_err(|_| {
            let reason = format!("`{}` is not a URL of a directory", raw.directory.get_ref());
            let mend =
                "write it like \"https://acme.example/directory\": under TLS, and as the authority has it";
            self.refuse(raw.directory.span(), reason, mend)
        })?;
        if !raw.terms_agreed.get_ref() {
            let reason = "an authority issues certificates only to those who agree to its terms";
            let mend =
                "read them where the directory says, and write terms_agreed = true; or leave [edge.acme] out";
            return Err(self.refuse(raw.terms_agreed.span(), reason, mend));
        }
        let http = self.addresses(raw.http.get_ref())?;
        if http.is_empty() {
            let mend = "write where port 80 of the edge's name arrives, like [\"0.0.0.0:80\"]";
            return Err(self.refuse(raw.http.span(), "the authority has to be answered somewhere", mend));
        }
        let contact = raw.contact.as_ref().map(|text| {
            text.get_ref().parse().map_err(|_| {
                let reason = format!("`{}` is not a mail address", text.get_ref());
                self.refuse(text.span(), reason, "write one like \"postmaster@example.com\", or leave it out")
            })
        });
        let roots = raw.roots.as_ref().map(|text| self.path(text)).transpose()?;
        Ok(Acme { directory, contact: contact.transpose()?, roots, http })
    }

    fn authentication(&self, raw: &RawAuthentication) -> Result<Authentication, TopologyError> {
        let dmarc = raw.dmarc.as_ref().map(|text| {
            text.get_ref().parse().map_err(|_| {
                let reason = format!("`{}` is unknown as a value of `dmarc`", text.get_ref());
                let mend = "write dmarc = \"off\", \"record\", \"mark\", \"quarantine\" or \"refuse\"";
                self.refuse(text.span(), reason, mend)
            })
        });
        let sealers = raw.trusted_sealers.iter().map(|text| self.domain(text));
        Ok(Authentication {
            dmarc: dmarc.transpose()?.unwrap_or_default(),
            trusted_sealers: sealers.collect::<Result<_, _>>()?,
        })
    }

    fn lists(&self, raw: &RawLists) -> Result<Lists, TopologyError> {
        let mut zones = Vec::new();
        let mut read = |texts: &[Text]| -> Result<Vec<DnsList>, TopologyError> {
            let mut lists = Vec::new();
            for text in texts {
                let list: DnsList = text.get_ref().parse().map_err(|_| {
                    let reason = format!("`{}` is not a list in DNS", text.get_ref());
                    let mend = "write a zone, or a zone with the codes that count, like \
                                \"list.example=127.0.0.2,127.0.0.4-7\"";
                    self.refuse(text.span(), reason, mend)
                })?;
                if zones.contains(&list.zone) {
                    let reason = format!("{} is asked twice", list.zone);
                    return Err(self.refuse(text.span(), reason, "leave one of them out"));
                }
                if lists.len() == LISTS_MAX {
                    let reason = format!("{LISTS_MAX} lists may be asked, and this is one more");
                    return Err(self.refuse(text.span(), reason, "leave some out"));
                }
                zones.push(list.zone.clone());
                lists.push(list);
            }
            Ok(lists)
        };
        Ok(Lists { block: read(&raw.block)?, allow: read(&raw.allow)? })
    }

    fn greylist(&self, raw: &RawGreylist) -> Result<Greylist, TopologyError> {
        let delay = self.number(raw.delay.as_ref(), "delay", GREYLIST_DELAY, 300)?;
        let window = self.number(raw.window.as_ref(), "window", GREYLIST_WINDOW, 172_800)?;
        Ok(Greylist { delay: Duration::from_secs(delay), window: Duration::from_secs(window) })
    }

    fn reports(&self, raw: &RawEdge) -> Result<Reports, TopologyError> {
        let RawReports { tls, dmarc } = &raw.reports;
        let is_off = self.authentication(&raw.authentication)?.dmarc == Dmarc::Off;
        if let Some(span) = dmarc.as_ref().filter(|dmarc| *dmarc.get_ref() && is_off).map(Spanned::span) {
            let reason = "with [edge.authentication] dmarc = \"off\" there is nothing to report";
            return Err(self.refuse(span, reason, "leave it out, or write dmarc = \"record\" there"));
        }
        let default = Reports::default();
        let dmarc = dmarc.as_ref().map_or(default.dmarc, |dmarc| *dmarc.get_ref());
        Ok(Reports { tls: tls.unwrap_or(default.tls), dmarc })
    }

    fn public(&self, raw: &RawEdge) -> Result<PublicPorts, TopologyError> {
        let port = |number: &Option<Number>, key: &str, listeners: &[Text]| match number {
            Some(number) if listeners.is_empty() => {
                let reason = format!("the edge has no listener for `{key}`");
                let mend = format!("add `{key} = …` to [edge]: where it listens, or leave this out");
                Err(self.refuse(number.span(), reason, mend))
            }
            Some(number) => self.number(Some(number), key, 1..=65_535, 0).map(Some),
            None => Ok(None),
        };
        let RawPublic { submission, submissions, pop3, pop3s } = &raw.public;
        Ok(PublicPorts {
            submission: port(submission, "submission", &raw.submission)?,
            submissions: port(submissions, "submissions", &raw.submissions)?,
            pop3: port(pop3, "pop3", &raw.pop3)?,
            pop3s: port(pop3s, "pop3s", &raw.pop3s)?,
        })
    }

    fn acknowledge(&self, text: Option<&Text>) -> Result<Acknowledge, TopologyError> {
        let Some(text) = text else { return Ok(Acknowledge::default()) };
        text.get_ref().parse().map_err(|_| {
            let reason = format!("`{}` is unknown as a value of `ack`", text.get_ref());
            self.refuse(text.span(), reason, "write ack = \"local\", \"pair\" or \"pair-or-local\"")
        })
    }

    fn outbound(&self, edge: &RawEdge) -> Result<Outbound, TopologyError> {
        let raw = &edge.outbound;
        let delay_notice = self.number(raw.delay_notice.as_ref(), "delay_notice", DELAY_NOTICE, 14_400)?;
        Ok(Outbound {
            mode: self.mode(edge)?,
            private_addresses: raw.private_addresses.unwrap_or(false),
            port: self.number(raw.port.as_ref(), "port", 1..=65_535, 25)?,
            retry: self.retry(raw.retry.as_ref())?,
            expire: Duration::from_secs(self.number(raw.expire.as_ref(), "expire", EXPIRE, 432_000)?),
            delay_notice: (delay_notice > 0).then(|| Duration::from_secs(delay_notice)),
            concurrency: self.number(raw.concurrency.as_ref(), "concurrency", CONCURRENCY, 20)?,
            mta_sts: self.mta_sts(raw)?,
        })
    }

    fn mta_sts(&self, raw: &RawOutbound) -> Result<Option<MtaSts>, TopologyError> {
        if raw.mta_sts.unwrap_or(true) {
            let roots = raw.mta_sts_roots.as_ref().map(|text| self.path(text)).transpose()?;
            let port = self.number(raw.mta_sts_port.as_ref(), "mta_sts_port", 1..=65_535, 443)?;
            return Ok(Some(MtaSts { roots, port }));
        }
        let roots = raw.mta_sts_roots.as_ref().map(Spanned::span);
        match roots.or(raw.mta_sts_port.as_ref().map(Spanned::span)) {
            None => Ok(None),
            Some(span) => {
                let reason = "with mta_sts = false no policies are fetched";
                Err(self.refuse(span, reason, "leave one of them out"))
            }
        }
    }

    fn mode(&self, edge: &RawEdge) -> Result<Mode, TopologyError> {
        let raw = &edge.outbound;
        let mode = raw.mode.as_ref().map_or("direct", |mode| mode.get_ref().as_str());
        let smart_host: fn(SmartHost) -> Mode = match mode {
            "direct" => {
                let unused = [&raw.relay, &raw.relay_tls, &raw.relay_login, &raw.relay_roots];
                return match unused.into_iter().flatten().next() {
                    None => Ok(Mode::Direct),
                    Some(text) => Err(self.refuse(
                        text.span(),
                        "with mode = \"direct\" no smart host is asked",
                        "leave it out, or write mode = \"relay\" or mode = \"direct-then-relay\"",
                    )),
                };
            }
            "relay" => Mode::Relay,
            "direct-then-relay" => Mode::DirectThenRelay,
            other => {
                let span = raw.mode.as_ref().map_or(0..0, Spanned::span);
                let mend = "write mode = \"direct\", \"relay\" or \"direct-then-relay\"";
                return Err(self.refuse(span, format!("`{other}` is unknown as a value of `mode`"), mend));
            }
        };
        let Some(place) = &raw.relay else {
            let span = raw.mode.as_ref().map_or(0..0, Spanned::span);
            let mend = "add `relay = …` beside it: a host and a port, like \"smtp.isp.example:587\"";
            return Err(self.refuse(span, format!("mode = \"{mode}\" needs a smart host"), mend));
        };
        let host = self.smart_host(place, raw)?;
        let is_ours = match &host.place {
            Place::Name(name, _) => *name == self.domain(&edge.hostname)?,
            Place::Address(address) => {
                let listeners =
                    [&edge.smtp, &edge.submission, &edge.submissions].map(|texts| self.addresses(texts));
                let [smtp, submission, submissions] = listeners;
                let mut listeners = smtp?.into_iter().chain(submission?).chain(submissions?);
                listeners.any(|listener| is_reached(listener, *address))
            }
        };
        if is_ours {
            let reason =
                format!("the smart host {} is this edge itself, and mail would go round", host.place);
            let mend = "write the host that takes mail for everywhere; another program on this machine by its IP address and its port";
            return Err(self.refuse(place.span(), reason, mend));
        }
        Ok(smart_host(host))
    }

    fn smart_host(&self, place: &Text, raw: &RawOutbound) -> Result<SmartHost, TopologyError> {
        let place = place.get_ref().parse().map_err(|_| {
            let reason = format!("`{}` is not a host with a port", place.get_ref());
            let mend = "write a host name or an IP address, and a port, like \"smtp.isp.example:587\"";
            self.refuse(place.span(), reason, mend)
        })?;
        let tls = match &raw.relay_tls {
            None => RelayTls::default(),
            Some(text) => text.get_ref().parse().map_err(|_| {
                let reason = format!("`{}` is unknown as a value of `relay_tls`", text.get_ref());
                let mend = "write relay_tls = \"starttls\", \"tls\" or \"opportunistic\"";
                self.refuse(text.span(), reason, mend)
            })?,
        };
        let proves = |text: &Option<Text>, what: &str| match text {
            Some(text) if tls == RelayTls::Opportunistic => {
                let reason =
                    format!("{what} with relay_tls = \"opportunistic\", where no host proves its name");
                Err(self.refuse(text.span(), reason, "write relay_tls = \"starttls\" or \"tls\""))
            }
            Some(text) => self.path(text).map(Some),
            None => Ok(None),
        };
        let login = proves(&raw.relay_login, "a login")?;
        let roots = proves(&raw.relay_roots, "certificates to trust")?;
        Ok(SmartHost { place, tls, roots, login })
    }

    fn retry(&self, raw: Option<&Spanned<Vec<Number>>>) -> Result<Vec<Duration>, TopologyError> {
        let Some(raw) = raw else {
            return Ok([60, 300, 900, 3_600].map(Duration::from_secs).to_vec());
        };
        if !(1..=RETRIES_MAX).contains(&raw.get_ref().len()) {
            let reason = format!("`retry` lists 1 to {RETRIES_MAX} waits");
            return Err(self.refuse(
                raw.span(),
                reason,
                "write seconds, like [60, 300, 900, 3600]; the last repeats",
            ));
        }
        let wait = |number| self.number(Some(number), "retry", RETRY, 0).map(Duration::from_secs);
        raw.get_ref().iter().map(wait).collect()
    }

    fn dns_servers(&self, raw: &[Text]) -> Result<Vec<SocketAddr>, TopologyError> {
        raw.iter().map(|text| self.remote(text, "servers", "a resolver is asked by its address")).collect()
    }

    fn dnssec(&self, raw: &RawDns) -> Result<Dnssec, TopologyError> {
        match (raw.dnssec.unwrap_or(true), &raw.trust_anchors) {
            (true, None) => Ok(Dnssec::Root),
            (true, Some(text)) => self.path(text).map(Dnssec::Anchors),
            (false, None) => Ok(Dnssec::Off),
            (false, Some(text)) => Err(self.refuse(
                text.span(),
                "with dnssec = false nothing is validated by these keys",
                "leave one of them out",
            )),
        }
    }
}
