//! Names with several DMARC records, which so have none (RFC 7489 §6.6.3): mail-auth takes the first. And where the one is
//! that counts, which it does not tell.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::dmarc::Dmarc;
use mail_auth::{DmarcOutput, DnsError, Error, ResolverCache, Txt};

/// What a DMARC record begins with.
const BEGIN: &[u8] = b"v=DMARC1";
/// Labels of the second name that is asked about, where the first has as many or more (RFC 9989 §4.10).
const LABELS_MAX: usize = 7;

/// The names, as mail-auth asks for them.
#[derive(Debug, Default)]
pub struct Plural {
    names: HashSet<Box<str>>,
    /// The domains with one, the author's first.
    single: Vec<(String, Dmarc)>,
}

impl Plural {
    /// Those of the names under which the policy for mail of an author's domain is looked for.
    pub async fn of(dns: &TokioResolver, author: &str) -> Self {
        let mut found = Self::default();
        for domain in walk(author) {
            let asked = format!("_dmarc.{domain}.");
            let Ok(name) = Name::from_ascii(&asked) else { continue };
            let Ok(lookup) = dns.lookup(name, RecordType::TXT).await else { continue };
            let policy = |record: &Record| match &record.data {
                RData::TXT(text) => Some(text.txt_data.concat()).filter(|text| text.starts_with(BEGIN)),
                _ => None,
            };
            let policies: Vec<_> = lookup.answers().iter().filter_map(policy).collect();
            match policies.as_slice() {
                [] => {}
                [only] => {
                    found.single.extend(Dmarc::parse(only).ok().map(|policy| (domain.to_owned(), policy)))
                }
                _ => drop(found.names.insert(asked.into_boxed_str())),
            }
        }
        found
    }

    /// The domain whose policy a message was held to.
    pub fn owner(&self, output: &DmarcOutput) -> Option<&str> {
        let applied = output.dmarc_record()?;
        self.single.iter().find(|(_, policy)| policy == applied).map(|(domain, _)| domain.as_str())
    }
}

/// A domain, and those above it, as far as its policy is looked for.
fn walk(domain: &str) -> impl Iterator<Item = &str> {
    let labels = domain.split('.').count();
    let above = std::iter::successors(domain.split_once('.').map(|(_, rest)| rest), |name| {
        name.split_once('.').map(|(_, rest)| rest)
    });
    let is_asked = move |name: &&str| labels <= LABELS_MAX || name.split('.').count() <= LABELS_MAX;
    std::iter::once(domain).chain(above.filter(is_asked))
}

/// It says of these names that they have no policy, and knows no others.
impl ResolverCache<Box<str>, Txt> for Plural {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.names.contains(name).then(|| Txt::Error(Error::Dns(DnsError::InvalidRecordType)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_looked_for_at_a_domain_and_above_it_eight_times_at_most() {
        let names = |domain| walk(domain).collect::<Vec<_>>();
        assert_eq!(names("a.b.example"), ["a.b.example", "b.example", "example"]);
        let long = names("1.2.3.4.5.6.7.8.b.example");
        assert_eq!((long.len(), long[1], long[7]), (8, "4.5.6.7.8.b.example", "example"));
    }
}
