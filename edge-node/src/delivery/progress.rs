//! How far an attempt is, recipient by recipient: who goes to the next host, and who has an answer that is final. A state
//! machine, which asks nobody.
//!
//! What a host takes or refuses for good is final; so is what it may have taken without saying so (*in doubt*), for another
//! host would make that two. Whom it defers, or loses on the way, goes to the next host (RFC 5321 §5.1). What is reported
//! of those whom nobody takes is what the last host said that spoke of them: one that could not be reached, or would not
//! talk, takes nothing of that back.
//!
//! Who needs what a host does not offer goes to the next one, too, which may offer it. It is final where every host that
//! was there has said so: one that defers, talks to nobody now, or cannot be reached and is no worse, may do it later. Of
//! hosts that are equally good the first is so by chance.
//!
//! Nobody is asked for ever: an attempt ends with what was said once [`CONTENTS_MAX`] sessions have come as far as the
//! content, or [`ENVELOPES_MAX`] as the envelope, or little time is left for another host.

use shared::smtp::client::{Class, Outcome, Status, Talk, is_of_offer};
use shared::smtp::{Enhanced, Recipient};

use super::report::Report;
use super::scheduler::Shown;

/// Sessions of an attempt that have come as far as the content, after which no other one begins.
const CONTENTS_MAX: usize = 2;
/// Sessions of an attempt that have come as far as the envelope, after which no other one begins.
const ENVELOPES_MAX: usize = 5;

