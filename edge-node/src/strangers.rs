//! Whether mail of a stranger is taken at RCPT: lists in DNS are asked, and who is new is told to come again. Only port
//! 25 asks, only about recipients that there are, and never where mail is for the postmaster or abuse (RFC 5321 §4.5.1).
//! What comes from the null reverse-path does not wait: it tells people here what became of their mail, and a host that asks
//! back whether somebody is there uses it, too.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::address::Address;
use shared::id::unix_millis;
use shared::smtp::{Enhanced, Reply, Verdict};
use shared::store::StoreError;
use shared::telemetry::Quoted;
use shared::topology::{Edge, Greylist};

use crate::authentication::{Sender, Spf, Vouched};
use crate::delivery::Resolver;
use crate::greylist::{self, Answer, Attempt};
use crate::harvest::Namer;
use crate::intake::refusal;
use crate::lists::{Lists, Standing};
use crate::lockout::Network;
use crate::node::Node;
use crate::request::{GreylistView, StrangersView};

/// Recipients of one session who are new: each is remembered. A sender who has more of them comes again for the rest, and
/// is known by then.
const WAITS_MAX: u32 = 100;

/// What a site asks of strangers.
#[derive(Debug)]
pub struct Strangers {
    lists: Option<Lists>,
    greylist: Option<Greylisting>,
}

#[derive(Debug)]
struct Greylisting {
    rule: Greylist,
    spf: Arc<Spf>,
    told_to_wait: AtomicU64,
    returned: AtomicU64,
    known: AtomicU64,
}

/// A client, and what is known of it already.
#[derive(Debug, Default)]
pub struct Stranger {
    /// What lists say of its address; asked once in a session, or in a transaction if they are not sure.
    standing: Option<Standing>,
    /// What SPF says for it; asked once in a transaction.
    vouched: Option<Vouched>,
    /// What it is answered in this transaction, whoever else is named. If some recipients were taken and others not, it
    /// would come again for those, with other envelopes than before; but a message that gets no 250 is known again by
    /// its envelope ([`crate::vouch`]).
    answer: Option<Verdict>,
    /// Who it is counted with that names who is not here, and whether it may ask who is: in this transaction likewise.
    pub harvest: Option<(Namer, Verdict)>,
    /// Recipients in this session who were new.
    new: u32,
}

impl Stranger {
    /// It begins another transaction.
    pub fn begins(&mut self) {
        (self.vouched, self.answer, self.harvest) = (None, None, None);
        if let Some(Standing::Unsure(_)) = &self.standing {
            self.standing = None;
        }
    }

    /// The verdict of lists that goes with its messages.
    pub fn verdict(&self) -> Option<String> {
        self.standing.as_ref().and_then(Standing::verdict)
    }
}

impl Strangers {
    /// Asks as the topology wants, by `resolver`; `None` where it wants nothing asked.
    pub fn new(resolver: &Resolver, edge: &Edge) -> Option<Arc<Self>> {
        let lists = Lists::new(resolver, &edge.lists);
        let greylist = edge.greylist.map(|rule| Greylisting {
            rule,
            spf: Spf::new(resolver.inner(), edge.hostname.clone()),
            told_to_wait: AtomicU64::default(),
            returned: AtomicU64::default(),
            known: AtomicU64::default(),
        });
        (lists.is_some() || greylist.is_some()).then(|| Arc::new(Self { lists, greylist }))
    }

    /// Whether mail of `sender` for `recipient`, who is there, is taken. `acquainted` says that a message was taken
    /// from its address before.
    pub async fn recipient(
        &self,
        node: &Node,
        stranger: &mut Stranger,
        sender: &Sender,
        recipient: &Address,
        acquainted: bool,
    ) -> Verdict {
        match self.standing(stranger, sender.client).await {
            Some(Standing::Blocked(listing, reason)) => {
                return Err(listed(sender.client, &listing.zone, reason));
            }
            Some(Standing::Unsure(listing)) => return Err(listed_for_now(sender.client, &listing.zone)),
            Some(Standing::Allowed(_)) => return Ok(()),
            Some(Standing::Unlisted) | None => {}
        }
        let Some(greylist) = &self.greylist else { return Ok(()) };
        // Who is acquainted meanwhile is answered in the next transaction.
        let verdict = match acquainted {
            true => Ok(()),
            false => greylist.recipient(node, stranger, sender, recipient).await,
        };
        stranger.answer.get_or_insert(verdict).clone()
    }

