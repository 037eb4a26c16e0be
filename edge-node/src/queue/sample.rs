//! A message that waits, for tests and the bench.

use shared::store::BodyKey;
use shared::tls_wish::TlsWish;
use shared::unit::{Id, Outbound};

use crate::record::{QueueRow, recipients_of};

/// What big sends of a message, for recipients with these indexes.
pub fn outbound(message: Id, revision: u32, recipients: Vec<(u32, String)>) -> Outbound {
    Outbound {
        message,
        revision,
        wrapped_key: vec![7; 80],
        size: 1_000,
        reverse_path: Some("alice@example.com".into()),
        recipients,
        asked: Vec::new(),
        returns: None,
        envelope_id: None,
        tls_wish: TlsWish::Unsaid,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
    }
}

/// A row for recipients at these addresses that was queued at `at`, milliseconds since 1970, and is due since. There is no
/// body.
pub fn row(addresses: impl IntoIterator<Item = String>, at: u64) -> QueueRow {
    let mut outbound = outbound([0; 16], 0, (0..).zip(addresses).collect());
    let recipients = recipients_of(&mut outbound, at).collect();
    QueueRow { recipients, ..QueueRow::of(outbound, BodyKey([0; 32]), at, 0) }
}
