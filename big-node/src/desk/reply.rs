//! Answers: whom they go to, by which way, and what they say of the message that they answer. No address is typed.

use shared::address::Address;
use shared::id::unix_millis;
use shared::mime::words::{Prefix, base_subject};
use shared::mime::{self, DraftMailbox, HeaderFacts, ListPost};
use shared::origin::{Channel, Mailbox, Origin};
use shared::store::{Rows, Snapshot, StoreError};

use super::send::{Letter, Original, Outgoing, address};
use crate::directory::srs::{self, Returned};
use crate::directory::{self, Policy, Route, Way};
use crate::error::Refused;
use crate::mail::{Tie, Ways};
use crate::node::Node;
use crate::record::{MESSAGES, Message, Person, RECIPIENTS, Recipient};

/// Lines that are quoted below an answer, and octets of them.
const QUOTED_LINES_MAX: usize = 2000;
const QUOTED_BYTES_MAX: usize = 256 * 1024;

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Who wrote the message.
    Author,
    /// Everybody who has it.
    All,
    /// The mailing list that it came by.
    List,
}

/// Where an answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressed {
    /// To.
    pub to: Vec<Mailbox>,
    /// Cc.
    pub cc: Vec<Mailbox>,
}

/// Whom an answer goes to (RFC 5322 §3.6.3, RFC 2369, and the lists' convention of Mail-Followup-To). `is_own` says
/// whether an address is of who answers; those are left out, but for who writes to nobody else.
pub fn addressed(
    origin: &Origin,
    list: Option<&ListPost>,
    is_own: impl Fn(&str) -> bool,
    whom: Whom,
) -> Result<Addressed, Refused> {
    let usable = |list: &[Mailbox]| -> Vec<Mailbox> {
        list.iter().filter(|mailbox| mailbox.address.parse::<Address>().is_ok()).cloned().collect()
    };
    let others = |list: Vec<Mailbox>| -> Vec<Mailbox> {
        list.into_iter().filter(|mailbox| !is_own(&mailbox.address)).collect()
    };
    let followup = others(usable(&origin.mail_followup_to));
    if whom == Whom::List {
        return to_list(list, followup);
    }
    let (to, cc) = (usable(&origin.to), usable(&origin.cc));
    if origin.from.iter().any(|mailbox| is_own(&mailbox.address)) {
        // One's own message is answered to those it went to.
        return Ok(own(origin, to, cc, others, whom));
    }
    // RFC 5321 §4.5.5: nothing is sent to the null reverse-path. What a traveller's client says by it is the traveller's.
    let is_travellers = matches!(origin.channel, Channel::Submission { .. });
    if origin.reverse_path.is_none() && origin.reply_to.is_empty() && !is_travellers {
        let text = "that message is a report by a mail system (its reverse-path is the null one), and nobody reads \
                    answers to it; answer the message that it is about, or write to a person with `mail send`";
        return Err(Refused::new(text));
    }
    if whom == Whom::All && !followup.is_empty() {
        return Ok(Addressed { to: unique(followup, &[]), cc: Vec::new() });
    }
    let reverse_path = origin.reverse_path.clone().map(unrewritten);
    let reverse_path = reverse_path.map(|address| Mailbox { name: String::new(), address });
    let candidates = [
        usable(&origin.reply_to),
        usable(&origin.from),
        usable(&origin.sender),
        reverse_path.into_iter().collect(),
    ];
    let main = candidates.into_iter().map(others).find(|list| !list.is_empty());
    let nobody = || Refused::new("that message names nobody but yourself to answer to; use `mail send`");
    let to_main = unique(main.ok_or_else(nobody)?, &[]);
    let cc = match whom {
        Whom::All => unique(others([to, cc].concat()), &to_main),
        Whom::Author | Whom::List => Vec::new(),
    };
    Ok(Addressed { to: to_main, cc })
}

fn to_list(list: Option<&ListPost>, followup: Vec<Mailbox>) -> Result<Addressed, Refused> {
    let to = match list {
        _ if !followup.is_empty() => unique(followup, &[]),
        Some(ListPost::To(address)) if address.parse::<Address>().is_ok() => {
            vec![Mailbox { name: String::new(), address: address.clone() }]
        }
        Some(ListPost::Closed) => {
            return Err(Refused::new(
                "that list takes no messages from its readers; answer its author instead",
            ));
        }
        _ => {
            let text =
                "that message says of no mailing list where its messages go; answer its author, or all";
            return Err(Refused::new(text));
        }
    };
    Ok(Addressed { to, cc: Vec::new() })
}

