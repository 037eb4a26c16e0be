//! What a sender wishes of TLS on a message's way (RFC 8689).

use rkyv::{Archive, Deserialize, Serialize};

/// The header field that says `No`.
pub const FIELD: &str = "TLS-Required";

/// What a sender wishes of TLS on a message's way.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsWish {
    /// Nothing: each next host is asked for what its domain has published.
    #[default]
    Unsaid,
    /// That it goes only under TLS to hosts that have proved their names and pass the wish on (`REQUIRETLS`).
    Required,
    /// That it arrives, whatever a domain has published of its hosts (`TLS-Required: No`).
    Dispensable,
}

impl TlsWish {
    /// The wish of a message that came with or without `REQUIRETLS`, whose header says or does not say `TLS-Required: No`:
    /// of both the first counts (RFC 8689 §4.1).
    pub fn of(require_tls: bool, field_says_no: bool) -> Self {
        match (require_tls, field_says_no) {
            (true, _) => Self::Required,
            (false, true) => Self::Dispensable,
            (false, false) => Self::Unsaid,
        }
    }

    /// The wish of a report about such a message: what is quoted there is as secret.
    #[must_use]
    pub fn of_report(self) -> Self {
        Self::of(self == Self::Required, false)
    }
}
