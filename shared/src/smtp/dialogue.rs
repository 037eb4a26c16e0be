//! What each command does (RFC 5321 §4.1, §4.3.2), and in which order commands may come.

use std::mem;

use super::command::{self, Command, ForwardPath, Mail, Rcpt};
use super::config::{
    BAD_COMMANDS_MAX, COMMAND_BYTES_MAX, IDLE_COMMANDS_MAX, RECIPIENTS_REFUSED_MAX, UNKNOWN_RECIPIENTS_MAX,
};
use super::content::{Decoder, Fault};
use super::reply::{Enhanced, Reply};
use super::session::{Action, Chunk, Client, Phase, Session, Transaction};
use super::{BodyType, Envelope, Recipient};
use crate::fault::{SeededFault, seeded};
use crate::sasl::{self, Exchange, Mechanism, SaslError, Step};
use crate::wire::LineError;

impl Session {
    /// Reads and obeys one command; `false` when there is no whole one.
    pub(super) fn command(&mut self) -> bool {
        let is_auth = self.input.unread().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"AUTH "));
        let Some(line) = self.line(if is_auth { sasl::LINE_BYTES_MAX } else { COMMAND_BYTES_MAX }) else {
            return false;
        };
        match line.map(|line| command::parse(&line)) {
            Ok(Ok(command)) => self.obey(command),
            Ok(Err(reply)) => self.bad_command(&reply),
            Err(error) => self.broken_line(error, is_auth),
        }
        true
    }

    fn line(&mut self, bytes_max: usize) -> Option<Result<Vec<u8>, LineError>> {
        let line = self.input.line(bytes_max).transpose()?;
        self.line_read();
        Some(line)
    }

    /// Nobody knows where the next command begins: there is none.
    fn broken_line(&mut self, error: LineError, is_auth: bool) {
        let enhanced = match error {
            // RFC 4954 §4.
            LineError::TooLong if is_auth => Enhanced(5, 5, 6),
            LineError::TooLong | LineError::Bare => Enhanced(5, 5, 2),
        };
        self.close_with(&Reply::new(500, enhanced, &error.to_string()));
    }

    fn obey(&mut self, command: Command) {
        if !matches!(self.phase, Phase::Open(_) | Phase::Chunked(_)) {
            self.about = None;
        }
        match command {
            Command::Helo { name, esmtp } => self.hello(Client { name, esmtp }),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => self.data(),
            Command::Bdat { octets, last } => self.bdat(octets, last),
            Command::BadChunk => {
                let text = "write BDAT, the number of octets that follow, and LAST with the last ones";
                self.close_with(&Reply::new(501, Enhanced(5, 5, 4), text));
            }
            Command::Rset => self.reset(),
            Command::Noop => self.idle(&Reply::new(250, Enhanced(2, 0, 0), "ok")),
            Command::Verify => {
                self.idle(&Reply::new(252, Enhanced(2, 5, 0), "will not say; send mail to it and see"));
            }
            Command::Help => self.help(),
            Command::Quit => self.close_with(&Reply::new(221, Enhanced(2, 0, 0), "bye")),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial.as_deref()),
            Command::Http => self.close_with(&Reply::new(500, Enhanced(5, 5, 2), "this is a mail server")),
        }
    }

    /// Refuses a command for its form or order, and the client that sends too many of them.
    fn bad_command(&mut self, reply: &Reply) {
        self.tally.bad_commands += 1;
        if self.tally.bad_commands > BAD_COMMANDS_MAX {
            return self.close_with(&Reply::new(421, Enhanced(4, 7, 0), "too many errors"));
        }
        self.slow_down();
        self.reply(reply);
    }

    fn bad_order(&mut self, text: &str) {
        self.bad_command(&Reply::new(503, Enhanced(5, 5, 1), text));
    }

    /// Answers a command that brings no message nearer.
    pub(super) fn idle(&mut self, reply: &Reply) {
        self.tally.idle_commands += 1;
        if self.tally.idle_commands > IDLE_COMMANDS_MAX {
            self.bad_command(reply);
        } else {
            self.reply(reply);
        }
    }

    fn hello(&mut self, client: Client) {
        let reply = if client.esmtp {
            Reply::bare(250, &self.capabilities())
        } else {
            Reply::bare(250, self.config.hostname.as_str())
        };
        self.client = Some(client);
        self.end_transaction();
        self.idle(&reply);
    }

    fn help(&mut self) {
        let more = match (self.is_submission(), self.config.starttls && !self.tls) {
            (true, true) => " AUTH STARTTLS",
            (true, false) => " AUTH",
            (false, true) => " STARTTLS",
            (false, false) => "",
        };
        let text = format!(
            "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT{more}\n\
             they are described in RFC 5321; a person reads what is sent to <postmaster>"
        );
        self.idle(&Reply::new(214, Enhanced(2, 0, 0), &text));
    }

    fn capabilities(&self) -> String {
        let mut lines = format!(
            "{}\nPIPELINING\nSIZE {}\n8BITMIME\nSMTPUTF8\nCHUNKING\nDSN\nENHANCEDSTATUSCODES\nLIMITS RCPTMAX={}",
            self.config.hostname, self.config.content.bytes_max, self.config.recipients_max
        );
        if self.config.binarymime {
            lines.push_str("\nBINARYMIME");
        }
        if self.config.starttls && !self.tls {
            lines.push_str("\nSTARTTLS");
        }
        // In the clear it would promise what is broken already (RFC 8689 §2).
        if self.tls {
            lines.push_str("\nREQUIRETLS");
        }
        if self.is_submission() && self.tls {
            lines.push_str("\nAUTH LOGIN ");
            lines.push_str(sasl::mechanisms(self.exporter.is_some()));
        }
        lines
    }

    fn reset(&mut self) {
        if !seeded(SeededFault::StateNotReset) {
            self.end_transaction();
        }
        self.idle(&Reply::new(250, Enhanced(2, 0, 0), "ok"));
    }

    fn start_tls(&mut self) {
        if self.tls {
            self.bad_order("TLS is on already");
        } else if !self.config.starttls {
            self.bad_command(&Reply::new(502, Enhanced(5, 5, 1), "STARTTLS is not offered"));
        } else if !self.input.is_empty() {
            // Plaintext that would be obeyed as if it had come encrypted (CVE-2011-0411).
            self.close_with(&Reply::new(
                503,
                Enhanced(5, 5, 1),
                "nothing may follow STARTTLS before the reply",
            ));
        } else {
            self.end_transaction();
            self.phase = Phase::Handshake;
            self.reply(&Reply::new(220, Enhanced(2, 0, 0), "go ahead"));
            self.flush();
            self.actions.push_back(Action::StartTls);
        }
    }

    fn auth(&mut self, mechanism: Mechanism, initial: Option<&str>) {
        if !self.is_submission() {
            self.bad_command(&Reply::new(
                502,
                Enhanced(5, 5, 1),
                "AUTH is not offered here: use port 587 or 465",
            ));
        } else if !self.tls {
            self.bad_command(&Reply::new(538, Enhanced(5, 7, 11), "AUTH needs TLS: send STARTTLS first"));
        } else if self.client.is_none() {
            self.bad_order("send EHLO first");
        } else if self.authenticated.is_some() {
            self.bad_order("authenticated already");
        } else if matches!(self.phase, Phase::Open(_) | Phase::Chunked(_)) {
            self.bad_order("not during a mail transaction");
        } else {
            self.auth_step(Exchange::begin(mechanism, initial, self.exporter));
        }
    }

    /// Goes on with an AUTH exchange; `false` when the client's line is not there yet.
    pub(super) fn challenged(&mut self, exchange: Exchange) -> bool {
        match self.line(sasl::LINE_BYTES_MAX) {
            None => {
                self.phase = Phase::Challenge(exchange);
                return false;
            }
            Some(Err(error)) => self.broken_line(error, true),
            Some(Ok(line)) => {
                let line = std::str::from_utf8(&line).map_err(|_| SaslError::Base64);
                self.auth_step(line.and_then(|line| exchange.answer(line)));
            }
        }
        true
    }

    /// The client has heard the last word, by which it knows us (RFC 4954 §4): an empty line. Anything else is no
    /// login.
    pub(super) fn heard(&mut self, name: String) -> bool {
        match self.line(sasl::LINE_BYTES_MAX) {
            None => {
                self.phase = Phase::Proving(name);
                return false;
            }
            Some(Ok(line)) if line.is_empty() => self.logged_in(name),
            Some(Ok(_)) => {
                self.close_with(&Reply::new(501, Enhanced(5, 7, 0), "the exchange was not ended"));
            }
            Some(Err(error)) => self.broken_line(error, true),
        }
        true
    }

    pub(super) fn auth_step(&mut self, step: Result<Step, SaslError>) {
        match step {
            Ok(Step::Challenge(challenge, exchange)) => {
                self.reply(&Reply::bare(334, &challenge));
                self.phase = Phase::Challenge(exchange);
            }
            Ok(Step::Keys(user, exchange)) => {
                self.phase = Phase::Keys(exchange);
                self.actions.push_back(Action::Keys(user));
            }
            Ok(Step::Done(credentials, last)) => {
                self.phase = Phase::Authenticating(last);
                self.actions.push_back(Action::Authenticate(credentials));
            }
            Err(error) => {
                let text = error.to_string();
                match error {
                    SaslError::Cancelled => self.bad_command(&Reply::new(501, Enhanced(5, 7, 0), &text)),
                    SaslError::Base64 | SaslError::Malformed => {
                        self.bad_command(&Reply::new(501, Enhanced(5, 5, 2), &text));
                    }
                    SaslError::Identity | SaslError::Binding => {
                        self.login_failed(&Reply::new(535, Enhanced(5, 7, 8), &text));
                    }
                }
            }
        }
    }

    fn mail(&mut self, mail: Mail) {
        if !matches!(self.phase, Phase::Open(_) | Phase::Chunked(_)) {
            self.about.clone_from(&mail.reverse_path);
        }
        if self.client.is_none() {
            return self.bad_order("send HELO or EHLO first");
        }
        if matches!(self.phase, Phase::Open(_) | Phase::Chunked(_)) {
            return self.bad_order("a mail transaction is open: send RSET first");
        }
        if self.is_submission() && self.authenticated.is_none() {
            let mend = if self.tls { "authenticate first" } else { "send STARTTLS and authenticate first" };
            return self.bad_command(&Reply::new(530, Enhanced(5, 7, 0), mend));
        }
        if mail.auth && !self.is_submission() {
            return self.bad_command(&Reply::new(555, Enhanced(5, 5, 4), "a parameter is not recognized"));
        }
        if mail.require_tls && !self.tls {
            let text = "REQUIRETLS is offered under TLS only: send STARTTLS first";
            return self.bad_command(&Reply::new(555, Enhanced(5, 5, 4), text));
        }
        if mail.body == BodyType::Binary && !self.offers_binary() {
            return self.bad_command(&command::unknown_body());
        }
        if mail.size.is_some_and(|size| size > self.config.content.bytes_max) {
            return self.idle(&Fault::TooLarge.reply(&self.config.content));
        }
        let action = Action::Sender { reverse_path: mail.reverse_path.clone(), size: mail.size };
        self.actions.push_back(action);
        self.phase = Phase::Sender(mail);
    }

    fn rcpt(&mut self, rcpt: Rcpt) {
        match mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Open(transaction) => match self.named(&transaction, rcpt) {
                Ok(recipient) => {
                    self.actions.push_back(Action::Recipient(recipient.address.clone()));
                    self.phase = Phase::Recipient(transaction, recipient);
                }
                Err(reply) => {
                    self.phase = Phase::Open(Transaction { refused: true, ..transaction });
                    self.tally.recipients_refused += 1;
                    self.refuse(&reply);
                }
            },
            phase @ Phase::Chunked(_) => {
                self.phase = phase;
                self.bad_order("the content has begun");
            }
            _ => self.bad_order("send MAIL first"),
        }
    }

    /// Whom RCPT names, if another recipient may be named at all.
    fn named(&mut self, transaction: &Transaction, rcpt: Rcpt) -> Result<Recipient, Reply> {
        let count = transaction.recipients.len();
        if !self.is_submission() && self.tally.unknown_recipients >= UNKNOWN_RECIPIENTS_MAX {
            return Err(Reply::new(421, Enhanced(4, 7, 0), "too many unknown recipients"));
        }
        if self.tally.recipients_refused >= RECIPIENTS_REFUSED_MAX {
            return Err(Reply::new(421, Enhanced(4, 5, 3), "too many recipients"));
        }
        // Nothing that is sent with a null reverse-path has two recipients (RFC 5321 §4.5.5), unless an alias elsewhere has
        // made several of one: each of those gets it in a transaction of its own.
        let max = if transaction.mail.reverse_path.is_none() { 1 } else { self.config.recipients_max };
        if count >= max {
            let text = format!("no more recipients at once than {max}: send to the others again");
            return Err(Reply::new(452, Enhanced(4, 5, 3), &text));
        }
        if rcpt.utf8 && !transaction.mail.smtputf8 {
            return Err(command::needs_smtputf8());
        }
        let address = match rcpt.path {
            ForwardPath::Postmaster => self.config.postmaster.clone(),
            ForwardPath::Address(address) => address,
        };
        Ok(Recipient { address, notify: rcpt.notify, original: rcpt.original })
    }

    fn data(&mut self) {
        if !self.is_for_chunks() && self.begin(None) {
            return;
        }
        if self.input.is_empty() {
            self.no_content();
        } else {
            // What follows DATA is content to the client (RFC 2920 §3.1) and must not be commands to us.
            let refusal = self.without_content();
            self.close_with(&refusal);
        }
    }

    fn bdat(&mut self, octets: u64, last: bool) {
        let chunk = Chunk { left: octets, last };
        if octets > self.content_bytes_borne() {
            return self.close_with(&Fault::TooLarge.reply(&self.config.content));
        }
        match mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Chunked(decoder) => self.phase = Phase::Chunk(decoder, chunk),
            phase => {
                self.phase = phase;
                if !self.begin(Some(chunk)) {
                    self.no_content();
                    self.drop_chunk(octets);
                }
            }
        }
    }

    /// Whether BINARYMIME is offered to this client (RFC 3030 §3).
    fn offers_binary(&self) -> bool {
        self.config.binarymime && self.client.as_ref().is_some_and(|client| client.esmtp)
    }

    /// Whether there is a transaction with recipients whose content comes by BDAT alone.
    fn is_for_chunks(&self) -> bool {
        let is_binary =
            |open: &Transaction| open.mail.body == BodyType::Binary && !open.recipients.is_empty();
        matches!(&self.phase, Phase::Open(open) if is_binary(open))
    }

    /// Asks for a body, if there is a recipient who gets it.
    fn begin(&mut self, chunk: Option<Chunk>) -> bool {
        match mem::replace(&mut self.phase, Phase::Ready) {
            Phase::Open(transaction) if !transaction.recipients.is_empty() => {
                let body = transaction.mail.body;
                let envelope = self.envelope(transaction);
                self.actions.push_back(Action::Begin(envelope));
                self.phase = Phase::Beginning(body, chunk);
                true
            }
            phase => {
                self.phase = phase;
                false
            }
        }
    }

    /// Refuses content that nobody gets. A mistake in the order leaves everything as it is (RFC 5321 §4.1.4); a
    /// transaction whose recipients were all refused is over.
    fn no_content(&mut self) {
        let refusal = self.without_content();
        if !self.is_for_chunks() && matches!(self.phase, Phase::Open(Transaction { refused: true, .. })) {
            self.end_transaction();
            self.idle(&refusal);
        } else {
            self.bad_command(&refusal);
        }
    }

    /// Why no content can come now.
    fn without_content(&self) -> Reply {
        match &self.phase {
            _ if self.is_for_chunks() => Reply::new(
                503,
                Enhanced(5, 5, 1),
                "content with BODY=BINARYMIME comes by BDAT: send that, or RSET",
            ),
            Phase::Open(Transaction { refused: true, .. }) => {
                Reply::new(554, Enhanced(5, 5, 1), "no valid recipients")
            }
            Phase::Open(_) => Reply::new(503, Enhanced(5, 5, 1), "send RCPT first"),
            Phase::Chunked(_) => Reply::new(503, Enhanced(5, 5, 1), "go on with BDAT, or send RSET"),
            _ => Reply::new(503, Enhanced(5, 5, 1), "send MAIL and RCPT first"),
        }
    }

    /// The octets of a chunk that was refused come all the same (RFC 3030 §2).
    pub(super) fn drop_chunk(&mut self, octets: u64) {
        if !matches!(self.phase, Phase::Closed) {
            let then = Box::new(mem::replace(&mut self.phase, Phase::Ready));
            self.phase = Phase::Dropping { left: octets, read: 0, then };
        }
    }

    /// Reads what is to be dropped; `false` when there is nothing.
    pub(super) fn dropping(&mut self, left: u64, read: u64, then: Box<Phase>) -> bool {
        let length = self.unread_of(left);
        let octets = length as u64;
        self.input.consume(length);
        if octets == left {
            self.phase = *then;
            self.line_read();
            return true;
        }
        self.phase = Phase::Dropping { left: left - octets, read: read + octets, then };
        octets > 0
    }

    /// How many of so many octets are there to be read.
    fn unread_of(&self, octets: u64) -> usize {
        usize::try_from(octets).unwrap_or(usize::MAX).min(self.input.unread().len())
    }

    /// Octets of content that are read of a message, although it will be refused.
    fn content_bytes_borne(&self) -> u64 {
        self.config.content.bytes_max.saturating_mul(2)
    }

    fn envelope(&self, transaction: Transaction) -> Envelope {
        let Transaction { mail, recipients, .. } = transaction;
        let client = self.client.as_ref();
        Envelope {
            reverse_path: mail.reverse_path,
            recipients,
            returns: mail.returns,
            envelope_id: mail.envelope_id,
            body: mail.body,
            smtputf8: mail.smtputf8,
            require_tls: mail.require_tls,
            size: mail.size,
            helo: client.map(|client| client.name.clone()).unwrap_or_default(),
            esmtp: client.is_some_and(|client| client.esmtp),
            tls: self.tls,
            authenticated: self.authenticated.clone(),
        }
    }

    /// Reads content; `false` when there is none.
    pub(super) fn content(&mut self, mut decoder: Box<Decoder>) -> bool {
        if self.input.is_empty() {
            self.phase = Phase::Content(decoder);
            return false;
        }
        let was_sound = decoder.fault().is_none();
        let decoded = decoder.decode(self.input.unread());
        self.input.consume(decoded.consumed);
        self.pass_on(was_sound, &decoder, decoded.content);
        match decoder.fault() {
            Some(fault) if decoded.ended => self.spoilt(fault),
            // It has been borne with long enough.
            Some(fault) if decoder.received() > self.content_bytes_borne() => {
                self.close_with(&fault.reply(&self.config.content));
            }
            None if decoded.ended => self.complete(&decoder),
            _ => self.phase = Phase::Content(decoder),
        }
        true
    }

    /// Reads content of a chunk; `false` when there is none.
    pub(super) fn chunk(&mut self, mut decoder: Box<Decoder>, chunk: Chunk) -> bool {
        let length = self.unread_of(chunk.left);
        let left = chunk.left - length as u64;
        if length == 0 && left > 0 {
            self.phase = Phase::Chunk(decoder, chunk);
            return false;
        }
        let was_sound = decoder.fault().is_none();
        let octets = self.input.unread().get(..length).unwrap_or_default();
        let content = decoder.chunk(octets, left == 0 && chunk.last);
        if decoder.is_binary() && decoder.fault().is_none() && length > 0 {
            self.actions.push_back(Action::Received(octets.to_vec()));
        }
        self.input.consume(length);
        self.pass_on(was_sound, &decoder, content);
        match decoder.fault() {
            _ if left > 0 => self.phase = Phase::Chunk(decoder, Chunk { left, ..chunk }),
            // Where it ends is known, whatever it holds: the session can go on.
            Some(fault) => {
                self.line_read();
                self.reply(&fault.reply(&self.config.content));
            }
            None if chunk.last => self.complete(&decoder),
            None => {
                let text = format!("{} octets so far", decoder.received());
                self.reply(&Reply::new(250, Enhanced(2, 0, 0), &text));
                self.phase = Phase::Chunked(decoder);
            }
        }
        true
    }

    /// Hands content over, or has the body discarded if it has just been found to be unfit.
    fn pass_on(&mut self, was_sound: bool, decoder: &Decoder, content: Vec<u8>) {
        if decoder.fault().is_some() {
            if was_sound {
                self.actions.push_back(Action::Abort);
            }
        } else if !content.is_empty() {
            self.actions.push_back(Action::Content(content));
        }
    }

    fn complete(&mut self, decoder: &Decoder) {
        self.line_read();
        self.actions.push_back(Action::Complete(decoder.facts()));
        self.phase = Phase::Completing;
    }

    /// The end of content that cannot be taken.
    fn spoilt(&mut self, fault: Fault) {
        self.line_read();
        let reply = fault.reply(&self.config.content);
        if fault == Fault::Framing {
            // Its sender and we may not agree on where it ended.
            self.close_with(&reply);
        } else {
            self.reply(&reply);
        }
    }
}
