//! How many reports are sent in a day of UTC: in all, and to those who get them about domains that are not theirs. Anybody
//! can name anybody in DNS, under as many names as they like.

use rkyv::{Archive, Deserialize, Serialize};
use shared::address::{Address, Domain};
use shared::aggregate::{DAY_SECONDS, REPORTS_A_DAY_MAX};
use shared::row;
use shared::store::{Row, Rows, StoreError, Table, Txn};

/// Empty key to [`Taken`].
const TAKEN: Table = Table("aggregate-reports-taken");
/// Day of UTC, and a mailbox or its domain, to [`Sent`].
const SENT: Table = Table("aggregate-reports-sent");

/// Reports for one mailbox about domains that are not its own.
pub const MAILBOX_MAX: u32 = 50;
/// The same for all mailboxes of one domain.
pub const DOMAIN_MAX: u32 = 500;

/// How many came in a day.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct Taken {
    day: u64,
    count: u32,
}
row!(Taken, 1);

/// How many were for somebody.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct Sent(u32);
row!(Sent, 1);

/// What may still be taken.
pub struct Allowance(Taken);

impl Allowance {
    /// What there is of it at `now`, milliseconds since 1970.
    pub fn of(rows: &impl Rows, now: u64) -> Result<Self, StoreError> {
        let day = day(now);
        let taken = read::<Taken>(rows, TAKEN, b"")?.filter(|taken| taken.day == day);
        Ok(Self(taken.unwrap_or(Taken { day, count: 0 })))
    }

    /// Counts one more, about `domain`. Whether it may be sent; the log says ever more seldom that it may not.
    pub fn has_room(&mut self, domain: &Domain) -> bool {
        self.0.count = self.0.count.saturating_add(1);
        let over = self.0.count.saturating_sub(REPORTS_A_DAY_MAX);
        if over.is_power_of_two() {
            tracing::warn!(%domain, over, "not sent: more aggregate reports came in a day than are sent");
        }
        over == 0
    }

    /// Keeps the count.
    pub fn keep(&self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        txn.put(TAKEN, b"", &self.0)
    }

    /// Those of `mailboxes` that may get one more about `domain`, which are counted.
    pub fn mailboxes(
        &self,
        txn: &mut Txn<'_>,
        domain: &Domain,
        mailboxes: &[Address],
    ) -> Result<Vec<Address>, StoreError> {
        let mut allowed = Vec::new();
        for mailbox in mailboxes {
            if is_own(domain, mailbox.domain()) || self.is_counted(txn, mailbox)? {
                allowed.push(mailbox.clone());
            }
        }
        Ok(allowed)
    }

    fn is_counted(&self, txn: &mut Txn<'_>, mailbox: &Address) -> Result<bool, StoreError> {
        let name = mailbox.without_tag().unwrap_or_else(|| mailbox.clone()).canonical();
        let key = |name: &str| [self.0.day.to_be_bytes().as_slice(), name.as_bytes()].concat();
        let places = [(key(&name), MAILBOX_MAX), (key(mailbox.domain().as_str()), DOMAIN_MAX)];
        for (key, max) in &places {
            if read::<Sent>(txn, SENT, key)?.is_some_and(|Sent(count)| count >= *max) {
                return Ok(false);
            }
        }
        for (key, _) in &places {
            let Sent(count) = read::<Sent>(txn, SENT, key)?.unwrap_or_default();
            txn.put(SENT, key, &Sent(count + 1))?;
        }
        Ok(true)
    }
}

/// A count. One that cannot be read begins anew: mail comes over the same lane, and is not to wait for it.
fn read<V: Row>(rows: &impl Rows, table: Table, key: &[u8]) -> Result<Option<V>, StoreError> {
    match rows.get(table, key) {
        Err(StoreError::Damaged(what)) => {
            tracing::error!(what, "a count of aggregate reports cannot be read, and begins anew");
            Ok(None)
        }
        count => count,
    }
}

/// Whether a mailbox at `host` is that of `domain`, or of one below it.
fn is_own(domain: &Domain, host: &Domain) -> bool {
    let rest = host.as_str().strip_suffix(domain.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn day(now: u64) -> u64 {
    now / (DAY_SECONDS * 1_000)
}

/// Forgets some of what other days than today's have counted.
pub fn forget_old(txn: &mut Txn<'_>, now: u64, max: usize) -> Result<(), StoreError> {
    let (today, next) = (day(now).to_be_bytes(), (day(now) + 1).to_be_bytes());
    let mut keys = txn.keys(SENT, &[], max)?;
    keys.retain(|key| key.as_slice() < today.as_slice());
    keys.extend(txn.keys(SENT, &next, max)?);
    keys.iter().try_for_each(|key| txn.delete(SENT, key))
}
