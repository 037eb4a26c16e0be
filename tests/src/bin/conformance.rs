//! Holds any POP3 server to the dialogues of `tests/pop3`: `cargo run --release --bin conformance -- --help`.
//!
//! It needs a user of its own there, into whose maildrop it puts what each dialogue needs: as files in a Maildir, or by
//! mail. It deletes that again, and nothing else unless `--empty` says so. One line is printed for each dialogue, and a last one with the counts. It exits 1
//! if the server differs where no list says so and why, or a dialogue could not be held.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tests::dialogue::differences::{Verdict, differences, judge};
use tests::dialogue::remote::{Filling, Remote, Security};
use tests::dialogue::{Protocol, run, script};
use tests::wait::Trouble;

/// Holds a POP3 server to dialogues: what a client sends, and what must come
///
/// It takes any certificate. Make a user for it: it stops short of mail that is not its own.
#[derive(Parser)]
struct Options {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// How clients get to TLS there
    #[arg(long, value_enum, default_value_t = HowSecure::Tls)]
    security: HowSecure,
    /// Where clients begin in the clear, for dialogues about that [default: the server, unless TLS comes first there]
    #[arg(long, value_name = "HOST:PORT")]
    clear: Option<String>,
    /// Who has the maildrop
    #[arg(long)]
    user: String,
    /// A file with the password in its first line
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// The user's Maildir, if it is on this host: messages are put there as files, for its owner
    #[arg(long, value_name = "DIR")]
    maildir: Option<PathBuf>,
    /// A server that takes mail for the user without a login: messages are sent there
    #[arg(long, value_name = "HOST:PORT", requires = "to", conflicts_with = "maildir")]
    smtp: Option<String>,
    /// The user's address, for that mail
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Delete what is in the maildrop now, too
    #[arg(long)]
    empty: bool,
    /// What the server has beside what all have, for dialogues with `with:`, such as tls-1.3
    #[arg(long, value_delimiter = ',', value_name = "FEATURE,…")]
    has: Vec<String>,
    /// Where it is known to differ, and why, as in tests/pop3/dovecot.differences
    #[arg(long, value_name = "FILE")]
    differences: Option<PathBuf>,
    /// Only the dialogues whose title contains this text
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
}

/// How clients get to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HowSecure {
    /// From the first octet, as on port 995
    Tls,
    /// By STLS, as on port 110
    Stls,
    /// Not at all
    Off,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let held = tokio::runtime::Runtime::new().map_err(Trouble::from).and_then(|runtime| {
        // A server that is one thread's is asked by that thread.
        runtime.block_on(hold(&options))
    });
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("conformance: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, Trouble> {
    let found = text.to_socket_addrs().map_err(|error| format!("{text}: {error}"))?.next();
    found.ok_or_else(|| format!("{text} has no address").into())
}

fn remote(options: &Options) -> Result<Remote, Trouble> {
    let file = &options.password_file;
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (server, security) = (
        address(&options.server)?,
        match options.security {
            HowSecure::Tls => Security::Tls,
            HowSecure::Stls => Security::Stls,
            HowSecure::Off => Security::Off,
        },
    );
    Ok(Remote {
        server,
        security,
        clear: match &options.clear {
            Some(clear) => Some(address(clear)?),
            None => (security == Security::Stls).then_some(server),
        },
        user: options.user.clone(),
        password: text.lines().next().unwrap_or_default().to_owned(),
        filling: match (&options.maildir, &options.smtp, &options.to) {
            (Some(folder), ..) => Filling::Maildir(folder.clone()),
            (None, Some(smtp), Some(to)) => Filling::Smtp(address(smtp)?, to.clone()),
            _ => Filling::Nothing,
        },
        features: options.has.clone(),
        put: HashSet::new(),
    })
}

/// Whether it differs nowhere but where it is known to.
async fn hold(options: &Options) -> Result<bool, Trouble> {
    let mut server = remote(options)?;
    let listed = options.differences.as_deref().map(differences).transpose()?.unwrap_or_default();
    let waiting = server.waiting().await?;
    if waiting > 0 && !options.empty {
        return Err(format!("{waiting} messages are in that maildrop: with --empty they are deleted").into());
    }
    if options.empty {
        server.empty().await?;
    }
    let folder = Protocol::Pop3.folder();
    let messages = script::messages(&folder)?;
    let (mut held, mut explained, mut differ, mut failed, mut left_out) = (0, 0, 0, 0, 0);
    for dialogue in &script::dialogues(&folder)? {
        let title = &dialogue.title;
        if !title.contains(&options.only) {
            continue;
        }
        if dialogue.on == "clear" && server.clear.is_none() {
            left_out += 1;
            println!("left out  {title}: begins in the clear, and --clear does not say where");
            continue;
        }
        if !dialogue.mail.is_empty() && matches!(server.filling, Filling::Nothing) {
            left_out += 1;
            println!(
                "left out  {title}: it needs mail in the maildrop, and neither --maildir nor --smtp says how"
            );
            continue;
        }
        let came = match run::run(&mut server, dialogue, &messages).await {
            Ok(came) => came,
            Err(trouble) => {
                failed += 1;
                println!("FAILED    {title}: {trouble}");
                continue;
            }
        };
        match judge(&listed, title, came) {
            Verdict::Held => {
                held += 1;
                println!("ok        {title}");
            }
            Verdict::Explained(known) => {
                explained += 1;
                println!("explained {title}: {}", known.because);
            }
            Verdict::Differs(difference) => {
                differ += 1;
                println!("DIFFERS   {}", difference.to_string().replace('\n', "\n          "));
            }
            Verdict::DiffersNoMore => {
                differ += 1;
                println!("DIFFERS   {title}: the list says so, and it does not");
            }
            Verdict::LeftOut => {
                left_out += 1;
                println!("left out  {title}: {}", dialogue.left_out_because());
            }
        }
    }
    println!(
        "conformance: {held} held, {explained} explained, {differ} differ, {failed} failed, {left_out} left out"
    );
    server.clear().await?;
    Ok(differ == 0 && failed == 0 && held > 0)
}
