//! The SMTP conformance suite but for submission, held to Postfix: where it differs is listed, with the reason, in
//! `tests/smtp/postfix.differences`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use tests::dialogue::Server as _;
use tests::dialogue::script::Dialogue;
use tests::dialogue::smtp_remote::SmtpRemote;
use tests::wait::{SOON, Trouble, until};

use crate::tally::Tally;
use crate::{held, postfix_dialogues};

const CASE: &str = "Postfix is held to the SMTP dialogues, and differs where it is listed";
/// Dialogues that have to go as they should.
const HELD_MIN: usize = 320;

/// From whom it takes mail.
const MAIN_CF: &str = "\
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = may
";

/// All dialogues that ask for nothing of ours, but those of submission.
pub async fn case(folder: &Path, tally: &mut Tally) {
    if !tally.wants(CASE, "postfix") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Postfix starts");
    }
    let verdict = held(&folder.join("postfix-smtp")).await.map_err(|e| e.to_string());
    tally.note(CASE, verdict);
}

async fn held(folder: &Path) -> Result<(), Trouble> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let services = format!("{address} inet n - n - - smtpd\n");
    let _postfix = postfix_dialogues::start(folder, MAIN_CF, &services).await?;
    let mut server = SmtpRemote { server: address, submission: None, features: Vec::new() };
    until("Postfix listens", SOON, async || Ok(server.connect("").await.ok().map(drop))).await?;
    let reception = |dialogue: &Dialogue| !dialogue.is_of_submission();
    held::to_dialogues(&mut server, "postfix.differences", reception, HELD_MIN).await
}
