//! Addresses, domains and the parameters of MAIL and RCPT, out of any text.
//!
//! The lines of a text are an address, what follows `MAIL FROM:` and what follows `RCPT TO:`. What our server reads of the
//! last two our client is given to send on, and our server has to read the same again.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shared::address::{Address, DOMAIN_MAX, Domain, LOCAL_PART_MAX, canonical_local};
use shared::notify::{self, ENVELOPE_ID_BYTES_MAX, Notify, ORIGINAL_BYTES_MAX, Return};
use shared::smtp::client::{self, Client, Message, Protocol, TlsPolicy};
use shared::smtp::{Action, Config, Envelope, Role, Session};

const NOW: Duration = Duration::ZERO;
/// A host that offers all that a parameter of ours may be written for.
const OFFER: &[u8] =
    b"220 mx.example\r\n250-mx.example\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 REQUIRETLS\r\n";

static SERVER: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let postmaster: Address = "alice@example.com".parse().expect("an address");
    Arc::new(Config::new(Role::Reception, postmaster.domain().clone(), postmaster))
});

/// The bytes as a text; what is not UTF-8 in them is replaced.
///
/// # Panics
/// If what was read is another thing when it is written and read again, or is written as what it must not be.
pub fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, mail, rcpt) = (line(), line(), line());
    one_address(name);
    one_domain(name);
    values(name);
    if let Some(envelope) = envelope(mail, rcpt) {
        let (mail, rcpt) = sent_on(&envelope);
        let again = self::envelope(&mail, &rcpt).expect("our server takes what our client sends");
        let kept = |envelope: Envelope| {
            let Envelope { reverse_path, recipients, returns, envelope_id, require_tls, .. } = envelope;
            (reverse_path, recipients, returns, envelope_id, require_tls)
        };
        assert_eq!(kept(again), kept(envelope));
    }
}

fn one_address(text: &str) {
    let Ok(address) = text.parse::<Address>() else { return };
    let written = address.to_string();
    is_plain(&written);
    assert!((1..=LOCAL_PART_MAX).contains(&address.local_part().len()), "{written:?}");
    assert_eq!(written.parse::<Address>().as_ref(), Ok(&address));
    assert_eq!(address.is_ascii(), written.is_ascii());
    one_domain(address.domain().as_str());
    let canonical = address.canonical();
    is_plain(&canonical);
    assert_eq!(
        canonical_local(&canonical_local(address.local_part())),
        canonical_local(address.local_part())
    );
    if let Some(base) = address.without_tag() {
        assert_eq!(base.to_string().parse::<Address>().as_ref(), Ok(&base), "without its tag");
        assert!(!base.local_part().contains('+'));
    }
    let (kind, typed) = notify::typed(&address);
    assert!(kind == "rfc822" || kind == "utf-8");
    is_line(&typed);
}

fn one_domain(text: &str) {
    let Ok(domain) = text.parse::<Domain>() else { return };
    let written = domain.as_str();
    let is_host = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"-_.".contains(&octet);
    assert!(written.len() <= DOMAIN_MAX && written.bytes().all(is_host), "{written:?}");
    assert_eq!(written.parse::<Domain>().as_ref(), Ok(&domain));
}

/// The values of the parameters, each by itself.
fn values(text: &str) {
    if let Ok(notify) = text.parse::<Notify>() {
        assert_eq!(notify.to_string().parse(), Ok(notify));
    }
    if let Some(returns) = Return::named(text) {
        assert_eq!(Return::named(returns.as_str()), Some(returns));
    }
    if let Some(id) = notify::envelope_id(text) {
        let written = notify::xtext(&id);
        is_line(&written);
        assert!(notify::is_envelope_id(&id) && written.len() <= ENVELOPE_ID_BYTES_MAX, "{id:?}");
        assert_eq!(notify::envelope_id(&written), Some(id));
    }
    if let Some(original) = notify::original_recipient(text) {
        let written = notify::original_parameter(&original);
        is_line(&written);
        assert!(
            notify::is_original_recipient(&original) && written.len() <= ORIGINAL_BYTES_MAX,
            "{original:?}"
        );
        assert_eq!(notify::original_recipient(&written), Some(original));
    }
}

/// No address of ours is written with what would have to be quoted, or ends a line or a path.
fn is_plain(text: &str) {
    let special = |c: char| c.is_control() || c.is_whitespace() || "()<>[]:;,\\\"".contains(c);
    assert!(!text.contains(special) && text.matches('@').count() == 1, "{text:?}");
}

/// A parameter is one word of ASCII.
fn is_line(text: &str) {
    assert!(!text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic()), "{text:?}");
}

/// What our server makes of these, if it takes both.
fn envelope(mail: &str, rcpt: &str) -> Option<Envelope> {
    let mut session = Session::new(SERVER.clone(), true, NOW);
    let lines =
        ["EHLO x".to_owned(), format!("MAIL FROM:{mail}"), format!("RCPT TO:{rcpt}"), "DATA".to_owned()];
    let mut begun = None;
    for line in lines {
        session.receive(format!("{line}\r\n").as_bytes(), NOW);
        while let Some(action) = session.poll(NOW) {
            match action {
                Action::Sender { .. } => session.sender(Ok(())),
                Action::Recipient(_) => session.recipient(Ok(())),
                Action::Begin(envelope) => begun = Some(envelope),
                _ => {}
            }
        }
    }
    begun
}

/// What our client writes behind `MAIL FROM:` and `RCPT TO:` for that.
fn sent_on(envelope: &Envelope) -> (String, String) {
    let config =
        client::Config { helo: "x".into(), tls: TlsPolicy::Implicit, protocol: Protocol::Smtp, login: None };
    let mut client = Client::new(config, NOW);
    client.deliver(
        Message {
            reverse_path: envelope.reverse_path.clone(),
            recipients: envelope.recipients.clone(),
            returns: envelope.returns,
            envelope_id: envelope.envelope_id.clone(),
            size: 100,
            eight_bit: true,
            utf8_header: false,
            require_tls: envelope.require_tls,
            before: Vec::new(),
        },
        NOW,
    );
    let mut said = String::new();
    for reply in OFFER.split_inclusive(|octet| *octet == b'\n').chain([&b"250 ok\r\n"[..]]) {
        client.receive(reply, NOW);
        while let Some(action) = client.poll() {
            if let client::Action::Send(bytes) = action {
                said.push_str(&String::from_utf8(bytes).expect("commands are UTF-8"));
            }
        }
    }
    let line = |command: &str| {
        let lines: Vec<_> = said.split("\r\n").filter_map(|line| line.strip_prefix(command)).collect();
        assert_eq!(lines.len(), 1, "{said:?}");
        assert!(!lines[0].contains(char::is_control), "{said:?}");
        lines[0].to_owned()
    };
    (line("MAIL FROM:"), line("RCPT TO:"))
}
