//! What is counted at the border, where SMTP cannot tell whether the other side knows (RFC 5321 §4.5.5, RFC 1047).

use rkyv::{Archive, Deserialize, Serialize};
use shared::report::BorderView;
use shared::row;
use shared::store::{Rows, StoreError, Table, Txn};

const COUNTS: Table = Table("border-counts");

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
struct CountRow {
    count: u64,
}
row!(CountRow, 1);

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// Messages that were sent again because our 250 was not heard.
    Repeats,
    /// Attempts of which a host's answer to the whole message was not heard: it is attempted again.
    Undetermined,
}

impl Count {
    fn key(self) -> &'static [u8] {
        match self {
            Self::Repeats => b"repeats",
            Self::Undetermined => b"undetermined",
        }
    }
}

/// Counts one more.
pub fn count(txn: &mut Txn<'_>, what: Count) -> Result<(), StoreError> {
    let count = how_many(txn, what)?.saturating_add(1);
    txn.put(COUNTS, what.key(), &CountRow { count })
}

/// How many there were.
pub fn view(rows: &impl Rows) -> Result<BorderView, StoreError> {
    let [repeats, undetermined] = [Count::Repeats, Count::Undetermined].map(|what| how_many(rows, what));
    Ok(BorderView { repeats: repeats?, undetermined: undetermined? })
}

fn how_many(rows: &impl Rows, what: Count) -> Result<u64, StoreError> {
    Ok(rows.get::<CountRow>(COUNTS, what.key())?.unwrap_or_default().count)
}
