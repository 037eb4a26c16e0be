//! Dialogues with hosts, sound and hostile.

use std::time::Duration;

use crate::address::Address;
use crate::notify::{Notify, Return};
use crate::sasl::Credentials;
use crate::smtp::Enhanced;

use super::*;

mod chunks;

const NOW: Duration = Duration::from_secs(1_000);
const OFFER: &str =
    "250-host.example hello\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";

/// A driver of a client, and the content it has to give.
struct Driver {
    client: Client,
    content: Vec<Vec<u8>>,
    done: Vec<Vec<Outcome>>,
    unusable: Option<Status>,
    handshakes: usize,
    closed: bool,
}

impl Driver {
    fn with(tls: TlsPolicy) -> Self {
        Self::speaking(Protocol::Smtp, tls)
    }

    fn speaking(protocol: Protocol, tls: TlsPolicy) -> Self {
        Self::of(Config { helo: "mx.example.com".into(), tls, protocol, login: None })
    }

    fn of(config: Config) -> Self {
        Self {
            client: Client::new(config, NOW),
            content: vec![b"Subject: x\r\n\r\n.".to_vec(), b"dot\r\n".to_vec()],
            done: Vec::new(),
            unusable: None,
            handshakes: 0,
            closed: false,
        }
    }

    /// Past the greeting and EHLO, with a message to deliver; and what it said then.
    fn delivering(offer: &str, message: Message) -> (Self, String) {
        let mut driver = Self::with(TlsPolicy::Opportunistic);
        driver.client.deliver(message, NOW);
        assert_eq!(driver.hear("220 host.example\r\n"), "EHLO mx.example.com\r\n");
        let said = driver.hear(offer);
        (driver, said)
    }

    /// What the client sends when the host says this.
    fn hear(&mut self, reply: impl AsRef<[u8]>) -> String {
        self.client.receive(reply.as_ref(), NOW);
        self.run()
    }

    fn run(&mut self) -> String {
        let mut sent = Vec::new();
        while let Some(action) = self.client.poll() {
            assert!(!self.closed, "nothing follows Close, but {action:?}");
            match action {
                Action::Send(bytes) => {
                    sent.extend(bytes);
                    self.client.sent(NOW);
                }
                Action::StartTls => {
                    self.handshakes += 1;
                    self.client.tls_established(NOW);
                }
                Action::WantContent if self.content.is_empty() => self.client.content_end(NOW),
                Action::WantContent => self.client.content(&self.content.remove(0)),
                Action::WantEnd => self.client.end(NOW),
                Action::Done(outcomes) => self.done.push(outcomes),
                Action::Unusable(status) => self.unusable = Some(status),
                Action::Close => self.closed = true,
            }
        }
        String::from_utf8(sent).expect("what is sent is UTF-8 here")
    }

    /// Class and code of each outcome of the only message.
    fn outcomes(&self) -> Vec<(Class, Option<u16>)> {
        assert_eq!(self.done.len(), 1, "a message is dealt with once");
        let outcome = |(index, outcome): (usize, &Outcome)| {
            assert_eq!(outcome.recipient, index);
            (outcome.status.class, outcome.status.code)
        };
        self.done[0].iter().enumerate().map(outcome).collect()
    }

    fn status(&self) -> &Status {
        &self.done[0][0].status
    }
}

fn message(recipients: &[&str]) -> Message {
    Message {
        reverse_path: Some("alice@example.com".parse().expect("an address")),
        recipients: recipients.iter().map(|r| r.parse::<Address>().expect("an address").into()).collect(),
        returns: None,
        envelope_id: None,
        size: 21,
        eight_bit: false,
        utf8_header: false,
        require_tls: false,
        before: Vec::new(),
    }
}

/// To two, of whom one asks for something.
fn asking() -> Message {
    let mut message = message(&["bob@host.example", "carol@host.example"]);
    message.returns = Some(Return::Headers);
    message.envelope_id = Some("a+b c".into());
    message.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
    message.recipients[0].original = Some("rfc822;b=ob@example.com".into());
    message
}

fn bob() -> Message {
    message(&["bob@host.example"])
}

use Class::{Delivered, Permanent, Temporary};

