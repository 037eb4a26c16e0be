//! What senders are told as they ask for it (RFC 3461): outside, inside and on the road; once, and by the next host where
//! that one does it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use big_node::record::{AfterFetch, Folder, Scope};
use big_node::request::{RecipientView, Sent, Written};
use shared::notify::{Notify, Return};
use shared::topology::Dmarc;
use shared::unit::DeliveryState;
use tests::client::smtp::SmtpClient;
use tests::desk::Desk;
use tests::internet::dns::Zone;
use tests::internet::mta::{Mta, Options};
use tests::internet::rules::{Rule, Stage};
use tests::process::{Node, Program};
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::world::{ALICE, BOB, World, accepted_as};

/// Whose host reports nothing, and whose does.
const PLAIN: &str = "carol@plain.example";
const REPORTS: &str = "dave@reports.example";

/// A world with two hosts outside; that of [`REPORTS`] offers DSN. Both domains vouch for what comes from here.
async fn world() -> Result<(World, Mta), Trouble> {
    let verifies = |topology: &mut TestTopology| topology.authentication.dmarc = Dmarc::Record;
    let world = World::with(Program::at(env!("CARGO_BIN_EXE_pair")), verifies).await?;
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let listen = SocketAddr::new(other, world.internet.mta.address().port());
    let reports = Mta::start(Options { listen, dsn: true, ..Options::default() }).await?;
    for (domain, host) in [("plain.example", Ipv4Addr::LOCALHOST.into()), ("reports.example", other)] {
        let zone = Zone::new(domain).a(domain, host).txt(domain, "v=spf1 ip4:127.0.0.1 -all");
        world.internet.dns.publish(zone);
    }
    world.internet.dns.publish(Zone::new("null.example").null_mx());
    Ok((world, reports))
}

/// Sends a message whose envelope is asked for so; the id under which it was accepted.
async fn ask(client: &mut SmtpClient, mail: &str, rcpt: &[&str]) -> Result<String, Trouble> {
    client.expect(&format!("MAIL FROM:{mail}"), 250).await?;
    for rcpt in rcpt {
        client.expect(&format!("RCPT TO:{rcpt}"), 250).await?;
    }
    client.expect("DATA", 354).await?;
    let from = mail.split_once('>').map_or(mail, |(from, _)| from.trim_start_matches('<'));
    let content = format!("From: {from}\r\nTo: {ALICE}\r\nSubject: asks\r\n\r\nthe text\r\n.");
    accepted_as(&client.expect(&content, 250).await?).ok_or_else(|| "no id".into())
}

/// The reports in somebody's mailbox.
async fn reports(desk: &Desk) -> Result<Vec<String>, Trouble> {
    let mut reports = Vec::new();
    for line in desk.messages(Folder::In).await? {
        let text = String::from_utf8_lossy(&desk.raw(&line.id).await?).into_owned();
        reports.extend(text.contains("multipart/report").then_some(text));
    }
    Ok(reports)
}

/// Waits until there are so many reports.
async fn told(desk: &Desk, count: usize) -> Result<Vec<String>, Trouble> {
    until(&format!("{count} reports"), SOON, async || {
        let reports = reports(desk).await?;
        Ok((reports.len() >= count).then_some(reports))
    })
    .await
}

async fn until_is(desk: &Desk, sent: &Sent, state: DeliveryState) -> Result<RecipientView, Trouble> {
    until(&format!("{} is {state:?}", sent.id), SOON, async || {
        let recipients = desk.status(&sent.id).await?.recipients;
        Ok(recipients.into_iter().find(|recipient| recipient.state == state))
    })
    .await
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "no {line:?} in {text}");
    }
}

