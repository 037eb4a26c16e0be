//! Interoperation: mail software that others wrote talks to a running pair.
//!
//! `cargo run --release --bin interop` starts `pair`, which lies beside this program, and lets each
//! client that is installed submit (587's and 465's roles), send to port 25's role, and collect by
//! POP3 and POP3S: each configured by what `travel rotate` prints, and checking the edge's certificate by its name.
//!
//! Then Postfix, Exim and OpenSMTPD take mail from an edge and send it some, in network namespaces with a signed DNS and
//! MTA-STS policies, another Postfix is a smart host that wants a login, and two are held to the SMTP dialogues, one of them
//! to those of submission. A real Dovecot takes mail from big by LMTP and is held to the POP3 dialogues, the desk is driven in
//! a terminal of tmux's, Pebble issues certificates by ACME, both nodes meet disks that are really full, and an image of the
//! edge's disk is searched. What arrives is compared with what was sent by the ledger.
//!
//! One line is printed for each case, and a last one with the counts; a program that is not installed is named, and is
//! neither passed nor failed.

mod authority;
mod certificates;
mod claws;
mod clients;
mod collect;
mod desk;
mod disk_image;
mod dovecot;
mod dovecot_pop3;
mod driven;
mod full_disk;
mod held;
mod logins;
mod mtas;
mod named;
mod namespaces;
mod postfix;
mod postfix_dialogues;
mod postfix_smtp;
mod postfix_submission;
mod send;
mod settings;
mod smart_host;
mod tally;
mod thunderbird;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use tests::process::Running;
use tests::ready::PairReady;
use tests::wire::Wire;

use crate::clients::Setting;
use crate::named::Named;
use crate::tally::Tally;

/// How long the pair may take until it is ready.
const PAIR_READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the pair may take to end.
const PAIR_END_WITHIN: Duration = Duration::from_secs(30);

/// Lets the mail software that is installed talk to a running pair.
#[derive(Parser)]
struct Options {
    /// A file with the ready line of a pair that runs already, instead of starting one
    #[arg(long, value_name = "FILE")]
    ready: Option<PathBuf>,
    /// Only the cases whose line contains this text
    #[arg(long, default_value = "")]
    only: String,
    /// A folder with Debian's packages of MTAs that cannot be installed beside Postfix [default: packages, beside the
    /// folder of this program]
    #[arg(long, value_name = "FOLDER")]
    packages: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match named::again() {
        Ok(None) => {}
        Ok(Some(ended)) => return ended,
        Err(e) => {
            eprintln!("interop: {e}");
            return ExitCode::FAILURE;
        }
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("interop: {e}");
            return ExitCode::FAILURE;
        }
    };
    let mut tally = Tally::new(&options.only);
    if let Err(e) = runtime.block_on(run(&options, &mut tally)) {
        tally.failed("the suite itself", &e.to_string());
    }
    println!("{tally}");
    if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(options: &Options, tally: &mut Tally) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let named = Named::here();
    let pair = std::env::current_exe()?.with_file_name("pair");
    let (running, ready) = match &options.ready {
        Some(file) => (None, serde_json::from_slice::<PairReady>(&std::fs::read(file)?)?),
        None => {
            let mut command = Command::new(&pair);
            command.arg("--json");
            if let Some(named) = &named {
                command.arg("--topology").arg(named.topology());
            }
            let log = folder.path().join("pair.log");
            let (running, ready) = Running::start(command, &log, PAIR_READY_WITHIN).await?;
            (Some(running), ready)
        }
    };
    match &named {
        Some(named) => {
            let authority = match options.ready {
                None => named.authority(),
                Some(_) => {
                    let shown = folder.path().join("certificate.pem");
                    std::fs::write(&shown, certificate_of(&ready).await?)?;
                    shown
                }
            };
            let setting = Setting::new(&pair, ready, folder.path(), authority).await?;
            send::cases(&setting, tally).await;
            collect::cases(&setting, tally).await;
            thunderbird::cases(&setting, tally).await;
            claws::cases(&setting, tally).await;
        }
        None => tally.absent("root, by whom clients are made to know the edge's name"),
    }
    if let Some(running) = running {
        let ended = running.interrupt(PAIR_END_WITHIN).await?;
        let verdict = if ended.success() { Ok(()) } else { Err(format!("it ended with {ended}")) };
        tally.note("the pair ends cleanly at Ctrl-C", verdict);
    }
    desk::cases(&pair, folder.path(), tally).await;
    full_disk::cases(&pair, folder.path(), tally).await;
    disk_image::case(&pair, folder.path(), tally).await;
    settings::cases(&pair, folder.path(), tally).await;
    authority::case(&pair, folder.path(), tally).await;
    let beside = || pair.ancestors().nth(2).unwrap_or(&pair).join("packages");
    let packages = options.packages.clone().unwrap_or_else(beside);
    mtas::cases(&pair, &packages, folder.path(), tally).await;
    smart_host::cases(&pair, folder.path(), tally).await;
    postfix_smtp::case(folder.path(), tally).await;
    postfix_submission::case(folder.path(), tally).await;
    dovecot::case(&pair, folder.path(), tally).await;
    dovecot_pop3::case(folder.path(), tally).await;
    Ok(())
}

/// What the edge of a pair that runs already shows under TLS, in PEM, for clients that must be told whom to trust.
async fn certificate_of(ready: &PairReady) -> std::io::Result<String> {
    use base64::Engine;
    let mut wire = Wire::connect(ready.edge.submissions).await?;
    wire.start_tls().await?;
    let text = base64::engine::general_purpose::STANDARD.encode(wire.peer_certificate().unwrap_or_default());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}