#[test]
fn a_message_is_delivered_and_another_and_quit() {
    let (mut driver, said) = Driver::delivering(OFFER, bob());
    assert_eq!(said, "MAIL FROM:<alice@example.com> SIZE=21\r\nRCPT TO:<bob@host.example>\r\nDATA\r\n");
    assert_eq!(driver.hear("250 2.1.0 ok\r\n"), "");
    assert_eq!(driver.hear("250 2.1.5 ok\r\n"), "");
    assert_eq!(driver.hear("354 go\r\n"), "Subject: x\r\n\r\n..dot\r\n.\r\n");
    assert_eq!(driver.hear("250 2.6.0 queued as 17\r\n"), "");
    let status = Status {
        class: Delivered,
        code: Some(250),
        enhanced: Enhanced(2, 6, 0),
        text: "250 2.6.0 queued as 17".into(),
        in_doubt: false,
    };
    assert_eq!(driver.done, [[Outcome { recipient: 0, status, host_reports: false }]]);

    driver.content = vec![];
    driver.client.deliver(Message { reverse_path: None, ..bob() }, NOW);
    let flight = "MAIL FROM:<> SIZE=21\r\nRCPT TO:<bob@host.example>\r\nDATA\r\n";
    assert_eq!(driver.run(), flight, "no RSET is needed");
    assert_eq!(driver.hear("250 ok\r\n250 ok\r\n"), "");
    assert_eq!(driver.hear("354 go\r\n"), ".\r\n");
    driver.hear("250 ok\r\n");
    assert_eq!(driver.done.len(), 2);
    driver.client.quit(NOW);
    assert_eq!(driver.run(), "QUIT\r\n");
    assert_eq!(driver.hear("221 bye\r\n"), "");
    assert!(driver.closed && driver.unusable.is_none());
}

#[test]
fn without_pipelining_each_reply_is_awaited() {
    let (mut driver, said) =
        Driver::delivering("250 host.example\r\n", message(&["b@h.example", "c@h.example"]));
    assert_eq!(said, "MAIL FROM:<alice@example.com>\r\n");
    assert_eq!(driver.hear("250 ok\r\n"), "RCPT TO:<b@h.example>\r\n");
    assert_eq!(driver.hear("250 ok\r\n"), "RCPT TO:<c@h.example>\r\n");
    assert_eq!(driver.hear("450 later\r\n"), "DATA\r\n");
    driver.hear("354 go\r\n");
    driver.hear("250 ok\r\n");
    assert_eq!(driver.outcomes(), [(Delivered, Some(250)), (Temporary, Some(450))]);
}