#[tokio::test]
async fn an_outside_sender_hears_once_that_mail_is_in_the_mailbox() -> Result<(), Trouble> {
    let (mut world, reporting) = world().await?;
    let mut client = world.smtp().await?;
    let mail = format!("<{PLAIN}> RET=FULL ENVID=QQ+2B3+3D1");
    let rcpt = format!("<{ALICE}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;al+2Bice@example.net");
    ask(&mut client, &mail, &[&rcpt, &format!("<{BOB}> NOTIFY=FAILURE")]).await?;
    let told = world.internet.mta.wait_for(1, SOON).await?;
    let text = String::from_utf8_lossy(&told[0].data);
    assert_eq!((told[0].reverse_path.as_str(), &told[0].recipients[..]), ("", &[PLAIN.to_owned()][..]));
    has(
        &text,
        &[
            "Original-Envelope-Id: QQ+3=1",
            "Original-Recipient: rfc822;al+ice@example.net",
            "Final-Recipient: rfc822; alice@example.com",
            "Action: delivered",
            "Content-Type: text/rfc822-headers",
            "Subject: asks",
        ],
    );
    assert!(!text.contains("the text") && !text.contains(BOB), "{text}");
    // Where it can be said, it is said that nobody is to report on the report.
    ask(&mut client, &format!("<{REPORTS}>"), &[&format!("<{ALICE}> NOTIFY=SUCCESS")]).await?;
    let told = reporting.wait_for(1, SOON).await?;
    assert_eq!(told[0].recipient_parameters, [["NOTIFY=NEVER"]]);
    // Nobody has vouched for this one, who may be anybody; and this one does not ask.
    for mail in ["<erin@forged.example>", &format!("<{PLAIN}>"), "<>"] {
        let notify = if mail.contains("plain") { "" } else { " NOTIFY=SUCCESS" };
        let id = ask(&mut client, mail, &[&format!("<{ALICE}>{notify}")]).await?;
        world.desk("alice").filed(Folder::In, &id).await?;
    }
    // Nodes that are started again say it no more.
    for node in [Node::Big, Node::Edge] {
        world.nodes.stop(node).await?;
    }
    world.nodes.start_edge().await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    let mut client = world.smtp().await?;
    ask(&mut client, &format!("<{PLAIN}>"), &[&format!("<{BOB}> NOTIFY=SUCCESS")]).await?;
    let told = world.internet.mta.wait_for(2, SOON).await?;
    has(&String::from_utf8_lossy(&told[1].data), &["Final-Recipient: rfc822; bob@example.com"]);
    world.quiet().await?;
    assert_eq!((world.internet.mta.mail().len(), reporting.mail().len()), (2, 1));
    world.end().await
}

#[tokio::test]
async fn a_big_that_went_back_tells_an_outside_sender_nothing_twice() -> Result<(), Trouble> {
    let (mut world, _reporting) = world().await?;
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("backup");
    let backup = backup.to_str().ok_or("UTF-8")?;
    world.nodes.big.run(&["backup", backup]).await?;
    let mut client = world.smtp().await?;
    let rcpt = format!("<{ALICE}> NOTIFY=SUCCESS");
    let id = ask(&mut client, &format!("<{PLAIN}> ENVID=first"), &[&rcpt]).await?;
    world.internet.mta.wait_for(1, SOON).await?;
    world.quiet().await?;
    world.nodes.destroy(Node::Big).await?;
    world.nodes.big.run(&["restore", backup]).await?;
    world.nodes.start_big().await?;
    world.linked().await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    // The report is made again, and this one after it: both go the same way.
    ask(&mut client, &format!("<{PLAIN}> ENVID=second"), &[&rcpt]).await?;
    let told = world.internet.mta.wait_for(2, SOON).await?;
    // Also that nobody waits for the first one any more.
    until("both nodes know the same of it", SOON, async || Ok(world.same().await.ok())).await?;
    assert!(world.edge_queue().await?.is_empty());
    assert_eq!(world.internet.mta.mail().len(), 2);
    has(&String::from_utf8_lossy(&told[0].data), &["Original-Envelope-Id: first"]);
    has(&String::from_utf8_lossy(&told[1].data), &["Original-Envelope-Id: second"]);
    world.end().await
}

