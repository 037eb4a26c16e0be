//! Content by BDAT (RFC 3030), with hosts that take it and hosts that only offer it.

use super::*;
use crate::smtp::client::chunks::{CHUNK_BYTES, CHUNK_BYTES_MAX};

const CHUNKING: &str = "250-host.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
const SLOW: &str = "250-host.example\r\n250 CHUNKING\r\n";
const MAIL: &str = "MAIL FROM:<alice@example.com>\r\n";
const RCPT: &str = "RCPT TO:<bob@host.example>\r\n";
const LAST: &str = "BDAT 19 LAST\r\nubject: x\r\n\r\n.dot\r\n";

type Ends = fn(&mut Driver);
/// How a host is lost.
const ENDS: [Ends; 3] = [
    |driver| driver.client.disconnected(),
    |driver| driver.client.handle_timeout(driver.client.deadline()),
    |driver| drop(driver.hear("421 4.3.2 closing\r\n")),
];

/// Up to the octet with which a host is tried.
fn tried(recipients: &[&str], rcpt: &str) -> Driver {
    let (mut driver, _) = Driver::delivering(CHUNKING, message(recipients));
    assert_eq!(
        driver.hear(format!("250 ok\r\n{rcpt}")),
        "BDAT 1\r\nS",
        "what is no command, whoever reads it"
    );
    driver
}

/// Bob's message at a host that has taken the octet, of this content; and what was said then.
fn sending(content: Vec<Vec<u8>>) -> (Driver, String) {
    let (mut driver, said) = Driver::delivering(CHUNKING, bob());
    assert_eq!(said, format!("{MAIL}{RCPT}"), "no octet of content goes before somebody is to have it");
    driver.content = content;
    assert_eq!(chunks(&driver.hear("250 ok\r\n250 ok\r\n")), (vec![1], false));
    let said = driver.hear("250 1 octet\r\n");
    (driver, said)
}

/// The same up to its last chunk, which is the second.
fn begun() -> Driver {
    let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
    assert_eq!(driver.hear("250 1 octet\r\n"), LAST, "no dot is doubled, and none ends it");
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
fn content_goes_in_chunks_once_the_host_has_taken_one_of_one_octet_in_the_session() {
    let mut driver = begun();
    driver.hear("250 2.6.0 kept\r\n");
    assert_eq!(driver.outcomes(), [(Delivered, Some(250))]);
    // The next message need not ask again.
    driver.content = vec![b"..".to_vec()];
    driver.client.deliver(Message { before: b"Signed: x\r\n".to_vec(), ..bob() }, NOW);
    assert_eq!(driver.run(), format!("{MAIL}{RCPT}"));
    assert_eq!(driver.hear("250 ok\r\n250 ok\r\n"), "BDAT 15 LAST\r\nSigned: x\r\n..\r\n");
    driver.hear("250 kept\r\n");
    assert!(driver.done.len() == 2 && driver.client.no_chunks().is_none() && !driver.closed);
    // Each session does.
    tried(&["bob@host.example"], "250 ok\r\n");
}

#[test]
fn content_that_is_empty_goes_by_data() {
    for is_tried in [false, true] {
        for content in [&b""[..], b"Return-Path: <a@b.example>\r\n"] {
            let (mut driver, _) = Driver::delivering(CHUNKING, bob());
            if is_tried {
                driver.hear("250 ok\r\n250 ok\r\n");
                driver.hear("250 1 octet\r\n");
                driver.hear("250 kept\r\n");
                driver.client.deliver(bob(), NOW);
                driver.run();
            }
            driver.content = vec![content.to_vec()];
            assert_eq!(driver.hear("250 ok\r\n250 ok\r\n"), "DATA\r\n");
            assert_eq!(driver.hear("354 go\r\n"), ".\r\n");
            driver.hear("250 kept\r\n");
            assert_eq!(driver.done.last().map(|done| done[0].status.class), Some(Delivered));
        }
    }
    // Two octets are enough, wherever they are cut.
    for content in [vec![b"\r\n".to_vec()], vec![b"\r".to_vec(), b"\n".to_vec()], vec![b"R".to_vec()]] {
        let (mut driver, _) = Driver::delivering(CHUNKING, bob());
        driver.content = content;
        assert_eq!(chunks(&driver.hear("250 ok\r\n250 ok\r\n")), (vec![1], false));
        assert!(chunks(&driver.hear("250 1 octet\r\n")).1);
    }
}

/// A host that ends the transaction at one may read the next as commands.
#[test]
fn each_chunk_is_answered_before_the_next_and_they_grow() {
    for capabilities in [CHUNKING, SLOW] {
        let (mut driver, _) = Driver::delivering(capabilities, bob());
        driver.content = vec![large(64).concat()];
        let mut said = driver.hear("250 ok\r\n");
        if capabilities == CHUNKING {
            said = driver.hear("250 ok\r\n");
        } else {
            assert_eq!(said, RCPT);
            said = driver.hear("250 ok\r\n");
        }
        let (mut lengths, mut is_last) = (Vec::new(), false);
        while !is_last {
            let (one, last) = chunks(&said);
            assert_eq!(one.len(), 1, "one at a time");
            lengths.extend(one);
            is_last = last;
            // Half an answer is none, and nothing is wrong with it.
            assert_eq!(driver.hear("2"), "");
            said = driver.hear("50 ok\r\n");
        }
        let grown = [1, 2, 4, 8, 16, 16, 16].map(|size| size * CHUNK_BYTES);
        assert_eq!(grown[6], CHUNK_BYTES_MAX);
        assert_eq!(lengths, [&[1][..], &grown, &[CHUNK_BYTES + 2]].concat());
        assert_eq!((driver.outcomes(), driver.closed), (vec![(Delivered, Some(250))], false));
    }
}

/// Whatever is said while chunks go is heard before the next one.
#[test]
fn no_chunk_goes_behind_one_that_is_known_to_be_refused() {
    let (mut driver, _) = Driver::delivering(CHUNKING, bob());
    driver.content = vec![large(3).concat()];
    driver.hear("250 ok\r\n250 ok\r\n");
    driver.client.receive(b"250 1 octet\r\n", NOW);
    assert!(matches!(driver.client.poll(), Some(Action::Send(chunk)) if chunk.len() > CHUNK_BYTES));
    driver.client.sent(NOW);
    assert_eq!(driver.client.poll(), None, "this one is to be answered");
    driver.client.receive(b"552 5.3.4 too large\r\n", NOW);
    assert_eq!(driver.run(), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![(Permanent, Some(552))], true));
}

