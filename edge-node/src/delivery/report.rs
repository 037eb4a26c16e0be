//! What is attempted, and what becomes of it, recipient by recipient.

use shared::id::MessageId;
use shared::smtp::Recipient;
use shared::smtp::client::{Status, is_of_offer, is_of_wish};
use tokio::time::Instant;

use super::record::Recorder;
use crate::record::QueueRow;

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub status: Status,
    /// The host that said so.
    pub host: Option<String>,
    /// The TLS that was under, and what the host had proved; `None` is in clear.
    pub tls: Option<String>,
    /// Why the smart host was asked; `None` if the domain's own were.
    pub relay: Option<String>,
    /// It has taken the message, and reports on it as the sender wants.
    pub host_reports: bool,
    /// The smart host is to be asked, and has no place: it is due as before.
    pub waits: bool,
}

impl Report {
    /// No host was asked.
    pub fn ours(status: Status) -> Self {
        Self { status, host: None, tls: None, relay: None, host_reports: false, waits: false }
    }

    /// Nobody could be reached a moment ago, as this says.
    pub fn not_asked_again(&self) -> Self {
        let Status { class, enhanced, text, .. } = &self.status;
        let text = format!("not asked again yet: {text}");
        Self { status: Status::ours(*class, *enhanced, &text), ..self.clone() }
    }

    /// Of the hosts of a domain this was said, and the smart host, which is to be asked, has no place.
    pub fn waiting(&self) -> Self {
        let Status { class, enhanced, text, .. } = &self.status;
        let text = format!("{text}; it waits for a place at the smart host");
        let status = Status::ours(*class, *enhanced, &text).into_temporary();
        Self { status, waits: true, ..self.clone() }
    }

    /// What the smart host, as the second choice, will not do for the sender's wish of TLS, or does not offer, hosts of the
    /// domain may do when they are back: it becomes what was said of them.
    pub fn leave_to(&mut self, of_domain: &Self) {
        if is_of_wish(&self.status) || is_of_offer(&self.status) {
            self.clone_from(of_domain);
        }
    }
}

/// A message on its way to some of its recipients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies<'a> {
    pub message: MessageId,
    /// As it was when the attempt was entered as under way.
    pub row: &'a QueueRow,
    /// With their indexes on big.
    pub recipients: &'a [(u32, Recipient)],
    /// Keeps what is final of some of them while others are attempted still.
    pub recorder: Recorder<'a>,
    /// When the attempt is given up.
    pub until: Instant,
}

impl Copies<'_> {
    /// The same report for each recipient.
    pub fn all(&self, report: &Report) -> Vec<(u32, Report)> {
        self.recipients.iter().map(|(index, _)| (*index, report.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use shared::smtp::Enhanced;
    use shared::smtp::client::{Class, REQUIRETLS_NEEDED};

    use super::*;

    #[test]
    fn what_the_smart_host_will_not_do_waits_for_the_domain() {
        let away = Report::ours(Status::ours(Class::Temporary, Enhanced(4, 4, 1), "no answer"));
        let by_relay = |status| Report { relay: Some("no answer".into()), ..Report::ours(status) };
        for (enhanced, waits) in [
            (REQUIRETLS_NEEDED, true),
            (Enhanced(5, 7, 10), true),
            (Enhanced(5, 3, 4), true),
            (Enhanced(5, 1, 1), false),
        ] {
            let said = by_relay(Status::ours(Class::Permanent, enhanced, "no"));
            let mut told = said.clone();
            told.leave_to(&away);
            let expected = if waits { &away } else { &said };
            assert_eq!((&told.status, &told.relay), (&expected.status, &expected.relay), "{enhanced:?}");
        }
    }
}
