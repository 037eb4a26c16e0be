//! What a node confines itself to. That the whole suite passes within it is the other half of the proof; which calls are
//! refused is shown in `shared::sandbox`.

use big_node::record::Folder;
use tests::proc::confined_threads;
use tests::process::Program;
use tests::wait::Trouble;
use tests::world::{ALICE, World};

fn pair() -> Program {
    Program::at(env!("CARGO_BIN_EXE_pair"))
}

#[tokio::test]
async fn every_thread_is_in_its_sandbox_and_a_backup_goes_anywhere() -> Result<(), Trouble> {
    let world = World::start(pair()).await?;
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
