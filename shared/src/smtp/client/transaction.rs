//! One message on its way through MAIL and RCPT, and what the host offers for it.

use crate::notify::{original_parameter, xtext};
use crate::smtp::{Enhanced, Recipient};

use super::login::Offered;
use super::outcome::{Class, Outcome, Status};
use super::reply::HostReply;
use super::session::Message;

/// The host does not pass on that a message may go under TLS only (RFC 8689 §4.2.1).
pub const REQUIRETLS_NEEDED: Enhanced = Enhanced(5, 7, 30);
/// The host takes no message of that size (RFC 1870 §6.1).
const TOO_LARGE: Enhanced = Enhanced(5, 3, 4);
/// The host takes 7-bit only (RFC 6152 §3).
const EIGHT_BIT_NEEDED: Enhanced = Enhanced(5, 6, 3);
/// The host takes no internationalized mail (RFC 6531 §3.5).
const SMTPUTF8_NEEDED: Enhanced = Enhanced(5, 6, 7);

/// Whether the message needs what the host does not offer (size, 8BITMIME, SMTPUTF8): the host was asked for nothing, and
/// another one may offer it.
pub fn is_of_offer(status: &Status) -> bool {
    status.code.is_none() && matches!(status.enhanced, TOO_LARGE | EIGHT_BIT_NEEDED | SMTPUTF8_NEEDED)
}

/// What the host offered in its last EHLO reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub pipelining: bool,
    /// It takes content in chunks (BDAT, RFC 3030).
    pub chunking: bool,
    eight_bit_mime: bool,
    smtputf8: bool,
    dsn: bool,
    /// Offered under TLS: before it counts for nothing (RFC 8689 §2).
    pub require_tls: bool,
    pub starttls: bool,
    pub auth: Offered,
    /// Offered, and the largest size if the host names one.
    pub size: Option<u64>,
}

impl Capabilities {
    /// Reads the lines after the first (RFC 5321 §4.1.1.1).
    pub(super) fn read(lines: &[String]) -> Self {
        let mut capabilities = Self::default();
        for line in lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => capabilities.pipelining = true,
                "CHUNKING" => capabilities.chunking = true,
                "8BITMIME" => capabilities.eight_bit_mime = true,
                "SMTPUTF8" => capabilities.smtputf8 = true,
                "DSN" => capabilities.dsn = true,
                "REQUIRETLS" => capabilities.require_tls = true,
                "STARTTLS" => capabilities.starttls = true,
                "AUTH" => capabilities.auth = Offered::read(words),
                "SIZE" => {
                    capabilities.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0))
                }
                _ => {}
            }
        }
        capabilities
    }
}

/// A message on its way through MAIL, RCPT, DATA or BDAT.
#[derive(Debug)]
pub(super) struct Transaction {
    message: Message,
    /// What has been said of each recipient; `None` is accepted, or not answered yet.
    statuses: Vec<Option<Status>>,
    /// Commands sent: MAIL first, then RCPT for each recipient that is not refused beforehand.
    pub sent: usize,
    /// Replies that came to them.
    pub answered: usize,
    /// They are all sent, and DATA behind them unless content goes by BDAT.
    pub is_named: bool,
    /// The recipients that RCPT is to name.
    named: Vec<usize>,
    /// The host reports on what it takes, as it is asked to.
    host_reports: bool,
}

impl Transaction {
    /// Before its first command.
    pub(super) fn new(message: Message) -> Self {
        let statuses = vec![None; message.recipients.len()];
        let named = Vec::new();
        Self { message, statuses, sent: 0, answered: 0, is_named: false, named, host_reports: false }
    }

