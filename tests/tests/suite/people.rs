//! People ask for what is theirs at a socket of their own, by the Unix account that the kernel names; whoever
//! operates the node is not disturbed by them.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use big_node::record::Folder;
use big_node::request::{Explanation, Line, PersonView, Request, Sent, Started, Status, WindowView};
use shared::control::{ACCOUNT_CONNECTIONS_MAX, CallError, call};
use tests::control::Commands;
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::{BOB, World};

const NODE: &str = "big-node";

/// A world with a socket for people, and a topology of theirs: of the node's state they see nothing.
async fn world() -> Result<(World, PathBuf, Commands), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let mut desk = PathBuf::new();
    let world = World::with(program.clone(), |topology| {
        desk = topology.state.join("run/desk.sock");
        topology.desk = Some(desk.clone());
    })
    .await?;
    let mut theirs = world.nodes.topology.clone();
    theirs.state = world.nodes.topology.state.join("elsewhere");
    let theirs = theirs.write()?;
    Ok((world, desk, Commands::new(program, Node::Big, theirs)))
}

async fn set_account(world: &World, name: &str, account: &str) -> Result<PersonView, Trouble> {
    Ok(world.nodes.big.json(&["person", "set", name, "--account", account]).await?)
}

#[tokio::test]
async fn a_person_works_for_themselves_and_for_nobody_else() -> Result<(), Trouble> {
    let (world, _, hers) = world().await?;
    let uid = rustix::process::geteuid().as_raw();
    let nobodys = hers.run(&["mail", "list"]).await.expect_err("the account is nobody's");
    let what = format!("account {uid} is nobody's here");
    assert!(nobodys.refusal().is_some_and(|text| text.contains(&what)), "{nobodys}");

    assert_eq!(set_account(&world, "alice", &uid.to_string()).await?.uid, Some(uid));
    let shown = world.nodes.big.run(&["person", "show", "alice"]).await?;
    assert!(shown.contains(&uid.to_string()), "{shown}");
    let taken = set_account(&world, "bob", &uid.to_string()).await.expect_err("it is hers").to_string();
    assert!(taken.contains("is alice's"), "{taken}");
    for unknown in ["no-such-account-here", "65534"] {
        set_account(&world, "bob", unknown).await.expect_err("nobody's");
    }

    let sent: Sent = hers.json_with(&["mail", "send", "--to", "bob", "--subject", "Mine"], b"Hello").await?;
    world.desk("bob").filed(Folder::In, &sent.id).await?;
    let lines: Vec<Line> = hers.json(&["mail", "list", "--folder", "sent"]).await?;
    assert_eq!(lines.iter().map(|line| line.subject.as_str()).collect::<Vec<_>>(), ["Mine"]);
    let named: Vec<Line> =
        hers.json(&["mail", "list", "--folder", "sent", "--as", "alice@example.com"]).await?;
    assert_eq!(named.len(), 1, "her own name may be said");

    for (arguments, reason) in [
        (&["mail", "list", "--as", "bob"][..], "this account is that of alice"),
        (&["mail", "read", &sent.id, "--as", "bob"], "this account is that of alice"),
        (&["mail", "send", "--as", "bob", "--to", "alice", "--subject", "x", "--text", "x"], "that of alice"),
        (&["mail", "list", "--as", "nobody-at-all"], "this account is that of alice"),
        (&["nickname", "list", "--as", "bob"], "this account is that of alice"),
        (&["travel", "start", "bob", "--until", "standing"], "this account is that of alice"),
        (&["travel", "end", "bob"], "this account is that of alice"),
        (&["person", "add", "eve"], "that is for whoever operates"),
        (&["person", "set", "alice", "--forward", "x@remote.example"], "that is for whoever operates"),
        (&["person", "export"], "that is for whoever operates"),
        (&["trace", &sent.id], "that is for whoever operates"),
        (&["queue", "list"], "that is for whoever operates"),
        (&["link", "status"], "that is for whoever operates"),
        (&["backup", "x"], "that is for whoever operates"),
    ] {
        let refused = hers.run(arguments).await.expect_err("not hers").to_string();
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }

    // The directory is for all, but not what is a colleague's own.
    world
        .nodes
        .big
        .run(&["person", "set", "bob", "--forward", "bob@remote.example", "--keep-copy", "yes"])
        .await?;
    world.nodes.big.run(&["travel", "start", "bob", "--until", "standing"]).await?;
    let people: Vec<PersonView> = hers.json(&["person", "list"]).await?;
    let bob = people.iter().find(|person| person.name == "bob").ok_or("he is there")?;
    assert_eq!(
        (bob.addresses.as_slice(), bob.forward.len(), bob.travelling),
        (&[BOB.to_owned()][..], 0, false)
    );
    // Nor where it goes on to, which whoever operates the node sees.
    let on: Sent = hers.json(&["mail", "send", "--to", "bob", "--subject", "On", "--text", "x"]).await?;
    world.internet.mta.wait_for(1, SOON).await?;
    let status: Status = hers.json(&["mail", "status", &on.id]).await?;
    assert_eq!(status.recipients.iter().map(|to| to.address.as_str()).collect::<Vec<_>>(), [BOB]);
    let explained: Explanation = hers.json(&["explain", "bob"]).await?;
    assert_eq!(explained.recipients.iter().map(|to| to.address.as_str()).collect::<Vec<_>>(), [BOB]);
    let told = serde_json::to_string(&(&on, &status, &explained))?;
    assert!(!told.contains("remote.example"), "{told}");
    let lines: Vec<Line> = hers.json(&["mail", "list", "--folder", "sent"]).await?;
    assert!(!serde_json::to_string(&lines)?.contains("remote.example"), "{lines:?}");
    for arguments in [&["mail", "status", &on.id, "--as", "alice"][..], &["explain", "bob"]] {
        let shown = world.nodes.big.run(arguments).await?;
        assert!(shown.contains("bob@remote.example"), "{arguments:?}: {shown}");
    }
    let started: Started = hers.json(&["travel", "start", "alice", "--until", "standing"]).await?;
    let windows: Vec<WindowView> = hers.json(&["travel", "list"]).await?;
    assert_eq!(
        windows.iter().map(|window| window.id.as_str()).collect::<Vec<_>>(),
        [started.window.id.as_str()]
    );
    hers.run(&["travel", "end", "alice"]).await?;
    world.nodes.big.run(&["travel", "end", "bob"]).await?;

    set_account(&world, "alice", "none").await?;
    let nobodys = hers.run(&["mail", "list"]).await.expect_err("it is nobody's again").to_string();
    assert!(nobodys.contains(&what), "{nobodys}");
    world.end().await
}

#[tokio::test]
async fn clients_that_stand_still_or_flood_keep_only_their_own_account_out() -> Result<(), Trouble> {
    let (world, desk, _) = world().await?;
    set_account(&world, "alice", &rustix::process::geteuid().as_raw().to_string()).await?;
    let slow = || -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&desk)?;
        // It announces a request and does not send it.
        stream.write_all(&[0, 0, 1, 0])?;
        Ok(stream)
    };
    let slow: Vec<_> = (0..ACCOUNT_CONNECTIONS_MAX).map(|_| slow()).collect::<Result<_, _>>()?;
    let ask = || {
        let desk = desk.clone();
        tokio::task::spawn_blocking(move || call::<_, PersonView>(NODE, &desk, &Request::Whoami, b""))
    };
    assert!(matches!(ask().await?, Err(CallError::NoAnswer { .. })), "the account has no connection left");
    assert_eq!(world.big().people().await?.len(), 2, "the operator's socket answers");
    drop(slow);
    let own = until("a connection is free again", SOON, async || Ok(ask().await?.ok())).await?;
    assert_eq!(own.0.name, "alice");
    world.end().await
}