#[test]
fn many_recipients_are_named_in_groups() {
    let names: Vec<String> = (0..250).map(|n| format!("u{n}@h.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut driver, mut said) = Driver::delivering(OFFER, message(&names));
    let mut groups = Vec::new();
    while !said.is_empty() {
        let commands = said.lines().count();
        groups.push(commands);
        assert_eq!(said.ends_with("\r\nDATA\r\n"), commands < PIPELINE_MAX);
        said = driver.hear("250 ok\r\n".repeat(commands.min(PIPELINE_MAX)));
        if commands < PIPELINE_MAX {
            break;
        }
    }
    assert_eq!(groups, [PIPELINE_MAX, PIPELINE_MAX, 52]);
}

#[test]
fn each_recipient_has_its_own_outcome() {
    let recipients = ["a@h.example", "b@h.example", "c@h.example", "d@h.example", "e@h.example"];
    let (mut driver, _) = Driver::delivering(OFFER, message(&recipients));
    let replies =
        "250 ok\r\n250 ok\r\n550 5.1.1 no\r\n451 4.2.1 full\r\n552 5.5.3 too many\r\n251 will forward\r\n";
    assert_eq!(driver.hear(replies), "");
    assert!(driver.hear("354 go\r\n").ends_with("\r\n.\r\n"));
    driver.hear("250 ok\r\n");
    let ok = (Delivered, Some(250));
    assert_eq!(
        driver.outcomes(),
        [ok, (Permanent, Some(550)), (Temporary, Some(451)), (Temporary, Some(552)), ok]
    );
    assert_eq!(driver.done[0][3].status.enhanced, Enhanced(4, 5, 3));
}

/// RFC 2920 §3.1: what comes of one flight of MAIL, RCPT and DATA.
#[test]
fn replies_to_one_flight_are_matched_in_their_order() {
    let (one, two) = ((Permanent, Some(550)), (Temporary, Some(451)));
    // Both are refused, and the host wants content all the same: it gets none of the message.
    for dot in ["250 ok\r\n", "554 no valid recipients\r\n"] {
        for replies in
            ["250 ok\r\n550 no\r\n451 later\r\n354 go\r\n", "550 no\r\n503 x\r\n503 x\r\n354 go\r\n"]
        {
            let (mut driver, _) = Driver::delivering(OFFER, message(&["b@h.example", "c@h.example"]));
            assert_eq!(driver.hear(replies), ".\r\n");
            assert!(driver.done.is_empty(), "the answer to the dot is still to come");
            driver.hear(dot);
            let refused = if replies.starts_with("250") { [one, two] } else { [one, one] };
            assert_eq!((driver.outcomes().as_slice(), driver.closed), (&refused[..], false));
            driver.client.deliver(bob(), NOW);
            assert!(driver.run().starts_with("MAIL"), "the dot has ended that transaction");
        }
    }
    // The connection is lost behind the refusals: what was said of each counts, and nothing is in doubt.
    type Ends = fn(&mut Driver);
    let ends: [Ends; 3] = [
        |driver| driver.client.disconnected(),
        |driver| driver.client.handle_timeout(driver.client.deadline()),
        |driver| drop(driver.hear("421 bye\r\n")),
    ];
    for behind in ["", "354 go\r\n"] {
        for end in ends {
            let (mut driver, _) = Driver::delivering(OFFER, message(&["b@h.example", "c@h.example"]));
            driver.hear(format!("250 ok\r\n550 no\r\n451 later\r\n{behind}"));
            end(&mut driver);
            driver.run();
            assert_eq!(driver.outcomes(), [one, two]);
            assert!(driver.done[0].iter().all(|outcome| !outcome.status.in_doubt), "{behind:?}");
        }
    }
    // Lost within the flight: who was answered has that answer, and the other one waits.
    let (mut driver, _) = Driver::delivering(OFFER, message(&["b@h.example", "c@h.example"]));
    driver.hear("250 ok\r\n550 no\r\n");
    driver.client.disconnected();
    driver.run();
    assert_eq!(driver.outcomes(), [one, (Temporary, None)]);
    // All in one packet, and one who is refused.
    let (mut driver, _) = Driver::delivering(OFFER, message(&["b@h.example", "c@h.example"]));
    let sent = driver.hear("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    assert!(sent.ends_with("dot\r\n.\r\n"), "{sent}");
    driver.hear("250 kept\r\n");
    assert_eq!(driver.outcomes(), [one, (Delivered, Some(250))]);
    // DATA is refused: so is everybody whom RCPT took.
    let (mut driver, _) = Driver::delivering(OFFER, message(&["b@h.example", "c@h.example"]));
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n250 ok\r\n451 not now\r\n"), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![one, two], false));
    // One reply too many behind the 354 is none to the dot.
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n354 go\r\n250 kept\r\n"), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![one], true));
    // What was said of the recipients does not wait long for the answer to a dot for nobody.
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n354 go\r\n"), ".\r\n");
    let deadline = driver.client.deadline();
    assert!(deadline <= NOW + Duration::from_secs(10), "{deadline:?}");
    driver.client.handle_timeout(deadline);
    driver.run();
    assert_eq!((driver.outcomes(), driver.closed), (vec![one], true));
    // By LMTP there is no telling how many answers a dot for nobody has.
    let mut driver = Driver::speaking(Protocol::Lmtp, TlsPolicy::Never);
    driver.client.deliver(bob(), NOW);
    driver.hear("220 store.example\r\n");
    driver.hear(OFFER);
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n354 go\r\n"), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![one], true));
}

#[test]
fn refusals_at_every_step() {
    // MAIL; all of RCPT; DATA; the dot.
    let cases = [
        ("451 no\r\n503 what\r\n503 what\r\n", (Temporary, Some(451))),
        ("552 5.3.4 too big\r\n503 what\r\n503 what\r\n", (Permanent, Some(552))),
        ("250 ok\r\n550 no\r\n503 what\r\n", (Permanent, Some(550))),
        ("250 ok\r\n354 what\r\n503 what\r\n", (Temporary, Some(354))),
    ];
    for (replies, expected) in cases {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        assert_eq!(driver.hear(replies), "", "{replies:?}");
        assert_eq!(driver.outcomes(), [expected], "{replies:?}");
        driver.client.deliver(bob(), NOW);
        assert_eq!(driver.run(), "RSET\r\n", "the transaction that came to nothing is cleared");
        assert!(driver.hear("250 ok\r\n").starts_with("MAIL"));
    }
    for (reply, expected) in [("554 no\r\n", Permanent), ("452 no\r\n", Temporary)] {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.hear("250 ok\r\n250 ok\r\n");
        assert_eq!(driver.hear(reply), "", "no content without 354");
        assert_eq!(driver.outcomes()[0].0, expected);
        assert!(!driver.closed);
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.hear("250 ok\r\n250 ok\r\n");
        driver.hear("354 go\r\n");
        driver.hear(reply);
        assert_eq!(driver.outcomes()[0].0, expected);
        assert!(!driver.status().in_doubt && !driver.closed);
    }
}

#[test]
fn a_host_that_will_not_serve_is_unusable() {
    let cases = [
        (vec!["554 go away\r\n"], Permanent, Some(554)),
        (vec!["421 busy\r\n"], Temporary, Some(421)),
        (vec!["250 wrong\r\n"], Temporary, Some(250)),
        (vec!["220 hi\r\n", "451 later\r\n"], Temporary, Some(451)),
        (vec!["220 hi\r\n", "502 what\r\n", "550 no\r\n"], Permanent, Some(550)),
        (vec!["220 hi\r\n", "HTTP/1.1 400 Bad Request\r\n"], Temporary, None),
        (vec!["220-hi\r\n250 ho\r\n"], Temporary, None),
        (vec!["220 hi\r\n250 ho\r\n"], Temporary, None),
    ];
    for (script, class, code) in cases {
        let mut driver = Driver::with(TlsPolicy::Opportunistic);
        driver.client.deliver(bob(), NOW);
        for reply in &script {
            driver.hear(reply);
        }
        let status = driver.unusable.expect("the host is unusable");
        assert_eq!((status.class, status.code), (class, code), "{script:?}");
        assert!(driver.closed && driver.done.is_empty(), "{script:?}");
    }
}

#[test]
fn an_old_host_is_greeted_with_helo() {
    let mut driver = Driver::with(TlsPolicy::Opportunistic);
    driver.client.deliver(bob(), NOW);
    driver.hear("220 hi\r\n");
    assert_eq!(driver.hear("500 what\r\n"), "HELO mx.example.com\r\n");
    assert_eq!(driver.hear("250 hello\r\n"), "MAIL FROM:<alice@example.com>\r\n");
}

const WITH_TLS: &str = "250-host.example\r\n250-8BITMIME\r\n250 STARTTLS\r\n";

#[test]
fn tls_is_used_when_offered_and_the_host_asked_anew() {
    let (mut driver, said) = Driver::delivering(WITH_TLS, Message { eight_bit: true, ..bob() });
    assert_eq!(said, "STARTTLS\r\n");
    assert_eq!(driver.hear("220 go\r\n"), "EHLO mx.example.com\r\n");
    assert_eq!((driver.handshakes, driver.client.is_tls()), (1, true));
    // Nothing of the first reply is believed: 8BITMIME is not offered now.
    assert_eq!(driver.hear("250 host.example\r\n"), "");
    assert_eq!(driver.status().enhanced, Enhanced(5, 6, 3));

    let (mut driver, _) = Driver::delivering(WITH_TLS, bob());
    driver.hear("220 go\r\n");
    assert_eq!(driver.hear("500 what\r\n"), "", "no HELO after TLS");
    assert!(driver.unusable.is_some());
}

/// T15.
#[test]
fn replies_injected_before_tls_are_not_believed() {
    for injected in ["250-AUTH PLAIN\r\n250 ok\r\n", "2", "220 go\r\n"] {
        let (mut driver, _) = Driver::delivering(WITH_TLS, bob());
        assert_eq!(driver.hear(format!("220 ready\r\n{injected}")), "");
        assert_eq!(driver.unusable.expect("the host is unusable").class, Temporary, "{injected:?}");
        assert!(driver.closed && driver.handshakes == 0);
    }
}

#[test]
fn a_host_that_hangs_up_on_starttls_is_told_from_one_that_hangs_up() {
    type Ends = fn(&mut Driver);
    let ends: [Ends; 2] = [
        |driver| driver.client.disconnected(),
        |driver| driver.client.handle_timeout(driver.client.deadline()),
    ];
    for end in ends {
        for (offer, expected) in [(WITH_TLS, Enhanced(4, 7, 0)), ("", Enhanced(4, 4, 2))] {
            let mut driver = Driver::with(TlsPolicy::Opportunistic);
            driver.client.deliver(bob(), NOW);
            driver.hear("220 hi\r\n");
            driver.hear(offer);
            end(&mut driver);
            driver.run();
            let status = driver.unusable.expect("the host is unusable");
            assert_eq!((status.class, status.code, status.enhanced), (Temporary, None, expected));
            assert_eq!(status.text.ends_with("at STARTTLS"), !offer.is_empty(), "{}", status.text);
        }
    }
}

#[test]
fn tls_policies() {
    let said = |tls, offer: &str, reply: &str| {
        let mut driver = Driver::with(tls);
        driver.client.deliver(bob(), NOW);
        driver.hear("220 hi\r\n");
        let said = driver.hear(offer) + &driver.hear(reply);
        (said, driver.unusable.map(|status| (status.class, status.enhanced, status.lacks_tls(), status.text)))
    };
    let mail = "MAIL FROM:<alice@example.com>\r\n".to_owned();
    let lacking = |what: &str| {
        let text = format!("TLS is required and the host {what}");
        Some((Temporary, Enhanced(4, 7, 10), true, text))
    };
    let waits = |words: &str| {
        Some((Temporary, Enhanced(4, 7, 0), false, format!("the host has no TLS now: {words}")))
    };
    assert_eq!(said(TlsPolicy::Never, WITH_TLS, ""), (mail.clone(), None));
    assert_eq!(
        said(TlsPolicy::Opportunistic, WITH_TLS, "454 not now\r\n"),
        (format!("STARTTLS\r\n{mail}"), None)
    );
    assert_eq!(said(TlsPolicy::Opportunistic, "250 host\r\n", ""), (mail, None));
    // What it offers and does not have now it may have later; what it refuses, or does not offer, it never will.
    for (reply, expected) in [
        ("454 not now\r\n", waits("454 not now")),
        ("250 what?\r\n", waits("250 what?")),
        ("502 never\r\n", lacking("refuses it: 502 never")),
    ] {
        assert_eq!(said(TlsPolicy::Required, WITH_TLS, reply), ("STARTTLS\r\n".into(), expected));
    }
    assert_eq!(said(TlsPolicy::Required, "250 host\r\n", ""), (String::new(), lacking("does not offer it")));
}

#[test]
fn what_the_host_cannot_take_comes_back_unsent() {
    let wide = "j\u{f6}rg@host.example";
    let cases = [
        ("250 host\r\n", Message { eight_bit: true, ..bob() }, vec![Some(Enhanced(5, 6, 3))]),
        ("250-host\r\n250 SIZE 20\r\n", bob(), vec![Some(Enhanced(5, 3, 4))]),
        ("250 host\r\n", Message { utf8_header: true, ..bob() }, vec![Some(Enhanced(5, 6, 7))]),
        ("250 host\r\n", Message { reverse_path: wide.parse().ok(), ..bob() }, vec![Some(Enhanced(5, 6, 7))]),
        ("250 host\r\n", message(&[wide]), vec![Some(Enhanced(5, 6, 7))]),
    ];
    for (offer, message, expected) in cases {
        let (driver, said) = Driver::delivering(offer, message);
        assert_eq!(said, "");
        let enhanced: Vec<_> = driver.done[0].iter().map(|outcome| Some(outcome.status.enhanced)).collect();
        assert_eq!(enhanced, expected);
        assert_eq!((driver.status().class, driver.status().code, driver.closed), (Permanent, None, false));
    }
    // The others get it all the same.
    let (mut driver, said) = Driver::delivering("250 host\r\n", message(&[wide, "bob@host.example"]));
    assert_eq!(said, "MAIL FROM:<alice@example.com>\r\n");
    assert_eq!(driver.hear("250 ok\r\n"), "RCPT TO:<bob@host.example>\r\n");
    driver.hear("250 ok\r\n");
    driver.hear("354 go\r\n");
    driver.hear("250 ok\r\n");
    assert_eq!(driver.outcomes(), [(Permanent, None), (Delivered, Some(250))]);
    // What is at its limit, or needs what is offered, goes.
    let (_, said) = Driver::delivering("250-host\r\n250 SIZE 21\r\n", bob());
    assert_eq!(said, "MAIL FROM:<alice@example.com> SIZE=21\r\n");
    let (_, said) = Driver::delivering(OFFER, Message { eight_bit: true, ..message(&[wide]) });
    let mail = "MAIL FROM:<alice@example.com> SIZE=21 BODY=8BITMIME SMTPUTF8\r\n";
    assert_eq!(said, format!("{mail}RCPT TO:<j\u{f6}rg@host.example>\r\nDATA\r\n"));
}

/// T33, F11: only a lost reply to the dot leaves a doubt.
#[test]
fn a_connection_lost_at_each_step() {
    let script = ["220 hi\r\n", OFFER, "250 ok\r\n250 ok\r\n", "354 go\r\n"];
    for steps in 0..=script.len() {
        for timeout in [false, true] {
            let mut driver = Driver::with(TlsPolicy::Opportunistic);
            driver.client.deliver(bob(), NOW);
            for reply in &script[..steps] {
                driver.hear(reply);
            }
            if timeout {
                let deadline = driver.client.deadline();
                driver.client.handle_timeout(deadline - Duration::from_millis(1));
                assert!(driver.run().is_empty() && !driver.closed, "not yet");
                driver.client.handle_timeout(deadline);
            } else {
                driver.client.disconnected();
            }
            driver.run();
            assert!(driver.closed, "after {steps} steps");
            let status = match steps {
                0 | 1 => driver.unusable.as_ref().expect("nothing was attempted"),
                _ => driver.status(),
            };
            assert_eq!((status.class, status.enhanced), (Temporary, Enhanced(4, 4, 2)));
            assert_eq!(status.in_doubt, steps == script.len(), "after {steps} steps");
        }
    }
}

#[test]
fn garbage_after_the_dot_leaves_a_doubt_and_before_it_none() {
    for garbage in ["25\r\n", "999 x\r\n", "250 x\n", "250-x\r\n550 y\r\n", "354 again\r\n"] {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.hear("250 ok\r\n250 ok\r\n");
        driver.hear("354 go\r\n");
        driver.hear(garbage);
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, true), "{garbage:?}");
        assert!(driver.closed);
    }
    for garbage in ["25\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n", "250 ok\r\n421 bye\r\n"] {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.hear(garbage);
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, false), "{garbage:?}");
        assert!(driver.closed);
    }
}

