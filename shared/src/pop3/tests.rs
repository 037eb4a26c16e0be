//! Dialogues with a session, and the attacks on it.

use std::time::Duration;

use super::*;
use crate::id::MessageId;
use crate::sasl::test_client::{Client, keys_of, knows};
use crate::sasl::{Credentials, ScramKeys, Secret};

const NOW: Duration = Duration::from_secs(1_000);
/// The messages of the examples in RFC 1939: 120 and 200 octets.
const SIZES: [usize; 2] = [120, 200];

/// Where in the maildrop a message is.
fn place(entry: &Entry) -> usize {
    usize::try_from(entry.message.unix_millis()).expect("a small number")
}

/// A driver whose only user is alice, with the password `secret`.
struct Driver {
    session: Session,
    messages: Vec<Vec<u8>>,
    /// Content is given in pieces of this size.
    piece: usize,
    /// How each message ends.
    end: End,
    expire: Expire,
    commit: bool,
    /// Places of what was deleted, and of what was retrieved.
    committed: Option<(Vec<usize>, Vec<usize>)>,
    logins: Vec<Credentials>,
    login: Result<(), LoginRefusal>,
    user: &'static str,
    keys: ScramKeys,
    handshakes: usize,
    closed: bool,
}

impl Driver {
    fn with(config: Config, tls: bool) -> Self {
        let message = |size: usize| [b"A: b\r\n\r\n", &b"x".repeat(size - 10)[..], b"\r\n"].concat();
        let mut driver = Self {
            session: Session::new(config, tls, NOW),
            messages: SIZES.map(message).to_vec(),
            piece: 7,
            end: End::Whole,
            expire: Expire::Never,
            commit: true,
            committed: None,
            logins: Vec::new(),
            login: Ok(()),
            user: "alice",
            keys: keys_of("secret"),
            handshakes: 0,
            closed: false,
        };
        assert_eq!(driver.run(), "+OK Sallypost ready\r\n");
        driver
    }

    fn logged_in(messages: &[&str]) -> Self {
        let mut driver = Self::with(Config::default(), true);
        if !messages.is_empty() {
            driver.messages = messages.iter().map(|message| message.as_bytes().to_vec()).collect();
        }
        assert!(driver.say("USER alice\r\nPASS secret\r\n").contains("messages ("));
        driver
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) -> String {
        assert!(self.closed || self.session.wants_input(), "the driver reads only when it may");
        self.session.receive(bytes.as_ref(), NOW);
        self.run()
    }

    /// `+` or `-` for each reply of one line.
    fn signs(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.say(bytes).lines().map(|line| &line[..1]).collect()
    }

    fn run(&mut self) -> String {
        let mut sent = Vec::new();
        while let Some(action) = self.session.poll(NOW) {
            assert!(!self.closed, "nothing follows Close, but {action:?}");
            match action {
                Action::Send(bytes) => {
                    assert!(bytes.len() <= REPLIES_BYTES_MAX + 4_096, "{} octets at once", bytes.len());
                    sent.extend(bytes);
                }
                Action::StartTls => {
                    self.handshakes += 1;
                    self.session.tls_established();
                }
                Action::Keys(_) => self.session.keys(Some(&self.keys)),
                Action::Authenticate(credentials) => {
                    let good = credentials.user == self.user && knows(&self.keys, &credentials.secret);
                    self.logins.push(credentials);
                    let entry = |(index, message): (u64, &Vec<u8>)| Entry {
                        size: message.len() as u64,
                        message: MessageId::from_parts(index, [0; 10]),
                        revision: 2,
                    };
                    let entries = (0..).zip(&self.messages).map(entry).collect();
                    let verdict = if good { self.login } else { Err(LoginRefusal::Credentials) };
                    self.session.authenticated(verdict.map(|()| Opened { entries, expire: self.expire }));
                }
                Action::Fetch { entry, .. } => {
                    for piece in self.messages[place(&entry)].chunks(self.piece) {
                        if self.end != End::Whole || !self.session.content(piece) {
                            break;
                        }
                        while let Some(Action::Send(bytes)) = self.session.poll(NOW) {
                            sent.extend(bytes);
                        }
                    }
                    self.session.content_end(self.end);
                }
                Action::Commit { deleted, retrieved } => {
                    let places = |entries: Vec<Entry>| entries.iter().map(place).collect();
                    self.committed = Some((places(deleted), places(retrieved)));
                    self.session.committed(self.commit);
                }
                Action::Close => self.closed = true,
            }
        }
        assert!(self.closed || self.session.wants_input());
        String::from_utf8(sent).expect("replies are UTF-8")
    }
}

