//! `doctor`: what a new administrator gets wrong inside. What is in DNS is the edge's to look at; which keys it has to have
//! is known here.

use shared::address::Domain;
use shared::command::{Caller, Outcome};
use shared::doctor::{self, Finding};
use shared::topology::Topology;

use super::dkim;
use crate::request::{DkimKeyState, DkimKeyView, LinkView, PersonView, Request};

/// Looks, and says what is wrong.
pub(super) fn run(caller: &Caller, topology: &Topology) -> Outcome {
    let findings = match caller.ask::<LinkView>(&Request::LinkStatus, b"") {
        Ok((link, _)) => {
            let name = topology.site.postmaster.local_part();
            let postmaster = caller.ask::<PersonView>(&Request::PersonShow { name: name.to_owned() }, b"");
            let (keys, _) = caller.ask::<Vec<DkimKeyView>>(&Request::DkimList, b"")?;
            let mut findings = of_link(topology, &link);
            findings.push(of_postmaster(name, postmaster.map(drop).map_err(|error| error.to_string())));
            findings.extend(topology.site.domains.iter().map(|domain| of_keys(domain, &keys)));
            findings
        }
        Err(error) => {
            vec![Finding::wrong(
                "big-node",
                error.to_string().trim_end(),
                "run `big-node serve` under a supervisor",
            )]
        }
    };
    caller.print(&findings, |findings| doctor::text(findings))?;
    Ok(doctor::outcome(&findings)?)
}

fn of_link(topology: &Topology, link: &LinkView) -> Vec<Finding> {
    let dial = topology.link.dial;
    let mut findings = vec![if !link.paired {
        Finding::wrong(
            "link",
            "there is no edge",
            "`edge-node invite` there, and `big-node pair TICKET` here",
        )
    } else if link.connected {
        Finding::ok("link", "is up")
    } else {
        let mend = format!(
            "let the firewall pass UDP from here to {dial}, and see that `edge-node serve` runs there"
        );
        Finding::wrong("link", "is down", mend)
    }];
    let alarm = |alarm: &String| Finding::warning("link", alarm, "see `big-node link status`");
    findings.extend(link.alarms.iter().map(alarm));
    findings
}

fn of_postmaster(name: &str, found: Result<(), String>) -> Finding {
    match found {
        Ok(()) => Finding::ok("postmaster", format!("{name} reads the mail")),
        Err(why) => {
            let mend = format!("`big-node person add {name}`, or name somebody else in [site] postmaster");
            Finding::wrong("postmaster", why.trim_end(), mend)
        }
    }
}

/// Who signs for a domain, with the records that DNS has to have for that.
fn of_keys(domain: &Domain, keys: &[DkimKeyView]) -> Finding {
    let about = format!("DKIM of {domain}");
    let of_domain: Vec<_> = keys.iter().filter(|key| key.domain == domain.as_str()).collect();
    let signing: Vec<_> = of_domain
        .iter()
        .filter(|key| key.state == DkimKeyState::Signing)
        .map(|key| key.selector.as_str())
        .collect();
    let found = match signing.is_empty() {
        true => {
            let mend =
                "`big-node dkim keygen --selector NAME`: many hosts take no mail that nothing speaks for";
            Finding::warning(about, "its mail is not signed", mend)
        }
        false => {
            let selectors: String =
                signing.iter().map(|selector| format!(" --selector {selector}")).collect();
            let mend =
                format!("whether DNS has the keys is asked on the edge: `edge-node doctor{selectors}`");
            Finding::unchecked(about, format!("signed by {}", signing.join(" and ")), mend)
        }
    };
    of_domain.iter().fold(found, |found, key| found.record(dkim::record(key)))
}

#[cfg(test)]
mod tests {
    use shared::doctor::State;

    use super::*;
    use crate::request::Algorithm;

    #[test]
    fn who_signs_is_told_with_what_dns_has_to_have() {
        let key = |selector: &str, state| DkimKeyView {
            domain: "example.com".into(),
            selector: selector.into(),
            algorithm: Algorithm::Ed25519,
            made_at: 0,
            signs_from: 0,
            state,
            record_name: format!("{selector}._domainkey.example.com"),
            record: "v=DKIM1; k=ed25519; p=AAAA".into(),
        };
        let domain = |text: &str| text.parse::<Domain>().expect("a domain");
        let keys = [key("a", DkimKeyState::Retired), key("b", DkimKeyState::Signing)];
        let found = of_keys(&domain("example.com"), &keys);
        assert_eq!((found.state, found.found.as_str()), (State::Unchecked, "signed by b"));
        assert!(found.mend.ends_with("`edge-node doctor --selector b`"), "{}", found.mend);
        // Mail that a retired key has signed may be under way.
        let records = ["a", "b"].map(|selector| {
            format!("{selector}._domainkey.example.com. IN TXT \"v=DKIM1; k=ed25519; p=AAAA\"")
        });
        assert_eq!(found.records, records);
        assert_eq!(of_keys(&domain("other.example"), &keys).state, State::Warning);
    }
}
