//! What reports of DMARC say of a message: nothing that tells one message, or who wrote it, from another.

use mail_auth::dmarc::{Alignment, Policy, Report};
use mail_auth::{DkimOutput, DmarcOutput, DmarcResult, SpfOutput};
use shared::address::Domain;
use shared::aggregate::{DmarcFound, DmarcPolicy, FailureOptions, Handling, Override, SignatureFound, cut};
use shared::verdict::Disposition;

use super::{Sender, Verdicts, dkim_word, spf_word};

/// What was found of a message, and the policy of `owner` to which it was held; `None` if that wants no reports, could
/// not be followed, or is of a name that no report could be about. `spf` is what SPF said, of which identity, and of which domain.
pub fn of(
    sender: &Sender,
    owner: &str,
    dmarc: &DmarcOutput,
    dkim: &[DkimOutput<'_>],
    (spf, identity, claimed): (&SpfOutput, &str, &str),
) -> Option<(DmarcPolicy, DmarcFound)> {
    let record = dmarc.dmarc_record().filter(|record| !record.rua().is_empty())?;
    if matches!(dmarc.result(), DmarcResult::TempError(_)) {
        return None;
    }
    let policy = DmarcPolicy {
        domain: name(owner)?,
        own: handling(record.p),
        below: handling(record.sp),
        dkim_strict: record.adkim == Alignment::Strict,
        spf_strict: record.aspf == Alignment::Strict,
        failures: match record.fo {
            Report::All => FailureOptions::All,
            Report::Any => FailureOptions::Any,
            Report::Dkim => FailureOptions::Dkim,
            Report::Spf => FailureOptions::Spf,
            Report::DkimSpf => FailureOptions::DkimSpf,
        },
    };
    let signature = |output: &DkimOutput<'_>| {
        let signature = output.signature()?;
        let (domain, selector) = (name(&signature.d)?, signature.s.clone());
        let found = SignatureFound { domain, selector, result: dkim_word(output).to_owned() };
        // One of which no key can be there says nothing but what its writer wanted said.
        found.is_sound().then_some(found)
    };
    let path = sender.reverse_path.as_ref().map(|path| path.domain().to_string());
    let found = DmarcFound {
        source: sender.client.to_canonical().to_string(),
        disposition: Handling::None,
        dkim: *dmarc.dkim_result() == DmarcResult::Pass,
        spf: *dmarc.spf_result() == DmarcResult::Pass,
        overridden: None,
        header_from: name(dmarc.domain())?,
        envelope_from: path.unwrap_or_default(),
        signatures: dkim.iter().filter_map(signature).collect(),
        spf_domain: cut(claimed),
        spf_of_helo: identity == "smtp.helo",
        spf_result: spf_word(spf.result()).to_owned(),
    };
    Some((policy, found))
}

/// The name of a domain, as reports have it.
fn name(text: &str) -> Option<String> {
    text.parse::<Domain>().ok().map(|domain| domain.to_string())
}

/// What became of it, and why that is not what its policy wants.
pub fn decided(found: &mut DmarcFound, dmarc: &DmarcOutput, verdicts: &Verdicts, is_sealed: bool) {
    found.disposition = match (&verdicts.refused, verdicts.disposition) {
        (Some(_), _) => Handling::Reject,
        (None, Disposition::Quarantine) => Handling::Quarantine,
        (None, Disposition::Deliver | Disposition::Mark) => Handling::None,
    };
    let wanted = if found.dkim || found.spf { Handling::None } else { handling(dmarc.policy()) };
    found.overridden = match (is_sealed, found.disposition == wanted) {
        (true, _) => Some(Override::TrustedForwarder),
        (false, true) => None,
        (false, false) => Some(Override::LocalPolicy),
    };
}

fn handling(policy: Policy) -> Handling {
    match policy {
        Policy::Reject => Handling::Reject,
        Policy::Quarantine => Handling::Quarantine,
        Policy::None | Policy::Unspecified => Handling::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_became_of_a_message_and_why_if_that_was_not_asked_for() {
        let policy = DmarcOutput::default();
        for (passes, refused, disposition, is_sealed, expected) in [
            (true, false, Disposition::Deliver, false, (Handling::None, None)),
            (false, false, Disposition::Deliver, false, (Handling::None, None)),
            (false, false, Disposition::Mark, true, (Handling::None, Some(Override::TrustedForwarder))),
            (
                false,
                false,
                Disposition::Quarantine,
                false,
                (Handling::Quarantine, Some(Override::LocalPolicy)),
            ),
            (false, true, Disposition::Deliver, false, (Handling::Reject, Some(Override::LocalPolicy))),
        ] {
            let mut found = DmarcFound {
                source: String::new(),
                disposition: Handling::None,
                dkim: passes,
                spf: false,
                overridden: None,
                header_from: String::new(),
                envelope_from: String::new(),
                signatures: Vec::new(),
                spf_domain: String::new(),
                spf_of_helo: false,
                spf_result: String::new(),
            };
            let refused = refused.then(String::new);
            let verdicts = Verdicts { refused, disposition, ..Verdicts::default() };
            decided(&mut found, &policy, &verdicts, is_sealed);
            assert_eq!((found.disposition, found.overridden), expected);
        }
    }
}
