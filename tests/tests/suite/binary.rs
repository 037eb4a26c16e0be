//! Messages in octets (RFC 3030, BINARYMIME): what comes in octets is taken in lines, and is whole wherever it is read.

use big_node::record::{AfterFetch, Folder};
use big_node::request::Terms;
use shared::mime;
use tests::client::smtp::SendError;
use tests::process::{Node, Program};
use tests::random::Random;
use tests::wait::{SOON, Trouble};
use tests::world::{ALICE, BOB, CAROL, World, accepted_as, without_trace};

/// What this site takes: small, so that too large is quickly made.
const SIZE_MAX: u64 = 4 * 1024 * 1024;

async fn world() -> Result<World, Trouble> {
    World::with(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        topology.binarymime = true;
        topology.size_max = SIZE_MAX;
    })
    .await
}

/// Octets as a camera might write them: all that lines must not hold, and what looks like a delimiter.
fn picture(size: usize) -> Vec<u8> {
    let mut random = Random::new(3030);
    let mut octets =
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\r\n--part\n\r\n--parts\r\n\r\r\n.\r\n\n--part--\n".to_vec();
    octets.extend(std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(size));
    octets.extend_from_slice(b"\xff\xd9\r\n");
    octets
}

/// A message from `from` with a text and that picture, its parts labelled `label`.
fn message(from: &str, label: &str, picture: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: <{from}>\r\nTo: <{ALICE}>\r\nSubject: a picture\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=part\r\nContent-Transfer-Encoding: binary\r\n\r\n--part\r\n\r\n\
         look\r\n--part\r\nContent-Type: image/jpeg; name=\"p.jpg\"\r\nContent-Disposition: attachment\r\n\
         Content-Transfer-Encoding: {label}\r\n\r\n"
    );
    [head.as_bytes(), picture, b"\r\n--part--\r\n"].concat()
}

/// The picture that somebody finds in a message, which is lines of SMTP.
fn found(message: &[u8]) -> Result<Vec<u8>, Trouble> {
    let is_line =
        |line: &[u8]| line.len() <= 999 && line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r');
    let lines = message.strip_suffix(b"\n").ok_or("its last line does not end")?;
    assert!(lines.split(|octet| *octet == b'\n').all(is_line) && !message.contains(&0));
    let attachments = mime::attachments(message);
    assert_eq!(attachments.iter().map(|part| part.name.as_deref()).collect::<Vec<_>>(), [Some("p.jpg")]);
    assert_eq!(mime::text_of(message).trim(), "look");
    Ok(mime::open(message, attachments[0].index).ok_or("it cannot be opened")?.octets)
}

#[tokio::test]
async fn a_picture_in_octets_is_whole_on_the_road_and_at_home() -> Result<(), Trouble> {
    let mut world = world().await?;
    let trip = world.set_out("alice", Terms { after_fetch: AfterFetch::Keep, ..Terms::default() }).await?;
    // The road has them before home does.
    world.nodes.kill(Node::Big).await?;
    let pictures = [picture(2_000), picture(2 * 1024 * 1024)];
    let mut ids = Vec::new();
    for (picture, chunk) in pictures.iter().zip([7, 100_000]) {
        let mut session = world.smtp().await?;
        assert!(session.offers("BINARYMIME"));
        let sent =
            session.send_binary(CAROL, &[ALICE, BOB], &message(CAROL, "binary", picture), chunk).await?;
        ids.push(accepted_as(&sent).ok_or("no id")?);
        session.quit().await?;
    }
    let mut session = world.log_in(&trip).await?;
    for (number, picture) in (1..).zip(&pictures) {
        assert!(found(&session.retr(number).await?)? == *picture, "message {number} on the road");
    }
    session.quit().await?;
    world.nodes.start_big().await?;
    for (id, picture) in ids.iter().zip(&pictures) {
        for person in ["alice", "bob"] {
            let desk = world.desk(person);
            desk.filed(Folder::In, id).await?;
            let raw = desk.raw(id).await?;
            assert!(found(&raw)? == *picture, "{id} at {person}'s");
            let header = String::from_utf8_lossy(&raw[..mime::header_len(&raw)]).into_owned();
            assert!(header.contains(" with ESMTP id "), "{header}");
            assert!(header.contains("\r\nContent-Transfer-Encoding: 8bit\r\n"), "{header}");
        }
        let folder = tempfile::tempdir()?;
        let to = folder.path().to_str().ok_or("a path")?;
        world.nodes.big.run(&["mail", "save", id, "--as", "alice", "--all", "--to", to]).await?;
        assert!(std::fs::read(folder.path().join("p.jpg"))? == *picture);
    }
    world.end().await
}