#[tokio::test]
async fn an_author_hears_of_the_next_host_or_from_it() -> Result<(), Trouble> {
    let (world, reporting) = world().await?;
    let desk = world.desk("alice");
    let said = world
        .nodes
        .big
        .run(&[
            "mail",
            "send",
            "--as",
            "alice",
            "--to",
            REPORTS,
            "--subject",
            "s",
            "--notify",
            "success,failure",
            "--return",
            "headers",
            "--text",
            "t",
        ])
        .await?;
    let got = reporting.wait_for(1, SOON).await?;
    let id = said.lines().find_map(|line| line.strip_prefix("sent as")).map(str::trim).ok_or("no id")?;
    let asked = |parameter: &str| got[0].parameters.iter().any(|given| given == parameter);
    assert!(asked("RET=HDRS") && asked(&format!("ENVID={id}")), "{:?}", got[0].parameters);
    assert_eq!(got[0].recipient_parameters, [["NOTIFY=SUCCESS,FAILURE"]]);
    until("the status says that it reports", SOON, async || {
        let status = world.nodes.big.run(&["mail", "status", id, "--as", "alice"]).await?;
        Ok(status.contains("it reports delivery itself").then_some(()))
    })
    .await?;
    // The same to a host that reports nothing, to a colleague, and to nobody.
    let notify = Some("success,failure".parse::<Notify>()?);
    let to = [PLAIN, BOB, "x@null.example"].map(ToOwned::to_owned).to_vec();
    let written = Written { to, notify, returns: Some(Return::Full), ..Written::default() };
    desk.dispatch(written, "the text\n").await?;
    let text = until("all three are told", SOON, async || {
        let text = reports(&desk).await?.concat();
        let told =
            ["relayed", "delivered", "failed"].iter().all(|word| text.contains(&format!("Action: {word}")));
        Ok(told.then_some(text))
    })
    .await?;
    for (who, action) in [(PLAIN, "relayed"), (BOB, "delivered"), ("x@null.example", "failed")] {
        let fields = format!("Final-Recipient: rfc822; {who}\r\nAction: {action}\r\n");
        assert_eq!(text.matches(&fields).count(), 1, "{who}: {text}");
    }
    assert!(text.contains("Content-Type: message/rfc822\r\n") && !text.contains(REPORTS), "{text}");
    assert_eq!(world.internet.mta.wait_for(1, SOON).await?[0].recipient_parameters, [Vec::<String>::new()]);
    world.end().await
}

#[tokio::test]
async fn who_wants_to_hear_of_no_failure_does_not() -> Result<(), Trouble> {
    let (world, _reporting) = world().await?;
    let desk = world.desk("alice");
    let mut states = Vec::new();
    for notify in ["never", "success,delay", "failure"] {
        let written = Written {
            to: vec!["x@null.example".into()],
            notify: Some(notify.parse()?),
            ..Written::default()
        };
        let written = Written { subject: notify.into(), ..written };
        let sent = desk.dispatch(written, "the text\n").await?;
        states.push(until_is(&desk, &sent, DeliveryState::Failed).await?.state);
    }
    // The last one asks, and whatever were owed of the others would have come before it.
    let told = told(&desk, 1).await?;
    assert_eq!((states.len(), told.len()), (3, 1), "{told:?}");
    assert!(told[0].contains("Subject: failure\r\n"), "only its header comes back: {}", told[0]);
    assert!(!told[0].contains("the text"), "{}", told[0]);
    world.end().await
}

#[tokio::test]
async fn travellers_ask_as_anybody_does_and_an_alias_passes_it_on() -> Result<(), Trouble> {
    let (world, reporting) = world().await?;
    world.nodes.big.run(&["shadow", "add", "dave", REPORTS]).await?;
    let desk = world.desk("bob");
    let started = desk.travel(Scope::New, AfterFetch::Keep).await?;
    world.first_pop3s(&started.user, &started.password).await?.quit().await?;
    let mut client = world.submission(&started.user, &started.password).await?;
    let rcpts = [
        format!("<{ALICE}> NOTIFY=SUCCESS ORCPT=rfc822;{ALICE}"),
        "<dave@example.com> NOTIFY=SUCCESS,DELAY".to_owned(),
        "<x@null.example> NOTIFY=NEVER".to_owned(),
    ];
    let rcpts: Vec<_> = rcpts.iter().map(String::as_str).collect();
    ask(&mut client, &format!("<{BOB}> RET=HDRS ENVID=trip"), &rcpts).await?;
    let got = reporting.wait_for(1, SOON).await?;
    assert_eq!(got[0].recipients, [REPORTS]);
    assert_eq!(
        got[0].recipient_parameters,
        [["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;dave@example.com"]],
        "the address that the traveller wrote is told"
    );
    assert!(got[0].parameters.iter().any(|given| given == "ENVID=trip"), "{:?}", got[0].parameters);
    let told = told(&desk, 1).await?;
    has(&told[0], &["Original-Envelope-Id: trip", "Final-Recipient: rfc822; alice@example.com"]);
    assert!(told.len() == 1 && !told[0].contains("null.example"), "{told:?}");
    // What fails is told all the same to whom nothing is asked.
    world.internet.mta.add_rule(Rule::reply(Stage::Rcpt, 550, "5.1.1 nobody"));
    ask(&mut client, &format!("<{BOB}>"), &[&format!("<{PLAIN}>")]).await?;
    let failed = until("the failure is told", SOON, async || {
        Ok(reports(&desk).await?.into_iter().find(|text| text.contains("Action: failed")))
    })
    .await?;
    has(&failed, &[&format!("Final-Recipient: rfc822; {PLAIN}")]);
    world.end().await
}