/// Hosts of an attempt whose words are noted although they were not the last ones.
const PASSED_MAX: usize = 5;

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Progress {
    /// Who goes to the next host; and what was said of them last, if a host has spoken of them.
    left: Vec<(u32, Recipient)>,
    /// In the same order.
    deferred: Vec<(u32, Report)>,
    /// What is final, until it is taken.
    settled: Vec<(u32, Report)>,
    /// Of the last host that has not dealt with the message.
    last: Option<Report>,
    /// Of a host that cannot be asked, for it is not known now where it is: its preference, and why.
    unsure: Option<(u16, Report)>,
    /// Some host was there.
    reached: bool,
    /// How good the best host is that does not offer what somebody needs: its preference.
    lacking: Option<u16>,
    /// What those that dealt with the message have shown: the worst of it.
    shown: Shown<Report>,
    /// What the last host has said, of those who go to the next one.
    said: Option<Report>,
    /// How often that was taken.
    passed: usize,
    /// Sessions that have come as far as the envelope, and as the content.
    envelopes: usize,
    contents: usize,
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
        Self {
            left: recipients.to_vec(),
            deferred: Vec::new(),
            settled: Vec::new(),
            last,
            unsure: None,
            reached,
            lacking: None,
            shown: Shown::Nothing,
            said: None,
            passed: 0,
            envelopes: 0,
            contents: 0,
        }
    }

    /// With a host of that preference which cannot be asked, for it is not known now where it is.
    pub fn with_unsure(self, unsure: Option<(u16, Report)>) -> Self {
        Self { unsure, ..self }
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

    /// What the last host has said, as another one is asked: it is not what the attempt comes to, and of it nothing would be left.
    pub fn passed(&mut self) -> Option<Report> {
        let said = self.said.take().filter(|_| self.passed < PASSED_MAX)?;
        self.passed += 1;
        Some(said)
    }

    /// Whether another session is begun for those who are left, if there `is_time` for a whole one. It is while nothing was said
    /// of them: whichever host is first, one that says nothing keeps nobody from those behind it.
    pub fn goes_on(&self, is_time: bool) -> bool {
        let is_within = self.envelopes < ENVELOPES_MAX && self.contents < CONTENTS_MAX;
        self.deferred.is_empty() || is_time && is_within
    }

    /// A host of that `preference` was asked for those who were left, and `has_content`, or a part of it. `report` is what one of
    /// its answers comes to, and the version of TLS it came under.
    pub fn hear(
        &mut self,
        talk: Talk,
        preference: u16,
        has_content: bool,
        report: impl Fn(Status, Option<&str>) -> Report,
    ) {
        match talk {
            Talk::Done(outcomes, version) => {
                self.reached = true;
                self.contents += usize::from(has_content);
                self.envelopes += usize::from(!outcomes.iter().all(|outcome| is_of_offer(&outcome.status)));
                if !matches!(self.shown, Shown::Strained) {
                    self.shown = shown(&outcomes);
                }
                if outcomes.iter().any(|outcome| is_of_offer(&outcome.status)) {
                    self.lacking = Some(self.lacking.map_or(preference, |best| best.min(preference)));
                }
                self.deal(outcomes, |status| report(status, version));
            }
            Talk::Next { status, greeted } => self.pass(report(status, None), preference, greeted),
            // It was there to offer TLS.
            Talk::HandshakeFailed(status, _) => self.pass(report(status, None), preference, true),
        }
    }

    /// A host has not dealt with the message, though it may have been `there`.
    fn pass(&mut self, report: Report, preference: u16, there: bool) {
        self.reached |= there;
        self.may_offer(&report, preference, there);
        self.said = Some(report.clone());
        self.last = Some(latest(self.last.take(), report));
    }

    /// A host that did not deal with the message now may offer what others do not.
    fn may_offer(&mut self, report: &Report, preference: u16, there: bool) {
        let is_worse = self.lacking.is_some_and(|lacking| preference > lacking);
        if (there || !is_worse) && report.status.class == Class::Temporary {
            let refused = self.deferred.iter_mut().filter(|(_, said)| is_of_offer(&said.status));
            refused.for_each(|(_, said)| said.clone_from(report));
        }
    }

    /// There is no time for more.
    pub fn too_slow(&mut self) {
        let slow = Status::ours(Class::Temporary, Enhanced(4, 4, 1), "the hosts there were too slow");
        if self.deferred.is_empty() {
            let slow = Report::ours(slow);
            self.settled.extend(self.left.iter().map(|(index, _)| (*index, slow.clone())));
        } else {
            self.put_off();
        }
        self.left.clear();
        (self.reached, self.shown) = (true, Shown::Strained);
    }

    /// Others are not asked in this attempt.
    pub fn end_early(mut self) -> Heard {
        self.put_off();
        self.end()
    }

    /// Hosts that were not asked may offer what others do not.
    fn put_off(&mut self) {
        for (_, said) in self.deferred.iter_mut().filter(|(_, said)| is_of_offer(&said.status)) {
            said.status = said.status.clone().into_temporary();
        }
    }

    /// There is no other host.
    pub fn end(mut self) -> Heard {
        if let Some((preference, unsure)) = self.unsure.take() {
            self.may_offer(&unsure, preference, false);
            // What the others did is what there is to say, unless that were final without any of them having said it.
            let is_ours = |said: &Status| said.class == Class::Permanent && said.code.is_none();
            self.last = self.last.filter(|last| !is_ours(&last.status)).or(Some(unsure));
        }
        // Whoever is left was left by each host that dealt with the message.
        if self.deferred.is_empty() && !self.left.is_empty() {
            return Heard::Nobody { last: self.last, reached: self.reached };
        }
        self.settled.append(&mut self.deferred);
        Heard::Dealt(self.settled, self.shown)
    }

    fn deal(&mut self, outcomes: Vec<Outcome>, report: impl Fn(Status) -> Report) {
        let (asked, mut outcomes) = (std::mem::take(&mut self.left), outcomes.into_iter());
        self.said = None;
        let said = std::mem::take(&mut self.deferred);
        for (place, (index, recipient)) in asked.into_iter().enumerate() {
            // There is one for each, in their order.
            let Some(outcome) = outcomes.find(|outcome| outcome.recipient == place) else { continue };
            let (of_offer, before) =
                (is_of_offer(&outcome.status), said.get(place).map(|(_, report)| report));
            let goes_on = of_offer || outcome.status.class == Class::Temporary && !outcome.status.in_doubt;
            let report = Report { host_reports: outcome.host_reports, ..report(outcome.status) };
            if !goes_on {
                self.settled.push((index, report));
                continue;
            }
            self.said.get_or_insert_with(|| report.clone());
            // What others have said counts for more than what this one does not offer.
            let better = before
                .or(self.last.as_ref())
                .filter(|said| of_offer && said.status.class == Class::Temporary);
            self.left.push((index, recipient));
            self.deferred.push((index, better.cloned().unwrap_or(report)));
        }
    }
}