/// A host that says more than it was asked does not say it of the last chunk.
#[test]
fn a_reply_too_many_is_no_answer_to_the_last_chunk() {
    // To the first chunk, and to others.
    let (mut driver, _) = sending(large(2));
    assert_eq!(driver.hear("250 ok\r\n".repeat(3)), "");
    let mut first = tried(&["bob@host.example"], "250 ok\r\n");
    assert_eq!(first.hear("250 ok\r\n250 kept\r\n"), "");
    // While it is noted that the message leaves; and half of one.
    let before_the_end = |reply: &[u8]| {
        let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
        driver.client.receive(b"250 1 octet\r\n", NOW);
        assert_eq!(driver.client.poll(), Some(Action::WantContent));
        driver.client.content(&driver.content.remove(0));
        assert_eq!(driver.client.poll(), Some(Action::WantContent));
        driver.client.content_end(NOW);
        assert_eq!(driver.client.poll(), Some(Action::WantEnd));
        driver.client.receive(reply, NOW);
        driver.client.end(NOW);
        assert_eq!(driver.run(), "");
        driver
    };
    for driver in [driver, first, before_the_end(b"250 kept\r\n"), before_the_end(b"25")] {
        assert_eq!(
            (driver.status().class, driver.status().in_doubt, driver.closed),
            (Temporary, false, true)
        );
    }
    assert_eq!(before_the_end(b"250 kept\r\n").client.no_chunks(), Some(NoChunks::AtThisHost));
}