/// RFC 5034 with RFC 7677.
#[test]
fn a_scram_login_is_challenged_proves_the_server_and_opens_the_maildrop() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let alice = |mut driver: Driver, mechanism: &str, client: Client<'_>, end: &str| {
        let challenge = driver.say(format!("AUTH {mechanism} {}\r\n", client.first()));
        let challenge = challenge.strip_prefix("+ ").expect("a challenge").trim_end().to_owned();
        let (last, server) = client.last(&challenge);
        let said = driver.say(format!("{}\r\n", encode(&last)));
        let proved = said == format!("+ {server}\r\n");
        (if proved { driver.say(end) } else { said }, proved, driver)
    };
    let new = |exporter| {
        let mut driver = Driver::with(Config::default(), true);
        driver.user = "user";
        driver.session.bound_to(exporter);
        driver
    };
    let client = |header, data, password| Client { header, data, password };
    let good = "+OK 2 messages (320 octets)\r\n";
    let (said, proved, mut driver) =
        alice(new(None), "SCRAM-SHA-256", client("n,,", &[], "secret"), "\r\nSTAT\r\n");
    assert_eq!((said.as_str(), proved), (&*format!("{good}+OK 2 320\r\n"), true));
    assert_eq!(driver.say("QUIT\r\n"), "+OK bye\r\n");
    let plus = client("p=tls-exporter,,", &[5; 32], "secret");
    let (said, proved, _) = alice(new(Some([5; 32])), "scram-sha-256-plus", plus, "\r\n");
    assert_eq!((said.as_str(), proved), (good, true));
    let (said, proved, mut driver) = alice(new(None), "SCRAM-SHA-256", client("n,,", &[], "guess"), "\r\n");
    assert_eq!((said.as_str(), proved), ("-ERR [AUTH] bad user name or password\r\n", false));
    assert!(driver.say("USER user\r\nPASS secret\r\n").ends_with(good), "the session goes on");
    // Who does not say that it knows us by our proof has not logged in.
    let (said, _, driver) = alice(new(None), "SCRAM-SHA-256", client("n,,", &[], "secret"), "*\r\nSTAT\r\n");
    assert_eq!(said, "-ERR [AUTH] the exchange was not ended\r\n");
    assert!(driver.closed && driver.committed.is_none());
    let mut driver = new(Some([5; 32]));
    assert!(driver.say("CAPA\r\n").contains("SASL PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS\r\n"));
    assert_eq!(driver.say("AUTH\r\n").lines().count(), 5);
}

/// The dialogue of RFC 1939 §10, without APOP.
#[test]
fn the_example_of_rfc_1939() {
    let mut driver = Driver::logged_in(&[]);
    assert_eq!(driver.say("STAT\r\n"), "+OK 2 320\r\n");
    assert_eq!(driver.say("LIST\r\n"), "+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n");
    let expected = format!("+OK message follows\r\nA: b\r\n\r\n{}\r\n.\r\n", "x".repeat(110));
    assert_eq!(driver.say("RETR 1\r\n"), expected);
    assert_eq!(driver.say("DELE 1\r\n"), "+OK deleted at QUIT\r\n");
    assert!(driver.say("RETR 2\r\n").ends_with("\r\n.\r\n"));
    assert_eq!(driver.say("DELE 2\r\n"), "+OK deleted at QUIT\r\n");
    assert!(driver.committed.is_none());
    assert_eq!(driver.say("QUIT\r\n"), "+OK bye\r\n");
    assert_eq!(driver.committed, Some((vec![0, 1], vec![0, 1])));
    assert!(driver.closed);
}