    /// Whether a list speaks for a client.
    pub async fn allows(&self, stranger: &mut Stranger, client: IpAddr) -> bool {
        matches!(self.standing(stranger, client).await, Some(Standing::Allowed(_)))
    }

    /// What lists say of a client; `None` if there are none.
    async fn standing<'a>(&self, stranger: &'a mut Stranger, client: IpAddr) -> Option<&'a Standing> {
        if stranger.standing.is_none()
            && let Some(lists) = &self.lists
        {
            let standing = lists.ask(client).await;
            if let Standing::Blocked(listing, reason) = &standing {
                let (list, code) = (&listing.zone, listing.code);
                tracing::info!(%client, %list, %code, reason, "refused: a list in DNS has the client");
            }
            if let Standing::Unsure(listing) = &standing {
                let (list, code) = (&listing.zone, listing.code);
                tracing::info!(
                    %client, %list, %code,
                    "refused for now: a list in DNS has the client, and one that may allow it gives no answer"
                );
            }
            stranger.standing = Some(standing);
        }
        stranger.standing.as_ref()
    }

    /// Sees to the lists, for as long as it runs.
    pub async fn watch(&self) {
        if let Some(lists) = &self.lists {
            lists.watch().await;
        }
    }

    /// What has come of it, since the edge was started; not who is locked, which is so whatever is asked.
    pub fn view(&self, node: &Node) -> Result<StrangersView, StoreError> {
        let lists = self.lists.as_ref().map(Lists::view).unwrap_or_default();
        let greylist = self.greylist.as_ref().map(|greylist| greylist.view(node)).transpose()?;
        Ok(StrangersView { lists, greylist, locked: Vec::new() })
    }
}

