//! What a node confines itself to. That the whole suite passes within it is the other half of the proof; which calls are
//! refused is shown in `shared::sandbox`.

use big_node::record::Folder;
use shared::topology::Confinement;
use tests::proc::confined_threads;
use tests::process::Program;
use tests::wait::Trouble;
use tests::world::{ALICE, World};

fn pair() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

#[tokio::test]
async fn every_thread_is_in_its_sandbox_and_a_backup_goes_anywhere() -> Result<(), Trouble> {
    let world = World::with(pair(), |topology| topology.sandbox = Confinement::Required).await?;
    let message = b"From: carol@remote.example\r\nSubject: hello\r\n\r\ntext\r\n";
    let id = world.receive(&[ALICE], message).await?;
    world.desk("alice").filed(Folder::In, &id).await?;
    let nodes = &world.nodes;
    for (pid, state, commands) in [
        (nodes.big_ready().pid, nodes.topology.big_state(), &nodes.big),
        (nodes.edge_ready().pid, nodes.topology.edge_state(), &nodes.edge),
    ] {
        let (all, confined) = confined_threads(pid)?;
        assert!(all > 2 && confined == all, "{confined} of {all} threads");

        let said = commands.run(&["link", "status"]).await?;
        assert!(said.contains("\nsandbox     on\n"), "{said}");

        // The node may not write there; the command does.
        let folder = tempfile::tempdir()?;
        let backup = folder.path().join("down");
        let backup = backup.to_str().ok_or("UTF-8")?;
        let said = commands.run(&["backup", backup]).await?;
        assert!(said.contains("with the keys"), "{said}");
        let refused = commands.run(&["backup", backup]).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("holds a node already")));
        let left = std::fs::read_dir(state.join("backups"))?.count();
        assert_eq!(left, 0, "what was prepared is taken away");
    }
    world.end().await
}

#[tokio::test]
async fn a_node_without_a_sandbox_says_so() -> Result<(), Trouble> {
    let world = World::with(pair(), |topology| topology.sandbox = Confinement::Off).await?;
    for (pid, commands) in
        [(world.nodes.big_ready().pid, &world.nodes.big), (world.nodes.edge_ready().pid, &world.nodes.edge)]
    {
        assert_eq!(confined_threads(pid)?.1, 0);
        let said = commands.run(&["link", "status"]).await?;
        assert!(said.contains("\nsandbox     off, as the topology has it\n"), "{said}");
        let said: serde_json::Value =
            serde_json::from_str(&commands.run(&["link", "status", "--json"]).await?)?;
        assert_eq!(said["sandbox"]["on"], false, "{said}");
    }
    world.end().await
}
