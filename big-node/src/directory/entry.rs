//! The entries of the directory, as rows and as records in the segments.

use rkyv::{Archive, Deserialize, Serialize};
use shared::row;
use shared::store::BodyKey;
use shared::topology::AttachmentMode;
use shared::unit::Id;

/// The kind under which the directory's records are written in the segments. A rebuild restores kinds in
/// order, and mail is filed for people.
pub const RECORD_KIND: u8 = 1;

/// A kind of entry that has a name and addresses.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Someone with a mailbox.
    Person,
    /// A local name for somebody outside.
    Shadow,
    /// A name for several.
    Group,
}

impl Kind {
    /// The word for it, in commands and refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Shadow => "shadow",
            Self::Group => "group",
        }
    }
}

/// Whose a name or an address is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// In which table it is.
    pub kind: Kind,
    /// The entry.
    pub id: Id,
}
row!(Holder, 2);

/// Whether a person may collect mail on the road, and how their mail is filed then.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Pop3 {
    /// No travel window is opened for them.
    No,
    /// They may travel.
    #[default]
    Yes,
    /// They may travel, and their mail is filed whole whatever their filing mode says.
    Passthru,
}

impl Pop3 {
    /// The word for it, on the command line and in a CSV file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Passthru => "passthru",
        }
    }
}

/// Someone with a mailbox.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The person.
    pub id: Id,
    /// The local name; also the local part of the first address.
    pub name: String,
    /// For From lines.
    pub display: String,
    /// Canonical addresses, the first one is written as From.
    pub addresses: Vec<String>,
    /// Filing of attachments; `None` follows the site.
    pub filing: Option<AttachmentMode>,
    /// The number of their Unix account, which is nobody else's.
    pub uid: Option<u32>,
    /// Collecting on the road.
    pub pop3: Pop3,
    /// Addresses outside to which their mail goes on.
    pub forward: Vec<String>,
    /// Whether mail that goes on is filed here too.
    pub keep_copy: bool,
    /// The last change, milliseconds since 1970; rises with each.
    pub changed_at: u64,
}
row!(Person, 2);

impl Person {
    /// Whether mail for them comes into their mailbox.
    pub fn has_mailbox(&self) -> bool {
        self.forward.is_empty() || self.keep_copy
    }
}

/// A local name for somebody outside: mail to it goes on to their address there.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The shadow.
    pub id: Id,
    /// The local name.
    pub name: String,
    /// For To lines.
    pub display: String,
    /// Canonical addresses here.
    pub addresses: Vec<String>,
    /// The address outside, as written.
    pub target: String,
    /// The last change, milliseconds since 1970; rises with each.
    pub changed_at: u64,
}
row!(Shadow, 1);

/// Somebody whom a name stands for.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// An entry here. One that was removed since is passed over.
    Entry(Holder),
    /// An address outside, as written.
    Outside(String),
}

/// A name for several.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group.
    pub id: Id,
    /// The local name.
    pub name: String,
    /// For To lines.
    pub display: String,
    /// Canonical addresses.
    pub addresses: Vec<String>,
    /// Who belongs to it.
    pub members: Vec<Member>,
    /// The last change, milliseconds since 1970; rises with each.
    pub changed_at: u64,
}
row!(Group, 1);

/// One person's own name for somebody.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Nickname {
    /// The nickname.
    pub id: Id,
    /// Whose.
    pub owner: Id,
    /// The name, canonical.
    pub name: String,
    /// Whom it means.
    pub target: Member,
    /// The last change, milliseconds since 1970; rises with each.
    pub changed_at: u64,
}
row!(Nickname, 1);

/// How a gateway is reached.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// LMTP (RFC 2033) to the first of these hosts that can be reached: private addresses with a port.
    Lmtp(Vec<String>),
    /// SMTP, likewise.
    Smtp(Vec<String>),
    /// Files in a folder.
    Drop {
        /// Where each message is put.
        folder: String,
        /// Where what comes back is picked up.
        pickup: Option<String>,
    },
}

impl Transport {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Lmtp(_) => "lmtp",
            Self::Smtp(_) => "smtp",
            Self::Drop { .. } => "drop",
        }
    }

    /// Its hosts, in the order in which they are tried.
    pub fn hosts(&self) -> &[String] {
        match self {
            Self::Lmtp(hosts) | Self::Smtp(hosts) => hosts,
            Self::Drop { .. } => &[],
        }
    }

    /// Its folders.
    pub fn folders(&self) -> impl Iterator<Item = &String> {
        let (drop, pickup) = match self {
            Self::Drop { folder, pickup } => (Some(folder), pickup.as_ref()),
            Self::Lmtp(_) | Self::Smtp(_) => (None, None),
        };
        drop.into_iter().chain(pickup)
    }
}