fn own(
    origin: &Origin,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    others: impl Fn(Vec<Mailbox>) -> Vec<Mailbox>,
    whom: Whom,
) -> Addressed {
    let envelope = origin.recipients.iter();
    let envelope = envelope.map(|to| Mailbox { name: String::new(), address: to.address.clone() }).collect();
    let lists: [Vec<Mailbox>; 3] = [to, cc.clone(), envelope];
    let somebody = lists.iter().map(|list| others(list.clone())).find(|list| !list.is_empty());
    // A note to oneself is answered to oneself.
    let oneself = || lists.iter().find(|list| !list.is_empty()).cloned().unwrap_or_default();
    let to = unique(somebody.unwrap_or_else(oneself), &[]);
    let cc = if whom == Whom::All { unique(others(cc), &to) } else { Vec::new() };
    Addressed { to, cc }
}

/// Each address once, and none of those `besides`.
fn unique(list: Vec<Mailbox>, besides: &[Mailbox]) -> Vec<Mailbox> {
    let canonical = |mailbox: &Mailbox| {
        mailbox.address.parse::<Address>().map_or_else(|_| mailbox.address.clone(), |a| a.canonical())
    };
    let mut seen: Vec<String> = besides.iter().map(canonical).collect();
    let is_new = |mailbox: &Mailbox| {
        let address = canonical(mailbox);
        let is_new = !seen.contains(&address);
        seen.push(address);
        is_new
    };
    list.into_iter().filter(is_new).collect()
}

/// The sender in a reverse-path that some forwarder has rewritten, if it is of the usual form.
fn unrewritten(path: String) -> String {
    let sender =
        path.parse::<Address>().ok().and_then(|address| srs::sender_of_foreign(address.local_part()));
    sender.map_or(path, |sender| sender.to_string())
}

/// An answer, ready to be sent.
pub(super) fn letter(
    node: &Node,
    rows: &Snapshot,
    author: &Person,
    original: &Original,
    whom: Whom,
    outgoing: Outgoing,
) -> Result<Letter, Refused> {
    let origin = &original.filed.message.origin;
    let mut text = outgoing.text;
    if outgoing.quote {
        text = format!("{}\n\n{}", text.trim_end(), quoted(original));
    }
    let mut letter = Letter {
        subject: subject(&origin.subject, &outgoing.subject, "Re:", Prefix::Answer),
        text,
        attachments: outgoing.attachments,
        entities: outgoing.entities,
        in_reply_to: origin.message_id.clone(),
        references: original.references(),
        tie: Some(Tie::Answers(original.filed.id)),
        ..Letter::default()
    };
    match outgoing.to.is_empty() && outgoing.cc.is_empty() {
        true => address_answer(node, rows, author, original, whom, &mut letter)?,
        false => address(node, rows, author, &mut letter, &outgoing.to, &outgoing.cc)?,
    }
    Ok(letter)
}

/// Addresses an answer to whom it goes by itself.
pub(super) fn address_answer(
    node: &Node,
    rows: &Snapshot,
    author: &Person,
    original: &Original,
    whom: Whom,
    letter: &mut Letter,
) -> Result<(), Refused> {
    let origin = &original.filed.message.origin;
    let facts = HeaderFacts::of(original.as_it_came());
    let is_own = |address: &str| {
        let Ok(address) = address.parse::<Address>() else { return false };
        let forms = [Some(address.clone()), address.without_tag()].into_iter().flatten();
        forms.into_iter().any(|form| author.addresses.contains(&form.canonical()))
    };
    let addressed = addressed(origin, facts.list_post.as_ref(), is_own, whom)?;
    let boxes = |list: Vec<Mailbox>| -> Result<Vec<DraftMailbox>, Refused> {
        list.into_iter()
            .map(|mailbox| draft_mailbox(&node.site.policy, rows, mailbox, unix_millis()))
            .collect()
    };
    (letter.to, letter.cc) = (boxes(addressed.to)?, boxes(addressed.cc)?);
    letter.ways = ways(node, rows, original, letter)?;
    Ok(())
}