#[test]
fn a_reply_to_the_dot_with_421_is_an_answer() {
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear("250 ok\r\n250 ok\r\n");
    driver.hear("354 go\r\n");
    driver.hear("421 4.3.2 going down\r\n");
    assert_eq!(driver.outcomes(), [(Temporary, Some(421))]);
    assert!(driver.closed && !driver.status().in_doubt);
}

#[test]
fn a_host_that_speaks_during_content_gets_no_dot() {
    for (reply, class) in
        [("552 too big\r\n", Permanent), ("421 bye\r\n", Temporary), ("250 done\r\n", Temporary)]
    {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.hear("250 ok\r\n250 ok\r\n");
        driver.client.receive(b"354 go\r\n", NOW);
        assert_eq!(driver.client.poll(), Some(Action::WantContent));
        driver.client.content(b"a\r\n");
        assert_eq!(driver.hear(reply), "a\r\n");
        assert_eq!(driver.outcomes()[0].0, class, "{reply:?}");
        assert!(driver.closed && !driver.status().in_doubt);
    }
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear("250 ok\r\n250 ok\r\n");
    driver.client.receive(b"354 go\r\n25", NOW);
    let said = driver.run();
    assert!(said.ends_with("dot\r\n"), "no dot after half a reply: {said}");
    assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, false));
}

