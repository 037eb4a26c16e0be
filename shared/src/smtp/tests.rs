//! Dialogues with a session, and the attacks on it.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::notify::{Notify, Return};
use crate::sasl::test_client::{Client, keys_of, knows};

/// A small generator (xorshift64*): the same seed gives the same run everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 to `limit` - 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value).expect("31 bits") % limit
    }
}

const NOW: Duration = Duration::from_secs(1_000);

/// A driver that knows alice, bob and postmaster at example.com, and the password `secret`.
struct Driver {
    session: Session,
    body: Option<(Envelope, Vec<u8>)>,
    stored: Vec<(Envelope, Vec<u8>)>,
    /// What has come of messages that are BINARYMIME.
    received: Vec<u8>,
    aborted: usize,
    handshakes: usize,
    pauses: u32,
    offered: Vec<String>,
    credentials: Vec<String>,
    begin: Verdict,
    complete: Verdict,
    closed: bool,
}

fn config(role: Role) -> Config {
    let hostname = "mx.example.com".parse().expect("a domain");
    let postmaster = "postmaster@example.com".parse().expect("an address");
    Config::new(role, hostname, postmaster)
}

impl Driver {
    fn with(config: Config, tls: bool) -> Self {
        Self {
            session: Session::new(Arc::new(config), tls, NOW),
            body: None,
            stored: Vec::new(),
            received: Vec::new(),
            aborted: 0,
            handshakes: 0,
            pauses: 0,
            offered: Vec::new(),
            credentials: Vec::new(),
            begin: Ok(()),
            complete: Ok(()),
            closed: false,
        }
    }

    fn reception() -> Self {
        Self::greeted(config(Role::Reception), false)
    }

    /// Past the greeting and EHLO.
    fn greeted(config: Config, tls: bool) -> Self {
        let mut driver = Self::with(config, tls);
        assert_eq!(driver.run(), "220 mx.example.com ESMTP Sallypost\r\n");
        assert!(driver.say("EHLO client.example\r\n").starts_with("250-mx.example.com\r\n"));
        driver
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) -> String {
        assert!(self.closed || self.session.wants_input(), "the driver reads only when it may");
        self.session.receive(bytes.as_ref(), NOW);
        self.run()
    }

    /// The code of each reply.
    fn codes(&mut self, bytes: impl AsRef<[u8]>) -> Vec<String> {
        let replies = self.say(bytes);
        let last = |line: &&str| line.as_bytes().get(3) != Some(&b'-');
        replies.lines().filter(last).map(|line| line[..3].to_owned()).collect()
    }

    fn run(&mut self) -> String {
        let mut sent = Vec::new();
        while let Some(action) = self.session.poll(NOW) {
            assert!(!self.closed, "nothing follows Close, but {action:?}");
            match action {
                Action::Send(bytes) => sent.extend(bytes),
                Action::Pause(_) => self.pauses += 1,
                Action::StartTls => {
                    self.handshakes += 1;
                    self.session.tls_established();
                }
                Action::Keys(_) => self.session.keys(Ok(&keys_of("secret"))),
                Action::Authenticate(credentials) => {
                    self.credentials.push(credentials.user.clone());
                    let bad = Reply::new(535, Enhanced(5, 7, 8), "bad user name or password");
                    let good = knows(&keys_of("secret"), &credentials.secret);
                    self.session.authenticated(if good { Ok(credentials.user) } else { Err(bad) });
                }
                Action::Sender { reverse_path, .. } => {
                    let is_late = reverse_path.is_some_and(|path| path.local_part() == "late");
                    let later = Reply::new(452, Enhanced(4, 3, 1), "no room now");
                    self.session.sender(if is_late { Err(later) } else { Ok(()) });
                }
                Action::Recipient(address) => {
                    self.offered.push(address.to_string());
                    let verdict = match address.canonical().as_str() {
                        "alice@example.com" | "bob@example.com" | "postmaster@example.com" => Ok(()),
                        "listed@example.com" => Err(Reply::new(554, Enhanced(5, 7, 1), "not from you")),
                        "locked@example.com" => {
                            Err(Reply::new(450, Enhanced(4, 7, 1), "too many were named"))
                        }
                        "slow@example.com" => Err(Reply::new(451, Enhanced(4, 3, 0), "not now")),
                        _ => Err(Reply::new(550, Enhanced(5, 1, 1), "no such mailbox")),
                    };
                    self.session.recipient(verdict);
                }
                Action::Begin(envelope) => {
                    if self.begin.is_ok() {
                        self.body = Some((envelope, Vec::new()));
                    }
                    self.session.begun(self.begin.clone());
                }
                Action::Received(bytes) => self.received.extend(bytes),
                Action::Content(bytes) => self.body.as_mut().expect("a body is open").1.extend(bytes),
                Action::Complete(facts) => {
                    let body = self.body.take().expect("a body is open");
                    assert_eq!(facts.bytes, body.1.len() as u64);
                    if self.complete.is_ok() {
                        self.stored.push(body);
                    }
                    self.session.completed(self.complete.clone().map(|()| "01J0".into()));
                }
                Action::Abort => {
                    self.aborted += 1;
                    self.body = None;
                }
                Action::Close => self.closed = true,
            }
        }
        assert!(self.closed || self.session.wants_input());
        String::from_utf8(sent).expect("replies are UTF-8")
    }
}

const ENVELOPE: &str = "MAIL FROM:<carol@example.org>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n";

#[test]
fn what_is_asked_goes_with_its_message_and_with_its_recipient() {
    let mut driver = Driver::reception();
    let asks = "MAIL FROM:<carol@example.org> RET=HDRS ENVID=a+2Bb\r\n\
                RCPT TO:<alice@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;al+2Bice@example.net\r\n\
                RCPT TO:<nobody@example.com> NOTIFY=NEVER\r\n\
                RCPT TO:<bob@example.com>\r\nDATA\r\n";
    assert_eq!(driver.codes(asks), ["250", "250", "550", "250", "354"]);
    driver.say("x\r\n.\r\n");
    assert_eq!(driver.codes(ENVELOPE), ["250", "250", "354"]);
    driver.say("x\r\n.\r\n");
    let asked: Vec<_> = driver
        .stored
        .iter()
        .map(|(envelope, _)| {
            let recipient = |to: &Recipient| (to.to_string(), to.notify, to.original.clone());
            let recipients: Vec<_> = envelope.recipients.iter().map(recipient).collect();
            (envelope.returns, envelope.envelope_id.clone(), recipients)
        })
        .collect();
    let notify = Some(Notify { success: true, failure: false, delay: true });
    let original = Some("rfc822;al+ice@example.net".to_owned());
    let nothing = |address: &str| (address.to_owned(), None, None);
    let first = vec![("alice@example.com".to_owned(), notify, original), nothing("bob@example.com")];
    assert_eq!(
        asked,
        [
            (Some(Return::Headers), Some("a+b".to_owned()), first),
            (None, None, vec![nothing("alice@example.com")]),
        ]
    );
}

