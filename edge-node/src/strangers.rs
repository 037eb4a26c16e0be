//! Whether mail of a stranger is taken at RCPT: lists in DNS are asked, and who is new is told to come again. Only port
//! 25 asks, only about recipients that there are, and never where mail is for the postmaster or abuse (RFC 5321 §4.5.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::address::Address;
use shared::id::unix_millis;
use shared::smtp::{Enhanced, Reply, Verdict};
use shared::store::StoreError;
use shared::telemetry::Quoted;
use shared::topology::{Edge, Greylist};

use crate::authentication::{Sender, Spf};
use crate::delivery::Resolver;
use crate::greylist::{self, Answer, Attempt};
use crate::intake::refusal;
use crate::lists::{Lists, Standing};
use crate::lockout::Network;
use crate::node::Node;
use crate::request::{GreylistView, StrangersView};

/// Recipients for whom one session is told to wait: each is remembered. A sender who has more of them comes again for
/// the rest, and is known by then.
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
    /// What lists say of its address; asked once in a session.
    standing: Option<Standing>,
    /// The domain that SPF lets it send for, if any; asked once in a transaction.
    vouched_for: Option<Option<String>>,
    /// How often it was told to wait in this session.
    told_to_wait: u32,
}

impl Stranger {
    /// It begins another transaction.
    pub fn begins(&mut self) {
        self.vouched_for = None;
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
        if let Some(lists) = &self.lists {
            let standing = match &stranger.standing {
                Some(standing) => standing,
                None => {
                    let standing = lists.ask(sender.client).await;
                    if let Standing::Blocked(listing, reason) = &standing {
                        let (client, list, code) = (sender.client, &listing.zone, listing.code);
                        tracing::info!(%client, %list, %code, reason, "refused: a list in DNS has the client");
                    }
                    stranger.standing.insert(standing)
                }
            };
            match standing {
                Standing::Blocked(listing, reason) => {
                    return Err(listed(sender.client, &listing.zone, reason));
                }
                Standing::Allowed(_) => return Ok(()),
                Standing::Unlisted => {}
            }
        }
        match &self.greylist {
            Some(greylist) if !acquainted => greylist.recipient(node, stranger, sender, recipient).await,
            _ => Ok(()),
        }
    }

    /// What has come of it, since the edge was started.
    pub fn view(&self, node: &Node) -> Result<StrangersView, StoreError> {
        let lists = self.lists.as_ref().map(Lists::view).unwrap_or_default();
        let greylist = self.greylist.as_ref().map(|greylist| greylist.view(node)).transpose()?;
        Ok(StrangersView { lists, greylist })
    }
}

impl Greylisting {
    async fn recipient(
        &self,
        node: &Node,
        stranger: &mut Stranger,
        sender: &Sender,
        recipient: &Address,
    ) -> Verdict {
        let failed = |error: StoreError| refusal(&error);
        let path = sender.reverse_path.as_ref();
        if let Some(path) = path
            && node.is_known_correspondent(path).map_err(failed)?
        {
            return Ok(());
        }
        if stranger.told_to_wait >= WAITS_MAX {
            let text = "too many recipients for somebody new; send it again later";
            return Err(Reply::new(421, Enhanced(4, 7, 1), text));
        }
        let (network, now) = (Network::of(sender.client), unix_millis());
        let mut attempt = Attempt::new(&node.directory_key, network, path, recipient);
        let ask = |attempt: &Attempt| {
            node.store.read().and_then(|rows| greylist::ask(&self.rule, &rows, attempt, now)).map_err(failed)
        };
        let mut asked = ask(&attempt)?;
        if asked.0 != Answer::Known {
            // Only who would have to wait costs a look at SPF.
            if stranger.vouched_for.is_none() {
                stranger.vouched_for = Some(self.spf.vouches(sender.clone()).await);
            }
            if let Some(Some(domain)) = &stranger.vouched_for {
                attempt = attempt.vouched_for(&node.directory_key, domain, recipient);
                asked = ask(&attempt)?;
            }
        }
        let (answer, is_news) = asked;
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
                stranger.told_to_wait += 1;
                if stranger.told_to_wait == 1 {
                    let from = path.map(ToString::to_string).unwrap_or_default();
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

fn wait(millis: u64) -> Reply {
    let seconds = millis.div_ceil(1000).max(1);
    let text =
        format!("you are new here: send it again in {seconds} s or later, as mail servers do by themselves");
    Reply::new(451, Enhanced(4, 7, 1), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let listed = listed("::ffff:192.0.2.1".parse().expect("an address"), "list.example", "spam");
        let text = "554 5.7.1 your address 192.0.2.1 is listed by list.example: spam write to postmaster if that is wrong";
        assert_eq!(listed.to_string(), text);
        assert!(wait(299_001).to_string().starts_with("451 4.7.1 you are new here: send it again in 300 s"));
        assert!(wait(0).to_string().contains(" 1 s "));
    }
}