/// The shorter examples of RFC 1939 §5 and §7.
#[test]
fn every_command_of_rfc_1939() {
    let mut driver = Driver::logged_in(&[]);
    let dialogue = [
        ("LIST 2", "+OK 2 200\r\n"),
        ("LIST 3", "-ERR no such message\r\n"),
        ("LIST 0", "-ERR no such message\r\n"),
        (
            "UIDL",
            "+OK 2 messages (320 octets)\r\n1 00000000000000000000000000.2.0\r\n2 00000000010000000000000000.2.0\r\n.\r\n",
        ),
        ("UIDL 2", "+OK 2 00000000010000000000000000.2.0\r\n"),
        ("NOOP", "+OK still here\r\n"),
        ("DELE 1", "+OK deleted at QUIT\r\n"),
        ("DELE 1", "-ERR the message is deleted\r\n"),
        ("RETR 1", "-ERR the message is deleted\r\n"),
        ("TOP 1 0", "-ERR the message is deleted\r\n"),
        ("UIDL 1", "-ERR the message is deleted\r\n"),
        ("STAT", "+OK 1 200\r\n"),
        ("LIST", "+OK 1 messages (200 octets)\r\n2 200\r\n.\r\n"),
        ("UIDL", "+OK 1 messages (200 octets)\r\n2 00000000010000000000000000.2.0\r\n.\r\n"),
        ("RSET", "+OK nothing is deleted\r\n"),
        ("STAT", "+OK 2 320\r\n"),
        ("TOP 1 0", "+OK message follows\r\nA: b\r\n\r\n.\r\n"),
        ("TOP 9223372036854775808 1", "-ERR no such message\r\n"),
        ("RETR 18446744073709551615", "-ERR no such message\r\n"),
        ("RETR -1", "-ERR a number is wanted\r\n"),
        ("USER alice", "-ERR you are logged in\r\n"),
        ("STLS", "-ERR you are logged in\r\n"),
        ("XYZZY", "-ERR command not recognized\r\n"),
    ];
    for (command, reply) in dialogue {
        assert_eq!(driver.say(format!("{command}\r\n")), reply, "{command}");
    }
    driver.say("QUIT\r\n");
    assert_eq!(driver.committed, Some((vec![], vec![])), "TOP retrieves nothing");
}

#[test]
fn an_empty_maildrop() {
    let mut driver = Driver::with(Config::default(), true);
    driver.messages.clear();
    assert_eq!(
        driver.say("USER alice\r\nPASS secret\r\n"),
        "+OK now the password\r\n+OK 0 messages (0 octets)\r\n"
    );
    assert_eq!(driver.say("STAT\r\n"), "+OK 0 0\r\n");
    assert_eq!(driver.say("LIST\r\n"), "+OK 0 messages (0 octets)\r\n.\r\n");
    assert_eq!(driver.say("RETR 1\r\n"), "-ERR no such message\r\n");
}

/// T43.
#[test]
fn messages_are_dot_stuffed_and_ended_whatever_the_pieces() {
    let message = "A: .\r\n\r\n.\r\n..\r\nb.\r\n.last";
    for piece in 1..message.len() {
        let mut driver = Driver::logged_in(&[message]);
        driver.piece = piece;
        let full = "+OK message follows\r\nA: .\r\n\r\n..\r\n...\r\nb.\r\n..last\r\n.\r\n";
        assert_eq!(driver.say("RETR 1\r\n"), full, "pieces of {piece}");
        let top = "+OK message follows\r\nA: .\r\n\r\n..\r\n...\r\n.\r\n";
        assert_eq!(driver.say("TOP 1 2\r\n"), top, "pieces of {piece}");
        assert_eq!(driver.say("TOP 1 18446744073709551615\r\n"), full, "pieces of {piece}");
    }
}

#[test]
fn a_message_that_cannot_be_read() {
    let mut driver = Driver::logged_in(&[]);
    for (end, code) in [(End::Later, "[SYS/TEMP]"), (End::Lost, "[SYS/PERM]")] {
        driver.end = end;
        assert!(driver.say("RETR 1\r\n").starts_with(&format!("-ERR {code} ")));
    }
    assert_eq!(driver.signs("NOOP\r\n"), "+");
    // Broken after it has begun: there is no honest end.
    driver.session.receive(b"RETR 1\r\n", NOW);
    assert!(matches!(driver.session.poll(NOW), Some(Action::Fetch { lines: None, .. })));
    assert!(driver.session.content(b"A: b\r\n"));
    driver.session.content_end(End::Lost);
    assert_eq!(driver.run(), "+OK message follows\r\nA: b\r\n");
    assert!(driver.closed && driver.committed.is_none());
    // Lines that a client could read otherwise than we do.
    let mut driver = Driver::logged_in(&["A: b\r\n\r\n\n.\n-ERR forged\r\n"]);
    assert!(!driver.say("RETR 1\r\n").contains("forged"));
    assert!(driver.closed);
}

