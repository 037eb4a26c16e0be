//! What the edge tells of guesses at travellers' passwords, for the operator here: the last word of it, and nothing
//! that a stranger has typed.

use rkyv::{Archive, Deserialize, Serialize};
use shared::render;
use shared::row;
use shared::store::{Rows, StoreError, Txn};

use super::ALARM_MILLIS;
use crate::record::EDGE;

const KEY: &[u8] = b"guessing";

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
struct Told {
    /// When it came, milliseconds since 1970.
    at: u64,
    networks: u32,
    accounts: u32,
}
row!(Told, 1);

/// The edge has locked so many networks out and guards so many accounts.
pub fn told(txn: &mut Txn<'_>, networks: u32, accounts: u32, now: u64) -> Result<(), StoreError> {
    txn.put(EDGE, KEY, &Told { at: now, networks, accounts })
}

/// What the edge has told last: networks that were locked out, and accounts that were guarded.
#[cfg(feature = "sim")]
pub fn last(rows: &impl Rows) -> Result<Option<(u32, u32)>, StoreError> {
    Ok(rows.get::<Told>(EDGE, KEY)?.map(|told| (told.networks, told.accounts)))
}

/// What an operator should know of it, for a day.
pub fn alarm(rows: &impl Rows, now: u64) -> Result<Option<String>, StoreError> {
    let told = rows.get::<Told>(EDGE, KEY)?.filter(|told| now.abs_diff(told.at) < ALARM_MILLIS);
    Ok(told.map(|Told { at, networks, accounts }| {
        format!(
            "passwords of travellers are being guessed at the edge: {networks} networks were locked out, {accounts} \
             accounts guarded at {} UTC; `edge-node logins` lists them",
            render::when(at)
        )
    }))
}