/// T02: what could be read as two messages does not leave, and what is half read neither.
#[test]
fn unfit_or_unreadable_content_gets_no_dot() {
    let cases = [&b"a\n.\nMAIL FROM:<>\r\n"[..], b"a\r.\r", b"\0", b"a\r"];
    for content in cases {
        let (mut driver, _) = Driver::delivering(OFFER, bob());
        driver.content = vec![content.to_vec()];
        driver.hear("250 ok\r\n250 ok\r\n");
        let sent = driver.hear("354 go\r\n");
        assert!(!sent.contains('.'), "{sent:?}");
        assert_eq!((driver.status().class, driver.status().enhanced), (Permanent, Enhanced(5, 6, 0)));
        assert!(driver.closed);
    }
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear("250 ok\r\n250 ok\r\n");
    driver.client.receive(b"354 go\r\n", NOW);
    assert_eq!(driver.client.poll(), Some(Action::WantContent));
    driver.client.content_failed();
    driver.run();
    assert_eq!((driver.status().class, driver.status().in_doubt, driver.closed), (Temporary, false, true));
}

#[test]
fn a_hosts_text_is_made_safe() {
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear(format!("250 ok\r\n550 5.1.1 a\x1b[2J\u{85}{}\r\n503 no\r\n", "\u{fc}".repeat(1_000)));
    let text = &driver.status().text;
    assert!(text.starts_with("550 5.1.1 a [2J \u{fc}") && text.len() <= TEXT_BYTES_MAX);
    assert!(!text.contains(char::is_control));
}