#[test]
fn with_a_message_comes_what_is_likely_to_be_asked_for_next() {
    let mut driver = Driver::logged_in(&["A: b\r\n", "A: c\r\n"]);
    for (command, message, behind) in [("RETR 1\r\n", 0, Some(1)), ("TOP 2 0\r\n", 1, None)] {
        driver.session.receive(command.as_bytes(), NOW);
        let fetch = driver.session.poll(NOW);
        let Some(Action::Fetch { entry, next, .. }) = fetch else { panic!("{command} gives {fetch:?}") };
        assert_eq!((place(&entry), next.as_ref().map(place)), (message, behind));
        driver.session.content_end(End::Lost);
        driver.run();
    }
}

/// T42: without QUIT nothing is deleted; with it, +OK comes with the commit.
#[test]
fn deletion_is_at_quit_only() {
    let mut driver = Driver::logged_in(&[]);
    assert_eq!(driver.signs("DELE 1\r\nDELE 2\r\n"), "++");
    driver.session.disconnected();
    assert_eq!(driver.run(), "");
    assert!(driver.closed && driver.committed.is_none());

    let mut driver = Driver::logged_in(&[]);
    driver.say("DELE 1\r\n");
    driver.session.handle_timeout(NOW + IDLE_TIMEOUT);
    assert_eq!(driver.run(), "");
    assert!(driver.closed && driver.committed.is_none());

    let mut driver = Driver::logged_in(&[]);
    driver.commit = false;
    assert!(
        driver
            .say("DELE 1\r\nQUIT\r\n")
            .ends_with("-ERR [SYS/TEMP] some deleted messages were not removed\r\n")
    );
    assert!(driver.closed);

    let mut session = Driver::logged_in(&[]).session;
    session.receive(b"QUIT\r\nNOOP\r\n", NOW);
    assert!(matches!(session.poll(NOW), Some(Action::Commit { .. })));
    assert_eq!(session.poll(NOW), None, "no +OK before the commit");
    session.committed(true);
    assert_eq!(session.poll(NOW), Some(Action::Send(b"+OK bye\r\n".to_vec())));
    assert_eq!(session.poll(NOW), Some(Action::Close));
    assert_eq!(session.poll(NOW), None);
}