#[test]
fn a_message_is_taken_and_answered_once_it_is_durable() {
    let mut driver = Driver::reception();
    assert_eq!(driver.say("MAIL FROM:<carol@example.org> SIZE=20\r\n"), "250 2.1.0 sender ok\r\n");
    assert_eq!(driver.say("RCPT TO:<alice@example.com>\r\n"), "250 2.1.5 recipient ok\r\n");
    assert_eq!(driver.say("DATA\r\n"), "354 end with a dot on a line of its own\r\n");
    assert_eq!(driver.say("Subject: hello\r\n\r\n..\r\n"), "");
    assert!(driver.stored.is_empty());
    assert_eq!(driver.say(".\r\n"), "250 2.0.0 queued as 01J0\r\n");
    let (envelope, content) = &driver.stored[0];
    assert_eq!(content, b"Subject: hello\r\n\r\n.\r\n");
    assert_eq!(envelope.reverse_path.as_ref().map(ToString::to_string).as_deref(), Some("carol@example.org"));
    assert_eq!((envelope.size, envelope.helo.as_str(), envelope.esmtp), (Some(20), "client.example", true));
    assert_eq!(driver.codes("QUIT\r\n"), ["221"]);
    assert!(driver.closed);
}

#[test]
fn reception_offers_what_it_does() {
    let mut driver = Driver::with(config(Role::Reception), false);
    driver.run();
    assert_eq!(
        driver.say("EHLO client.example\r\n"),
        "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
         250-CHUNKING\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-LIMITS RCPTMAX=1000\r\n250 STARTTLS\r\n"
    );
    assert_eq!(driver.say("HELO client.example\r\n"), "250 mx.example.com\r\n");
    assert_eq!(
        driver.codes("VRFY alice\r\nVRFY nobody\r\nEXPN list\r\nNOOP\r\nHELP\r\nRSET\r\nVRFY\r\n"),
        ["252", "252", "252", "250", "214", "250", "501"]
    );
}