#[test]
fn a_host_that_never_answers_quit_is_left() {
    let mut driver = Driver::with(TlsPolicy::Opportunistic);
    driver.hear("220 hi\r\n");
    driver.hear("250 host\r\n");
    assert_eq!(driver.client.deadline(), Duration::MAX);
    driver.client.quit(NOW);
    assert_eq!(driver.run(), "QUIT\r\n");
    driver.client.handle_timeout(driver.client.deadline());
    driver.run();
    assert!(driver.closed && driver.unusable.is_none());
}

#[test]
fn lmtp_is_told_of_each_recipient_by_itself() {
    let lmtp = || {
        let mut driver = Driver::speaking(Protocol::Lmtp, TlsPolicy::Never);
        driver.client.deliver(message(&["a@x.example", "b@x.example", "c@x.example"]), NOW);
        assert_eq!(driver.hear("220 store.example\r\n"), "LHLO mx.example.com\r\n");
        driver.hear(OFFER);
        driver.hear("250 ok\r\n250 ok\r\n550 5.1.1 unknown\r\n250 ok\r\n");
        driver.hear("354 go on\r\n");
        driver
    };
    let classes = |driver: &Driver| {
        let done = driver.done.first().expect("it is dealt with");
        done.iter().map(|outcome| (outcome.status.class, outcome.status.in_doubt)).collect::<Vec<_>>()
    };
    let mut driver = lmtp();
    driver.hear("250 2.0.0 kept\r\n");
    assert!(driver.done.is_empty(), "one is still to come");
    driver.hear("452 4.2.2 over quota\r\n");
    let refused = (Permanent, false);
    assert_eq!(classes(&driver), [(Delivered, false), refused, (Temporary, false)]);
    // Lost between the two: only the second is in doubt.
    let mut driver = lmtp();
    driver.hear("250 2.0.0 kept\r\n");
    driver.client.disconnected();
    driver.run();
    assert_eq!(classes(&driver), [(Delivered, false), refused, (Temporary, true)]);
    // Both in one packet, and a host that does not know LHLO.
    let mut driver = lmtp();
    driver.hear("250 kept\r\n250 kept\r\n");
    assert_eq!(classes(&driver), [(Delivered, false), refused, (Delivered, false)]);
    let mut driver = Driver::speaking(Protocol::Lmtp, TlsPolicy::Never);
    driver.hear("220 mx.example\r\n");
    assert_eq!(driver.hear("500 what\r\n"), "", "HELO is not tried");
    assert!(driver.unusable.is_some() && driver.closed);
}