#[test]
fn who_refuses_the_first_octet_reads_no_content_as_commands_and_gets_data_in_another_session() {
    use NoChunks::{AtThisHost, ThisMessage};
    for (reply, found) in [
        ("500 what", AtThisHost),
        ("501 5.5.4 what", AtThisHost),
        ("502 5.5.1 what", AtThisHost),
        ("503 what", AtThisHost),
        ("504 what", AtThisHost),
        ("555 what", AtThisHost),
        ("502 5.7.0 not allowed", AtThisHost),
        ("550 5.5.1 what", AtThisHost),
        ("554 5.5.0 what", AtThisHost),
        ("521 what", AtThisHost),
        ("450 what", AtThisHost),
        ("451 4.3.0 what", AtThisHost),
        ("454 what", AtThisHost),
        ("354 go on", AtThisHost),
        // The message will hear it again.
        ("452 4.3.1 full", ThisMessage),
        ("552 too large", ThisMessage),
        ("550 5.7.1 no", ThisMessage),
        ("451 4.7.1 later", ThisMessage),
        ("554 5.6.0 this is no mail", ThisMessage),
        ("553 5.1.8 your address", ThisMessage),
        ("452 4.2.2 full", ThisMessage),
    ] {
        let mut driver = tried(&["c@host.example", "bob@host.example"], "550 5.1.1 who\r\n250 ok\r\n");
        assert_eq!(driver.hear(format!("{reply}\r\n")), "");
        let status = driver.unusable.as_ref().expect("the message was not attempted");
        assert_eq!((status.class, status.text.as_str()), (Temporary, reply));
        assert!(driver.closed && driver.done.is_empty());
        assert_eq!(driver.client.no_chunks(), Some(found), "{reply}");
    }
    for end in &ENDS[..2] {
        let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
        end(&mut driver);
        driver.run();
        assert!(driver.unusable.is_some() && driver.closed && driver.done.is_empty());
        assert_eq!(driver.client.no_chunks(), Some(AtThisHost));
    }
    // Who does not want to talk now does not in another one; some time later it is DATA all the same.
    let mut driver = tried(&["bob@host.example", "c@host.example"], "250 ok\r\n550 5.1.1 who\r\n");
    assert_eq!(driver.hear("421 4.3.2 bye\r\n"), "");
    assert_eq!(driver.outcomes(), [(Temporary, Some(421)), (Permanent, Some(550))]);
    assert!(driver.closed && driver.unusable.is_none() && !driver.status().in_doubt);
    assert_eq!(driver.client.no_chunks(), Some(AtThisHost));
}

#[test]
fn by_data_no_chunk_goes() {
    let mut driver = Driver::with(TlsPolicy::Opportunistic);
    driver.client.by_data();
    driver.client.deliver(bob(), NOW);
    driver.hear("220 host.example\r\n");
    assert_eq!(driver.hear(CHUNKING), format!("{MAIL}{RCPT}DATA\r\n"));
    driver.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(driver.hear("354 go\r\n"), "Subject: x\r\n\r\n..dot\r\n.\r\n");
    // LMTP's answers are told apart behind a dot.
    let mut driver = Driver::speaking(Protocol::Lmtp, TlsPolicy::Never);
    driver.client.deliver(bob(), NOW);
    driver.hear("220 store.example\r\n");
    assert_eq!(driver.hear(CHUNKING), format!("{MAIL}{RCPT}DATA\r\n"));
}

#[test]
fn a_session_that_came_to_no_chunk_has_found_nothing() {
    // Nobody was taken: there is nothing to try.
    let (mut driver, _) = Driver::delivering(CHUNKING, bob());
    assert_eq!(driver.hear("250 ok\r\n550 no\r\n"), "");
    assert_eq!((driver.outcomes(), driver.closed), (vec![(Permanent, Some(550))], false));
    driver.client.deliver(bob(), NOW);
    assert_eq!(driver.run(), "RSET\r\n");
    assert_eq!(driver.client.no_chunks(), None);
    // What is there before the first one is no answer to it.
    for early in ["250 ok\r\n", "500 what\r\n", "25"] {
        let (mut driver, _) = Driver::delivering(CHUNKING, bob());
        assert_eq!(driver.hear(format!("250 ok\r\n250 ok\r\n{early}")), "");
        assert_eq!((driver.client.no_chunks(), driver.closed), (None, true), "{early:?}");
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, false), "{early:?}");
    }
    for end in ENDS {
        // At the greeting, in the envelope, and before there was content.
        for said in [&[][..], &["220 hi\r\n", CHUNKING], &["220 hi\r\n", CHUNKING, "250 ok\r\n250 ok\r\n"]] {
            let mut driver = Driver::with(TlsPolicy::Opportunistic);
            driver.client.deliver(bob(), NOW);
            if let [before @ .., last] = said {
                before.iter().for_each(|reply| drop(driver.hear(reply)));
                driver.client.receive(last.as_bytes(), NOW);
                let _ = driver.client.poll();
            }
            end(&mut driver);
            driver.run();
            assert_eq!((driver.client.no_chunks(), driver.closed), (None, true), "{said:?}");
        }
    }
}