#[test]
fn pipelined_commands_are_answered_in_one_send() {
    let mut driver = Driver::reception();
    let group = "MAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n";
    driver.session.receive(group.as_bytes(), NOW);
    let mut sends = 0;
    while let Some(action) = driver.session.poll(NOW) {
        match action {
            Action::Send(bytes) => {
                sends += 1;
                assert_eq!(bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 4);
            }
            Action::Sender { .. } => driver.session.sender(Ok(())),
            Action::Recipient(address) if address.local_part() == "nobody" => {
                assert!(!driver.session.wants_input(), "an answer is outstanding");
                assert!(driver.session.poll(NOW).is_none(), "nothing goes on without the answer");
                driver.session.recipient(Err(Reply::new(550, Enhanced(5, 1, 1), "no such mailbox")));
            }
            Action::Recipient(_) => driver.session.recipient(Ok(())),
            Action::Begin(_) => driver.session.begun(Ok(())),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(sends, 1);
}

/// T01: whatever stands in the middle, there is at most one message, and none if a strict and a lax
/// reader could disagree about it.
#[test]
fn nothing_is_smuggled() {
    let middles: [(&str, Option<&str>); 14] = [
        ("\n.\n", None),
        ("\r.\r", None),
        ("\r.\n", None),
        ("\n.\r", None),
        ("\n.\r\n", None),
        ("\r\n.\n", None),
        ("\r.\r\n", None),
        ("\r\n.\r", None),
        ("\r\n\0.\r\n", None),
        ("\r\n.\0\r\n", None),
        ("\r\n.\r\r\n", None),
        ("\r\r\n.\r\r\n", None),
        ("\r\n. \r\n", Some("\r\n \r\n")),
        ("\r\n..\r\n", Some("\r\n.\r\n")),
    ];
    for (middle, kept) in middles {
        let smuggled = "MAIL FROM:<m@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nsmuggled";
        let attack = format!("{ENVELOPE}Subject: x\r\n\r\nbody{middle}{smuggled}\r\n.\r\n");
        for cut in 0..attack.len() {
            let mut driver = Driver::reception();
            let (first, second) = attack.as_bytes().split_at(cut);
            let mut replies = driver.say(first);
            replies.push_str(&driver.say(second));
            match kept {
                None => {
                    assert!(replies.ends_with("end in CRLF\r\n"), "{middle:?} at {cut}: {replies}");
                    assert!(replies.contains("550 5.6.11"), "{middle:?} at {cut}: {replies}");
                    assert!(driver.stored.is_empty() && driver.body.is_none(), "{middle:?} at {cut}");
                    assert!(driver.closed, "{middle:?} at {cut}");
                }
                Some(kept) => {
                    assert!(replies.ends_with("queued as 01J0\r\n"), "{middle:?} at {cut}: {replies}");
                    let [(_, content)] = driver.stored.as_slice() else {
                        panic!("{middle:?} at {cut}: one message");
                    };
                    assert_eq!(*content, format!("Subject: x\r\n\r\nbody{kept}{smuggled}\r\n").into_bytes());
                }
            }
            assert_eq!(driver.offered, ["alice@example.com"], "{middle:?} at {cut}");
        }
    }
}

#[test]
fn command_lines_end_in_crlf_only() {
    for bad in ["NOOP\n", "NO\rOP\r\n", "NOOP\r\r\n", "NO\0OP\r\n", "RSET\nNOOP\r\n"] {
        let mut driver = Driver::reception();
        assert_eq!(driver.codes(bad), ["500"], "{bad:?}");
        assert!(driver.closed, "{bad:?}");
    }
}

/// T04: what the model of a transaction says, against random commands.
#[test]
fn a_transaction_is_used_up_by_every_outcome() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Model {
        Silent,
        Ready,
        Open { recipients: usize, refused: bool },
        Chunked,
    }
    use Model::{Chunked, Open, Ready, Silent};
    let commands = [
        "EHLO a",
        "HELO a",
        "MAIL FROM:<carol@example.org>",
        "MAIL FROM:<\"q\"@example.org>",
        "MAIL FROM:<c@example.org> SIZE=99999999999",
        "RCPT TO:<alice@example.com>",
        "RCPT TO:<nobody@example.com>",
        "RCPT TO:<slow@example.com>",
        "RCPT TO:<a b>",
        "DATA",
        "BDAT 0",
        "RSET",
        "NOOP",
        "VRFY x",
        "STARTTLS",
        "AUTH PLAIN",
        "BOGUS",
    ];
    let contents = [("ok\r\n.\r\n", "250"), ("a\r\n", "")];
    let mut random = Random::new(4);
    for sequence in 0..50_000 {
        let mut driver = Driver::with(config(Role::Reception), false);
        driver.run();
        let (mut model, mut tls, mut stored) = (Silent, false, 0);
        for step in 0..1 + random.below(12) {
            let command = commands[random.below(commands.len())];
            let (expected, next) = match (command, model) {
                ("EHLO a" | "HELO a", _) => ("250", Ready),
                ("MAIL FROM:<\"q\"@example.org>", _) => ("553", model),
                ("MAIL FROM:<c@example.org> SIZE=99999999999", Ready) => ("552", Ready),
                ("MAIL FROM:<carol@example.org>", Ready) => ("250", Open { recipients: 0, refused: false }),
                ("RCPT TO:<a b>", _) => ("553", model),
                ("RCPT TO:<alice@example.com>", Open { recipients, refused }) => {
                    ("250", Open { recipients: recipients + 1, refused })
                }
                ("RCPT TO:<nobody@example.com>", Open { recipients, .. }) => {
                    ("550", Open { recipients, refused: true })
                }
                ("RCPT TO:<slow@example.com>", Open { recipients, .. }) => {
                    ("451", Open { recipients, refused: true })
                }
                ("DATA" | "BDAT 0", Open { recipients: 0, refused: true }) => ("554", Ready),
                // RFC 5321 §4.1.4: a mistake in the order changes nothing.
                ("DATA" | "BDAT 0", Open { recipients: 0, refused: false }) => ("503", model),
                ("DATA", Open { .. }) => ("354", Ready),
                ("BDAT 0", Open { .. }) => ("250", Chunked),
                ("BDAT 0", Chunked) => ("250", Chunked),
                ("RSET", Silent) => ("250", Silent),
                ("RSET", _) => ("250", Ready),
                ("NOOP", _) => ("250", model),
                ("VRFY x", _) => ("252", model),
                ("STARTTLS", _) if tls => ("503", model),
                ("STARTTLS", _) => ("220", Silent),
                ("AUTH PLAIN", _) => ("502", model),
                ("BOGUS", _) => ("500", model),
                _ => ("503", model),
            };
            let codes = driver.codes(format!("{command}\r\n"));
            assert_eq!(codes, [expected], "sequence {sequence}, step {step}: {command} in {model:?}");
            tls |= expected == "220";
            model = next;
            if expected == "354" {
                let (content, reply) = contents[random.below(2)];
                assert_eq!(driver.codes(content).concat(), reply, "sequence {sequence}");
                stored += usize::from(reply == "250");
                if reply.is_empty() {
                    driver.session.disconnected();
                    driver.run();
                    assert!(driver.closed && driver.body.is_none());
                    break;
                }
            }
        }
        assert_eq!(driver.stored.len(), stored, "sequence {sequence}");
    }
}

#[test]
fn a_refusal_at_the_end_leaves_no_transaction() {
    for (content, code) in [("a\r\n.\r\n", "451"), (&*format!("{}\r\n.\r\n", "x".repeat(999)), "550")] {
        let mut driver = Driver::reception();
        driver.complete = Err(Reply::new(451, Enhanced(4, 3, 0), "the disk is full"));
        assert_eq!(driver.codes(ENVELOPE), ["250", "250", "354"]);
        assert_eq!(driver.codes(content), [code]);
        assert_eq!(driver.codes("RCPT TO:<alice@example.com>\r\n"), ["503"]);
        assert_eq!(driver.codes("DATA\r\n"), ["503"]);
    }
}

#[test]
fn content_sent_after_a_refused_data_is_not_obeyed() {
    let mut driver = Driver::reception();
    let script =
        "MAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\nDATA\r\nRSET\r\nMAIL FROM:<x@example.org>\r\n";
    assert_eq!(driver.codes(script), ["250", "550", "554"]);
    assert!(driver.closed);
    let mut driver = Driver::reception();
    driver.begin = Err(Reply::new(452, Enhanced(4, 3, 1), "no room"));
    assert_eq!(driver.codes(format!("{ENVELOPE}NOOP\r\n")), ["250", "250", "452"]);
    assert!(driver.closed);
    let mut driver = Driver::reception();
    driver.begin = Err(Reply::new(452, Enhanced(4, 3, 1), "no room"));
    assert_eq!(driver.codes(ENVELOPE), ["250", "250", "452"]);
    assert_eq!(driver.codes("RCPT TO:<alice@example.com>\r\n"), ["503"]);
}

/// T05.
#[test]
fn a_client_that_speaks_first_or_speaks_http_is_shown_out() {
    let mut driver = Driver::with(config(Role::Reception), false);
    driver.session.greet_after(Duration::from_secs(2));
    assert_eq!(driver.run(), "");
    assert_eq!(driver.say("EHLO spam.example\r\n"), "554 5.5.1 you spoke before the greeting\r\n");
    assert!(driver.closed);
    let mut driver = Driver::with(config(Role::Reception), false);
    driver.session.greet_after(Duration::from_secs(2));
    assert_eq!((driver.run().as_str(), driver.session.deadline()), ("", NOW + Duration::from_secs(2)));
    driver.session.handle_timeout(NOW + Duration::from_secs(1));
    assert_eq!(driver.run(), "");
    driver.session.handle_timeout(NOW + Duration::from_secs(2));
    assert_eq!(driver.run(), "220 mx.example.com ESMTP Sallypost\r\n");
    let mut driver = Driver::with(config(Role::Reception), false);
    driver.run();
    assert_eq!(driver.codes("POST / HTTP/1.1\r\nHost: x\r\nMAIL FROM:<>\r\n"), ["500"]);
    assert!(driver.closed);
}

/// T06.
#[test]
fn a_command_line_is_cut_off_at_its_limit() {
    let line = |length: usize| format!("{:x<1$}\r\n", "NOOP ", length);
    assert_eq!(Driver::reception().codes(line(COMMAND_BYTES_MAX)), ["250"]);
    for bad in [line(COMMAND_BYTES_MAX + 1), "x".repeat(64 * 1024)] {
        let mut driver = Driver::reception();
        assert_eq!(driver.codes(bad), ["500"]);
        assert!(driver.closed);
    }
}

/// T07: a line without an end is neither held nor taken.
#[test]
fn a_huge_line_is_refused_at_the_dot() {
    let mut driver = Driver::reception();
    driver.codes(ENVELOPE);
    for _ in 0..144 {
        assert_eq!(driver.say("x".repeat(64 * 1024)), "");
        assert!(driver.body.is_none(), "nothing is held");
    }
    assert_eq!(driver.codes("\r\n.\r\n"), ["550"]);
    assert_eq!((driver.aborted, driver.stored.len(), driver.closed), (1, 0, false));
}

/// T08.
#[test]
fn a_flood_of_header_fields_is_refused() {
    for (content, code) in [
        ("a: b\r\n".repeat(1_000), "250"),
        ("a: b\r\n".repeat(1_001), "552"),
        (format!("a: {}\r\n", "b".repeat(900)).repeat(300), "552"),
        ("Received: x\r\n".repeat(50), "250"),
        ("Received: x\r\n".repeat(51), "554"),
    ] {
        let mut driver = Driver::reception();
        driver.codes(ENVELOPE);
        assert_eq!(driver.codes(format!("{content}\r\nbody\r\n.\r\n")), [code]);
        assert_eq!(driver.stored.len(), usize::from(code == "250"));
    }
}

/// T09: the size is refused at MAIL, and at the dot if MAIL lied; what goes on for ever is cut off.
#[test]
fn a_message_over_the_size_is_refused() {
    let mut small = config(Role::Reception);
    small.content.bytes_max = 100;
    let mut driver = Driver::greeted(small, false);
    assert_eq!(
        driver.say("MAIL FROM:<> SIZE=101\r\n"),
        "552 5.3.4 the message is larger than 100 octets\r\n"
    );
    driver.codes("MAIL FROM:<> SIZE=10\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n");
    assert_eq!(driver.say("x".repeat(50)), "");
    assert!(driver.body.is_some());
    assert_eq!(driver.say("x".repeat(51)), "");
    assert!(driver.body.is_none(), "the body goes as soon as it is too large");
    assert_eq!(driver.codes("\r\n.\r\n"), ["552"]);
    driver.codes("MAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n");
    assert_eq!(driver.codes("x\r\n".repeat(100)), ["552"]);
    assert!(driver.closed);
}

/// T03: chunks end where they say, whatever they hold, and DATA has no place among them.
#[test]
fn chunks_are_content_and_never_commands() {
    let envelope = "MAIL FROM:<carol@example.org>\r\nRCPT TO:<alice@example.com>\r\n";
    let message = "Subject: x\r\n\r\n.\r\nRSET\r\n";
    let script = format!("{envelope}BDAT {}\r\n{message}NOOP\r\nBDAT 1 LAST\r\nxNOOP\r\n", message.len());
    for cut in 0..script.len() {
        let mut driver = Driver::reception();
        let (first, second) = script.as_bytes().split_at(cut);
        let mut codes = driver.codes(first);
        codes.extend(driver.codes(second));
        assert_eq!(codes, ["250", "250", "250", "250", "250", "250"], "cut at {cut}");
        let [(_, content)] = driver.stored.as_slice() else { panic!("one message, cut at {cut}") };
        assert_eq!(*content, format!("{message}x\r\n").into_bytes());
    }
    let mut driver = Driver::reception();
    assert_eq!(driver.codes(format!("{envelope}BDAT 1\r\nxDATA\r\n")), ["250", "250", "250", "503"]);
    assert_eq!(driver.codes("BDAT 0 LAST\r\n"), ["250"], "a mistake in the order changes nothing");
    driver.codes(format!("{envelope}BDAT 1\r\nx"));
    assert_eq!(driver.codes("DATA\r\nsmuggled\r\n.\r\n"), ["503"]);
    assert!(driver.closed && driver.stored.len() == 1);
}

/// RFC 3030 §2: the octets of a chunk come whether it is taken or not.
#[test]
fn a_chunk_that_is_refused_is_read_over() {
    let envelope = "MAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\n";
    let mut full = Driver::reception();
    full.begin = Err(Reply::new(452, Enhanced(4, 3, 1), "no room"));
    assert_eq!(
        full.codes(format!("{envelope}BDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")),
        ["250", "250", "452", "503", "250"]
    );
    let mut driver = Driver::reception();
    assert_eq!(
        driver.codes(format!("{envelope}BDAT 2\r\na\nBDAT 1 LAST\r\nxNOOP\r\n")),
        ["250", "250", "550", "503", "250"]
    );
    assert_eq!((driver.aborted, driver.stored.len(), driver.body.is_none()), (1, 0, true));
    for end in ["RSET", "EHLO a", "QUIT", "BDAT x", "STARTTLS"] {
        let mut driver = Driver::reception();
        driver.codes(format!("{envelope}BDAT 2\r\nab{end}\r\n"));
        assert_eq!((driver.aborted, driver.stored.len()), (1, 0), "{end}");
    }
}

/// A service that offers BINARYMIME and takes so many octets.
fn binary(bytes_max: u64) -> Driver {
    let mut config = config(Role::Reception);
    config.binarymime = true;
    config.content.bytes_max = bytes_max;
    Driver::greeted(config, false)
}

const BINARY: &str = "MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<alice@example.com>\r\n";
const IN_OCTETS: &str = "MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\n";
const IN_BASE64: &str = "MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n";

/// RFC 3030 §3: what signatures are over is what has come, and what is kept is lines.
#[test]
fn what_is_binary_is_received_as_it_is_and_kept_in_lines() {
    let message = format!("{IN_OCTETS}\n\0\r\r\n.\r\n");
    let (first, second) = message.split_at(58);
    let script = format!(
        "{BINARY}BDAT {}\r\n{first}NOOP\r\nBDAT {}\r\n{second}BDAT 0 LAST\r\nQUIT\r\n",
        first.len(),
        second.len()
    );
    for cut in 0..script.len() {
        let mut driver = binary(1_000);
        let (first, second) = script.as_bytes().split_at(cut);
        let mut codes = driver.codes(first);
        codes.extend(driver.codes(second));
        assert_eq!(codes, ["250", "250", "250", "250", "250", "250", "221"], "cut at {cut}");
        let [(envelope, content)] = driver.stored.as_slice() else { panic!("one message, cut at {cut}") };
        assert_eq!(envelope.body, BodyType::Binary);
        assert_eq!(driver.received, message.as_bytes());
        assert_eq!(String::from_utf8_lossy(content), format!("{IN_BASE64}CgANDQouDQo=\r\n"));
    }
    let mut driver = binary(1_000);
    driver.codes("MAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nBDAT 3 LAST\r\na\r\n");
    assert_eq!((driver.stored.len(), driver.received.len()), (1, 0), "content is what has come");
}

#[test]
fn what_is_binary_is_limited_as_it_comes_and_as_it_is_kept() {
    let take = |octets: usize| {
        let mut driver = binary(1_000);
        let message = format!("{IN_OCTETS}{}", "\0".repeat(octets - IN_OCTETS.len()));
        let mut said = driver.say(format!("{BINARY}BDAT {octets} LAST\r\n{message}"));
        said.drain(..said.find("recipient ok\r\n").expect("is taken") + 14);
        (said, driver.aborted, driver.stored.first().map(|(_, content)| content.len()))
    };
    let larger = "552 5.3.4 the message is larger than 1000 octets";
    // 684 octets are 12 lines of base64, of 78 octets each.
    assert_eq!(take(740), ("250 2.0.0 queued as 01J0\r\n".into(), 0, Some(992)));
    assert_eq!(take(741), ("250 2.0.0 queued as 01J0\r\n".into(), 0, Some(998)));
    let in_base64 = format!("{larger} when its binary parts are in base64\r\n");
    assert_eq!(take(744), (in_base64.clone(), 1, None));
    assert_eq!(take(1_000), (in_base64, 1, None));
    assert_eq!(take(1_001), (format!("{larger}\r\n"), 1, None));
    // What has come counts, even if less becomes of it.
    let header =
        format!("MIME-Version: 1.0\r\nContent-Transfer-Encoding: ({})binary\r\n\r\n", "x".repeat(950));
    let half = header.len() / 2;
    let (first, second) = header.split_at(half);
    let said = binary(1_000).say(format!("{BINARY}BDAT {half}\r\n{first}BDAT {half} LAST\r\n{second}"));
    assert!(said.ends_with(&format!("ok\r\n250 2.0.0 {half} octets so far\r\n{larger}\r\n")), "{said}");
    let mut driver = binary(1_000);
    assert_eq!(driver.say("MAIL FROM:<> BODY=BINARYMIME SIZE=1001\r\n"), format!("{larger}\r\n"));
}

/// T10: a message has its time, whatever it is cut into.
#[test]
fn chunks_do_not_put_off_the_end() {
    let mut driver = Driver::reception();
    driver.codes("MAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nBDAT 1\r\na");
    assert_eq!(driver.session.deadline(), NOW + DATA_GRACE);
    let later = NOW + Duration::from_secs(50);
    driver.session.receive(b"BDAT 1\r\naNOOP\r\n", later);
    while driver.session.poll(later).is_some() {}
    assert_eq!(driver.session.deadline(), NOW + DATA_GRACE);
    driver.session.receive(b"RSET\r\n", later);
    while driver.session.poll(later).is_some() {}
    assert_eq!(driver.session.deadline(), later + Duration::from_secs(300));
    let mut driver = Driver::reception();
    driver.codes("BDAT 1000000\r\n");
    assert_eq!(driver.session.deadline(), NOW + DATA_GRACE);
}

/// T12.
#[test]
fn junk_ends_the_session() {
    let mut driver = Driver::reception();
    for _ in 0..BAD_COMMANDS_MAX {
        assert_eq!(driver.codes("BOGUS\r\n"), ["500"]);
    }
    assert_eq!(driver.codes("BOGUS\r\n"), ["421"]);
    assert!(driver.closed);
    assert_eq!(driver.pauses, BAD_COMMANDS_MAX - ERRORS_AT_ONCE_MAX);
    let mut driver = Driver::reception();
    let noops = driver.codes("NOOP\r\n".repeat(200));
    // EHLO was idle too.
    let answered = usize::try_from(IDLE_COMMANDS_MAX + BAD_COMMANDS_MAX).expect("small") - 1;
    assert_eq!((noops.len(), noops.last().map(String::as_str)), (answered + 1, Some("421")));
}

/// T12: nor does a session go on for ever in which no sender or recipient is taken.
#[test]
fn what_is_refused_again_and_again_ends_the_session() {
    let idle = usize::try_from(IDLE_COMMANDS_MAX + BAD_COMMANDS_MAX).expect("small");
    let refused = usize::try_from(RECIPIENTS_REFUSED_MAX).expect("small");
    for (first, again, code, times) in [
        ("NOOP\r\n", "MAIL FROM:<late@example.org>\r\n", "452", idle - 2),
        ("NOOP\r\n", "MAIL FROM:<carol@example.org> SIZE=999999999\r\n", "552", idle - 2),
        ("MAIL FROM:<carol@example.org>\r\n", "RCPT TO:<slow@example.com>\r\n", "451", refused),
        ("MAIL FROM:<carol@example.org>\r\n", "RCPT TO:<listed@example.com>\r\n", "554", refused),
        ("MAIL FROM:<carol@example.org>\r\n", "RCPT TO:<\u{fc}@example.com>\r\n", "553", refused),
    ] {
        let mut driver = Driver::reception();
        driver.codes(first);
        let codes = driver.codes(again.repeat(times + 5));
        assert_eq!(codes.iter().filter(|said| *said == code).count(), times, "{again}");
        assert_eq!((codes.len(), codes.last().map(String::as_str)), (times + 1, Some("421")), "{again}");
        assert!(driver.closed);
    }
}

/// T13.
#[test]
fn recipients_are_limited() {
    let mut few = config(Role::Reception);
    few.recipients_max = 3;
    let mut driver = Driver::greeted(few, false);
    driver.codes("MAIL FROM:<carol@example.org>\r\n");
    assert_eq!(driver.codes("RCPT TO:<alice@example.com>\r\n".repeat(4)), ["250", "250", "250", "452"]);
    let overshoot = driver.codes("RCPT TO:<alice@example.com>\r\n".repeat(1_000));
    assert_eq!(overshoot.len(), 1_000);
    assert_eq!(overshoot.last().map(String::as_str), Some("421"));
    assert!(driver.closed);
}

/// T22: who guesses names is shown out; VRFY says nothing.
#[test]
fn guessing_names_ends_the_session() {
    for (name, code) in [("guess", "550"), ("locked", "450")] {
        let mut driver = Driver::reception();
        driver.codes("MAIL FROM:<carol@example.org>\r\n");
        for _ in 0..UNKNOWN_RECIPIENTS_MAX {
            assert_eq!(driver.codes(format!("RCPT TO:<{name}@example.com>\r\n")), [code]);
        }
        assert_eq!(driver.pauses, UNKNOWN_RECIPIENTS_MAX - ERRORS_AT_ONCE_MAX, "{name}");
        assert_eq!(driver.codes("RCPT TO:<alice@example.com>\r\n"), ["421"], "{name}");
        assert!(driver.closed, "{name}");
    }
}

/// Who is refused for what they are has guessed nothing, and may still say to the postmaster that it is wrong.
#[test]
fn who_is_refused_for_what_they_are_still_reaches_the_postmaster() {
    let mut driver = Driver::reception();
    driver.codes("MAIL FROM:<carol@example.org>\r\n");
    for _ in 0..=UNKNOWN_RECIPIENTS_MAX {
        assert_eq!(driver.codes("RCPT TO:<listed@example.com>\r\n"), ["554"]);
    }
    assert_eq!(driver.codes("RCPT TO:<Postmaster>\r\n"), ["250"]);
}

/// T26.
#[test]
fn a_message_from_nobody_has_one_recipient() {
    let mut driver = Driver::reception();
    let script = "MAIL FROM:<>\r\nRCPT TO:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\n";
    assert_eq!(driver.codes(script), ["250", "250", "452"]);
}

/// T14: what was sent in the clear is not obeyed under TLS.
#[test]
fn nothing_crosses_starttls() {
    for injected in ["NOOP\r\nRSET\r\n", "E", "\r\n", "EHLO evil.example\r\n"] {
        let mut driver = Driver::reception();
        assert_eq!(driver.codes(format!("STARTTLS\r\n{injected}")), ["503"], "{injected:?}");
        assert!(driver.closed && driver.handshakes == 0, "{injected:?}");
    }
    let mut driver = Driver::reception();
    driver.codes("MAIL FROM:<carol@example.org>\r\nRCPT TO:<alice@example.com>\r\n");
    assert_eq!(driver.say("STARTTLS\r\n"), "220 2.0.0 go ahead\r\n");
    assert_eq!(driver.handshakes, 1);
    assert_eq!(driver.codes("DATA\r\n"), ["503"]);
    assert_eq!(driver.codes("MAIL FROM:<carol@example.org>\r\n"), ["503"], "EHLO is forgotten");
    assert!(!driver.say("EHLO a\r\n").contains("STARTTLS"));
    assert_eq!(driver.codes("STARTTLS\r\n"), ["503"]);
    driver.codes(ENVELOPE);
    driver.say(".\r\n");
    assert_eq!(driver.stored[0].0.protocol(), "ESMTPS");
    let mut without = config(Role::Reception);
    without.starttls = false;
    let mut driver = Driver::greeted(without, false);
    assert_eq!(driver.codes("STARTTLS\r\n"), ["502"]);
}

const PLAIN: &str = "AGFsaWNlAHNlY3JldA=="; // NUL alice NUL secret

/// T16.
#[test]
fn submission_wants_tls_then_a_login() {
    let mut driver = Driver::with(config(Role::Submission), false);
    driver.run();
    let offer = driver.say("EHLO laptop\r\n");
    assert!(offer.contains("STARTTLS") && !offer.contains("AUTH"), "{offer}");
    assert_eq!(driver.codes(format!("AUTH PLAIN {PLAIN}\r\n")), ["538"]);
    assert!(driver.credentials.is_empty(), "credentials in the clear are not looked at");
    assert_eq!(driver.codes("MAIL FROM:<alice@example.com>\r\n"), ["530"]);
    assert_eq!(driver.codes("STARTTLS\r\n"), ["220"]);
    let offer = driver.say("EHLO laptop\r\n");
    assert!(offer.contains("AUTH LOGIN PLAIN SCRAM-SHA-256\r\n") && !offer.contains("STARTTLS"), "{offer}");
    assert_eq!(driver.codes("MAIL FROM:<alice@example.com>\r\n"), ["530"]);
    assert_eq!(driver.codes(format!("AUTH PLAIN {PLAIN}\r\n")), ["235"]);
    assert_eq!(driver.codes(format!("AUTH PLAIN {PLAIN}\r\n")), ["503"]);
    assert_eq!(driver.codes("MAIL FROM:<alice@example.com> AUTH=<>\r\n"), ["250"]);
    assert_eq!(driver.codes("RCPT TO:<bob@example.com>\r\nDATA\r\n"), ["250", "354"]);
    driver.say(".\r\n");
    assert_eq!(driver.stored[0].0.authenticated.as_deref(), Some("alice"));
    assert_eq!(driver.stored[0].0.protocol(), "ESMTPSA");
}

fn submission() -> Driver {
    Driver::greeted(config(Role::Submission), true)
}

/// T17.
#[test]
fn auth_in_all_its_forms() {
    let mut driver = Driver::reception();
    assert_eq!(driver.codes(format!("AUTH PLAIN {PLAIN}\r\n")), ["502"]);
    assert_eq!(driver.codes("MAIL FROM:<> AUTH=<>\r\n"), ["555"]);

    let mut driver = submission();
    assert_eq!(driver.say("AUTH PLAIN\r\n"), "334 \r\n");
    assert_eq!(driver.codes(format!("{PLAIN}\r\n")), ["235"]);
    let mut driver = submission();
    assert_eq!(driver.say("AUTH LOGIN\r\n"), "334 VXNlcm5hbWU6\r\n");
    assert_eq!(driver.say("YWxpY2U=\r\n"), "334 UGFzc3dvcmQ6\r\n");
    assert_eq!(driver.codes("c2VjcmV0\r\n"), ["235"]);
    let mut driver = submission();
    assert_eq!(driver.codes("AUTH LOGIN YWxpY2U=\r\nc2VjcmV0\r\n"), ["334", "235"]);

    let mut driver = submission();
    assert_eq!(driver.codes("AUTH CRAM-MD5\r\nAUTH\r\nAUTH PLAIN a b\r\n"), ["504", "501", "501"]);
    assert_eq!(driver.codes("AUTH PLAIN\r\n*\r\n"), ["334", "501"]);
    assert_eq!(driver.codes("AUTH LOGIN\r\n!!\r\nAUTH PLAIN =\r\n"), ["334", "501", "501"]);
    let as_alice = "AUTH PLAIN Ym9iAGFsaWNlAHNlY3JldA==\r\n";
    assert_eq!(driver.codes(as_alice.repeat(3)), ["535", "535", "535", "421"], "bob as alice");
    assert!(driver.credentials.is_empty());

    let mut driver = submission();
    let longest = "A".repeat(crate::sasl::LINE_BYTES_MAX - "AUTH PLAIN ".len());
    assert_eq!(driver.codes(format!("AUTH PLAIN {longest}\r\n")), ["501"]);
    assert_eq!(driver.codes(format!("AUTH PLAIN {longest}A\r\n")), ["500"]);
    assert!(driver.closed);
    let mut driver = submission();
    assert_eq!(driver.codes(format!("AUTH PLAIN\r\n{}", "A".repeat(64 * 1024))), ["334", "500"]);
    assert!(driver.closed);
}

#[test]
fn three_failed_logins_end_the_session() {
    let mut driver = submission();
    let bad = "AUTH PLAIN AGFsaWNlAHdyb25n\r\n";
    assert_eq!(driver.codes(bad), ["535"]);
    assert_eq!(driver.codes(bad), ["535"]);
    assert_eq!(driver.codes(bad), ["535", "421"]);
    assert!(driver.closed);
}

/// T23, T24: each form is refused here, or offered to the directory under exactly the domain that a
/// correct reader sees.
#[test]
fn no_spelling_of_a_recipient_is_misread() {
    let long = format!("<{}@example.com>", "a".repeat(65));
    let domain = format!("<a@{}.example.com>", "b".repeat(64));
    let name = format!("<a@{}com>", "b.".repeat(126));
    let forms: [(&str, Option<&str>); 66] = [
        ("<victim%evil.example@example.com>", Some("victim%evil.example@example.com")),
        ("<victim%evil.example>", None),
        ("<a%b%evil.example@example.com>", Some("a%b%evil.example@example.com")),
        ("<\"victim@evil.example\"@example.com>", None),
        ("<\"victim\"@evil.example>", None),
        ("<\"a b\"@example.com>", None),
        ("<\"victim%evil.example\"@example.com>", None),
        ("<\"\"@example.com>", None),
        ("<\" \"@example.com>", None),
        ("<\"a>\"@example.com>", None),
        ("<victim@evil.example@example.com>", None),
        ("<victim@example.com@evil.example>", None),
        ("<alice@@example.com>", None),
        ("<@example.com:victim@evil.example>", None),
        ("<@evil.example,@example.com:victim@far.example>", None),
        ("<@example.com,victim@evil.example>", None),
        ("<@example.com>", None),
        ("<evil.example!victim>", None),
        ("<evil.example!victim@example.com>", Some("evil.example!victim@example.com")),
        ("<example.com!evil.example!victim>", None),
        ("<example.com!victim@evil.example>", Some("example.com!victim@evil.example")),
        ("<victim@[192.0.2.1]>", None),
        ("<victim@[IPv6:2001:db8::1]>", None),
        ("<victim@192.0.2.1>", None),
        ("<victim@[evil.example]>", None),
        ("<alice@example.com.>", None),
        ("<alice@.example.com>", None),
        ("<alice@example..com>", None),
        ("<.alice@example.com>", None),
        ("<alice.@example.com>", None),
        ("<al..ice@example.com>", None),
        ("<victim\\@evil.example@example.com>", None),
        ("<alice\\@example.com>", None),
        ("<alice(comment)@example.com>", None),
        ("<alice@example.com(victim@evil.example)>", None),
        ("<alice@example.com,victim@evil.example>", None),
        ("<alice@example.com;victim@evil.example>", None),
        ("<alice@example.com>,<victim@evil.example>", None),
        ("<alice@example.com><victim@evil.example>", None),
        ("<alice@example.com> <victim@evil.example>", None),
        ("<alice@example.com\tvictim@evil.example>", None),
        ("<alice @example.com>", None),
        ("< alice@example.com>", None),
        ("<alice@example.com >", None),
        ("<b\u{fc}cher@example.com>", None),
        ("<alice@b\u{fc}cher.example>", None),
        ("<alice@xn--bcher-kva.example>", Some("alice@xn--bcher-kva.example")),
        ("<>", None),
        ("", None),
        ("<", None),
        ("alice@example.com", None),
        ("<alice@example.com", None),
        ("alice@example.com>", None),
        ("<<alice@example.com>>", None),
        ("<alice>", None),
        ("<alice@>", None),
        ("<alice@localhost>", Some("alice@localhost")),
        ("<postmaster>", Some("postmaster@example.com")),
        ("<PostMaster>", Some("postmaster@example.com")),
        ("<v#far@example.com>", Some("v#far@example.com")),
        ("<|/bin/sh@example.com>", Some("|/bin/sh@example.com")),
        ("<alice@EXAMPLE.com>", Some("alice@example.com")),
        ("<alice@exam\u{3002}ple.com>", None),
        (&long, None),
        (&domain, None),
        (&name, None),
    ];
    for sender in ["evil@evil.example", "", "alice@example.com", "alice@localhost", "postmaster@example.com"]
    {
        for (form, expected) in forms {
            let mut driver = Driver::reception();
            assert_eq!(driver.codes(format!("MAIL FROM:<{sender}>\r\n")), ["250"]);
            let codes = driver.codes(format!("RCPT TO:{form}\r\n"));
            assert_eq!(driver.offered.first().map(String::as_str), expected, "{form}");
            let accepted = codes == ["250"];
            assert!(
                accepted || matches!(codes[0].as_str(), "501" | "550" | "553" | "555"),
                "{form}: {codes:?}"
            );
            let known = ["postmaster@example.com", "alice@example.com"];
            assert_eq!(accepted, expected.is_some_and(|e| known.contains(&e)), "{form}");
        }
    }
    let mut driver = Driver::reception();
    driver.codes("MAIL FROM:<>\r\n");
    assert_eq!(driver.codes("RCPT TO:<alice\0@example.com>\r\n"), ["500"]);
    assert!(driver.closed && driver.offered.is_empty());
}

#[test]
fn an_international_address_is_taken_in_a_transaction_that_declares_it() {
    let mut driver = Driver::reception();
    driver.codes("MAIL FROM:<j\u{f6}rg@example.org> SMTPUTF8 BODY=8BITMIME\r\n");
    driver.codes("RCPT TO:<alice@b\u{fc}cher.example>\r\n");
    assert_eq!(driver.offered, ["alice@xn--bcher-kva.example"]);
}

/// T10: total deadlines, which no trickle of bytes puts off.
#[test]
fn slow_clients_are_hung_up_on() {
    let second = Duration::from_secs(1);
    let mut session = Session::new(Arc::new(config(Role::Reception)), false, NOW);
    let drain = |session: &mut Session, now: Duration| {
        let mut sent = Vec::new();
        let mut closed = false;
        while let Some(action) = session.poll(now) {
            match action {
                Action::Send(bytes) => sent.extend(bytes),
                Action::Sender { .. } => session.sender(Ok(())),
                Action::Recipient(_) => session.recipient(Ok(())),
                Action::Begin(_) => session.begun(Ok(())),
                Action::Close => closed = true,
                _ => {}
            }
        }
        (String::from_utf8(sent).expect("replies are UTF-8"), closed)
    };
    drain(&mut session, NOW);
    assert_eq!(session.deadline(), NOW + LINE_TIMEOUT);
    session.receive(b"EHLO a\r\n", NOW + 50 * second);
    drain(&mut session, NOW + 50 * second);
    let greeted = NOW + 50 * second;
    assert_eq!(session.deadline(), greeted + 300 * second);
    session.receive(b"M", greeted + 10 * second);
    drain(&mut session, greeted + 10 * second);
    session.receive(b"A", greeted + 40 * second);
    drain(&mut session, greeted + 40 * second);
    assert_eq!(session.deadline(), greeted + 70 * second, "the line began at its first byte");
    session.receive(b"IL FROM:<>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n", greeted + 60 * second);
    drain(&mut session, greeted + 60 * second);
    let data = greeted + 60 * second;
    assert_eq!(session.deadline(), data + DATA_GRACE);
    session.receive(&[b'x'; 5_000], data + 30 * second);
    drain(&mut session, data + 30 * second);
    assert_eq!(session.deadline(), data + DATA_GRACE + 10 * second, "500 octets a second");
    for _ in 0..100 {
        session.receive(&b"x\r\n".repeat(10_000), data + 60 * second);
        drain(&mut session, data + 60 * second);
    }
    assert_eq!(session.deadline(), data + 600 * second);
    session.handle_timeout(data + 599 * second);
    assert_eq!(drain(&mut session, data + 599 * second), (String::new(), false));
    session.handle_timeout(data + 600 * second);
    let (said, closed) = drain(&mut session, data + 600 * second);
    assert!(said.starts_with("421 4.4.2 ") && closed, "{said}");
}

#[test]
fn time_spent_on_answers_is_not_the_clients() {
    let mut session = Session::new(Arc::new(config(Role::Reception)), false, NOW);
    session.receive(b"EHLO a\r\nMAIL FROM:<>\r\nRC", NOW);
    while !matches!(session.poll(NOW), Some(Action::Sender { .. })) {}
    assert_eq!(session.deadline(), Duration::MAX);
    let later = NOW + Duration::from_secs(1_000);
    session.handle_timeout(later);
    session.sender(Ok(()));
    assert!(matches!(session.poll(later), Some(Action::Send(_))));
    assert_eq!(session.deadline(), later + LINE_TIMEOUT);
}

#[test]
fn stopping_takes_the_message_that_has_begun_and_no_other() {
    let mut driver = Driver::reception();
    driver.codes(ENVELOPE);
    driver.session.stop();
    assert_eq!(driver.codes("a\r\n.\r\n"), ["250", "421"]);
    assert!(driver.closed && driver.stored.len() == 1);
}

#[test]
fn a_broken_connection_discards_the_body() {
    let mut driver = Driver::reception();
    driver.codes(ENVELOPE);
    driver.say("half a mess");
    driver.session.disconnected();
    assert_eq!(driver.run(), "");
    assert!(driver.closed && driver.body.is_none() && driver.stored.is_empty());
}

#[test]
fn a_driver_can_end_the_session_with_421() {
    let mut session = Session::new(Arc::new(config(Role::Reception)), false, NOW);
    session.receive(b"HELO a\r\nMAIL FROM:<>\r\nNOOP\r\n", NOW);
    while !matches!(session.poll(NOW), Some(Action::Sender { .. })) {}
    session.sender(Err(Reply::new(421, Enhanced(4, 3, 2), "too busy")));
    assert!(
        matches!(session.poll(NOW), Some(Action::Send(bytes)) if bytes.ends_with(b"421 4.3.2 too busy\r\n"))
    );
    assert!(matches!(session.poll(NOW), Some(Action::Close)));
    assert!(session.poll(NOW).is_none() && !session.wants_input());
}

/// Noise of any kind neither stops the session's progress nor gets a message stored.
#[test]
fn binary_noise() {
    let mut random = Random::new(11);
    for _ in 0..500 {
        let mut driver = Driver::reception();
        for _ in 0..50 {
            let noise: Vec<u8> =
                (0..random.below(200)).map(|_| u8::try_from(random.below(256)).expect("a byte")).collect();
            driver.say(noise);
            if driver.closed {
                break;
            }
        }
        assert!(driver.stored.is_empty());
    }
}

/// RFC 4954 with RFC 7677.
#[test]
fn a_scram_login_is_challenged_and_proves_the_server() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for (password, end, good) in
        [("secret", "\r\n", true), ("guess", "\r\n", false), ("secret", "x\r\n", false)]
    {
        let mut driver = Driver::greeted(config(Role::Submission), true);
        let client = Client { header: "n,,", data: &[], password };
        let challenge = driver.say(format!("AUTH SCRAM-SHA-256 {}\r\n", client.first()));
        let challenge = challenge.strip_prefix("334 ").expect("a challenge").trim_end().to_owned();
        let (last, server) = client.last(&challenge);
        let said = driver.say(format!("{}\r\n", encode(&last)));
        if password == "secret" {
            assert_eq!(said, format!("334 {server}\r\n"));
            let said = driver.say(end);
            assert!(said.starts_with(if good { "235 2.7.0 " } else { "501 5.7.0 " }), "{said}");
        } else {
            assert!(said.starts_with("535 5.7.8 "), "{said}");
        }
        assert_eq!(driver.closed, end != "\r\n");
        if !driver.closed {
            let mail = driver.codes("MAIL FROM:<alice@example.com>\r\n");
            assert_eq!(mail, [if good { "250" } else { "530" }]);
        }
    }
}