/// With a smart host that wants a login, past EHLO under TLS; and what the client said then.
fn logging_in(tls: TlsPolicy, auth: &str) -> (Driver, String) {
    let login = Credentials::new("alice".into(), "secret".to_owned().into()).expect("fit to be used");
    let config = Config { helo: "mx.example.com".into(), tls, protocol: Protocol::Smtp, login: Some(login) };
    let mut driver = Driver::of(config);
    driver.client.deliver(bob(), NOW);
    let offer = format!("250-host\r\n250-STARTTLS\r\n250 {auth}\r\n");
    assert_eq!(driver.hear("220 hi\r\n"), "EHLO mx.example.com\r\n");
    let mut said = driver.hear(&offer);
    if said == "STARTTLS\r\n" {
        assert_eq!(driver.hear("220 go\r\n"), "EHLO mx.example.com\r\n");
        said = driver.hear(&offer);
    }
    (driver, said)
}

#[test]
fn a_login_comes_before_the_message_and_under_tls() {
    let plain = "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n";
    for tls in [TlsPolicy::Required, TlsPolicy::Implicit, TlsPolicy::Opportunistic] {
        let (mut driver, said) = logging_in(tls, "AUTH LOGIN plain");
        assert_eq!((said.as_str(), driver.handshakes), (plain, usize::from(tls != TlsPolicy::Implicit)));
        assert!(driver.hear("235 2.7.0 ok\r\n").starts_with("MAIL FROM:"));
    }
    let (mut driver, said) = logging_in(TlsPolicy::Required, "AUTH LOGIN CRAM-MD5");
    assert_eq!(said, "AUTH LOGIN\r\n");
    assert_eq!(driver.hear("334 VXNlcm5hbWU6\r\n"), "YWxpY2U=\r\n");
    assert_eq!(driver.hear("334 UGFzc3dvcmQ6\r\n"), "c2VjcmV0\r\n");
    assert!(driver.hear("235 ok\r\n").starts_with("MAIL FROM:"));
    assert!(!format!("{:?}", driver.client).contains("secret"), "a password is not shown");
}

#[test]
fn where_the_login_fails_the_mail_waits() {
    let told = |driver: &Driver| {
        let status = driver.unusable.as_ref().expect("the host is of no use");
        assert!(driver.closed && driver.done.is_empty());
        (status.class, status.enhanced.to_string(), status.text.clone())
    };
    let (mut driver, _) = logging_in(TlsPolicy::Required, "AUTH PLAIN");
    driver.hear("535 5.7.8 who are you\r\n");
    let text = "the host refused our login: 535 5.7.8 who are you";
    assert_eq!(told(&driver), (Temporary, "4.7.8".into(), text.into()));
    // A yes that is not 235 is none.
    let (mut driver, _) = logging_in(TlsPolicy::Required, "AUTH PLAIN");
    driver.hear("250 fine\r\n");
    assert_eq!(told(&driver).0, Temporary);
    // A host that asks and asks.
    let (mut driver, _) = logging_in(TlsPolicy::Required, "AUTH PLAIN");
    assert_eq!(driver.hear("334 more\r\n"), "*\r\n");
    assert_eq!(driver.hear("334 more\r\n"), "");
    assert_eq!(told(&driver).0, Temporary);
    for (tls, auth) in [
        (TlsPolicy::Required, "AUTH CRAM-MD5"),
        (TlsPolicy::Required, "SIZE"),
        // In the clear nothing is sent, whatever was configured.
        (TlsPolicy::Never, "AUTH PLAIN"),
    ] {
        let (driver, said) = logging_in(tls, auth);
        assert_eq!((said.as_str(), told(&driver).1.as_str()), ("", "4.7.0"), "{auth}");
    }
}

