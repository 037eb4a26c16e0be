//! Content by BDAT (RFC 3030), with hosts that take it and hosts that only offer it.

use super::*;
use crate::smtp::client::chunks::CHUNK_BYTES;

const CHUNKING: &str = "250-host.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
const SLOW: &str = "250-host.example\r\n250 CHUNKING\r\n";
const MAIL: &str = "MAIL FROM:<alice@example.com>\r\n";
const RCPT: &str = "RCPT TO:<bob@host.example>\r\n";
const LAST: &str = "BDAT 20 LAST\r\nSubject: x\r\n\r\n.dot\r\n";

type Ends = fn(&mut Driver);
/// How a host is lost.
const ENDS: [Ends; 3] = [
    |driver| driver.client.disconnected(),
    |driver| driver.client.handle_timeout(driver.client.deadline()),
    |driver| drop(driver.hear("421 4.3.2 closing\r\n")),
];

/// With a host that is known to take chunks or not, or nothing is known of; and what was said once it had greeted.
fn known(chunking: Chunking, offer: &str, message: Message) -> (Driver, String) {
    let mut driver = Driver::with(TlsPolicy::Opportunistic);
    driver.client.assume(chunking);
    driver.client.deliver(message, NOW);
    driver.hear("220 host.example\r\n");
    let said = driver.hear(offer);
    (driver, said)
}

/// Bob's message at a host that is known to take chunks, up to its only chunk; and what was said then.
fn begun() -> (Driver, String) {
    let (mut driver, said) = known(Chunking::Works, CHUNKING, bob());
    assert_eq!(said, format!("{MAIL}{RCPT}"), "no octet of content goes before somebody is to have it");
    let said = driver.hear("250 ok\r\n250 ok\r\n");
    (driver, said)
}

/// The same of this content.
fn sending(content: Vec<Vec<u8>>) -> (Driver, String) {
    let (mut driver, _) = known(Chunking::Works, CHUNKING, bob());
    driver.content = content;
    let said = driver.hear("250 ok\r\n250 ok\r\n");
    (driver, said)
}

/// The same up to the octet with which a host is tried.
fn tried(recipients: &[&str], rcpt: &str) -> Driver {
    let (mut driver, _) = Driver::delivering(CHUNKING, message(recipients));
    assert_eq!(
        driver.hear(format!("250 ok\r\n{rcpt}")),
        "BDAT 1\r\nS",
        "what is no command, whoever reads it"
    );
    driver
}

/// Content of so many full chunks and a bit.
fn large(chunks: usize) -> Vec<Vec<u8>> {
    let line = [&b"."[..], &[b'x'; 61], b"\r\n"].concat();
    let mut content = vec![line.repeat(CHUNK_BYTES / line.len()); chunks];
    content.push(b".\r\n".to_vec());
    content
}

/// The chunks in what was said, and whether the last of them says so.
fn chunks(mut said: &str) -> (Vec<usize>, bool) {
    let (mut lengths, mut is_last) = (Vec::new(), false);
    while let Some((command, rest)) = said.split_once("\r\n") {
        assert!(!is_last, "nothing follows the last chunk, but {command}");
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("BDAT"));
        let length = words.next().and_then(|word| word.parse().ok()).expect("a number of octets");
        is_last = words.next() == Some("LAST");
        lengths.push(length);
        said = rest.get(length..).expect("as many octets as it says");
    }
    (lengths, is_last)
}

#[test]
fn content_goes_in_chunks_to_a_host_that_takes_one_of_one_octet() {
    let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
    assert_eq!(driver.client.chunking(), Chunking::Untried);
    assert_eq!(driver.hear("250 1 octet\r\n"), "BDAT 19 LAST\r\nubject: x\r\n\r\n.dot\r\n");
    driver.hear("250 2.6.0 kept\r\n");
    assert_eq!(driver.outcomes(), [(Delivered, Some(250))]);
    // The next one need not ask again.
    driver.content = vec![b"..".to_vec()];
    driver.client.deliver(Message { before: b"Signed: x\r\n".to_vec(), ..bob() }, NOW);
    assert_eq!(driver.run(), format!("{MAIL}{RCPT}"));
    assert_eq!(driver.hear("250 ok\r\n250 ok\r\n"), "BDAT 15 LAST\r\nSigned: x\r\n..\r\n");
    driver.hear("250 kept\r\n");
    driver.content = vec![];
    driver.client.deliver(bob(), NOW);
    assert_eq!(driver.run(), format!("{MAIL}{RCPT}"));
    assert_eq!(driver.hear("250 ok\r\n250 ok\r\n"), "BDAT 0 LAST\r\n");
    driver.hear("250 kept\r\n");
    assert!(driver.done.len() == 3 && driver.client.chunking() == Chunking::Works && !driver.closed);
    // Nor where it is known from another session.
    let (mut driver, said) = begun();
    assert_eq!(said, LAST, "no dot is doubled, and none ends it");
    driver.hear("250 kept\r\n");
    assert_eq!(driver.outcomes(), [(Delivered, Some(250))]);
}

