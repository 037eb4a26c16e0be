//! What the edge confines itself to: it is where the Internet reaches in.

use std::path::{Path, PathBuf};

use shared::sandbox::Sandbox;
use shared::topology::{CertificateSource, Dnssec, Topology};

/// Where the system says how names are resolved, and whom it trusts. What is not there is not read.
const OF_THE_SYSTEM: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// All that a running edge needs: its state, the files that its part of the topology names, its ports. It connects to
/// whatever host other domains name, so that TCP to the outside is free.
pub fn of(topology: &Topology) -> Sandbox {
    let edge = &topology.edge;
    let mut sandbox = Sandbox::of_state(&edge.state);
    let of_the_system = OF_THE_SYSTEM.iter().map(PathBuf::from).chain(of_trust());
    let smart_host = edge.outbound.mode.smart_host();
    let own = [
        smart_host.and_then(|host| host.login.clone()),
        smart_host.and_then(|host| host.roots.clone()),
        edge.outbound.mta_sts.as_ref().and_then(|policies| policies.roots.clone()),
        match &edge.certificate {
            CertificateSource::Acme(acme) => acme.roots.clone(),
            CertificateSource::Files(_) | CertificateSource::SelfSigned => None,
        },
        match &edge.dnssec {
            Dnssec::Anchors(path) => Some(path.clone()),
            Dnssec::Off | Dnssec::Root => None,
        },
    ];
    sandbox.readable.extend(of_the_system.chain(own.into_iter().flatten()));
    if let CertificateSource::Files(files) = &edge.certificate {
        // Whoever renews them puts other files in their place, also behind links.
        for file in [&files.certificate, &files.key] {
            let behind = file.canonicalize().ok();
            let folders =
                [Some(file), behind.as_ref()].into_iter().flatten().filter_map(|file| file.parent());
            sandbox.readable.extend(folders.map(Path::to_path_buf));
        }
    }
    // What is missing is said by who wants to read it.
    sandbox.readable.retain(|path| path.exists());
    let services = [&edge.smtp, &edge.submission, &edge.submissions, &edge.pop3, &edge.pop3s];
    let listens = services.into_iter().flatten().chain(edge.certificate.http());
    sandbox.listens.extend(listens.map(|address| address.port()));
    sandbox
}

/// Where those lie whom the system trusts, as `rustls-native-certs` looks for them, and where links in the way lead to: a
/// system may keep them elsewhere, and the environment may name others.
fn of_trust() -> impl Iterator<Item = PathBuf> {
    let found = openssl_probe::probe();
    let behind =
        found.cert_file.iter().filter_map(|file| file.canonicalize().ok()?.parent().map(Path::to_path_buf));
    behind.collect::<Vec<_>>().into_iter().chain(found.cert_file).chain(found.cert_dir)
}
