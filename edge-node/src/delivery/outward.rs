//! Whether the mail port of other hosts can be reached at all, by what attempts have seen since the node was started. A state
//! machine, which reads no clock.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use crate::request::OutwardView;

/// Addresses that are remembered, at most.
const SILENT_MAX: usize = 64;

/// What connections have come to.
#[derive(Debug, Default)]
pub struct Outward {
    reached_at: Option<u64>,
    /// Where nothing has answered since, and when that began.
    silent: BTreeSet<IpAddr>,
    silent_since: Option<u64>,
}

impl Outward {
    /// A connection was made at `now`, milliseconds since 1970.
    pub fn reached(&mut self, now: u64) {
        *self = Self { reached_at: Some(now), ..Self::default() };
    }

    /// None could be made to these addresses of a host, of which one is remembered: what is silent is the host. One that is
    /// refused says nothing: a host has answered, or a firewall in its name.
    pub fn failed<'e>(&mut self, host: impl Iterator<Item = (IpAddr, &'e io::Error)>, now: u64) {
        let is_silence = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable)
        };
        // The same one each time, in whatever order they were tried.
        let silent = host.filter(|(_, error)| is_silence(error)).map(|(address, _)| address).min();
        if let Some(address) = silent.filter(|_| self.silent.len() < SILENT_MAX) {
            self.silent.insert(address);
            self.silent_since.get_or_insert(now);
        }
    }

    /// The same for an operator.
    pub fn view(&self) -> OutwardView {
        let Self { reached_at, ref silent, silent_since } = *self;
        OutwardView { reached_at, silent: silent.len(), silent_since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_silent_until_one_is_reached_and_a_refusal_is_an_answer() {
        let mut outward = Outward::default();
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let failed = |outward: &mut Outward, last, kind: io::ErrorKind, now| {
            outward.failed([(address(last), &kind.into())].into_iter(), now);
        };
        assert_eq!(outward.view(), OutwardView::default());
        failed(&mut outward, 1, io::ErrorKind::ConnectionRefused, 10);
        failed(&mut outward, 2, io::ErrorKind::TimedOut, 20);
        failed(&mut outward, 2, io::ErrorKind::TimedOut, 30);
        failed(&mut outward, 3, io::ErrorKind::HostUnreachable, 40);
        assert_eq!(outward.view(), OutwardView { reached_at: None, silent: 2, silent_since: Some(20) });
        // A host with many addresses is one that is silent.
        let silence = io::Error::from(io::ErrorKind::TimedOut);
        outward.failed([6, 5, 4].map(|last| (address(last), &silence)).into_iter(), 45);
        assert_eq!(outward.view().silent, 3);
        outward.reached(50);
        assert_eq!(outward.view(), OutwardView { reached_at: Some(50), ..OutwardView::default() });
        (0..=255).for_each(|last| failed(&mut outward, last, io::ErrorKind::TimedOut, 60));
        assert_eq!(
            outward.view(),
            OutwardView { reached_at: Some(50), silent: SILENT_MAX, silent_since: Some(60) }
        );
    }
}
