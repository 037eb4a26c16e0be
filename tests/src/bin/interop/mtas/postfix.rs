//! Postfix, as it is installed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tests::wait::Trouble;

use super::daemon::Daemon;
use super::domains::{Domain, domains_of};
use super::{MAIL_OWNER, Mta, Proof, SIZE_MAX, Taken, Words};
use crate::namespaces::{NAME_SERVER, Namespaces};
use crate::postfix;

/// What it is, and how it is told.
pub const POSTFIX: Mta = Mta {
    name: "Postfix",
    label: "postfix",
    address: super::address(10),
    clear: super::address(11),
    packages: &[],
    start,
    tls: true,
    utf8: true,
    log: "log/mail",
    words: Words {
        dane: Some(PROVED),
        // It has postfix-mta-sts-resolver ask for policies, and insists on what that tells it.
        sts: Some(PROVED),
        chunked: None,
        taken: Some(Taken::Session {
            begins: ": connect from ",
            ends: ": disconnect from ",
            by_bdat: " bdat=",
            by_data: " data=",
        }),
    },
};

/// What it says, by whatever a host has to prove itself.
const PROVED: Proof = Proof {
    verified: "Verified TLS connection established",
    another: "status=deferred (Server certificate not verified)",
};

fn start(
    mta: &Mta,
    namespaces: &Namespaces,
    folder: &Path,
    sts: Option<SocketAddr>,
) -> Result<Daemon, Trouble> {
    write(mta, folder, sts)?;
    let mut command = namespaces.on_internet("postfix");
    command.arg("-c").arg(folder.join("etc")).arg("start-fg");
    Ok(Daemon::start(command, &folder.join("log/start"))?)
}

fn write(mta: &Mta, folder: &Path, sts: Option<SocketAddr>) -> io::Result<()> {
    let Mta { address, clear, .. } = mta;
    let services = format!(
        "{address}:25 inet n - n - - smtpd\n{clear}:25 inet n - n - - smtpd\n  -o smtpd_tls_security_level=none\n"
    );
    postfix::write(folder, &main_cf(mta, folder, sts), &services)
}

fn main_cf(mta: &Mta, folder: &Path, sts: Option<SocketAddr>) -> String {
    let (domains, clear) = (domains_of(mta).join(", "), Domain::Clear.ours());
    let Mta { address, .. } = mta;
    let policies = sts.map(|at| format!(", socketmap:inet:{at}:postfix")).unwrap_or_default();
    let folder = folder.display();
    format!(
        "myhostname = mx.plain.postfix.example
mydestination =
local_recipient_maps =
inet_interfaces = all
inet_protocols = ipv4
smtp_bind_address = {address}
mynetworks = {NAME_SERVER}/32
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_peername_lookup = no
message_size_limit = {SIZE_MAX}
virtual_mailbox_limit = 0
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:{MAIL_OWNER}
virtual_gid_maps = static:{MAIL_OWNER}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/key.pem, {folder}/chain.pem
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane
smtp_tls_policy_maps = inline:{{ {clear}=none }}{policies}
smtp_tls_CAfile = {folder}/roots.pem
smtp_tls_loglevel = 1
smtp_address_preference = ipv4
maillog_file = {folder}/log/mail
maillog_file_prefixes = {folder}
"
    )
}
