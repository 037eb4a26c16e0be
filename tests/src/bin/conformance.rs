//! Holds any server to the dialogues of `tests/pop3` or `tests/smtp`: `cargo run --release --bin conformance -- --help`.
//!
//! Of POP3 it needs a user of its own there, into whose maildrop it puts what each dialogue needs: as files in a Maildir, or by
//! mail. It deletes that again, and nothing else unless `--empty` says so. Of SMTP it needs a server that is set up for it. One
//! line is printed for each dialogue, and a last one with the counts. It exits 1 if the server differs where no list says so
//! and why, or a dialogue could not be held.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use tests::dialogue::differences::{Verdict, differences, judge};
use tests::dialogue::remote::{Filling, Remote, Security};
use tests::dialogue::script::Dialogue;
use tests::dialogue::smtp_remote::{SmtpRemote, Submission};
use tests::dialogue::{Server, run, script};
use tests::wait::Trouble;

/// Holds a server to dialogues: what a client sends, and what must come
#[derive(Parser)]
enum Options {
    /// A POP3 server
    ///
    /// It takes any certificate. Make a user for it: it stops short of mail that is not its own.
    Pop3(Box<Pop3>),
    /// An SMTP server that takes mail for example.com, where alice, bob, postmaster and abuse are and nobody else, and that
    /// throws it away
    ///
    /// It takes any certificate, and sends some hundred messages. The server's delays for errors should be off.
    Smtp(Box<Smtp>),
}

#[derive(Args)]
struct Pop3 {
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
    #[command(flatten)]
    suite: Suite,
}

#[derive(Args)]
struct Smtp {
    /// Where it takes mail from anybody
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// Where it takes mail from who logs in, by STARTTLS; without it those dialogues are left out
    #[arg(long, value_name = "HOST:PORT", requires_all = ["submissions", "user", "password_file", "address"])]
    submission: Option<String>,
    /// The same under TLS from the first octet
    #[arg(long, value_name = "HOST:PORT")]
    submissions: Option<String>,
    /// Who logs in
    #[arg(long)]
    user: Option<String>,
    /// A file with the password in its first line
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The one address that this user sends as
    #[arg(long)]
    address: Option<String>,
    #[command(flatten)]
    suite: Suite,
}

/// What of the suite is held, and what is known.
#[derive(Args)]
struct Suite {
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
        runtime.block_on(async {
            match &options {
                Options::Pop3(options) => pop3(options).await,
                Options::Smtp(options) => smtp(options).await,
            }
        })
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

fn password(file: &Path) -> Result<String, Trouble> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn remote(options: &Pop3) -> Result<Remote, Trouble> {
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
        password: password(&options.password_file)?,
        filling: match (&options.maildir, &options.smtp, &options.to) {
            (Some(folder), ..) => Filling::Maildir(folder.clone()),
            (None, Some(smtp), Some(to)) => Filling::Smtp(address(smtp)?, to.clone()),
            _ => Filling::Nothing,
        },
        features: options.suite.has.clone(),
        put: HashSet::new(),
    })
}

/// Whether a POP3 server differs nowhere but where it is known to.
async fn pop3(options: &Pop3) -> Result<bool, Trouble> {
    let mut server = remote(options)?;
    let waiting = server.waiting().await?;
    if waiting > 0 && !options.empty {
        return Err(format!("{waiting} messages are in that maildrop: with --empty they are deleted").into());
    }
    if options.empty {
        server.empty().await?;
    }
    let (no_clear, no_mail) = (server.clear.is_none(), matches!(server.filling, Filling::Nothing));
    let lacks = |dialogue: &Dialogue| {
        if dialogue.on == "clear" && no_clear {
            return Some("begins in the clear, and --clear does not say where");
        }
        (!dialogue.mail.is_empty() && no_mail)
            .then_some("it needs mail in the maildrop, and neither --maildir nor --smtp says how")
    };
    let holds = hold(&mut server, &options.suite, lacks).await?;
    server.clear().await?;
    Ok(holds)
}

/// Whether an SMTP server differs nowhere but where it is known to.
async fn smtp(options: &Smtp) -> Result<bool, Trouble> {
    let submission = match options {
        Smtp {
            submission: Some(starttls),
            submissions: Some(tls),
            user: Some(user),
            password_file: Some(file),
            address: Some(own),
            ..
        } => Some(Submission {
            starttls: address(starttls)?,
            tls: address(tls)?,
            user: user.clone(),
            password: password(file)?,
            address: own.clone(),
        }),
        _ => None,
    };
    let features = options.suite.has.clone();
    let mut server = SmtpRemote { server: address(&options.server)?, submission, features };
    let no_submission = server.submission.is_none();
    let lacks = |dialogue: &Dialogue| {
        (dialogue.is_of_submission() && no_submission)
            .then_some("is about who logs in, and --submission does not say where")
    };
    hold(&mut server, &options.suite, lacks).await
}

/// Whether a server differs nowhere but where it is known to, in the dialogues for which it `lacks` nothing.
async fn hold(
    server: &mut dyn Server,
    suite: &Suite,
    lacks: impl Fn(&Dialogue) -> Option<&'static str>,
) -> Result<bool, Trouble> {
    let listed = suite.differences.as_deref().map(differences).transpose()?.unwrap_or_default();
    let folder = server.protocol().folder();
    let messages = script::messages(&folder)?;
    let (mut held, mut explained, mut differ, mut failed, mut left_out) = (0, 0, 0, 0, 0);
    for dialogue in &script::dialogues(&folder)? {
        let title = &dialogue.title;
        if !title.contains(&suite.only) {
            continue;
        }
        if let Some(why) = lacks(dialogue) {
            left_out += 1;
            println!("left out  {title}: {why}");
            continue;
        }
        let came = match run::run(server, dialogue, &messages).await {
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
    Ok(differ == 0 && failed == 0 && held > 0)
}
