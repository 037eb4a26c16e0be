//! Whether the resolvers pass the records of DNSSEC on, without which nothing that they say is proved and mail waits.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::topology::{Dnssec, Edge, Mode};

use super::resolve::{Resolver, ResolverError};

/// Between two looks at the resolvers.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// What mends it, for `doctor` and where it is an alarm.
pub const MEND: &str = "if the clock of this host is right, name resolvers that pass them on with [edge.dns] `servers`, \
                        such as one of your own on this host, or do without DANE by `dnssec = false`";

/// What a resolver does with the records of DNSSEC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passing {
    /// It passes them on.
    Passes,
    /// It keeps them back: every answer of its looks forged.
    Strips,
    /// It gives no answer, for this reason.
    Unknown(String),
}

/// Whether what DNS says of other mail hosts has to lead to the root's keys.
pub fn are_needed(edge: &Edge) -> bool {
    edge.dnssec == Dnssec::Root && !matches!(edge.outbound.mode, Mode::Relay(_))
}

/// What each of the resolvers does; `servers` are those of the topology, or none for the system's.
///
/// # Errors
/// [`ResolverError`] if they cannot be used at all.
pub async fn passing(servers: &[SocketAddr]) -> Result<Vec<(SocketAddr, Passing)>, ResolverError> {
    let mut found = Vec::new();
    for server in Resolver::servers(servers)? {
        // One of its own for each, and each time: what another cache holds says nothing of the server.
        let look = || async move { Ok(Resolver::new(&[server], &Dnssec::Root)?.passing().await) };
        found.push((server, seen(look).await?));
    }
    Ok(found)
}

/// What is seen, with a second look at what keeps records back: an answer about the root's keys that is lost on the way looks
/// the same.
async fn seen<Look: Future<Output = Result<Passing, ResolverError>>>(
    look: impl Fn() -> Look,
) -> Result<Passing, ResolverError> {
    match look().await? {
        Passing::Strips => look().await,
        other => Ok(other),
    }
}

/// Looks at the resolvers time and again.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Those that keep the records back.
    stripping: Mutex<Vec<SocketAddr>>,
}

impl Watch {
    /// Looks for ever, if that matters, and says in the log what is wrong.
    pub async fn run(&self, edge: &Edge) {
        while are_needed(edge) {
            match passing(&edge.dns_servers).await {
                Ok(found) => self.note(found),
                Err(error) => tracing::warn!(%error, "the resolvers cannot be looked at"),
            }
            if let Some(alarm) = self.alarm() {
                tracing::error!("{alarm}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A server that gives no answer is as it was.
    fn note(&self, found: Vec<(SocketAddr, Passing)>) {
        let mut stripping = self.stripping.lock().unwrap_or_else(PoisonError::into_inner);
        for (server, passing) in found {
            let is_noted = stripping.contains(&server);
            match passing {
                Passing::Passes => stripping.retain(|other| *other != server),
                Passing::Strips if !is_noted => stripping.push(server),
                Passing::Strips | Passing::Unknown(_) => {}
            }
        }
    }

    /// What the operator has to know, if there is something.
    pub fn alarm(&self) -> Option<String> {
        let stripping = self.stripping.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = stripping.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| {
            format!(
                "no DNSSEC records come from the resolver {}, so what it says is not proved and mail waits (4.7.5): {MEND}",
                names.join(", nor from ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn records_are_kept_back_only_if_they_are_so_twice() {
        use Passing::{Passes, Strips, Unknown};
        let silent = || Unknown("timed out".into());
        for (looks, expected) in [
            (vec![Passes], Passes),
            (vec![silent()], silent()),
            (vec![Strips, Passes], Passes),
            (vec![Strips, silent()], silent()),
            (vec![Strips, Strips], Strips),
        ] {
            let left = RefCell::new(looks.into_iter());
            let look = || std::future::ready(Ok(left.borrow_mut().next().expect("one more look")));
            let seen = seen(look).await;
            assert_eq!(seen.expect("looked"), expected);
            assert!(left.borrow_mut().next().is_none(), "no look is left out");
        }
    }

    #[test]
    fn the_alarm_names_each_resolver_that_strips_until_it_does_not() {
        let server = |port| SocketAddr::from(([192, 0, 2, 53], port));
        let watch = Watch::default();
        assert_eq!(watch.alarm(), None);
        watch.note(vec![(server(53), Passing::Strips), (server(54), Passing::Passes)]);
        let alarm = watch.alarm().expect("one strips");
        assert!(alarm.contains("192.0.2.53:53,") && alarm.contains("`servers`"), "{alarm}");
        assert!(!alarm.contains(":54"), "{alarm}");
        // Silence mends nothing, and is no other fault.
        let silent = Passing::Unknown("timed out".into());
        watch.note(vec![(server(53), silent.clone()), (server(54), silent)]);
        assert_eq!(watch.alarm(), Some(alarm));
        watch.note(vec![(server(53), Passing::Passes)]);
        assert_eq!(watch.alarm(), None);
    }
}
