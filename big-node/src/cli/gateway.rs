//! `gateway …`: mail systems inside to which mail is handed.

use clap::Subcommand;
use shared::command::{Caller, Outcome};

use super::directory::{Name, Table, import, remove, removed};
use super::show;
use crate::record::Takes;
use crate::request::{
    EntryRequest, GatewayChange, GatewayView, NewGateway, Reach, RecipientsRequest, Request, Rowed,
};

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
        /// Which names in the site's domains it takes. With `any`, what its host refuses after the edge's 250 is
        /// reported to the sender, who may be forged; with `listed`, only what `gateway recipient` enters is taken,
        /// and the edge refuses the rest
        #[arg(long = "recipients", value_enum, default_value = "any")]
        takes: Takes,
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
        /// Which names in the site's domains it takes, as with `add`
        #[arg(long = "recipients", value_enum)]
        takes: Option<Takes>,
    },
    /// The addresses in the site's domains that a gateway with `--recipients listed` takes
    #[command(subcommand)]
    Recipient(Recipient),
    /// All of them
    List,
    /// One
    Show(Name),
    /// Remove one; what waits for it fails, and is reported to its senders
    Remove(Name),
}

#[derive(Debug, Subcommand)]
pub(super) enum Recipient {
    /// Add addresses, all of them or none
    Add(Addresses),
    /// Remove addresses, all of them or none
    Remove(Addresses),
    /// All of them
    List(Name),
    /// Add every address in a CSV file, whose first row is `address`, or none
    Import {
        /// The gateway's name
        name: String,
        #[command(flatten)]
        table: Table,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Addresses {
    /// The gateway's name
    name: String,
    /// Addresses in the site's domains
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
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
        Command::Add { name, reach, domains, takes } => {
            EntryRequest::Add(NewGateway { name, reach: reach.into(), domains, takes })
        }
        Command::Set { name, reach, add_domains, remove_domains, takes } => {
            let reach = reach.into();
            EntryRequest::Set(GatewayChange { name, reach, add_domains, remove_domains, takes })
        }
        Command::List => EntryRequest::List,
        Command::Show(Name { name }) => EntryRequest::Show { name },
        Command::Remove(Name { name }) => return removed(caller, &Request::Gateway(remove(name))),
        Command::Recipient(command) => return recipient(caller, command),
    };
    caller.show(&Request::Gateway(request), |gateways: &Vec<GatewayView>| show::gateways(gateways))
}

fn recipient(caller: &Caller, command: Recipient) -> Outcome {
    let (gateway, request) = match command {
        Recipient::Add(Addresses { name, addresses }) => (name, RecipientsRequest::Add { addresses }),
        Recipient::Remove(Addresses { name, addresses }) => (name, RecipientsRequest::Remove { addresses }),
        Recipient::List(Name { name }) => (name, RecipientsRequest::List),
        Recipient::Import { name, table } => return import(caller, Rowed::Recipients(name), table),
    };
    let request = Request::GatewayRecipients { gateway, request };
    caller.show(&request, |addresses: &Vec<String>| {
        addresses.iter().map(|address| format!("{address}\n")).collect()
    })
}