/// A mailbox to write to; an address of ours that stands for a stranger's (SRS) is that stranger's.
fn draft_mailbox(
    policy: &Policy,
    rows: &impl Rows,
    mailbox: Mailbox,
    now: u64,
) -> Result<DraftMailbox, Refused> {
    let address: Address =
        mailbox.address.parse().map_err(|error| Refused::new(format!("{}: {error}", mailbox.address)))?;
    let returned = policy
        .is_ours(address.domain())
        .then(|| srs::unwrap(&policy.srs_key, address.local_part(), now))
        .flatten();
    let address = match returned {
        None => address,
        Some(Returned::Sender(sender)) => sender,
        Some(Returned::Of(message)) => {
            let message = rows.get::<Message>(MESSAGES, &message.0)?;
            let path = message.and_then(|message| message.origin.reverse_path);
            path.and_then(|path| path.parse().ok()).unwrap_or(address)
        }
    };
    Ok(DraftMailbox { name: (!mailbox.name.is_empty()).then_some(mailbox.name), address })
}

/// The ways of an answer's recipients. What was sent by a gateway that somebody named is answered by it; and what a
/// gateway's system has brought goes back to it, if nobody else here knows the way.
fn ways(node: &Node, rows: &Snapshot, original: &Original, letter: &Letter) -> Result<Ways, Refused> {
    let mut ways = Ways::new();
    let sent = rows.prefix::<Recipient>(RECIPIENTS, &original.filed.id.0, usize::MAX)?;
    for (_, row) in sent {
        if let Some(gateway) = row.gateway
            && directory::gateway(rows, &gateway)?.is_some()
        {
            ways.entry(row.address).or_insert(Way::Inside(gateway));
        }
    }
    ways.retain(|address, _| {
        letter.to.iter().chain(&letter.cc).any(|mailbox| mailbox.address.to_string() == *address)
    });
    if let Channel::Gateway { name } = &original.filed.message.origin.channel
        && directory::gateway(rows, name)?.is_some()
    {
        for mailbox in &letter.to {
            if leads_out(node, rows, &mailbox.address)? {
                ways.entry(mailbox.address.to_string()).or_insert(Way::Inside(name.clone()));
            }
        }
    }
    Ok(ways)
}

/// Whether an address is nobody's here and no gateway's, so that mail for it would leave by the edge, or fail.
fn leads_out(node: &Node, rows: &Snapshot, address: &Address) -> Result<bool, StoreError> {
    let letter = directory::Letter { is_report: false, passes: 0, now: unix_millis() };
    let text = address.to_string();
    let routed = directory::route(rows, &node.site.policy, letter, [text.as_str()])?;
    Ok(routed.iter().all(|routed| {
        routed.via.is_none() && matches!(routed.route, Route::Outside(Way::Edge, _) | Route::Nowhere(..))
    }))
}

/// The subject of a message about another one: what was typed, else the other one's with a prefix.
pub(super) fn subject(original: &str, typed: &str, prefix: &str, means: Prefix) -> String {
    match typed.is_empty() {
        false => typed.to_owned(),
        true if base_subject(original).1 == means => original.to_owned(),
        true => format!("{prefix} {original}"),
    }
}