#[tokio::test]
async fn what_a_traveller_sends_in_octets_leaves_in_lines() -> Result<(), Trouble> {
    let world = world().await?;
    let trip = world.set_out("alice", Terms { after_fetch: AfterFetch::Keep, ..Terms::default() }).await?;
    let mut session = world.submission(&trip.user, &trip.password).await?;
    let picture = picture(100_000);
    match session.send_binary(ALICE, &[CAROL], &message(BOB, "binary", &picture), 1 << 20).await {
        Err(SendError::Refused { reply, .. }) => assert_eq!(reply.enhanced(), Some("5.7.1"), "{reply}"),
        other => panic!("sent as bob: {other:?}"),
    }
    session.send_binary(ALICE, &[CAROL], &message(ALICE, "binary", &picture), 1 << 20).await?;
    session.quit().await?;
    let mail = world.internet.mta.wait_for(1, SOON).await?;
    assert!(found(&mail[0].data)? == picture);
    assert!(mail[0].parameters.iter().all(|said| !said.contains("BINARY")), "{:?}", mail[0].parameters);
    world.end().await
}

/// What is sent again is the same message if the octets are; lines that are the same do not make it so.
#[tokio::test]
async fn a_repeat_is_known_by_the_octets_that_came() -> Result<(), Trouble> {
    let world = world().await?;
    let mut ids = Vec::new();
    for (label, chunk) in [("binary", 50), ("binary", 10_000), ("Binary", 10_000)] {
        let mut session = world.smtp().await?;
        let message = message(CAROL, label, &picture(3_000));
        let sent = session.send_binary(CAROL, &[ALICE], &message, chunk).await?;
        ids.push(accepted_as(&sent).ok_or("no id")?);
        session.vanish().await?;
    }
    assert_eq!(ids[0], ids[1], "the same octets in other chunks");
    assert_ne!(ids[0], ids[2]);
    world.quiet().await?;
    let desk = world.desk("alice");
    assert_eq!(desk.messages(Folder::In).await?.len(), 2);
    let (one, other) = (desk.raw(&ids[0]).await?, desk.raw(&ids[2]).await?);
    assert_eq!(without_trace(&one), without_trace(&other), "they are the same lines");
    world.end().await
}

#[tokio::test]
async fn octets_that_are_too_large_in_lines_are_refused_and_the_session_goes_on() -> Result<(), Trouble> {
    let world = world().await?;
    let mut session = world.smtp().await?;
    let large = message(CAROL, "binary", &picture(usize::try_from(SIZE_MAX)? * 4 / 5));
    assert!(large.len() < usize::try_from(SIZE_MAX)?);
    match session.send_binary(CAROL, &[ALICE], &large, 1 << 20).await {
        Err(SendError::Refused { reply, .. }) => {
            let text =
                "552 5.3.4 the message is larger than 4194304 octets when its binary parts are in base64";
            assert_eq!(reply.to_string(), text);
        }
        other => panic!("{other:?}"),
    }
    session.send_binary(CAROL, &[ALICE], &message(CAROL, "binary", &picture(10)), 1 << 20).await?;
    session.quit().await?;
    world.quiet().await?;
    assert_eq!(world.desk("alice").messages(Folder::In).await?.len(), 1);
    world.end().await
}