/// T33, F11: only a lost answer to the last chunk leaves a doubt.
#[test]
fn a_connection_lost_over_chunks() {
    for end in ENDS {
        // The last was not sent, also if all content is there.
        for full in [PIPELINE_MAX + 2, 3] {
            let (mut driver, _) = sending(large(full));
            driver.hear("250 ok\r\n");
            end(&mut driver);
            driver.run();
            assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, false));
            assert!(driver.closed);
            assert_eq!(
                driver.client.no_chunks(),
                Some(NoChunks::AtThisHost),
                "the next session does without"
            );
        }
    }
    for (number, end) in ENDS.into_iter().enumerate() {
        let mut driver = begun();
        end(&mut driver);
        driver.run();
        // 421 is an answer.
        let in_doubt = number < 2;
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, in_doubt), "{number}");
        assert_eq!((driver.closed, driver.client.no_chunks().is_some()), (true, in_doubt));
    }
    for garbage in ["25\r\n", "999 x\r\n", "354 again\r\n"] {
        let mut driver = begun();
        driver.hear(garbage);
        assert_eq!((driver.status().class, driver.status().in_doubt), (Temporary, true), "{garbage:?}");
        assert!(driver.closed);
        assert_eq!(driver.client.no_chunks(), Some(NoChunks::AtThisHost));
    }
}

/// Of what the host has not got as a whole it has made no message.
#[test]
fn a_last_chunk_that_did_not_go_as_a_whole_is_no_doubt() {
    let mut driver = begun();
    assert!(driver.client.is_sending(), "what the host says meanwhile is heard");
    driver.client.unsent();
    driver.run();
    assert_eq!((driver.status().class, driver.status().in_doubt, driver.closed), (Temporary, false, true));
    let mut refused = begun();
    refused.hear("552 5.3.4 too large\r\n");
    refused.client.unsent();
    refused.run();
    assert_eq!(refused.outcomes(), [(Permanent, Some(552))]);
}

#[test]
fn a_chunk_is_refused() {
    let mut replies = vec![
        ("552 5.3.4 too large\r\n".to_owned(), Permanent, false),
        ("451 4.3.0 later\r\n".to_owned(), Temporary, false),
    ];
    let of_command = [500, 501, 502, 503, 504, 555];
    replies.extend(of_command.map(|code| (format!("{code} 5.5.1 what\r\n"), Temporary, true)));
    for (reply, class, of_chunks) in replies {
        let no_chunks = of_chunks.then_some(NoChunks::AtThisHost);
        // The last one: who does not know it answers what is in it too, and nobody else's message is to meet that.
        let mut driver = begun();
        driver.hear(&reply);
        assert_eq!((driver.status().class, driver.status().in_doubt), (class, false), "{reply:?}");
        assert_eq!((driver.closed, driver.client.no_chunks()), (of_chunks, no_chunks), "{reply:?}");
        if !of_chunks {
            driver.client.deliver(bob(), NOW);
            assert_eq!(driver.run(), "RSET\r\n");
        }
        // One before the last: the session is over, whatever is said of the others.
        for full in [PIPELINE_MAX + 2, 3] {
            let (mut driver, _) = sending(large(full));
            assert_eq!(driver.hear(format!("{reply}250 ok\r\n250 kept\r\n")), "");
            assert_eq!((driver.outcomes()[0].0, driver.status().in_doubt), (class, false), "{reply:?}");
            assert_eq!((driver.closed, driver.client.no_chunks()), (true, no_chunks), "{reply:?}");
        }
    }
}

/// T02: nothing that could be read as two messages leaves, in chunks either.
#[test]
fn unfit_or_unreadable_content_gets_no_last_chunk() {
    for content in [&b"a\n.\nMAIL FROM:<>\r\n"[..], b"a\r.\r", b"\0", b"a\r"] {
        for before in [large(1).remove(0), b"a".to_vec()] {
            let (mut driver, mut said) = sending(vec![before, content.to_vec()]);
            if driver.done.is_empty() {
                // What is wrong stands behind a whole chunk.
                said += &driver.hear("250 ok\r\n");
            }
            assert!(!chunks(&said).1, "{content:?}");
            assert_eq!((driver.status().class, driver.status().enhanced), (Permanent, Enhanced(5, 6, 0)));
            assert!(driver.closed && driver.client.no_chunks().is_none());
        }
    }
    let mut driver = tried(&["bob@host.example"], "250 ok\r\n");
    driver.client.receive(b"250 1 octet\r\n", NOW);
    assert_eq!(driver.client.poll(), Some(Action::WantContent));
    driver.client.content(b"a\r\n");
    driver.client.content_failed();
    assert_eq!(driver.run(), "");
    assert_eq!((driver.status().class, driver.status().in_doubt, driver.closed), (Temporary, false, true));
    assert_eq!(driver.client.no_chunks(), None, "the host had no part in it");
}

#[test]
fn the_time_for_an_answer_begins_when_all_has_gone() {
    let mut driver = begun();
    let (begun, late) = (driver.client.deadline(), Duration::from_secs(170));
    driver.client.sent(NOW + late);
    assert_eq!(driver.client.deadline(), begun + late);
}