/// The text that is answered, as it stands below the answer, without a signature.
fn quoted(original: &Original) -> String {
    let mut quoted = format!("On {}, {} wrote:\n", original.date(), one_line(&original.author()));
    let text = mime::text_of(&original.content);
    for (n, line) in text.trim_end().lines().enumerate() {
        if line == "-- " {
            break;
        }
        if n == QUOTED_LINES_MAX || quoted.len() > QUOTED_BYTES_MAX {
            quoted += "> [...]\n";
            break;
        }
        quoted += if line.starts_with('>') { ">" } else { "> " };
        quoted += line;
        quoted.push('\n');
    }
    quoted
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::address::Domain;
    use shared::id::MessageId;
    use shared::store::Store;
    use shared::store::sim::{Faults, SimDisk};

    use super::*;
    use crate::node;

    const ALICE: &str = "From: carol@remote.example\nTo: alice@example.com\n";

    /// Whom alice's answer to a message with this header and reverse-path goes to: `to | cc`, or why nobody.
    fn answered(header: &str, path: Option<&str>, whom: Whom) -> String {
        let header = format!("{}\r\n", header.replace('\n', "\r\n"));
        let channel = Channel::Reception { helo: "mx".into(), client: "192.0.2.1".into(), tls: true };
        let recipients = vec!["alice@example.com".to_owned()];
        let origin = node::origin(channel, path.map(str::to_owned), recipients, header.as_bytes());
        let list = HeaderFacts::of(header.as_bytes()).list_post;
        let own = |address: &str| {
            let address = address.to_lowercase();
            address == "alice@example.com"
                || address == "al@example.com"
                || address.starts_with("alice+") && address.ends_with("@example.com")
        };
        match addressed(&origin, list.as_ref(), own, whom) {
            Ok(Addressed { to, cc }) => {
                let list = |list: &[Mailbox]| {
                    list.iter().map(|mailbox| mailbox.address.clone()).collect::<Vec<_>>().join(" ")
                };
                format!("{} | {}", list(&to), list(&cc)).trim().to_owned()
            }
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn answers_go_where_they_belong() {
        use Whom::{All, Author, List};
        let path = Some("bounces@remote.example");
        for (header, path, whom, expected) in [
            // From, Reply-To, Sender.
            (ALICE, path, Author, "carol@remote.example |"),
            (
                "From: carol@remote.example\nReply-To: dan@remote.example\n",
                path,
                Author,
                "dan@remote.example |",
            ),
            (
                "From: carol@remote.example\nReply-To: d@x.example, e@x.example\n",
                path,
                Author,
                "d@x.example e@x.example |",
            ),
            (
                "From: carol@remote.example\nSender: secretary@remote.example\n",
                path,
                Author,
                "carol@remote.example |",
            ),
            (
                "From: c@x.example, d@x.example\nSender: s@x.example\n",
                path,
                Author,
                "c@x.example d@x.example |",
            ),
            (
                "Sender: secretary@remote.example\nTo: alice@example.com\n",
                path,
                Author,
                "secretary@remote.example |",
            ),
            ("From: not an address\nSender: s@x.example\n", path, Author, "s@x.example |"),
            ("From: c@x.example\nReply-To: nonsense\n", path, Author, "c@x.example |"),
            ("From: c@x.example\nReply-To: <>\n", path, Author, "c@x.example |"),
            ("To: alice@example.com\n", path, Author, "bounces@remote.example |"),
            (
                "Subject: x\n",
                Some("SRS0=abcd=XY=origin.example=carol@forwarder.example"),
                Author,
                "carol@origin.example |",
            ),
            (
                "Subject: x\n",
                Some("SRS1=e=f.example==abcd=XY=origin.example=carol@g.example"),
                Author,
                "carol@origin.example |",
            ),
            ("From: c@x.example\nReply-To: alice@example.com\n", path, Author, "c@x.example |"),
            ("From: C@X.example\nReply-To: c@x.example, c@x.example\n", path, Author, "c@x.example |"),
            // All.
            (ALICE, path, All, "carol@remote.example |"),
            (
                "From: c@x.example\nTo: alice@example.com, bob@example.com\nCc: d@x.example, al@example.com\n",
                path,
                All,
                "c@x.example | bob@example.com d@x.example",
            ),
            (
                "From: c@x.example\nTo: Alice+list@Example.com, c@x.example\nCc: bob@example.com, BOB@example.com\n",
                path,
                All,
                "c@x.example | bob@example.com",
            ),
            (
                "From: c@x.example\nReply-To: office@x.example\nTo: alice@example.com\nCc: c@x.example\n",
                path,
                All,
                "office@x.example | c@x.example",
            ),
            ("From: c@x.example\nTo: team@example.com\n", path, All, "c@x.example | team@example.com"),
            ("From: c@x.example\nTo: undisclosed-recipients:;\n", path, All, "c@x.example |"),
            (
                "From: c@x.example\nTo: friends: d@x.example, e@x.example;\n",
                path,
                All,
                "c@x.example | d@x.example e@x.example",
            ),
            ("From: c@x.example\nTo: broken, d@x.example\n", path, All, "c@x.example | d@x.example"),
            // Mailing lists.
            (
                "From: c@x.example\nTo: l@lists.example\nList-Post: <mailto:l@lists.example>\n",
                path,
                Author,
                "c@x.example |",
            ),
            (
                "From: c@x.example\nTo: l@lists.example\nList-Post: <mailto:l@lists.example>\n",
                path,
                List,
                "l@lists.example |",
            ),
            (
                "From: c@x.example\nTo: l@lists.example\nList-Post: <mailto:l@lists.example>\n",
                path,
                All,
                "c@x.example | l@lists.example",
            ),
            (
                "From: c@x.example\nReply-To: l@lists.example\nTo: l@lists.example\nList-Post: <mailto:l@lists.example>\n",
                path,
                All,
                "l@lists.example |",
            ),
            (
                "From: c@x.example\nTo: l@lists.example\nMail-Followup-To: l@lists.example, d@x.example\n",
                path,
                All,
                "l@lists.example d@x.example |",
            ),
            (
                "From: c@x.example\nTo: l@lists.example\nMail-Followup-To: l@lists.example\n",
                path,
                Author,
                "c@x.example |",
            ),
            (
                "From: c@x.example\nCc: d@x.example\nMail-Followup-To: l@lists.example, alice@example.com\n",
                path,
                All,
                "l@lists.example |",
            ),
            (
                "From: c@x.example\nTo: l@lists.example\nMail-Followup-To: alice@example.com\n",
                path,
                All,
                "c@x.example | l@lists.example",
            ),
            (
                "From: c@x.example\nList-Post: <mailto:l@lists.example>\nMail-Followup-To: m@lists.example\n",
                path,
                List,
                "m@lists.example |",
            ),
            (
                "From: c@x.example\nList-Post: NO\n",
                path,
                List,
                "that list takes no messages from its readers; answer its author instead",
            ),
            (
                ALICE,
                path,
                List,
                "that message says of no mailing list where its messages go; answer its author, or all",
            ),
            // One's own.
            ("From: alice@example.com\nTo: c@x.example\nCc: d@x.example\n", path, Author, "c@x.example |"),
            (
                "From: alice@example.com\nTo: c@x.example\nCc: d@x.example\n",
                path,
                All,
                "c@x.example | d@x.example",
            ),
            (
                "From: al@example.com\nReply-To: al@example.com\nTo: c@x.example, alice@example.com\n",
                path,
                All,
                "c@x.example |",
            ),
            (
                "From: alice@example.com\nTo: alice@example.com\nCc: d@x.example\n",
                path,
                Author,
                "d@x.example |",
            ),
            ("From: alice@example.com\nTo: alice@example.com\n", path, Author, "alice@example.com |"),
            ("From: alice@example.com\n", path, Author, "alice@example.com |"),
            (
                "From: alice@example.com\nMail-Followup-To: l@lists.example\nTo: c@x.example\n",
                path,
                All,
                "c@x.example |",
            ),
            // Reports.
            ("From: c@x.example\nReply-To: office@x.example\n", None, Author, "office@x.example |"),
        ] {
            assert_eq!(answered(header, path, whom), expected, "{whom:?} {header}");
        }
        for whom in [Author, All] {
            let refused = answered("From: MAILER-DAEMON@x.example\nTo: alice@example.com\n", None, whom);
            assert!(refused.contains("a report by a mail system"), "{refused}");
        }
        let refused = answered("Subject: x\n", Some("alice@example.com"), Author);
        assert!(refused.contains("nobody but yourself"), "{refused}");
    }

    #[test]
    fn an_address_of_ours_that_stands_for_a_strangers_is_theirs() {
        const NOW: u64 = 1_800_000_000_000;
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let ours: Domain = "example.com".parse().expect("a domain");
        let policy = Policy {
            domains: vec![ours.clone()],
            postmaster: "alice".into(),
            catch_all: std::collections::BTreeMap::new(),
            edge: "mx.example.com".into(),
            srs_key: srs::Key([8; 32]),
        };
        let id = MessageId::generate();
        let long = format!("{}@a-rather-long-name.remote.example", "c".repeat(40));
        let origin = node::origin(Channel::Report, Some(long.clone()), Vec::new(), b"");
        let message =
            Message { origin, revision: 0, thread: id.0, parent: None, parts: Vec::new(), unparsed: None };
        store.commit_blocking(move |txn| txn.put(MESSAGES, &id.0, &message)).expect("commits");
        for sender in ["carol@remote.example", &long] {
            let wrapped = srs::wrap(&policy.srs_key, &ours, &sender.parse().expect("an address"), id, NOW);
            let address = wrapped.expect("fits").to_string();
            assert_ne!(address, sender);
            let mailbox = Mailbox { name: "Carol".into(), address };
            let rows = store.read().expect("reads");
            let real = draft_mailbox(&policy, &rows, mailbox, NOW).expect("an address");
            assert_eq!((real.name.as_deref(), real.address.to_string()), (Some("Carol"), sender.to_owned()));
        }
    }

    #[test]
    fn a_subject_gets_one_prefix() {
        for (original, typed, expected) in [
            ("Lunch", "", "Re: Lunch"),
            ("RE: Lunch", "", "RE: Lunch"),
            ("AW: Lunch", "", "AW: Lunch"),
            ("Fwd: Lunch", "", "Re: Fwd: Lunch"),
            ("Lunch", "Dinner", "Dinner"),
            ("", "", "Re: "),
            ("é: x", "", "Re: é: x"),
        ] {
            assert_eq!(subject(original, typed, "Re:", Prefix::Answer), expected);
        }
    }
}
