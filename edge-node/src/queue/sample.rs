//! A message that waits, for tests and the bench.

use shared::tls_wish::TlsWish;
use shared::unit::DeliveryState;

use crate::record::{QueueRecipient, QueueRow};

/// A row for recipients at these addresses that was queued at `at`, milliseconds since 1970, and is due since. There is no
/// body.
pub fn row(addresses: impl IntoIterator<Item = String>, at: u64) -> QueueRow {
    let recipient = |(index, address)| QueueRecipient {
        index,
        address,
        state: DeliveryState::Relaying,
        text: String::new(),
        attempts: 0,
        next_attempt_at: at,
        held: false,
        doubt: None,
        in_doubt: false,
        notify: None,
        original: None,
    };
    QueueRow {
        revision: 0,
        body: [0; 32],
        wrapped_key: vec![7; 80],
        size: 1_000,
        reverse_path: Some("alice@example.com".into()),
        returns: None,
        envelope_id: None,
        tls_wish: TlsWish::Unsaid,
        body_8bit: false,
        utf8_header: false,
        signatures: String::new(),
        recipients: (0..).zip(addresses).map(recipient).collect(),
        noted: Vec::new(),
        queued_at: at,
        since: 0,
    }
}
