//! What hosts come to for mail that goes only under TLS to those who pass that on (REQUIRETLS, RFC 8689 §4.2.1).

use super::converse::Talk;
use super::outcome::{Class, Status};
use super::transaction::REQUIRETLS_NEEDED;
use crate::smtp::Enhanced;

/// The host has no TLS, and never will (RFC 3463: encryption needed).
const NO_TLS: Enhanced = Enhanced(5, 7, 10);

/// Whether a host has been given up because it will not do what the sender wishes of TLS: it said nothing of the mail, and
/// another one may do it.
pub fn is_of_wish(status: &Status) -> bool {
    status.code.is_none() && matches!(status.enhanced, REQUIRETLS_NEEDED | NO_TLS)
}

impl Status {
    /// The same, of mail for which TLS is required: a host without any will never do.
    #[must_use]
    pub fn for_required_tls(self) -> Self {
        match self.lacks_tls() {
            true => Self::ours(Class::Permanent, NO_TLS, &self.text),
            false => self,
        }
    }

    /// Whether what was said of one host counts still when `next` is said of another one: a host that may come back, or talk
    /// to us another time, can do what one that will not fulfil the sender's wish cannot.
    pub fn outlasts(&self, next: &Self) -> bool {
        is_of_wish(next) && !is_of_wish(self)
    }
}

impl Talk {
    /// The same, but that a host which does not offer what the sender wishes of TLS is a reason to ask the next one.
    #[must_use]
    pub fn of_wish_to_next(self) -> Self {
        match self {
            Self::Done(outcomes, version) => match outcomes.first().filter(|first| is_of_wish(&first.status))
            {
                Some(first) => Self::Next { status: first.status.clone(), greeted: true },
                None => Self::Done(outcomes, version),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::Outcome;

    fn ours(class: Class, enhanced: Enhanced) -> Status {
        Status::ours(class, enhanced, "no")
    }

    #[test]
    fn a_host_without_tls_will_never_do_where_it_is_required() {
        let lacks = ours(Class::Temporary, Enhanced(4, 7, 10));
        let failed = lacks.clone().for_required_tls();
        assert_eq!((failed.class, failed.enhanced, failed.text), (Class::Permanent, NO_TLS, lacks.text));
        for other in [
            ours(Class::Temporary, Enhanced(4, 4, 1)),
            // A host's own word.
            Status { code: Some(454), ..ours(Class::Temporary, Enhanced(4, 7, 10)) },
        ] {
            assert_eq!(other.clone().for_required_tls(), other);
        }
    }

    #[test]
    fn only_for_the_wish_is_the_next_host_asked() {
        let done = |status| Talk::Done(vec![Outcome { recipient: 0, status, host_reports: false }], None);
        let never = ours(Class::Permanent, REQUIRETLS_NEEDED);
        let talk = done(never.clone()).of_wish_to_next();
        assert!(matches!(talk, Talk::Next { status, greeted: true } if status == never));
        let said = Status { code: Some(550), ..never.clone() };
        assert!(matches!(done(said).of_wish_to_next(), Talk::Done(..)), "a host's own word");
    }

    #[test]
    fn it_is_final_only_if_no_host_may_come_back() {
        let (never, clear) = (ours(Class::Permanent, REQUIRETLS_NEEDED), ours(Class::Permanent, NO_TLS));
        let away = ours(Class::Temporary, Enhanced(4, 4, 1));
        // As one that greets with it: it speaks of itself, and may take the mail another time.
        let greeted = Status { code: Some(554), ..ours(Class::Permanent, Enhanced(5, 3, 2)) };
        assert!([&away, &greeted].iter().all(|said| said.outlasts(&never) && said.outlasts(&clear)));
        assert!(!greeted.outlasts(&away) && !away.outlasts(&greeted));
        assert!(!never.outlasts(&away) && !never.outlasts(&clear) && !away.outlasts(&away));
    }
}
