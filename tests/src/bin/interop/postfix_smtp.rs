//! The SMTP conformance suite, held to Postfix: where it differs is listed, with the reason, in
//! `tests/smtp/postfix.differences`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use tests::dialogue::Server as _;
use tests::dialogue::smtp_remote::SmtpRemote;
use tests::wait::{SOON, Trouble, until};

use crate::dovecot::open_to_all;
use crate::held;
use crate::postfix::{self, Postfix};
use crate::tally::Tally;

const CASE: &str = "Postfix is held to the SMTP dialogues, and differs where it is listed";
/// Dialogues that have to go as they should.
const HELD_MIN: usize = 320;

/// All dialogues that ask for nothing of ours.
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
    postfix::write(folder, &main_cf(folder), &format!("{address} inet n - n - - smtpd\n"))?;
    open_to_all(folder)?;
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()])?;
    fs::write(folder.join("etc/tls.pem"), made.signing_key.serialize_pem() + &made.cert.pem())?;
    let _postfix = Postfix::start(folder).await?;
    let mut server = SmtpRemote { server: address, submission: None, features: Vec::new() };
    until("Postfix listens", SOON, async || Ok(server.connect("").await.ok().map(drop))).await?;
    held::to_dialogues(&mut server, "postfix.differences", HELD_MIN).await
}

/// As strict as it can be told to be, without the delays by which it slows errors down.
fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "myhostname = mx.example.com
myorigin = example.com
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
smtpd_relay_restrictions = reject_unauth_destination
smtpd_helo_required = yes
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
strict_rfc821_envelopes = yes
smtpd_error_sleep_time = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
message_size_limit = 52428800
recipient_delimiter = +
virtual_mailbox_domains = example.com
virtual_mailbox_maps = inline:{{ {{alice@example.com = x}} {{bob@example.com = x}} {{postmaster@example.com = x}} {{abuse@example.com = x}} }}
virtual_transport = discard:
local_transport = discard:
default_transport = discard:
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/etc/tls.pem
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
"
    )
}
