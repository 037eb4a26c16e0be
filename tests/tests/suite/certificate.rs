//! The edge's certificate from files: another one is shown without a restart, and what cannot be used changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use edge_node::request::CertificateView;
use rustix::process::{Pid, Signal, kill_process};
use shared::topology::TlsFiles;
use tests::ask;
use tests::process::Program;
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;
use tests::world::{World, first};

/// A new certificate and its key, in their files.
fn write(folder: &Path) -> Result<TlsFiles, Trouble> {
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()])?;
    let files = TlsFiles { certificate: folder.join("chain.pem"), key: folder.join("key.pem") };
    fs::write(&files.certificate, made.cert.pem())?;
    fs::write(&files.key, made.signing_key.serialize_pem())?;
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600))?;
    Ok(files)
}

/// The certificate at the port for collecting under TLS.
async fn shown(world: &World) -> Result<Vec<u8>, Trouble> {
    let mut wire = Wire::connect(first(&world.nodes.edge_ready().pop3s)).await?;
    wire.start_tls().await?;
    Ok(wire.peer_certificate().ok_or("there is none")?.to_vec())
}

#[tokio::test]
async fn another_certificate_is_shown_without_a_restart() -> Result<(), Trouble> {
    let folder = tempfile::tempdir()?;
    let files = write(folder.path())?;
    let world = World::unpaired(Program::at(env!("CARGO_BIN_EXE_pair")), |topology| {
        topology.tls = Some(files.clone())
    })
    .await?;
    let one = shown(&world).await?;
    write(folder.path())?;
    let pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("it runs");
    kill_process(pid(world.nodes.edge_ready().pid)?, Signal::HUP)?;
    // A supervisor that tells both is to end neither.
    kill_process(pid(world.nodes.big_ready().pid)?, Signal::HUP)?;
    let two = until("the new certificate is shown", SOON, async || {
        Ok(Some(shown(&world).await?).filter(|certificate| *certificate != one))
    })
    .await?;

    ask::big_link(&world.nodes.big_ready().control).await?;

    // Half of what is new: its key is not there yet.
    let key = fs::read(&files.key)?;
    write(folder.path())?;
    fs::write(&files.key, &key)?;
    let view = async || Ok::<_, Trouble>(world.nodes.edge.json::<CertificateView>(&["certificate"]).await?);
    assert!(view().await?.error.is_none());
    let read = world.nodes.edge.json::<CertificateView>(&["certificate", "renew"]).await;
    let refused = read.expect_err("no pair").to_string();
    assert!(refused.contains("are they a pair?"), "{refused}");
    assert_eq!(shown(&world).await?, two);
    assert!(view().await?.error.is_some_and(|error| error.contains("are they a pair?")));
    let alarms = world.edge_link().await?.alarms.join("\n");
    assert!(alarms.contains("there is no new certificate"), "{alarms}");
    write(folder.path())?;
    let view: CertificateView = world.nodes.edge.json(&["certificate", "renew"]).await?;
    assert_eq!((view.source.as_str(), view.error), ("files", None));
    let three = shown(&world).await?;
    assert_ne!(three, two);

    // The key alone is another one, or none that can be read.
    fs::write(&files.key, rcgen::KeyPair::generate()?.serialize_pem())?;
    let read = world.nodes.edge.json::<CertificateView>(&["certificate", "renew"]).await;
    let refused = read.expect_err("no pair").to_string();
    assert!(refused.contains("are they a pair?"), "{refused}");
    fs::remove_file(&files.key)?;
    rustix::fs::mkfifoat(rustix::fs::CWD, &files.key, rustix::fs::Mode::RUSR)?;
    let read = world.nodes.edge.json::<CertificateView>(&["certificate", "renew"]).await;
    let refused = read.expect_err("nobody writes into it").to_string();
    assert!(refused.contains("it is no regular file"), "{refused}");
    assert_eq!(shown(&world).await?, three);
    Ok(())
}