/// T16.
#[test]
fn there_is_no_login_in_the_clear() {
    let mut driver = Driver::with(Config::default(), false);
    let capabilities = driver.say("CAPA\r\n");
    assert!(capabilities.contains("STLS\r\n"), "{capabilities}");
    assert!(!capabilities.contains("\r\nUSER\r\n") && !capabilities.contains("SASL"), "{capabilities}");
    assert_eq!(driver.say("AUTH\r\n"), "+OK the mechanisms are\r\n.\r\n");
    for login in
        ["USER alice\r\n", "PASS secret\r\n", "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "AUTH PLAIN\r\n"]
    {
        assert!(driver.say(login).starts_with("-ERR [AUTH] logging in needs TLS"), "{login}");
    }
    assert_eq!(driver.signs("STAT\r\nRETR 1\r\nDELE 1\r\n"), "---");
    assert!(driver.logins.is_empty());
    assert_eq!(driver.signs("STLS\r\n"), "+");
    assert_eq!(driver.handshakes, 1);
    assert_eq!(driver.signs("STLS\r\n"), "-");
    assert_eq!(
        driver.say("CAPA\r\n"),
        "+OK capabilities follow\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nUTF8 USER\r\n\
         LANG\r\nUSER\r\nSASL PLAIN SCRAM-SHA-256\r\nIMPLEMENTATION Sallypost\r\n.\r\n"
    );
    assert_eq!(driver.signs("USER alice\r\nPASS secret\r\n"), "++");

    let login_delay = Duration::from_secs(30);
    let mut driver = Driver::with(Config { plaintext_login: true, stls: false, login_delay }, false);
    let announced = "LANG\r\nLOGIN-DELAY 30\r\nUSER\r\nSASL PLAIN SCRAM-SHA-256\r\nIMPLEMENTATION";
    let capabilities = driver.say("CAPA\r\n");
    assert!(capabilities.contains(announced), "{capabilities}");
    assert_eq!(driver.signs("STLS\r\nUSER alice\r\nPASS secret\r\n"), "-++");
}

/// T14, T40.
#[test]
fn nothing_crosses_stls() {
    for injected in ["CAPA\r\n", "USER alice\r\nPASS x\r\n", "C"] {
        let mut driver = Driver::with(Config::default(), false);
        assert_eq!(driver.signs(format!("STLS\r\n{injected}")), "-");
        assert!(driver.closed && driver.handshakes == 0, "{injected:?}");
    }
    let mut driver = Driver::with(Config { plaintext_login: true, ..Config::default() }, false);
    assert_eq!(driver.signs("USER alice\r\n"), "+");
    assert_eq!(driver.signs("STLS\r\n"), "+");
    assert_eq!(driver.say("PASS secret\r\n"), "-ERR send USER first\r\n");
}

#[test]
fn every_way_to_log_in() {
    let plain = "AGFsaWNlAHNlY3JldA=="; // NUL alice NUL secret
    let good = "+OK 2 messages (320 octets)\r\n";
    let fresh = || Driver::with(Config::default(), true);
    assert_eq!(fresh().say(format!("AUTH PLAIN {plain}\r\n")), good);
    assert_eq!(fresh().say(format!("auth plain\r\n{plain}\r\n")), format!("+ \r\n{good}"));
    assert_eq!(fresh().say("AUTH PLAIN\r\n*\r\n"), "+ \r\n-ERR authentication cancelled\r\n");
    assert_eq!(fresh().say("AUTH\r\n"), "+OK the mechanisms are\r\nPLAIN\r\nSCRAM-SHA-256\r\n.\r\n");
    assert_eq!(fresh().signs("AUTH LOGIN\r\nAUTH CRAM-MD5\r\nAUTH PLAIN ====\r\nAUTH PLAIN =\r\n"), "----");
    assert_eq!(fresh().signs("PASS secret\r\nUSER alice\r\nNOOP\r\nPASS secret\r\n"), "-+--");
    assert_eq!(fresh().signs("APOP alice c4c9334bac560ecc979e58001b3e22fb\r\n"), "-");
    for (refusal, code) in [
        (LoginRefusal::InUse, "[IN-USE]"),
        (LoginRefusal::Temporary, "[SYS/TEMP]"),
        (LoginRefusal::TooSoon, "[LOGIN-DELAY]"),
        (LoginRefusal::Guessing, "[SYS/TEMP]"),
    ] {
        let mut driver = fresh();
        driver.login = Err(refusal);
        let reply = driver.say("USER alice\r\nPASS secret\r\n");
        assert!(reply.contains(&format!("-ERR {code} ")), "{reply}");
        driver.login = Ok(());
        assert_eq!(driver.signs("USER alice\r\nPASS secret\r\n"), "++");
    }
    let mut spaced = fresh();
    spaced.say("USER alice\r\nPASS  two words \r\n");
    assert!(spaced.logins[0].secret == Secret::Password(" two words ".to_owned().into()));
}

#[test]
fn five_bad_logins_end_the_session() {
    let mut driver = Driver::with(Config::default(), true);
    for _ in 0..4 {
        let reply = driver.say("USER alice\r\nPASS wrong\r\n");
        assert!(reply.ends_with("-ERR [AUTH] bad user name or password\r\n"), "{reply}");
    }
    let reply = driver.say("USER nobody\r\nPASS wrong\r\n");
    assert!(reply.ends_with("-ERR [AUTH] bad user name or password\r\n"), "the same for an unknown user");
    assert!(driver.closed && driver.logins.len() == 5);
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let mut driver = Driver::logged_in(&[]);
    let replies = driver.say("STAT\r\nLIST\r\nTOP 1 0\r\nDELE 1\r\nUIDL\r\nQUIT\r\n");
    assert_eq!(
        replies,
        "+OK 2 320\r\n+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n+OK message follows\r\nA: b\r\n\r\n.\r\n\
         +OK deleted at QUIT\r\n+OK 1 messages (200 octets)\r\n2 00000000010000000000000000.2.0\r\n.\r\n+OK bye\r\n"
    );
}

/// T41: a long list leaves in pieces; `run` checks their size.
#[test]
fn long_lists_are_written_piece_by_piece() {
    let mut driver = Driver::with(Config::default(), true);
    driver.messages = vec![b"\r\n".to_vec(); 100_000];
    driver.say("USER alice\r\nPASS secret\r\n");
    for command in ["LIST\r\n", "UIDL\r\n"] {
        let list = driver.say(command);
        assert_eq!(list.lines().count(), 100_002);
        assert!(list.ends_with(".\r\n"));
    }
}

#[test]
fn lines_keep_the_rules() {
    for bad in ["NOOP\n", "NO\rOP\r\n", "NO\0OP\r\n", &"x".repeat(255), &format!("{}\r\n", "x".repeat(254))] {
        let mut driver = Driver::logged_in(&[]);
        assert_eq!(driver.signs(bad), "-", "{bad:?}");
        assert!(driver.closed, "{bad:?}");
    }
    let mut driver = Driver::with(Config::default(), true);
    assert_eq!(driver.signs(format!("AUTH PLAIN {}\r\n", "A".repeat(12_000))), "-");
    assert!(!driver.closed);
    assert_eq!(driver.signs(format!("AUTH PLAIN\r\n{}", "A".repeat(13_000))), "+-");
    assert!(driver.closed);
    let mut driver = Driver::logged_in(&[]);
    assert_eq!(driver.signs("BOGUS\r\n".repeat(30)).len(), 21);
    assert!(driver.closed);
}

#[test]
fn clients_that_stop_talking_are_hung_up_on() {
    let second = Duration::from_secs(1);
    let mut driver = Driver::with(Config::default(), true);
    driver.say("NOOP\r\nUSER alice\r\n");
    assert_eq!(driver.session.deadline(), NOW + LOGIN_TIMEOUT, "commands do not put off the login");
    let mut driver = Driver::logged_in(&[]);
    assert_eq!(driver.session.deadline(), NOW + IDLE_TIMEOUT);
    driver.say("ST");
    assert_eq!(driver.session.deadline(), NOW + LINE_TIMEOUT);
    driver.session.handle_timeout(NOW + LINE_TIMEOUT - second);
    assert!(driver.session.wants_input());
    driver.session.handle_timeout(NOW + LINE_TIMEOUT);
    driver.run();
    assert!(driver.closed);
}

/// RFC 2449 §6.7: before the login nobody knows whose mail it is.
#[test]
fn how_long_mail_is_kept_is_said_after_the_login() {
    for (expire, line) in [(Expire::Never, "EXPIRE NEVER\r\n"), (Expire::Days(0), "EXPIRE 0\r\n")] {
        let mut driver = Driver::with(Config::default(), true);
        driver.expire = expire;
        assert!(!driver.say("CAPA\r\n").contains("EXPIRE"));
        driver.say("USER alice\r\nPASS secret\r\n");
        assert!(driver.say("CAPA\r\n").contains(line));
    }
}

/// RFC 6856.
#[test]
fn headers_are_ascii_for_those_who_have_not_said_utf8() {
    let message = "Subject: \u{fc}\r\n\r\n\u{fc}\r\n";
    let (raw, ascii) = (format!("{message}.\r\n"), "Subject: =?utf-8?Q?=C3=BC?=\r\n\r\n\u{fc}\r\n.\r\n");
    let fetched = |before: &str| {
        let mut driver = Driver::with(Config::default(), false);
        driver.messages = vec![message.as_bytes().to_vec()];
        assert!(!driver.say(before).contains("-ERR"));
        driver.say("STLS\r\n");
        driver
    };
    let replies = |mut driver: Driver, last: &str| {
        let said = driver.say(format!("{last}USER alice\r\nPASS secret\r\nUTF8\r\nRETR 1\r\nTOP 1 1\r\n"));
        said.split_once("-ERR UTF8 comes before the login\r\n").expect("too late for UTF8").1.to_owned()
    };
    let both = |text: &str| format!("+OK message follows\r\n{text}").repeat(2);
    assert_eq!(replies(fetched("CAPA\r\n"), ""), both(ascii));
    assert_eq!(replies(fetched("UTF8\r\n"), ""), both(ascii), "nothing crosses STLS");
    assert_eq!(replies(fetched("CAPA\r\n"), "UTF8\r\n"), both(&raw));
}

#[test]
fn our_texts_are_in_english() {
    let mut driver = Driver::with(Config::default(), true);
    let list = "+OK languages follow\r\nen English\r\ni-default English\r\n.\r\n";
    assert_eq!(driver.say("LANG\r\n"), list);
    for (range, tag) in [("en", "en"), ("EN-gb", "en"), ("*", "en"), ("i-default", "i-default")] {
        assert_eq!(driver.say(format!("LANG {range}\r\n")), format!("+OK {tag} is what follows\r\n"));
    }
    assert_eq!(driver.signs("LANG de\r\nLANG eng\r\nLANG e\r\n"), "---");
    driver.say("USER alice\r\nPASS secret\r\n");
    assert_eq!(driver.say("LANG\r\n"), list);
    assert_eq!(driver.signs("LANG en\r\nLANG x-none\r\n"), "+-");
}
