//! An authority that issues certificates by ACME: Pebble, which is not there at first, finds a closed port, issues one,
//! renews it, and is gone again. The edge runs on all the while.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edge_node::request::CertificateView;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use shared::topology::{Acme, WebPlace};
use tests::client::smtp::SmtpClient;
use tests::internet::Internet;
use tests::internet::dns::Zone;
use tests::process::Program;
use tests::topology::TestTopology;
use tests::wait::{SOON, Trouble, until};
use tests::wire::Wire;
use tests::world::{World, first};

use crate::tally::Tally;

const CASE: &str =
    "Pebble issues and renews the edge's certificate by HTTP-01, with one key and without a restart";
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs the case.
pub async fn case(pair: &Path, folder: &Path, tally: &mut Tally) {
    if tally.wants(CASE, "pebble") {
        let verdict = certified(pair, &folder.join("authority")).await;
        tally.note(CASE, verdict.map_err(|trouble| trouble.to_string()));
    }
}

/// Pebble, whose accounts and orders end with it.
struct Pebble(Child);

impl Pebble {
    /// Starts one in `folder` that listens at `at`, asks `dns`, and looks for challenges at the port `http`.
    async fn start(folder: &Path, at: SocketAddr, dns: SocketAddr, http: u16) -> Result<Self, Trouble> {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": at.to_string(),
            "managementListenAddress": free()?.to_string(),
            "certificate": folder.join("pebble.pem"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": http,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = folder.join("pebble.json");
        fs::write(&file, config.to_string())?;
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&file).args(["-dnsserver", &dns.to_string()]);
        // Neither chance nor sleep decides what happens.
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0");
        let log = fs::File::options().create(true).append(true).open(folder.join("pebble.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let pebble = Self(command.spawn()?);
        until("Pebble listens", SOON, async || Ok(Wire::connect(at).await.ok())).await?;
        Ok(pebble)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free now.
fn free() -> std::io::Result<SocketAddr> {
    TcpListener::bind(ANY)?.local_addr()
}

/// Makes the certificate by which Pebble proves itself, and returns the file that holds it.
fn proof(folder: &Path) -> Result<PathBuf, Trouble> {
    fs::create_dir_all(folder)?;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let path = folder.join("pebble.pem");
    fs::write(&path, made.cert.pem())?;
    fs::write(folder.join("pebble.key"), made.signing_key.serialize_pem())?;
    Ok(path)
}

/// What the edge shows at the ports for mail and for collecting: a certificate, and its key.
async fn shown(world: &World) -> Result<(Vec<u8>, Vec<u8>), Trouble> {
    let ready = world.nodes.edge_ready();
    let mut smtp = SmtpClient::ready(first(&ready.smtp), None).await?;
    smtp.start_tls().await?;
    let mut pop3s = Wire::connect(first(&ready.pop3s)).await?;
    pop3s.start_tls().await?;
    let certificate = pop3s.peer_certificate().ok_or("POP3 shows none")?.to_vec();
    if smtp.peer_certificate() != Some(certificate.as_slice()) {
        return Err("SMTP and POP3 show different certificates".into());
    }
    let der = CertificateDer::from(certificate.clone());
    let key = ParsedCertificate::try_from(&der)?.subject_public_key_info().as_ref().to_vec();
    Ok((certificate, key))
}

async fn view(world: &World) -> Result<CertificateView, Trouble> {
    Ok(world.nodes.edge.json(&["certificate"]).await?)
}

/// Has the authority asked, which has to fail, and is told; as an alarm only where a certificate is needed.
async fn refused(world: &World, why: &str) -> Result<(), Trouble> {
    let asked = world.nodes.edge.json::<CertificateView>(&["certificate", "renew"]).await;
    let told = asked.err().and_then(|error| error.refusal().map(str::to_owned)).unwrap_or_default();
    let (view, alarms) = (view(world).await?, world.edge_link().await?.alarms.join("\n"));
    for said in [&told, &view.error.unwrap_or_default()] {
        if !said.contains(why) {
            return Err(format!("{why} is not said in: {said}").into());
        }
    }
    if alarms.contains(why) != view.is_due {
        return Err(format!("the alarms are wrong: {alarms}").into());
    }
    Ok(())
}

async fn certified(pair: &Path, folder: &Path) -> Result<(), Trouble> {
    let internet = Internet::start(None).await?;
    internet.dns.publish(Zone::new("mx.example.com").a("mx.example.com", Ipv4Addr::LOCALHOST));
    let (dns, port) = (internet.dns.address(), internet.mta.address().port());
    let at = free()?;
    let directory: WebPlace = format!("https://{at}/dir").parse()?;
    let contact = Some("postmaster@example.com".parse()?);
    let acme = Acme { directory, contact, roots: Some(proof(folder)?), http: vec![ANY] };
    let topology = TestTopology { acme: Some(acme), ..TestTopology::new(folder.join("state"), dns, port)? };
    let mut world = World::of(Program::at(pair), topology, internet, None).await?;

    // Nobody is there: the edge shows its own, and says why it is no other.
    until("the authority was asked", SOON, async || Ok(view(&world).await?.attempted_at)).await?;
    let (own, key) = shown(&world).await?;
    until("the attempt has failed", SOON, async || {
        let error = view(&world).await?.error;
        Ok(error.filter(|error| error.contains("cannot be reached")))
    })
    .await?;
    if view(&world).await?.source != "the edge itself" {
        return Err("it does not say that the certificate is its own".into());
    }

    // Who is there cannot get in.
    let closed = free()?.port();
    let pebble = Pebble::start(folder, at, dns, closed).await?;
    refused(&world, "see that port 80 of every address").await?;
    drop(pebble);

    // Another one, which knows no account of ours, issues one.
    let http = first(&world.nodes.edge_ready().http).port();
    let pebble = Pebble::start(folder, at, dns, http).await?;
    let issued: CertificateView = world.nodes.edge.json(&["certificate", "renew"]).await?;
    if (issued.source.as_str(), &issued.error) != ("the authority", &None) {
        return Err(format!("it got none: {issued:?}").into());
    }
    let (one, same) = shown(&world).await?;
    if one == own || same != key {
        return Err("what is shown is no new certificate for the same key".into());
    }
    let due = issued.next_attempt_at.zip(issued.valid_from).zip(issued.valid_until);
    let ((due, from), until) = due.ok_or("it does not say when it is renewed")?;
    if (until - due).abs_diff((until - from) / 3) > 1 {
        return Err("it is not renewed when a third is left".into());
    }

    // Renewed, and then nobody is there any more.
    world.nodes.edge.run(&["certificate", "renew"]).await?;
    let (two, same) = shown(&world).await?;
    if two == one || same != key {
        return Err("renewing brings no new certificate for the same key".into());
    }
    drop(pebble);
    refused(&world, "cannot be reached").await?;
    let still = shown(&world).await?;
    let before = view(&world).await?.attempted_at;
    let state = world.nodes.topology.edge_state();
    for file in ["tls-issued.pem", "keys/tls.key", "keys/acme-account.key"] {
        if fs::metadata(state.join(file))?.permissions().mode() & 0o777 != 0o600 {
            return Err(format!("others can read {file}").into());
        }
    }
    world.nodes.start_edge().await?;
    if still.0 != two || shown(&world).await?.0 != two {
        return Err("the certificate is lost where nobody can be asked".into());
    }
    if view(&world).await?.attempted_at != before {
        return Err("an edge that is started again asks although nothing is due".into());
    }
    world.end().await
}
