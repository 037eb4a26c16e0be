//! The lab: the Internet with its DNS, its web host and its MTAs, and a pair whose edge is connected to it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use big_node::record::Folder;
use big_node::request::{RecipientView, Started, Terms};
use edge_node::request::CertificateView;
use shared::topology::{Dnssec, TlsFiles};
use shared::unit::DeliveryState;
use tests::client::smtp::SmtpClient;
use tests::desk::{AtBig, Desk, Operator};
use tests::internet::web::PolicyHost;
use tests::nodes::Nodes;
use tests::process::Program;
use tests::topology::{TestTopology, quoted};
use tests::wait::{SOON, Trouble, until};
use tests::world::accepted_as;

use super::daemon::Daemon;
use super::dns::Dns;
use super::domains::{self, Domain, host};
use super::running::RunningMta;
use super::{Mta, sts, unpacked};
use crate::certificates::Authority;
use crate::dovecot::open_to_all;
use crate::namespaces::{EDGE, Namespaces, RESOLVER, WEB};

/// How long a message may take to where it goes, the largest ones included.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
/// The first pause while a traveller's window is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// What big knows Alice by beside her name.
const WIDE: &str = "\u{e4}lice";

/// In the order in which they are to end.
pub struct Lab {
    /// The MTAs.
    pub mtas: Vec<RunningMta>,
    nodes: Nodes,
    trip: Started,
    sts: Option<Daemon>,
    _web: PolicyHost,
    _dns: Dns,
    namespaces: Namespaces,
}