/// RFC 8689 §4.2.1: only what is offered under TLS counts.
#[test]
fn what_goes_under_tls_only_goes_to_hosts_that_pass_that_on() {
    let require = || Message { require_tls: true, ..bob() };
    let offer = "250-host.example\r\n250-PIPELINING\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n";
    let (mut driver, _) = Driver::delivering(offer, require());
    assert_eq!(driver.hear("220 go\r\n"), "EHLO mx.example.com\r\n");
    let said = driver.hear("250-host.example\r\n250 requiretls\r\n");
    assert_eq!(said, "MAIL FROM:<alice@example.com> REQUIRETLS\r\n");
    // Not offered under TLS, and offered in the clear.
    let (mut driver, _) = Driver::delivering(offer, require());
    driver.hear("220 go\r\n");
    assert_eq!(driver.hear("250 host.example\r\n"), "");
    let in_clear = Driver::delivering("250-host.example\r\n250 REQUIRETLS\r\n", require());
    assert_eq!(in_clear.1, "");
    for driver in [driver, in_clear.0] {
        assert_eq!((driver.status().class, driver.status().enhanced), (Permanent, REQUIRETLS_NEEDED));
        assert!(!driver.closed, "other messages may go there");
    }
    // A report goes on all the same, and asks for it where it is offered.
    for (hello, said) in
        [("250 REQUIRETLS", "MAIL FROM:<> REQUIRETLS\r\n"), ("250 SIZE", "MAIL FROM:<> SIZE=21\r\n")]
    {
        let (mut driver, _) = Driver::delivering(offer, Message { reverse_path: None, ..require() });
        driver.hear("220 go\r\n");
        assert_eq!(driver.hear(format!("250-host.example\r\n{hello}\r\n")), said);
    }
    // Who asks for nothing says nothing of it.
    let (mut driver, _) = Driver::delivering(offer, bob());
    driver.hear("220 go\r\n");
    let said = driver.hear("250-host.example\r\n250 REQUIRETLS\r\n");
    assert_eq!(said, "MAIL FROM:<alice@example.com>\r\n");
}

/// A session over which bob's message was dealt with, as `dot` says, and that is given it again; and what it said then.
fn given_another(dot: &str) -> (Driver, String) {
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear("250 ok\r\n250 ok\r\n");
    driver.hear("354 go\r\n");
    assert!(!driver.client.is_ready());
    driver.hear(dot);
    assert!(driver.client.is_ready() && driver.done.len() == 1);
    driver.client.deliver(bob(), NOW);
    let said = driver.run();
    assert!(!driver.client.is_ready());
    (driver, said)
}

#[test]
fn a_session_takes_one_message_after_another() {
    for dot in ["250 kept\r\n", "451 not this one\r\n", "550 nor this\r\n"] {
        let (mut driver, said) = given_another(dot);
        let flight = "MAIL FROM:<alice@example.com> SIZE=21\r\nRCPT TO:<bob@host.example>\r\nDATA\r\n";
        assert_eq!(said, flight);
        driver.hear("250 ok\r\n250 ok\r\n");
        driver.hear("354 go\r\n");
        driver.hear("250 kept\r\n");
        assert_eq!(driver.done.len(), 2);
        assert_eq!(driver.done[1][0].status.class, Delivered);
    }
    // What came to nothing before the dot is cleared away first.
    let (mut driver, _) = Driver::delivering(OFFER, bob());
    driver.hear("250 ok\r\n550 nobody\r\n503 for whom\r\n");
    assert!(driver.client.is_ready());
    driver.client.deliver(bob(), NOW);
    assert_eq!(driver.run(), "RSET\r\n");
}

#[test]
fn a_used_session_that_ends_before_its_mail_is_answered_has_attempted_nothing() {
    type Ends = fn(&mut Driver);
    let ends: [Ends; 3] = [
        |driver| driver.client.disconnected(),
        |driver| driver.client.handle_timeout(driver.client.deadline()),
        |driver| drop(driver.hear("421 4.4.2 you were silent for too long\r\n")),
    ];
    for end in ends {
        let (mut driver, _) = given_another("250 kept\r\n");
        end(&mut driver);
        driver.run();
        assert!(driver.closed && driver.done.len() == 1);
        assert_eq!(driver.unusable.as_ref().map(|status| status.class), Some(Temporary));
        // Once MAIL is answered it is an attempt like any other.
        let (mut driver, _) = given_another("250 kept\r\n");
        driver.hear("250 ok\r\n");
        end(&mut driver);
        driver.run();
        assert!(driver.closed && driver.unusable.is_none());
        assert_eq!(driver.done[1][0].status.class, Temporary);
        assert!(!driver.done[1][0].status.in_doubt);
    }
}

#[test]
fn what_is_asked_goes_to_a_host_that_reports_and_to_no_other() {
    let dsn = OFFER.replace("250-PIPELINING", "250-PIPELINING\r\n250-DSN");
    for (offer, mail, rcpt) in [
        (OFFER, "", ""),
        (&*dsn, " RET=HDRS ENVID=a+2Bb+20c", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+3Dob@example.com"),
    ] {
        let (mut driver, said) = Driver::delivering(offer, asking());
        let first =
            format!("MAIL FROM:<alice@example.com> SIZE=21{mail}\r\nRCPT TO:<bob@host.example>{rcpt}\r\n");
        assert_eq!(said, format!("{first}RCPT TO:<carol@host.example>\r\nDATA\r\n"));
        driver.hear("250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 unknown\r\n");
        driver.hear("354 go\r\n");
        driver.hear("250 2.6.0 queued\r\n");
        let reports: Vec<_> = driver.done[0].iter().map(|outcome| outcome.host_reports).collect();
        assert_eq!(reports, [offer == dsn, false], "of what it has not taken it does not");
    }
}