    /// What goes before the content.
    pub(super) fn take_before(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.message.before)
    }

    /// Who was not refused, by place in the message; before their replies, who may not be.
    pub(super) fn accepted(&self) -> Vec<usize> {
        let is_accepted = |place: &usize| self.statuses.get(*place).is_some_and(Option::is_none);
        self.named.iter().copied().filter(is_accepted).collect()
    }

    /// Gives every recipient without a status this one.
    pub(super) fn settle(&mut self, status: &Status) {
        for open in self.statuses.iter_mut().filter(|known| known.is_none()) {
            *open = Some(status.clone());
        }
    }

    /// Gives the first recipient without a status this one.
    pub(super) fn settle_next(&mut self, status: &Status) {
        if let Some(open) = self.statuses.iter_mut().find(|known| known.is_none()) {
            *open = Some(status.clone());
        }
    }

    /// One outcome for each recipient.
    pub(super) fn outcomes(self) -> Vec<Outcome> {
        let outcome = |(recipient, status): (usize, Option<Status>)| {
            let status = status.expect("a transaction ends by settling every recipient");
            let host_reports = self.host_reports && status.class == Class::Delivered;
            Outcome { recipient, status, host_reports }
        };
        self.statuses.into_iter().enumerate().map(outcome).collect()
    }

    /// Whether there is a recipient that nothing stands against.
    pub(super) fn has_recipients(&self) -> bool {
        self.statuses.iter().any(Option::is_none)
    }

    /// The command at that place: MAIL, or RCPT of the next named recipient.
    pub(super) fn command(&self, place: usize, capabilities: Capabilities) -> Option<String> {
        match place.checked_sub(1) {
            None => Some(self.mail(capabilities)),
            Some(place) => {
                let recipient = self.message.recipients.get(*self.named.get(place)?)?;
                Some(rcpt(recipient, capabilities))
            }
        }
    }

    fn mail(&self, capabilities: Capabilities) -> String {
        let path = self.message.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut mail = format!("MAIL FROM:<{path}>");
        if capabilities.size.is_some() {
            mail.push_str(&format!(" SIZE={}", self.message.size));
        }
        if self.message.eight_bit && capabilities.eight_bit_mime {
            mail.push_str(" BODY=8BITMIME");
        }
        if self.needs_smtputf8() && capabilities.smtputf8 {
            mail.push_str(" SMTPUTF8");
        }
        if self.message.require_tls && capabilities.require_tls {
            mail.push_str(" REQUIRETLS");
        }
        if capabilities.dsn {
            let returns = self.message.returns.map(|returns| format!(" RET={}", returns.as_str()));
            let id = self.message.envelope_id.as_ref().map(|id| format!(" ENVID={}", xtext(id)));
            mail.extend(returns.into_iter().chain(id));
        }
        mail + "\r\n"
    }

    fn needs_smtputf8(&self) -> bool {
        self.message.utf8_header
            || self.message.reverse_path.as_ref().is_some_and(|path| !path.is_ascii())
            || self.message.recipients.iter().any(|recipient| !recipient.address.is_ascii())
    }

    /// Refuses what the host has no way to take, without altering it, and names the rest.
    pub(super) fn check(&mut self, capabilities: Capabilities) {
        self.host_reports = capabilities.dsn;
        let permanent = |enhanced, text: &str| Status::ours(Class::Permanent, enhanced, text);
        let wide_sender = self.message.reverse_path.as_ref().is_some_and(|path| !path.is_ascii());
        if let Some(limit) = capabilities.size.filter(|limit| (1..self.message.size).contains(limit)) {
            let text = format!("the message has {} octets; the host takes {limit}", self.message.size);
            self.settle(&permanent(TOO_LARGE, &text));
        } else if self.message.require_tls
            && !capabilities.require_tls
            // A report is not to be lost for that (RFC 8689 §5).
            && self.message.reverse_path.is_some()
        {
            let text = "the sender wants it only where REQUIRETLS is passed on, and the host does not offer that under TLS";
            self.settle(&permanent(REQUIRETLS_NEEDED, text));
        } else if self.message.eight_bit && !capabilities.eight_bit_mime {
            let text = "the message is 8-bit; the host takes 7-bit only, and converting would alter it";
            self.settle(&permanent(EIGHT_BIT_NEEDED, text));
        } else if !capabilities.smtputf8 && (self.message.utf8_header || wide_sender) {
            let text = "the message is internationalized; the host does not take such mail";
            self.settle(&permanent(SMTPUTF8_NEEDED, text));
        } else if !capabilities.smtputf8 {
            for (recipient, status) in self.message.recipients.iter().zip(&mut self.statuses) {
                if !recipient.address.is_ascii() {
                    let text = "the address is internationalized; the host does not take such mail";
                    *status = Some(permanent(SMTPUTF8_NEEDED, text));
                }
            }
        }
        let open = self.statuses.iter().enumerate().filter(|(_, status)| status.is_none());
        self.named = open.map(|(index, _)| index).collect();
    }

    /// Takes the reply to the next command that has none.
    pub(super) fn reply(&mut self, reply: &HostReply) {
        let place = self.answered;
        self.answered += 1;
        let status = Status::of(reply);
        match place.checked_sub(1) {
            None if status.class == Class::Delivered => {}
            None => self.settle(&status),
            Some(place) => {
                let recipient = self.named.get(place).and_then(|index| self.statuses.get_mut(*index));
                if let (Some(open @ None), false) = (recipient, status.class == Class::Delivered) {
                    // "Too many recipients" in its old form is a reason to come back (§4.5.3.1.10).
                    *open = Some(if reply.code == 552 { status.into_temporary() } else { status });
                }
            }
        }
    }
}

/// RCPT, with what the sender wants to be told, where the host takes that on.
fn rcpt(recipient: &Recipient, capabilities: Capabilities) -> String {
    let mut rcpt = format!("RCPT TO:<{recipient}>");
    if capabilities.dsn {
        let notify = recipient.notify.map(|notify| format!(" NOTIFY={notify}"));
        let original = recipient.original.as_ref();
        let original = original.map(|original| format!(" ORCPT={}", original_parameter(original)));
        rcpt.extend(notify.into_iter().chain(original));
    }
    rcpt + "\r\n"
}
