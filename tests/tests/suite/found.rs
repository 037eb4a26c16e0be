//! What has become of somebody's mail, for an administrator who has an address and a time: the trace is searched on both
//! nodes, and what the edge has refused is in its log.

use big_node::record::Folder;
use shared::report::Passage;
use tests::client::smtp::SmtpClient;
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble};
use tests::world::{ALICE, BOB, CAROL, World};

const LETTER: &[u8] = b"From: carol@remote.example\r\nSubject: s\r\n\r\ntext\r\n";

async fn world() -> Result<World, Trouble> {
    World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await
}

#[tokio::test]
async fn messages_are_found_by_who_wrote_them_whom_they_are_for_and_what_hosts_said() -> Result<(), Trouble> {
    let world = world().await?;
    let (desk, big, edge) = (world.desk("alice"), &world.nodes.big, &world.nodes.edge);
    let first = world.receive(&[ALICE], LETTER).await?;
    let second = world.receive(&[BOB, ALICE], LETTER).await?;
    desk.filed(Folder::In, &first).await?;
    desk.filed(Folder::In, &second).await?;
    let sent = desk.send("dave@remote.example", "goes out", "text").await?;
    world.internet.mta.wait_for(1, SOON).await?;
    world.quiet().await?;

    let ids =
        |found: &[Passage]| found.iter().map(|passage| passage.id.clone()).collect::<Vec<_>>().join(" ");
    for (text, expected) in [
        ("CAROL@remote.example", format!("{second} {first}")),
        (BOB, second.clone()),
        ("dave@remote.example", sent.id.clone()),
        ("@remote.example", format!("{} {second} {first}", sent.id)),
        (ALICE, format!("{} {second} {first}", sent.id)),
    ] {
        let found: Vec<Passage> = big.json(&["trace", text]).await?;
        assert_eq!(ids(&found), expected, "{text}: {found:?}");
    }
    let found: Vec<Passage> = big.json(&["trace", CAROL, "--before", &second]).await?;
    assert_eq!(ids(&found), first);
    let found: Vec<Passage> = big.json(&["trace", "remote.example", "--max", "2"]).await?;
    assert_eq!(ids(&found), format!("{} {second}", sent.id));
    let told = big.run(&["trace", BOB]).await?;
    let fact = format!("taken in by big (from the Internet), from <{CAROL}>, for {BOB}, {ALICE}");
    assert!(told.contains(&second) && told.contains(&fact), "{told}");
    let told = big.run(&["trace", "nobody@remote.example"]).await?;
    assert!(told.starts_with("no message of 30 days"), "{told}");

    // The edge has what it needs of what leaves, and no address of what came in.
    let found: Vec<Passage> = edge.json(&["trace", "dave@remote.example"]).await?;
    assert_eq!(ids(&found), sent.id);
    for text in [CAROL, ALICE] {
        let found: Vec<Passage> = edge.json(&["trace", text]).await?;
        assert!(found.is_empty(), "{text}: {found:?}");
    }
    let found: Vec<Passage> = edge.json(&["trace", "127.0.0.1"]).await?;
    assert!(found.iter().any(|passage| passage.id == first), "{found:?}");
    world.end().await
}

#[tokio::test]
async fn what_the_edge_refuses_is_in_its_log_with_who_and_why_and_no_name_of_ours() -> Result<(), Trouble> {
    let mut world = world().await?;
    let mut client = SmtpClient::ready(world.smtp_address(), None).await?;
    for (line, code) in [
        ("MAIL FROM:<large@remote.example> SIZE=99999999999", 552),
        ("MAIL FROM:<carol@remote.example>", 250),
        ("RCPT TO:<nobody@example.com>", 550),
        ("RCPT TO:<x@elsewhere.example>", 550),
        ("RCPT TO:<alice@example.com>", 250),
        ("RSET", 250),
        ("MAIL FROM:<alice@example.com>", 250),
        ("RCPT TO:<nobody@example.com>", 550),
        ("RSET", 250),
        ("MAIL FROM:<carol@remote.example>", 250),
        ("RCPT TO:<alice@example.com>", 250),
    ] {
        assert_eq!(client.command(line).await?.code, code, "{line}");
    }
    client.expect("DATA", 354).await?;
    // So many Received fields are a loop.
    let looped = format!("{}Subject: s\r\n\r\ntext\r\n.", "Received: by x\r\n".repeat(200));
    assert_eq!(client.command(&looped).await?.code, 554);
    client.expect("QUIT", 221).await?;
    let log = world.nodes.topology.state.join("edge.log");
    world.nodes.stop(Node::Edge).await?;
    let log = std::fs::read_to_string(log)?;
    // The world asked before, with the null reverse-path, until its people were here.
    let is_ours = |line: &&str| line.contains(": refused client=") && !line.contains(r#"from="""#);
    let refused: Vec<_> = log.lines().filter(is_ours).collect();
    let says = [
        r#"from="large@remote.example" to="" reply="552 5.3.4 "#,
        r#"from="carol@remote.example" to="nobody@example.com" reply="550 5.1.1 "#,
        r#"from="carol@remote.example" to="x@elsewhere.example" reply="550 5.7.1 "#,
        r#"from="@example.com" to="nobody@example.com" reply="550 5.1.1 "#,
        r#"from="carol@remote.example" to="" reply="554 5.4.6 "#,
    ];
    assert_eq!(refused.len(), says.len(), "{refused:#?}");
    for (line, says) in refused.iter().zip(says) {
        assert!(line.contains("client=127.0.0.1 ") && line.contains(says), "{line}\nlacks {says}");
        assert!(!line.contains("alice"), "{line}");
    }
    Ok(())
}