impl Greylisting {
    /// What is made of one recipient, were they the only one.
    async fn recipient(
        &self,
        node: &Node,
        stranger: &mut Stranger,
        sender: &Sender,
        recipient: &Address,
    ) -> Verdict {
        let failed = |error: StoreError| refusal(&error);
        let Some(path) = &sender.reverse_path else { return Ok(()) };
        if node.is_known_correspondent(path).map_err(failed)? {
            return Ok(());
        }
        let (network, now) = (Network::of(sender.client), unix_millis());
        let mut attempt = Attempt::new(&node.directory_key, network, path, recipient);
        let ask = |attempt: &Attempt| {
            node.store.read().and_then(|rows| greylist::ask(&self.rule, &rows, attempt, now)).map_err(failed)
        };
        let mut asked = ask(&attempt)?;
        if asked.0 != Answer::Known {
            // Only who would have to wait costs a look at SPF.
            let vouched = match &stranger.vouched {
                Some(vouched) => vouched,
                None => stranger.vouched.insert(self.spf.vouches(sender.clone()).await),
            };
            match vouched {
                Vouched::Not => {}
                Vouched::For(domain) => {
                    attempt = attempt.vouched_for(&node.directory_key, domain, recipient);
                    asked = ask(&attempt)?;
                }
                // SPF has vouched before for who sends there for that domain: a host whose DNS is slow now does not
                // wait anew. Nothing of the domain is remembered by that.
                Vouched::Unsure(domain) => {
                    let as_if = attempt.clone().vouched_for(&node.directory_key, domain, recipient);
                    asked.0 = asked.0.min(ask(&as_if)?.0);
                }
                // That we have no place to ask is no fault of the sender's.
                Vouched::Busy => asked = (Answer::Known, false),
            }
        }
        let (answer, is_news) = asked;
        let is_new = matches!(answer, Answer::New(_) | Answer::Waits(_));
        if is_new && stranger.new >= WAITS_MAX {
            let text = "too many recipients for somebody new; send it again later";
            return Err(Reply::new(451, Enhanced(4, 7, 1), text));
        }
        stranger.new += u32::from(is_new);
        if is_news {
            // A power cut costs the stranger another wait, so it may wait for the next commit.
            let rule = self.rule;
            let record =
                node.store.commit_lazily(move |txn| greylist::record(txn, &rule, &attempt, now), || {});
            record.map_err(failed)?;
        }
        match answer {
            Answer::Known => {
                self.known.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Answer::Returned => {
                self.returned.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Answer::Waits(millis) | Answer::New(millis) => {
                self.told_to_wait.fetch_add(1, Ordering::Relaxed);
                if stranger.new == 1 {
                    let from = path.to_string();
                    tracing::info!(client = %sender.client, from = %Quoted(&from), "a stranger is told to come again");
                }
                Err(wait(millis))
            }
        }
    }

    fn view(&self, node: &Node) -> Result<GreylistView, StoreError> {
        let (waiting, remembered) = greylist::len(&node.store.read()?)?;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(GreylistView {
            told_to_wait: count(&self.told_to_wait),
            returned: count(&self.returned),
            known: count(&self.known),
            waiting,
            remembered,
        })
    }
}

fn listed(client: IpAddr, zone: impl std::fmt::Display, reason: &str) -> Reply {
    let client = client.to_canonical();
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let text =
        format!("your address {client} is listed by {zone}{why}\nwrite to postmaster if that is wrong");
    Reply::new(554, Enhanced(5, 7, 1), &text)
}

fn listed_for_now(client: IpAddr, zone: impl std::fmt::Display) -> Reply {
    let client = client.to_canonical();
    let text = format!(
        "your address {client} is listed by {zone}, and a list that may speak for it gives no answer; send it again later"
    );
    Reply::new(451, Enhanced(4, 7, 1), &text)
}

fn wait(millis: u64) -> Reply {
    let seconds = millis.div_ceil(1000).max(1);
    let text =
        format!("you are new here: send it again in {seconds} s or later, as mail servers do by themselves");
    Reply::new(451, Enhanced(4, 7, 1), &text)
}

#[cfg(test)]
pub(crate) mod tests {
    use shared::seal::PrivateKey;
    use shared::store::sim::{Faults, SimDisk};
    use shared::store::{Store, Txn};
    use shared::topology::{Dnssec, SMALLEST, Topology};

    use super::*;
    use crate::cover::Covers;
    use crate::lists::Listing;

    #[test]
    fn refusals_say_what_to_do() {
        let listed = listed("::ffff:192.0.2.1".parse().expect("an address"), "list.example", "spam");
        let text = "554 5.7.1 your address 192.0.2.1 is listed by list.example: spam write to postmaster if that is wrong";
        assert_eq!(listed.to_string(), text);
        assert!(wait(299_001).to_string().starts_with("451 4.7.1 you are new here: send it again in 300 s"));
        assert!(wait(0).to_string().contains(" 1 s "));
        let for_now = listed_for_now("192.0.2.1".parse().expect("an address"), "list.example").to_string();
        assert!(for_now.starts_with("451 4.7.1 ") && for_now.ends_with("send it again later"), "{for_now}");
    }

    #[test]
    fn lists_that_are_not_sure_are_asked_again_in_the_next_transaction() {
        let listing =
            Listing { zone: "list.example".parse().expect("a domain"), code: [127, 0, 0, 2].into() };
        let after = |standing| {
            let mut stranger = Stranger { standing: Some(standing), ..Stranger::default() };
            stranger.begins();
            stranger.standing.is_none()
        };
        assert!(after(Standing::Unsure(listing.clone())));
        assert!(!after(Standing::Blocked(listing, String::new())) && !after(Standing::Unlisted));
    }

    /// A client for whom a list speaks.
    pub(crate) fn allowed() -> Stranger {
        let (zone, code) = ("list.example".parse().expect("a domain"), [127, 0, 0, 2].into());
        Stranger { standing: Some(Standing::Allowed(Listing { zone, code })), ..Stranger::default() }
    }

    /// An edge where strangers wait, and what it asks of them. Its resolver is asked nothing: SPF has been.
    pub(crate) fn edge() -> (Node, Arc<Strangers>) {
        let text = SMALLEST.replace("[link]", "[edge.greylist]\n[link]");
        let topology = Topology::parse(&text, "test.toml").expect("is right");
        let resolver = Resolver::new(&[([127, 0, 0, 1], 9).into()], &Dnssec::Off).expect("a resolver");
        let strangers = Strangers::new(&resolver, &topology.edge).expect("strangers wait");
        let store = Store::open(Arc::new(SimDisk::new(Faults::default()))).expect("opens");
        let sealing = PrivateKey::from_bytes([1; 32]);
        (Node::new(store, Covers::simulated(), topology, sealing, [2; 32]), strangers)
    }

    fn sender() -> Sender {
        let reverse_path = Some("carol@remote.example".parse().expect("an address"));
        Sender { client: [192, 0, 2, 1].into(), helo: "mx.remote.example".into(), reverse_path }
    }

    fn whom(name: &str) -> Address {
        format!("{name}@example.com").parse().expect("an address")
    }

    /// The codes that those recipients of one transaction are answered.
    fn codes(
        edge: &(Node, Arc<Strangers>),
        stranger: &mut Stranger,
        vouched: Vouched,
        to: &[&str],
    ) -> Vec<u16> {
        stranger.begins();
        stranger.vouched = Some(vouched);
        let asked = async {
            let mut codes = Vec::new();
            for name in to {
                let verdict = edge.1.recipient(&edge.0, stranger, &sender(), &whom(name), false).await;
                codes.push(verdict.map_or_else(|reply| reply.code(), |()| 250));
            }
            codes
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(asked)
    }

    /// As if the sender had come for that recipient six minutes ago, SPF vouching for its domain or not.
    fn came_before(node: &Node, name: &str, domain: Option<&str>) {
        let (sender, recipient, key) = (sender(), whom(name), node.directory_key);
        let path = sender.reverse_path.expect("it is not the null one");
        let network = Network::of(domain.map_or(sender.client, |_| [198, 51, 100, 1].into()));
        let mut attempt = Attempt::new(&key, network, &path, &recipient);
        if let Some(domain) = domain {
            attempt = attempt.vouched_for(&key, domain, &recipient);
        }
        let (rule, then) = (node.topology.edge.greylist.expect("it is on"), unix_millis() - 360_000);
        let record = move |txn: &mut Txn<'_>| greylist::record(txn, &rule, &attempt, then);
        node.store.commit_blocking(record).expect("commits");
    }

    fn waiting(node: &Node) -> u64 {
        // What is written lazily is written with this.
        node.store.commit_blocking(|_| Ok::<_, StoreError>(())).expect("commits");
        node.store.read().and_then(|rows| greylist::len(&rows)).expect("reads").0
    }

    #[test]
    fn all_recipients_of_a_transaction_are_answered_alike() {
        let (edge, mut stranger) = (edge(), Stranger::default());
        came_before(&edge.0, "bob", None);
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["alice", "bob"]), [451, 451]);
        assert_eq!(waiting(&edge.0), 1, "alice's waits, and bob's has come again");
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["bob", "dave", "erin"]), [250, 250, 250]);
        assert_eq!(waiting(&edge.0), 3, "those are remembered all the same");
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["dave"]), [451]);
    }

    #[test]
    fn too_many_who_are_new_are_told_so_and_who_is_known_is_taken_all_the_same() {
        let edge = edge();
        came_before(&edge.0, "bob", None);
        let mut stranger = Stranger { new: WAITS_MAX, ..Stranger::default() };
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["alice"]), [451]);
        assert_eq!(waiting(&edge.0), 1, "alice's is not remembered");
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["bob"]), [250]);
    }

    #[test]
    fn that_spf_cannot_be_asked_is_not_held_against_who_has_waited() {
        let (edge, mut stranger) = (edge(), Stranger::default());
        let unsure = || Vouched::Unsure("remote.example".into());
        assert_eq!(codes(&edge, &mut stranger, Vouched::Busy, &["alice"]), [250]);
        assert_eq!(codes(&edge, &mut stranger, unsure(), &["alice"]), [451], "nobody knows it");
        came_before(&edge.0, "bob", Some("remote.example"));
        assert_eq!(codes(&edge, &mut stranger, Vouched::Not, &["bob"]), [451]);
        assert_eq!(codes(&edge, &mut stranger, unsure(), &["bob"]), [250]);
    }
}