/// Which addresses in the site's domains a gateway takes, of those that nobody here has.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Takes {
    /// Every name. What its host then refuses is reported to the sender, who may be forged.
    #[default]
    Any,
    /// Those that are listed; nobody has the others.
    Listed,
}

impl Takes {
    /// The word for it, on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Listed => "listed",
        }
    }
}

/// A mail system inside, to which big hands mail itself.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway.
    pub id: Id,
    /// Its name, as in `/dovecot user@example.net`.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// The domains whose mail it takes: all of it, or in a domain of the site what nobody here has.
    pub domains: Vec<String>,
    /// Which names in the site's domains.
    pub takes: Takes,
    /// The last change, milliseconds since 1970; rises with each.
    pub changed_at: u64,
}
row!(Gateway, 2);

/// An address in a domain of the site that a gateway takes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The listing.
    pub id: Id,
    /// The gateway's name.
    pub gateway: String,
    /// The address, canonical.
    pub address: String,
    /// The last change, milliseconds since 1970.
    pub changed_at: u64,
}
row!(Listed, 1);

/// The name of the gateway that takes a domain.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TakenBy(pub String);
row!(TakenBy, 1);

/// What the topology says of addresses: what `known` and a rebuilt projection go by.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRow {
    /// Our domains.
    pub domains: Vec<String>,
    /// A domain, and the name that takes mail for names that nobody has in it.
    pub catch_all: Vec<(String, String)>,
}
row!(PolicyRow, 2);

/// An entry as it lies in the segments, for a rebuild of the index.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A person.
    Person(Person),
    /// A shadow.
    Shadow(Shadow),
    /// A group.
    Group(Group),
    /// A nickname.
    Nickname(Nickname),
    /// A gateway.
    Gateway(Gateway),
    /// An address that a gateway takes.
    Listed(Listed),
}
row!(Record, 2);

impl Record {
    /// The entry.
    pub fn id(&self) -> Id {
        match self {
            Self::Person(person) => person.id,
            Self::Shadow(shadow) => shadow.id,
            Self::Group(group) => group.id,
            Self::Nickname(nickname) => nickname.id,
            Self::Gateway(gateway) => gateway.id,
            Self::Listed(listed) => listed.id,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Person(person) => &person.name,
            Self::Shadow(shadow) => &shadow.name,
            Self::Group(group) => &group.name,
            Self::Nickname(nickname) => &nickname.name,
            Self::Gateway(gateway) => &gateway.name,
            Self::Listed(listed) => &listed.address,
        }
    }

    /// What is shown beside its address; empty where there is none.
    pub fn display(&self) -> &str {
        match self {
            Self::Person(person) => &person.display,
            Self::Shadow(shadow) => &shadow.display,
            Self::Group(group) => &group.display,
            Self::Nickname(_) | Self::Gateway(_) | Self::Listed(_) => "",
        }
    }

    /// Its addresses here; a nickname and a gateway have none.
    pub fn addresses(&self) -> &[String] {
        match self {
            Self::Person(person) => &person.addresses,
            Self::Shadow(shadow) => &shadow.addresses,
            Self::Group(group) => &group.addresses,
            Self::Listed(listed) => std::slice::from_ref(&listed.address),
            Self::Nickname(_) | Self::Gateway(_) => &[],
        }
    }

    /// As whom the directory's names and addresses know it; a nickname is known to its owner only, gateways
    /// have names of their own, and what is listed for one is in a table of its own.
    pub fn holder(&self) -> Option<Holder> {
        let kind = match self {
            Self::Person(_) => Kind::Person,
            Self::Shadow(_) => Kind::Shadow,
            Self::Group(_) => Kind::Group,
            Self::Nickname(_) | Self::Gateway(_) | Self::Listed(_) => return None,
        };
        Some(Holder { kind, id: self.id() })
    }

    /// Its last change, milliseconds since 1970.
    pub fn changed_at(&self) -> u64 {
        match self {
            Self::Person(person) => person.changed_at,
            Self::Shadow(shadow) => shadow.changed_at,
            Self::Group(group) => group.changed_at,
            Self::Nickname(nickname) => nickname.changed_at,
            Self::Gateway(gateway) => gateway.changed_at,
            Self::Listed(listed) => listed.changed_at,
        }
    }

    /// Whose mailbox the edge may file mail into that comes to one of its addresses.
    pub fn mailbox(&self) -> Option<Id> {
        match self {
            Self::Person(person) if person.has_mailbox() => Some(person.id),
            _ => None,
        }
    }

    /// The key of the record in the segments: each change has one of its own.
    pub fn key(&self) -> BodyKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id()).update(&self.changed_at().to_be_bytes());
        BodyKey(*hasher.finalize().as_bytes())
    }
}