#[test]
fn without_pipelining_each_chunk_is_answered_before_the_next() {
    let (mut driver, said) = known(Chunking::Works, SLOW, bob());
    driver.content = large(2);
    assert_eq!(said, MAIL);
    assert_eq!(driver.hear("250 ok\r\n"), RCPT);
    for _ in 0..2 {
        assert_eq!(chunks(&driver.hear("250 ok\r\n")), (vec![CHUNK_BYTES], false));
    }
    assert_eq!(chunks(&driver.hear("250 ok\r\n")), (vec![3], true));
    driver.hear("250 kept\r\n");
    assert_eq!(driver.outcomes(), [(Delivered, Some(250))]);
    // One that is tried.
    let (mut driver, _) = known(Chunking::Untried, SLOW, bob());
    driver.content = large(1);
    driver.hear("250 ok\r\n");
    for (length, is_last) in [(1, false), (CHUNK_BYTES - 1 + 3, true)] {
        assert_eq!(chunks(&driver.hear("250 ok\r\n")), (vec![length], is_last));
    }
}

#[test]
fn so_many_chunks_are_sent_ahead_of_their_answers() {
    let (mut driver, said) = sending(large(PIPELINE_MAX + 2));
    let (lengths, is_last) = chunks(&said);
    assert_eq!((lengths.len(), is_last), (PIPELINE_MAX, false));
    assert!(lengths.iter().all(|length| *length == CHUNK_BYTES));
    assert_eq!(chunks(&driver.hear("250 ok\r\n2")), (vec![CHUNK_BYTES], false));
    // Half an answer to a chunk is none, and nothing is wrong with it.
    assert_eq!(chunks(&driver.hear("50 ok\r\n25")), (vec![CHUNK_BYTES], false));
    assert_eq!(chunks(&driver.hear("0 ok\r\n25")), (vec![3], true));
    assert_eq!(driver.hear("0 ok\r\n".to_owned() + &"250 ok\r\n".repeat(PIPELINE_MAX - 2)), "");
    assert!(driver.done.is_empty(), "the answer to the last one is still to come");
    driver.hear("250 kept\r\n");
    assert_eq!((driver.outcomes(), driver.closed), (vec![(Delivered, Some(250))], false));
}

#[test]
fn who_does_not_know_bdat_reads_no_content_as_commands_and_gets_data_in_another_session() {
    for unknown in [500, 501, 502, 503, 504, 555] {
        let mut driver = tried(&["c@host.example", "bob@host.example"], "550 5.1.1 who\r\n250 ok\r\n");
        assert_eq!(driver.hear(format!("{unknown} 5.5.1 what\r\n")), "");
        let status = driver.unusable.as_ref().expect("the message was not attempted");
        assert_eq!((status.class, status.code), (Temporary, Some(unknown)));
        assert!(driver.closed && driver.done.is_empty());
        assert_eq!(driver.client.chunking(), Chunking::Fails);
    }
    for end in &ENDS[..2] {
        let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
        end(&mut driver);
        driver.run();
        assert!(driver.unusable.is_some() && driver.closed && driver.done.is_empty());
        assert_eq!(driver.client.chunking(), Chunking::Fails);
    }
    let (mut driver, said) = known(Chunking::Fails, CHUNKING, bob());
    assert_eq!(said, format!("{MAIL}{RCPT}DATA\r\n"));
    driver.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(driver.hear("354 go\r\n"), "Subject: x\r\n\r\n..dot\r\n.\r\n");
    // LMTP's answers are told apart behind a dot.
    let mut driver = Driver::speaking(Protocol::Lmtp, TlsPolicy::Never);
    driver.client.deliver(bob(), NOW);
    driver.hear("220 store.example\r\n");
    assert_eq!(driver.hear(CHUNKING), format!("{MAIL}{RCPT}DATA\r\n"));
}

