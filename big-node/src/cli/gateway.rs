//! `gateway …`: mail systems inside to which mail is handed.

use clap::Subcommand;
use shared::command::{Caller, Outcome};

use super::directory::{Name, remove, removed};
use super::show;
use crate::request::{EntryRequest, GatewayChange, GatewayView, NewGateway, Reach, Request};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a mail system: an LMTP or SMTP host inside, or a folder
    Add {
        /// Its name, as in `/NAME user@example.net`
        name: String,
        #[command(flatten)]
        reach: ReachArgs,
        /// A domain whose mail it takes; of a domain of the site, what nobody here has
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
    },
    /// Change one; what is not named stays
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        reach: ReachArgs,
        /// One more domain
        #[arg(long = "add-domain", value_name = "DOMAIN")]
        add_domains: Vec<String>,
        /// A domain that goes
        #[arg(long = "remove-domain", value_name = "DOMAIN")]
        remove_domains: Vec<String>,
    },
    /// All of them
    List,
    /// One
    Show(Name),
    /// Remove one; what waits for it fails, and is reported to its senders
    Remove(Name),
}

#[derive(Debug, clap::Args)]
pub(super) struct ReachArgs {
    /// A host that takes LMTP: a private IP address and a port; several are tried in order
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["smtp", "drop", "pickup"])]
    lmtp: Vec<String>,
    /// A host that takes SMTP, likewise
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["drop", "pickup"])]
    smtp: Vec<String>,
    /// A folder into which each message is put, as ID.eml and ID.json
    #[arg(long, value_name = "DIR")]
    drop: Option<String>,
    /// A folder from which such pairs of files are taken in
    #[arg(long, value_name = "DIR", requires = "drop")]
    pickup: Option<String>,
}

impl From<ReachArgs> for Reach {
    fn from(ReachArgs { lmtp, smtp, drop, pickup }: ReachArgs) -> Self {
        Self { lmtp, smtp, drop, pickup }
    }
}

pub(super) fn run(caller: &Caller, command: Command) -> Outcome {
    let request = match command {
        Command::Add { name, reach, domains } => {
            EntryRequest::Add(NewGateway { name, reach: reach.into(), domains })
        }
        Command::Set { name, reach, add_domains, remove_domains } => {
            EntryRequest::Set(GatewayChange { name, reach: reach.into(), add_domains, remove_domains })
        }
        Command::List => EntryRequest::List,
        Command::Show(Name { name }) => EntryRequest::Show { name },
        Command::Remove(Name { name }) => return removed(caller, &Request::Gateway(remove(name))),
    };
    caller.show(&Request::Gateway(request), |gateways: &Vec<GatewayView>| show::gateways(gateways))
}