impl Lab {
    /// Makes everything; each MTA comes with the packages that it is in. With `with_sts` those that know MTA-STS by another
    /// program have that.
    pub async fn set_up(
        pair: &Path,
        folder: &Path,
        here: Vec<(&'static Mta, Vec<PathBuf>)>,
        with_sts: bool,
    ) -> Result<Self, Trouble> {
        fs::create_dir_all(folder)?;
        open_to_all(folder)?;
        let addresses = here.iter().flat_map(|(mta, _)| [mta.address, mta.clear]);
        let namespaces = Namespaces::make(addresses).await?;
        unpacked::add_accounts(&namespaces)?;
        let authority = Authority::new()?;

        let own = authority.issue(domains::our_names())?;
        let mut certified = Vec::new();
        let mut theirs = String::new();
        for (mta, _) in &here {
            let of_it = authority.issue(domains::names_of(mta))?;
            theirs.push_str(&domains::records_of(mta, &of_it.key_hash));
            certified.push(of_it);
        }
        let ours = domains::our_records(&own.key_hash);
        let dns = Dns::start(&namespaces, &folder.join("dns"), &ours, &theirs).await?;
        let theirs = here.iter().flat_map(|(mta, _)| domains::policies_of(mta));
        let policies: Vec<_> = theirs.chain(domains::our_policies()).collect();
        let (web, web_certificate) = web(&namespaces, &policies)?;
        let sts = match with_sts {
            true => Some(sts::start(&namespaces, &folder.join("sts"), &web_certificate).await?),
            false => None,
        };
        let sts_at = sts.as_ref().map(|_| sts::ADDRESS);
        let mut mtas = Vec::new();
        for ((mta, packages), certified) in here.into_iter().zip(&certified) {
            let at = folder.join(mta.label);
            mtas.push(RunningMta::start(mta, &packages, certified, &namespaces, &at, sts_at).await?);
        }

        let mut topology = TestTopology::new(folder.join("pair"), SocketAddr::from((RESOLVER, 53)), 25)?;
        fs::create_dir_all(&topology.state)?;
        let file = |name: &str, text: &str| {
            let path = topology.state.join(name);
            fs::write(&path, text).map(|()| path)
        };
        let anchors = file("anchors", &dns.anchor)?;
        let roots = file("roots.pem", &[web_certificate.as_str(), &authority.pem].concat())?;
        let (certificate, key) = (file("chain.pem", &own.chain)?, topology.state.join("key.pem"));
        own.write_key(&key)?;
        topology.tls = Some(TlsFiles { certificate, key });
        topology.domains = domains::ours();
        topology.hostname = host(&Domain::Plain.ours());
        topology.smtp = vec![SocketAddr::from((EDGE, 25))];
        topology.dnssec = Dnssec::Anchors(anchors);
        topology.outbound = vec![("mta_sts_roots", quoted(&roots.display().to_string()))];
        // Nothing is tried again while this looks.
        topology.retry = vec![3_600];
        let program = Program::at(pair).through(&namespaces.on_edge());
        let nodes = Nodes::paired(topology, program.clone(), program).await?;
        let shown: CertificateView = nodes.edge.json(&["certificate"]).await?;
        if shown.key_hash.as_deref() != Some(&own.key_hash) {
            return Err(format!("the edge does not show the key that is in DNS: {shown:?}").into());
        }
        let trip = alice(&nodes).await?;
        let lab = Self { mtas, nodes, trip, sts, _web: web, _dns: dns, namespaces };
        lab.submission().await?.quit().await?;
        Ok(lab)
    }

    /// Whether MTAs that know MTA-STS by another program have that.
    pub fn has_sts(&self) -> bool {
        self.sts.is_some()
    }

    /// A session in which Alice submits from the road. The pauses become longer, for too many failed logins lock an account.
    async fn submission(&self) -> Result<SmtpClient, Trouble> {
        let address = *self.nodes.edge_ready().submission.first().ok_or("nothing listens for submission")?;
        let login = Some((self.trip.user.as_str(), self.trip.password.as_str()));
        let mut pause = FIRST_PAUSE;
        loop {
            let wire = self.namespaces.connect_on_edge(address)?;
            match SmtpClient::ready_over(wire, login).await {
                Ok(session) => return Ok(session),
                Err(error) if pause > SOON => return Err(error.into()),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
    }

    /// Alice's address in one of our domains, for mail with UTF-8 in its envelope or without.
    pub fn alice(domain: Domain, utf8: bool) -> String {
        format!("{}@{}", if utf8 { WIDE } else { "alice" }, domain.ours())
    }

    /// Alice sends a message as it is; the id by which the pair knows it.
    pub async fn submit(&self, to: &str, message: &[u8]) -> Result<String, Trouble> {
        let from = Self::alice(Domain::Plain, false);
        let reply = self.submission().await?.send_and_quit(&from, &[to], message).await?;
        accepted_as(&reply).ok_or_else(|| format!("no id in {reply}").into())
    }

    /// What became of a message of Alice's at its first attempt, as the edge has told big.
    pub async fn outcome(&self, id: &str) -> Result<RecipientView, Trouble> {
        let desk = self.desk();
        until("the edge has attempted it", ARRIVES_WITHIN, async || {
            // Big may not have it yet.
            let Ok(status) = desk.status(id).await else { return Ok(None) };
            let waits = |state| matches!(state, DeliveryState::Queued | DeliveryState::Relaying);
            Ok(status.recipients.into_iter().find(|view| !waits(view.state)))
        })
        .await
    }

    /// Gives a message to an MTA, which is to send it.
    pub async fn give(&self, at: &RunningMta, from: &str, to: &str, message: &[u8]) -> Result<(), Trouble> {
        at.session(&self.namespaces).await?.send_and_quit(from, &[to], message).await?;
        Ok(())
    }

    /// Waits for the message with that subject in Alice's mailbox; all of it.
    pub async fn filed(&self, subject: &str) -> Result<Vec<u8>, Trouble> {
        let desk = self.desk();
        let line = until("it is in Alice's mailbox", ARRIVES_WITHIN, async || {
            Ok(desk.messages(Folder::In).await?.into_iter().find(|line| line.subject == subject))
        });
        desk.raw(&line.await?.id).await
    }

    /// Whether Alice has the message with that subject.
    pub async fn is_filed(&self, subject: &str) -> Result<bool, Trouble> {
        Ok(self.desk().messages(Folder::In).await?.iter().any(|line| line.subject == subject))
    }

    fn desk(&self) -> Desk {
        desk(&self.nodes)
    }
}

fn desk(nodes: &Nodes) -> Desk {
    AtBig(Operator::new("big-node", &nodes.topology.big_state())).desk("alice")
}

/// Alice, who is on the road.
async fn alice(nodes: &Nodes) -> Result<Started, Trouble> {
    let mut command = vec!["person", "add", "alice"];
    let others: Vec<_> = domains::ours().iter().skip(1).map(|domain| format!("alice@{domain}")).collect();
    let wide = Lab::alice(Domain::Plain, true);
    for alias in others.iter().chain([&wide]) {
        command.extend(["--alias", alias]);
    }
    nodes.big.run(&command).await?;
    desk(nodes).travel_on(Terms::default()).await
}

/// The web host of all policies, and its certificate.
fn web(namespaces: &Namespaces, policies: &[(String, String)]) -> Result<(PolicyHost, String), Trouble> {
    let listener = namespaces.listen_on_internet(SocketAddr::from((WEB, 443)))?;
    let domains: Vec<_> = policies.iter().map(|(domain, _)| domain.as_str()).collect();
    let web = PolicyHost::on(listener, &domains)?;
    for (domain, policy) in policies {
        web.publish(domain, policy);
    }
    let certificate = web.certificate().to_owned();
    Ok((web, certificate))
}
