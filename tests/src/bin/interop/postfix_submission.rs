//! The dialogues of submission, held to a Postfix whose logins Dovecot checks: where it differs is listed, with the reason,
//! in `tests/smtp/postfix.differences`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use tests::dialogue::Server as _;
use tests::dialogue::script::Dialogue;
use tests::dialogue::smtp_remote::{SmtpRemote, Submission};
use tests::wait::{SOON, Trouble, until};

use crate::logins::{self, Logins};
use crate::tally::Tally;
use crate::{held, postfix_dialogues};

const CASE: &str = "Postfix is held to the submission dialogues, and differs where it is listed";
/// Dialogues that have to go as they should.
const HELD_MIN: usize = 32;
/// Who logs in.
const USER: &str = "alice";
const PASSWORD: &str = "secret-1";
/// The one address that she sends as.
const ADDRESS: &str = "alice@example.com";

/// All dialogues of submission that ask for nothing of ours.
pub async fn case(folder: &Path, tally: &mut Tally) {
    if !tally.is_wanted(CASE) || !["postfix", "dovecot"].iter().all(|program| tally.has(program)) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return tally.absent("root, as whom Postfix and Dovecot start");
    }
    let verdict = held(&folder.join("postfix-submission")).await.map_err(|e| e.to_string());
    tally.note(CASE, verdict);
}

async fn held(folder: &Path) -> Result<(), Trouble> {
    // Both are held until each has its own.
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (by_starttls, by_tls) = (free()?, free()?);
    let (starttls, tls) = (by_starttls.local_addr()?, by_tls.local_addr()?);
    drop((by_starttls, by_tls));
    let services = format!(
        "{starttls} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
{tls} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
"
    );
    let _postfix = postfix_dialogues::start(folder, &main_cf(folder), &services).await?;
    let logins = Logins::start(folder, USER, PASSWORD)?;
    let submission =
        Submission { starttls, tls, user: USER.into(), password: PASSWORD.into(), address: ADDRESS.into() };
    let mut server = SmtpRemote { server: starttls, submission: Some(submission), features: Vec::new() };
    // First Dovecot: an smtpd that finds nobody to check logins ends, and Postfix starts no other for a minute.
    until("Dovecot listens, and Postfix", SOON, async || {
        let listens = logins.are_here()
            && server.connect("submission").await.is_ok()
            && server.connect("submissions").await.is_ok();
        Ok(listens.then_some(()))
    })
    .await?;
    held::to_dialogues(&mut server, "postfix.differences", Dialogue::is_of_submission, HELD_MIN).await
}

/// It takes mail from who has logged in only, says so at MAIL, and lets them send as themselves.
fn main_cf(folder: &Path) -> String {
    format!(
        "smtpd_delay_reject = no
smtpd_sender_login_maps = inline:{{ {{{ADDRESS} = {USER}}} }}
smtpd_sender_restrictions =
  reject_authenticated_sender_login_mismatch, permit_sasl_authenticated,
  check_sender_access static:{{530 5.7.0 Authentication required}}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
{}",
        logins::main_cf(folder)
    )
}
