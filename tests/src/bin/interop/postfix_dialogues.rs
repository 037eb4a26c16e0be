//! A Postfix as the dialogues of SMTP want it, whatever its services are.

use std::fs;
use std::path::Path;

use tests::wait::Trouble;

use crate::dovecot::open_to_all;
use crate::postfix::{self, Postfix};

/// Starts it with its files in `folder`: one that takes mail for `example.com` and throws it away. `main_cf` says from whom,
/// and `services` what listens.
pub async fn start(folder: &Path, main_cf: &str, services: &str) -> Result<Postfix, Trouble> {
    postfix::write(folder, &(strict(folder) + main_cf), services)?;
    open_to_all(folder)?;
    let made = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()])?;
    fs::write(folder.join("etc/tls.pem"), made.signing_key.serialize_pem() + &made.cert.pem())?;
    Postfix::start(folder).await
}

/// As strict as it can be told to be, without the delays by which it slows errors down.
fn strict(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "myhostname = mx.example.com
myorigin = example.com
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
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
smtpd_tls_chain_files = {folder}/etc/tls.pem
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
"
    )
}
