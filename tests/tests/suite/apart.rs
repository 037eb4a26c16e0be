//! Big keeps to itself: the kernel's list of its sockets shows one outbound flow and nothing that
//! anybody could connect to.

use tests::proc::internet_sockets;
use tests::process::Program;
use tests::wait::Trouble;
use tests::world::{ALICE, World};

#[tokio::test]
async fn big_has_no_internet_listener_and_one_flow_to_the_edge() -> Result<(), Trouble> {
    let world = World::start(Program::at(env!("CARGO_BIN_EXE_pair"))).await?;
    let id = world.receive(&[ALICE], b"Subject: x\r\n\r\nsomething to do\r\n").await?;
    let desk = world.desk("alice");
    desk.filed(big_node::record::Folder::In, &id).await?;
    desk.send("carol@remote.example", "y", "something else to do").await?;
    world.internet.mta.wait_for(1, tests::wait::SOON).await?;

    let sockets = internet_sockets(world.nodes.big_ready().pid)?;
    let names: Vec<_> = sockets.iter().map(|socket| socket.protocol).collect();
    assert_eq!(names, ["udp"], "{sockets:?}");
    let edge = internet_sockets(world.nodes.edge_ready().pid)?;
    let tcp = edge.iter().filter(|socket| socket.protocol == "tcp" && socket.listens).count();
    assert_eq!(tcp, 5, "the same question finds each of the edge's services: {edge:?}");
    Ok(())
}