/// What counts of two hosts of a domain that did not take a message: what was said next, unless the other outlasts it.
pub(super) fn latest(last: Option<Report>, next: Report) -> Report {
    last.filter(|last| last.status.outlasts(&next.status)).unwrap_or(next)
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
    fn what_a_host_has_said_of_those_who_go_on_is_kept_and_of_the_others_it_is_the_outcome() {
        let mut progress = Progress::new(&recipients(&[0, 1]), None, false);
        let passed = |progress: &mut Progress| progress.passed().map(|said| (said.host, said.status.text));
        assert_eq!(passed(&mut progress), None, "nobody was asked");
        progress.hear(Talk::Next { status: lost(false), greeted: false }, 10, false, at("a"));
        assert_eq!(passed(&mut progress), Some((Some("a".into()), "lost".into())));
        assert_eq!(passed(&mut progress), None, "once");
        progress.hear(done(vec![said(250), said(451)]), 10, false, at("b"));
        assert_eq!(passed(&mut progress), Some((Some("b".into()), "451".into())));
        progress.hear(done(vec![said(250)]), 20, false, at("c"));
        assert_eq!(passed(&mut progress), None, "it is final");
        let mut progress = Progress::new(&recipients(&[0]), None, false);
        let heard = (0..2 * PASSED_MAX).filter(|_| {
            progress.hear(Talk::Next { status: lost(false), greeted: false }, 10, false, at("a"));
            progress.passed().is_some()
        });
        assert_eq!(heard.count(), PASSED_MAX);
    }

    #[test]
    fn who_has_no_final_answer_goes_to_the_next_host_and_nobody_else_does() {
        let mut progress = Progress::new(&recipients(&[3, 5, 7, 9]), None, false);
        progress.hear(done(vec![said(250), said(451), said(550), lost(false)]), 10, false, at("a"));
        assert_eq!(left(&progress), [5, 9]);
        assert_eq!(told(&progress.settled()), ["3 a 250", "7 a 550"]);
        assert_eq!(told(&progress.settled()), [""; 0], "once");
        progress.hear(done(vec![said(450), said(250)]), 10, false, at("b"));
        assert_eq!(left(&progress), [5]);
        assert_eq!(told(&progress.settled()), ["9 b 250"]);
        progress.hear(done(vec![said(452)]), 10, false, at("c"));
        let (told, shown) = dealt(progress);
        assert_eq!(told, ["5 c 452"]);
        assert!(matches!(shown, Shown::Strained), "by the first");
    }

    #[test]
    fn what_a_host_may_have_taken_no_other_one_gets() {
        let mut progress = Progress::new(&recipients(&[0, 1]), None, false);
        progress.hear(done(vec![said(450), lost(true)]), 10, false, at("a"));
        assert_eq!((left(&progress), told(&progress.settled())), (vec![0], vec!["1 a lost".to_owned()]));
        progress.hear(done(vec![lost(true)]), 10, false, at("b"));
        assert_eq!(left(&progress), [0; 0]);
        let Heard::Dealt(reports, shown) = progress.end() else { panic!("it was dealt with") };
        assert!(reports.iter().all(|(index, report)| *index == 0 && report.status.in_doubt), "{reports:?}");
        assert!(matches!(shown, Shown::Strained));
    }

    #[test]
    fn words_about_a_recipient_outlast_hosts_that_do_not_talk() {
        let mut progress = Progress::new(&recipients(&[0]), None, false);
        progress.hear(done(vec![said(451)]), 10, false, at("a"));
        progress.hear(Talk::Next { status: said(554), greeted: true }, 10, false, at("b"));
        progress.hear(Talk::Next { status: lost(false), greeted: false }, 10, false, at("c"));
        assert_eq!(dealt(progress).0, ["0 a 451"]);
    }

    #[test]
    fn where_no_host_deals_with_it_the_last_one_counts() {
        let mut progress = Progress::new(&recipients(&[0]), Some(at("a")(said(554), None)), false);
        progress.hear(Talk::Next { status: lost(false), greeted: false }, 10, false, at("b"));
        assert!(!progress.is_reached());
        progress.hear(Talk::Next { status: said(421), greeted: true }, 10, false, at("c"));
        let Heard::Nobody { last: Some(last), reached: true } = progress.end() else {
            panic!("nobody dealt")
        };
        assert_eq!(told(&[(0, last)]), ["0 c 421"]);
        assert!(
            matches!(Progress::new(&[], None, false).end(), Heard::Dealt(reports, _) if reports.is_empty())
        );
    }

    #[test]
    fn time_that_runs_out_takes_nothing_back() {
        let mut progress = Progress::new(&recipients(&[0, 1]), None, false);
        progress.hear(done(vec![said(250), said(451)]), 10, true, at("a"));
        progress.too_slow();
        assert_eq!(left(&progress), [0; 0]);
        let Heard::Dealt(reports, Shown::Strained) = progress.end() else {
            panic!("some have dealt with it")
        };
        assert_eq!(told(&reports), ["0 a 250", "1 a 451"]);
        // The first host was.
        let mut progress = Progress::new(&recipients(&[0]), None, false);
        progress.too_slow();
        let Heard::Dealt(reports, Shown::Strained) = progress.end() else { panic!("it was asked") };
        assert_eq!(told(&reports), ["0 - the hosts there were too slow"]);
        assert!(!reports[0].1.status.in_doubt);
    }

    /// What a host does not offer.
    fn lacks(enhanced: Enhanced) -> Status {
        Status::ours(Class::Permanent, enhanced, "not offered")
    }

    /// Reports of one recipient: by which host, in which words, whether it is final.
    fn of_one(progress: Progress) -> (String, bool) {
        let Heard::Dealt(reports, _) = progress.end() else { panic!("it was dealt with") };
        (told(&reports).concat(), reports.iter().all(|(_, report)| report.status.class == Class::Permanent))
    }

    #[test]
    fn what_a_host_does_not_offer_is_final_only_where_every_host_that_was_there_has_said_so() {
        let one = || Progress::new(&recipients(&[0]), None, false);
        for enhanced in [Enhanced(5, 3, 4), Enhanced(5, 6, 3), Enhanced(5, 6, 7)] {
            let none = || done(vec![lacks(enhanced)]);
            // The next host is asked, and may take it.
            let mut progress = one();
            progress.hear(none(), 10, false, at("a"));
            assert_eq!((left(&progress), told(&progress.settled())), (vec![0], vec![]));
            progress.hear(done(vec![said(250)]), 10, true, at("b"));
            assert_eq!(of_one(progress), ("0 b 250".to_owned(), false));
            // Nobody offers it; a host behind them that is away changes nothing.
            let mut progress = one();
            progress.hear(none(), 10, false, at("a"));
            progress.hear(none(), 10, false, at("b"));
            progress.hear(Talk::Next { status: lost(false), greeted: false }, 20, false, at("c"));
            assert_eq!(of_one(progress), ("0 b not offered".to_owned(), true));
            // Nor where a worse one was asked before the best of those that do not.
            let mut progress = one();
            progress.hear(none(), 20, false, at("b"));
            progress.hear(none(), 10, false, at("a"));
            progress.hear(Talk::Next { status: lost(false), greeted: false }, 15, false, at("c"));
            assert_eq!(of_one(progress), ("0 a not offered".to_owned(), true));
            // One that is as good and away might offer it, whichever of the two came first.
            for away_first in [true, false] {
                let mut progress = one();
                let away = || Talk::Next { status: lost(false), greeted: false };
                let (first, second) = if away_first { (away(), none()) } else { (none(), away()) };
                progress.hear(first, 10, false, at("a"));
                progress.hear(second, 10, false, at("b"));
                let away = if away_first { "a" } else { "b" };
                assert_eq!(of_one(progress), (format!("0 {away} lost"), false));
            }
            // One that defers may take it later, whichever comes first.
            let mut progress = one();
            progress.hear(done(vec![said(451)]), 10, false, at("a"));
            progress.hear(none(), 10, false, at("b"));
            assert_eq!(left(&progress), [0]);
            progress.hear(none(), 10, false, at("c"));
            assert_eq!(of_one(progress), ("0 a 451".to_owned(), false));
            let mut progress = one();
            progress.hear(none(), 10, false, at("a"));
            progress.hear(done(vec![said(451)]), 10, false, at("b"));
            assert_eq!(of_one(progress), ("0 b 451".to_owned(), false));
            // So may one that does not talk now, and a better one that is away.
            let mut progress = one();
            progress.hear(none(), 10, false, at("a"));
            progress.hear(Talk::Next { status: said(421), greeted: true }, 10, false, at("b"));
            assert_eq!(of_one(progress), ("0 b 421".to_owned(), false));
            let mut progress = one();
            progress.hear(Talk::Next { status: lost(false), greeted: false }, 10, false, at("a"));
            progress.hear(none(), 10, false, at("b"));
            assert_eq!(of_one(progress), ("0 a lost".to_owned(), false));
            // And those that this attempt has not come to.
            let mut progress = one();
            progress.hear(none(), 10, false, at("a"));
            let Heard::Dealt(reports, _) = progress.end_early() else { panic!("it was dealt with") };
            assert_eq!(reports[0].1.status, lacks(enhanced).into_temporary());
        }
        // A refusal of the host's own, or of what no host may be sent, is final at once.
        for status in [said(554), lacks(Enhanced(5, 6, 0))] {
            let mut progress = one();
            progress.hear(done(vec![said(451)]), 10, false, at("a"));
            progress.hear(done(vec![status]), 10, false, at("b"));
            assert_eq!((left(&progress), of_one(progress).1), (vec![], true));
        }
    }

    #[test]
    fn while_it_is_not_known_where_a_host_is_nothing_is_final_that_it_might_do_otherwise() {
        let unsure = |preference| {
            Progress::new(&recipients(&[0]), None, false)
                .with_unsure(Some((preference, at("?")(said(443), None))))
        };
        let none = || done(vec![lacks(Enhanced(5, 6, 7))]);
        for (preference, ends) in
            [(5, ("0 ? 443", false)), (10, ("0 ? 443", false)), (20, ("0 a not offered", true))]
        {
            let mut progress = unsure(preference);
            progress.hear(none(), 10, false, at("a"));
            assert_eq!(of_one(progress), (ends.0.to_owned(), ends.1));
        }
        // What a host says of the recipient itself counts.
        let mut progress = unsure(5);
        progress.hear(done(vec![said(550)]), 10, false, at("a"));
        assert_eq!(of_one(progress), ("0 a 550".to_owned(), true));
        // Nobody has dealt with it: what others have said is told, but nothing that we have found by ourselves.
        let nobody = |progress: Progress| match progress.end() {
            Heard::Nobody { last: Some(last), .. } => told(&[(0, last)]).concat(),
            other => panic!("{other:?}"),
        };
        assert_eq!(nobody(unsure(20)), "0 ? 443");
        for (status, ends) in
            [(said(554), "0 a 554"), (lost(false), "0 a lost"), (lacks(Enhanced(5, 4, 4)), "0 ? 443")]
        {
            let mut progress = unsure(20);
            progress.hear(Talk::Next { status, greeted: true }, 10, false, at("a"));
            assert_eq!(nobody(progress), ends);
        }
    }

    #[test]
    fn an_attempt_sends_the_content_twice_and_the_envelope_five_times_at_most() {
        let sessions = |content: bool, status: Status| {
            let mut progress = Progress::new(&recipients(&[0]), None, false);
            let goes_on = |progress: &mut Progress| {
                progress.hear(done(vec![status.clone()]), 10, content, at("a"));
                progress.goes_on(true)
            };
            1 + std::iter::repeat_with(|| goes_on(&mut progress)).take(20).take_while(|on| *on).count()
        };
        assert_eq!(sessions(true, said(451)), 2);
        assert_eq!(sessions(false, said(451)), 5);
        assert_eq!(sessions(false, lacks(Enhanced(5, 3, 4))), 21, "they were asked for nothing");
    }

    #[test]
    fn who_was_deferred_waits_for_the_next_attempt_where_little_time_is_left() {
        let mut progress = Progress::new(&recipients(&[0]), None, false);
        progress.hear(Talk::Next { status: said(421), greeted: true }, 10, false, at("a"));
        assert!(progress.goes_on(false), "nothing was said of them yet");
        progress.hear(done(vec![said(451)]), 20, false, at("b"));
        assert_eq!([true, false].map(|is_time| progress.goes_on(is_time)), [true, false]);
    }
}