#[test]
fn the_first_octet_is_refused_for_the_message() {
    for (reply, expected) in
        [("452 4.3.1 full\r\n", Temporary), ("554 5.7.1 no\r\n", Permanent), ("421 4.3.2 bye\r\n", Temporary)]
    {
        let mut driver = tried(&["bob@host.example", "c@host.example"], "250 ok\r\n550 5.1.1 who\r\n");
        assert_eq!(driver.hear(reply), "");
        let outcomes = driver.outcomes();
        assert_eq!((outcomes[0].0, outcomes[1], driver.closed), (expected, (Permanent, Some(550)), true));
        assert!(driver.unusable.is_none() && !driver.status().in_doubt);
    }
    // Nobody was taken: there is nothing to try.
    let (mut driver, _) = Driver::delivering(CHUNKING, bob());
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n"), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![(Permanent, Some(550))], false));
    driver.client.deliver(bob(), NOW);
    assert_eq!(driver.run(), "RSET\r\n");
    // What is there before it is no answer to it.
    for early in ["250 ok\r\n", "25"] {
        let (mut driver, _) = Driver::delivering(CHUNKING, bob());
        assert_eq!(driver.hear(format!("250 ok\r\n250 ok\r\n{early}")), "");
        assert_eq!((driver.status().class, driver.closed), (Temporary, true), "{early:?}");
    }
}

/// T33, F11: only a lost answer to the last chunk leaves a doubt.
#[test]
fn a_connection_lost_over_chunks() {
    for end in ENDS {
        // The last was not sent.
        let (mut driver, _) = sending(large(PIPELINE_MAX + 2));
        driver.hear("250 ok\r\n");
        end(&mut driver);
        driver.run();
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, false));
        assert!(
            driver.closed && driver.client.chunking() == Chunking::Fails,
            "the next session does without"
        );
    }
    // The last was sent, alone or behind others whose answers are not there either.
    for content in [large(0), large(3)] {
        for (number, end) in ENDS.into_iter().enumerate() {
            let (mut driver, said) = sending(content.clone());
            assert!(chunks(&said).1);
            end(&mut driver);
            driver.run();
            // 421 is an answer.
            let in_doubt = number < 2;
            assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, in_doubt), "{number}");
            assert_eq!((driver.closed, driver.client.chunking() == Chunking::Fails), (true, in_doubt));
        }
    }
    for garbage in ["25\r\n", "999 x\r\n", "354 again\r\n"] {
        let (mut driver, _) = begun();
        driver.hear(garbage);
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, true), "{garbage:?}");
        assert!(driver.closed);
    }
}

#[test]
fn a_chunk_is_refused() {
    for (reply, class, of_chunks) in [
        ("552 5.3.4 too large\r\n", Permanent, false),
        ("451 4.3.0 later\r\n", Temporary, false),
        ("503 5.5.1 what\r\n", Temporary, true),
    ] {
        let (mut driver, _) = begun();
        driver.hear(reply);
        let fails = |driver: &Driver| driver.client.chunking() == Chunking::Fails;
        assert_eq!((driver.status().class, driver.status().in_doubt), (class, false), "{reply:?}");
        assert_eq!((driver.closed, fails(&driver)), (false, of_chunks), "{reply:?}");
        driver.client.deliver(bob(), NOW);
        assert_eq!(driver.run(), "RSET\r\n");
        // One before the last, while there is more, and when that was sent: the session is over, whatever is said of the others.
        for full in [PIPELINE_MAX + 2, 3] {
            let (mut driver, _) = sending(large(full));
            assert_eq!(driver.hear(format!("{reply}250 ok\r\n250 kept\r\n")), "");
            assert_eq!((driver.outcomes()[0].0, driver.status().in_doubt), (class, false), "{reply:?}");
            assert_eq!((driver.closed, fails(&driver)), (true, of_chunks), "{reply:?}");
        }
    }
}

/// T02: nothing that could be read as two messages leaves, in chunks either.
#[test]
fn unfit_or_unreadable_content_gets_no_last_chunk() {
    for content in [&b"a\n.\nMAIL FROM:<>\r\n"[..], b"a\r.\r", b"\0", b"a\r"] {
        for before in [large(1).remove(0), Vec::new()] {
            let (driver, said) = sending(vec![before, content.to_vec()]);
            assert!(said.is_empty() || !chunks(&said).1, "{content:?}");
            assert_eq!((driver.status().class, driver.status().enhanced), (Permanent, Enhanced(5, 6, 0)));
            assert!(driver.closed && driver.client.chunking() == Chunking::Works);
        }
    }
    let (mut driver, _) = known(Chunking::Works, CHUNKING, bob());
    driver.client.receive(b"250 ok\r\n250 ok\r\n", NOW);
    assert_eq!(driver.client.poll(), Some(Action::WantContent));
    driver.client.content(b"a\r\n", NOW);
    driver.client.content_failed();
    assert_eq!(driver.run(), "");
    assert_eq!((driver.status().class, driver.status().in_doubt, driver.closed), (Temporary, false, true));
    assert_eq!(driver.client.chunking(), Chunking::Works, "the host had no part in it");
}
