//! Mail to a host that offers CHUNKING: it goes by BDAT, octet for octet, is counted where nobody knows whether it has arrived,
//! and goes by DATA where the host only offers it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use big_node::request::{RecipientView, Sent};
use shared::report::Step;
use shared::unit::DeliveryState;
use tests::internet::dns::Zone;
use tests::internet::loopback;
use tests::internet::mta::{Mail, Mta, Options};
use tests::internet::rules::{Action, Rule, Stage};
use tests::process::{Node, Program};
use tests::wait::{SOON, Trouble, until};
use tests::world::World;

const TO: &str = "x@chunked.example";

/// A world with a host for `chunked.example` that offers CHUNKING.
async fn world() -> Result<(World, Mta), Trouble> {
    let program = Program::at(env!("CARGO_BIN_EXE_pair"));
    let world = World::with(program, |topology| {
        *topology = topology.clone().with_fixed_ports().expect("free ports");
    })
    .await?;
    let listen = SocketAddr::new(loopback(2), world.internet.mta.address().port());
    let options = Options { listen, name: "mx.chunked.example".into(), chunking: true, ..Options::default() };
    let host = Mta::start(options).await?;
    let zone = Zone::new("chunked.example").mx(10, "mx.chunked.example").a("mx.chunked.example", loopback(2));
    world.internet.dns.publish(zone);
    Ok((world, host))
}

/// Its only recipient, once the host has it.
async fn relayed(world: &World, sent: &Sent) -> Result<RecipientView, Trouble> {
    let desk = world.desk("alice");
    desk.relayed(&sent.id).await?;
    Ok(desk.status(&sent.id).await?.recipients.remove(0))
}

/// What the edge says of attempts that came to nothing.
async fn deferrals(world: &World, sent: &Sent) -> Result<Vec<String>, Trouble> {
    let way: Vec<Step> = world.nodes.edge.json(&["trace", &sent.id]).await?;
    Ok(way.into_iter().map(|step| step.what).filter(|what| what.contains(": deferred: ")).collect())
}

fn by_chunks(mail: &[Arc<Mail>]) -> Vec<bool> {
    mail.iter().map(|mail| mail.chunked).collect()
}

#[tokio::test]
async fn what_goes_in_chunks_is_what_goes_by_data() -> Result<(), Trouble> {
    let (world, host) = world().await?;
    let desk = world.desk("alice");
    // In one chunk, and in several.
    for lines in [1, 10_000] {
        let text = ".\r\n..a line that begins with dots\r\n\r\n".repeat(lines);
        let sent = desk.send(&format!("{TO}, y@remote.example"), "dots", &text).await?;
        desk.relayed(&sent.id).await?;
        let (chunked, plain) = (host.mail(), world.internet.mta.mail());
        let (chunked, plain) = (chunked.last().expect("is there"), plain.last().expect("is there"));
        assert!(chunked.chunked && !plain.chunked);
        assert!(chunked.data == plain.data && chunked.data.len() > text.len(), "octet for octet");
    }
    assert_eq!(host.mail().len(), 2);
    world.end().await
}

/// The host has the last chunk when the edge is killed, and has not answered: it asks once more, and not again.
#[tokio::test]
async fn what_has_left_in_chunks_when_the_edge_is_killed_is_undetermined() -> Result<(), Trouble> {
    let (mut world, host) = world().await?;
    host.add_rule(Rule::new(Stage::Dot, Action::Delay(Duration::from_secs(3_600))).times(1));
    let desk = world.desk("alice");
    let sent = desk.send(TO, "plans", "it has left").await?;
    until("the host has the last chunk", SOON, async || Ok(host.is_used_up().then_some(()))).await?;
    world.nodes.kill(Node::Edge).await?;
    host.add_rule(Rule::reply(Stage::Rcpt, 451, "4.2.0 not now"));
    world.nodes.start_edge().await?;
    world.linked().await?;
    until("it is in doubt", SOON, async || {
        let view = desk.status(&sent.id).await?.recipients.remove(0);
        Ok((view.state == DeliveryState::Deferred && view.in_doubt).then_some(()))
    })
    .await?;
    host.clear_rules();
    relayed(&world, &sent).await?;
    assert_eq!(world.edge_link().await?.border.expect("is the edge's").undetermined, 1);
    world.quiet().await?;
    assert_eq!(by_chunks(&host.mail()), [true]);
    world.end().await
}

#[tokio::test]
async fn a_host_lost_behind_the_last_chunk_is_asked_once_more_and_by_data() -> Result<(), Trouble> {
    let (world, host) = world().await?;
    host.add_rule(Rule::keep_and_hang_up().times(1));
    let sent = world.desk("alice").send(TO, "in doubt", "text").await?;
    relayed(&world, &sent).await?;
    world.quiet().await?;
    assert_eq!(by_chunks(&host.mail()), [true, false], "one attempt more, and no third");
    assert_eq!(host.mail()[0].digest, host.mail()[1].digest);
    world.end().await
}

#[tokio::test]
async fn a_host_that_only_offers_chunking_gets_data_in_another_session_and_is_remembered()
-> Result<(), Trouble> {
    let (world, host) = world().await?;
    host.add_rule(Rule::reply(Stage::Chunk, 502, "5.5.1 what"));
    let desk = world.desk("alice");
    let sent = desk.send(TO, "refused", "text").await?;
    relayed(&world, &sent).await?;
    assert_eq!(host.connections(), 2, "in the same attempt");
    assert!(deferrals(&world, &sent).await?.is_empty());
    // It hangs up between the two, and would at another chunk: the next session asks for none.
    host.clear_rules();
    host.add_rule(Rule::hang_up(Stage::Mail).times(1));
    host.add_rule(Rule::hang_up(Stage::Chunk));
    let sent = desk.send(TO, "remembered", "text").await?;
    relayed(&world, &sent).await?;
    assert_eq!((by_chunks(&host.mail()), host.connections()), (vec![false; 2], 3));
    world.end().await
}

#[tokio::test]
async fn a_host_that_hangs_up_at_its_first_chunk_gets_data_in_another_session() -> Result<(), Trouble> {
    let (world, host) = world().await?;
    host.add_rule(Rule::hang_up(Stage::Chunk));
    let sent = world.desk("alice").send(TO, "hangs up", "text").await?;
    let view = relayed(&world, &sent).await?;
    assert!(!view.in_doubt && deferrals(&world, &sent).await?.is_empty(), "{view:?}");
    assert_eq!((by_chunks(&host.mail()), host.connections()), (vec![false], 2));
    world.end().await
}
