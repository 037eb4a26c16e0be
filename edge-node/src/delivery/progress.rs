//! How far an attempt is, recipient by recipient: who goes to the next host, and who has an answer that is final. A state
//! machine, which asks nobody.
//!
//! What a host takes or refuses for good is final; so is what it may have taken without saying so (*in doubt*), for another
//! host would make that two. Whom it defers, or loses on the way, goes to the next host (RFC 5321 §5.1). What is reported
//! of those whom nobody takes is what the last host said that spoke of them: one that could not be reached, or would not
//! talk, takes nothing of that back.

use shared::smtp::client::{Class, Outcome, Status, Talk};
use shared::smtp::{Enhanced, Recipient};

use super::report::{Report, is_of_wish};
use super::scheduler::Shown;

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Progress {
    /// Who goes to the next host; and what was said of them last, if a host has spoken of them.
    left: Vec<(u32, Recipient)>,
    deferred: Vec<(u32, Report)>,
    /// What is final, until it is taken.
    settled: Vec<(u32, Report)>,
    /// Of the last host that has not dealt with the message.
    last: Option<Report>,
    /// Some host was there.
    reached: bool,
    /// What the last one that dealt with the message has shown.
    shown: Shown<Report>,
}

/// What came of asking hosts.
#[derive(Debug)]
pub(super) enum Heard {
    /// Some have dealt with the message: what is left to be recorded, and what they have shown.
    Dealt(Vec<(u32, Report)>, Shown<Report>),
    /// None has.
    Nobody {
        /// What the last one has said instead, or is known of it.
        last: Option<Report>,
        /// Some host was there.
        reached: bool,
    },
}

impl Progress {
    /// Nobody was asked. `last` is known already of hosts that are not to be asked, `reached` that one of them is there.
    pub fn new(recipients: &[(u32, Recipient)], last: Option<Report>, reached: bool) -> Self {
        let (deferred, settled) = (Vec::new(), Vec::new());
        Self { left: recipients.to_vec(), deferred, settled, last, reached, shown: Shown::Nothing }
    }

    /// Who goes to the next host.
    pub fn left(&self) -> &[(u32, Recipient)] {
        &self.left
    }

    /// Whether some host was there.
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Takes what is final of some while others go on.
    pub fn settled(&mut self) -> Vec<(u32, Report)> {
        std::mem::take(&mut self.settled)
    }

    /// A host was asked for those who were left. `report` is what one of its answers comes to, and the version of TLS it
    /// came under.
    pub fn hear(&mut self, talk: Talk, report: impl Fn(Status, Option<&str>) -> Report) {
        match talk {
            Talk::Done(outcomes, version) => {
                self.reached = true;
                self.shown = shown(&outcomes);
                self.deal(outcomes, |status| report(status, version));
            }
            Talk::Next { status, greeted } => {
                self.reached |= greeted;
                self.last = Some(latest(self.last.take(), report(status, None)));
            }
            // It was there to offer TLS.
            Talk::HandshakeFailed(status, _) => {
                self.reached = true;
                self.last = Some(latest(self.last.take(), report(status, None)));
            }
        }
    }

    /// There is no time for more.
    pub fn too_slow(&mut self) {
        let slow = Status::ours(Class::Temporary, Enhanced(4, 4, 1), "the hosts there were too slow");
        // One of them may have it, and not have said so yet.
        let slow = Report::ours(Status { in_doubt: true, ..slow });
        self.settled.extend(self.left.drain(..).map(|(index, _)| (index, slow.clone())));
        self.deferred.clear();
        (self.reached, self.shown) = (true, Shown::Strained);
    }

    /// There is no other host.
    pub fn end(mut self) -> Heard {
        // Whoever is left was left by each host that dealt with the message.
        if self.deferred.is_empty() && !self.left.is_empty() {
            return Heard::Nobody { last: self.last, reached: self.reached };
        }
        self.settled.append(&mut self.deferred);
        Heard::Dealt(self.settled, self.shown)
    }

    fn deal(&mut self, outcomes: Vec<Outcome>, report: impl Fn(Status) -> Report) {
        let (asked, mut outcomes) = (std::mem::take(&mut self.left), outcomes.into_iter());
        self.deferred.clear();
        for (place, (index, recipient)) in asked.into_iter().enumerate() {
            // There is one for each, in their order.
            let Some(outcome) = outcomes.find(|outcome| outcome.recipient == place) else { continue };
            let goes_on = outcome.status.class == Class::Temporary && !outcome.status.in_doubt;
            let report = Report { host_reports: outcome.host_reports, ..report(outcome.status) };
            if goes_on {
                self.left.push((index, recipient));
                self.deferred.push((index, report));
            } else {
                self.settled.push((index, report));
            }
        }
    }
}

/// What counts of two hosts of a domain that did not take a message: what was said next, but one that may come back can do
/// what one that will not fulfil the sender's wish cannot.
pub(super) fn latest(last: Option<Report>, next: Report) -> Report {
    last.filter(|last| is_of_wish(&next.status) && last.status.class == Class::Temporary).unwrap_or(next)
}

/// What its outcomes say of a host.
fn shown(outcomes: &[Outcome]) -> Shown<Report> {
    let is_strain = |status: &Status| match status.code {
        Some(code) => code == 421,
        // It fell silent, or hung up.
        None => status.class == Class::Temporary,
    };
    match outcomes.iter().any(|outcome| is_strain(&outcome.status)) {
        true => Shown::Strained,
        false => Shown::Well,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(indexes: &[u32]) -> Vec<(u32, Recipient)> {
        let address = |index: &u32| format!("r{index}@remote.example").parse::<shared::address::Address>();
        indexes.iter().map(|index| (*index, address(index).expect("an address").into())).collect()
    }

    fn said(code: u16) -> Status {
        let class = match code / 100 {
            2 => Class::Delivered,
            4 => Class::Temporary,
            _ => Class::Permanent,
        };
        let enhanced = Enhanced(u8::try_from(code / 100).expect("a digit"), 0, 0);
        Status { code: Some(code), ..Status::ours(class, enhanced, &code.to_string()) }
    }

    fn lost(in_doubt: bool) -> Status {
        Status { in_doubt, ..Status::ours(Class::Temporary, Enhanced(4, 4, 2), "lost") }
    }

    fn done(statuses: Vec<Status>) -> Talk {
        let outcome = |(recipient, status)| Outcome { recipient, status, host_reports: false };
        Talk::Done(statuses.into_iter().enumerate().map(outcome).collect(), None)
    }

    fn at(host: &str) -> impl Fn(Status, Option<&str>) -> Report {
        move |status, _| Report { host: Some(host.to_owned()), ..Report::ours(status) }
    }

    fn left(progress: &Progress) -> Vec<u32> {
        progress.left().iter().map(|(index, _)| *index).collect()
    }

    /// Who, by which host, in which words.
    fn told(reports: &[(u32, Report)]) -> Vec<String> {
        let one = |(index, report): &(u32, Report)| {
            format!("{index} {} {}", report.host.as_deref().unwrap_or("-"), report.status.text)
        };
        let mut told: Vec<_> = reports.iter().map(one).collect();
        told.sort();
        told
    }

    fn dealt(progress: Progress) -> (Vec<String>, Shown<Report>) {
        match progress.end() {
            Heard::Dealt(reports, shown) => (told(&reports), shown),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_has_no_final_answer_goes_to_the_next_host_and_nobody_else_does() {
        let mut progress = Progress::new(&recipients(&[3, 5, 7, 9]), None, false);
        progress.hear(done(vec![said(250), said(451), said(550), lost(false)]), at("a"));
        assert_eq!(left(&progress), [5, 9]);
        assert_eq!(told(&progress.settled()), ["3 a 250", "7 a 550"]);
        assert_eq!(told(&progress.settled()), [""; 0], "once");
        progress.hear(done(vec![said(450), said(250)]), at("b"));
        assert_eq!(left(&progress), [5]);
        assert_eq!(told(&progress.settled()), ["9 b 250"]);
        progress.hear(done(vec![said(452)]), at("c"));
        let (told, shown) = dealt(progress);
        assert_eq!(told, ["5 c 452"]);
        assert!(matches!(shown, Shown::Well));
    }

    #[test]
    fn what_a_host_may_have_taken_no_other_one_gets() {
        let mut progress = Progress::new(&recipients(&[0, 1]), None, false);
        progress.hear(done(vec![said(450), lost(true)]), at("a"));
        assert_eq!((left(&progress), told(&progress.settled())), (vec![0], vec!["1 a lost".to_owned()]));
        progress.hear(done(vec![lost(true)]), at("b"));
        assert_eq!(left(&progress), [0; 0]);
        let Heard::Dealt(reports, shown) = progress.end() else { panic!("it was dealt with") };
        assert!(reports.iter().all(|(index, report)| *index == 0 && report.status.in_doubt), "{reports:?}");
        assert!(matches!(shown, Shown::Strained));
    }

    #[test]
    fn words_about_a_recipient_outlast_hosts_that_do_not_talk() {
        let mut progress = Progress::new(&recipients(&[0]), None, false);
        progress.hear(done(vec![said(451)]), at("a"));
        progress.hear(Talk::Next { status: said(554), greeted: true }, at("b"));
        progress.hear(Talk::Next { status: lost(false), greeted: false }, at("c"));
        assert_eq!(dealt(progress).0, ["0 a 451"]);
    }

    #[test]
    fn where_no_host_deals_with_it_the_last_one_counts() {
        let mut progress = Progress::new(&recipients(&[0]), Some(at("a")(said(554), None)), false);
        progress.hear(Talk::Next { status: lost(false), greeted: false }, at("b"));
        assert!(!progress.is_reached());
        progress.hear(Talk::Next { status: said(421), greeted: true }, at("c"));
        let Heard::Nobody { last: Some(last), reached: true } = progress.end() else {
            panic!("nobody dealt")
        };
        assert_eq!(told(&[(0, last)]), ["0 c 421"]);
        assert!(
            matches!(Progress::new(&[], None, false).end(), Heard::Dealt(reports, _) if reports.is_empty())
        );
    }

    #[test]
    fn time_that_runs_out_takes_nothing_back_that_is_final() {
        let mut progress = Progress::new(&recipients(&[0, 1]), None, false);
        progress.hear(done(vec![said(250), said(451)]), at("a"));
        progress.too_slow();
        assert_eq!(left(&progress), [0; 0]);
        let Heard::Dealt(reports, Shown::Strained) = progress.end() else {
            panic!("some have dealt with it")
        };
        assert_eq!(told(&reports), ["0 a 250", "1 - the hosts there were too slow"]);
        assert!(reports.iter().all(|(index, report)| report.status.in_doubt == (*index == 1)));
    }
}
