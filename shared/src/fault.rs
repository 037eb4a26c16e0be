//! Faults that are seeded on purpose, to show that the suites find each of them.
//!
//! Only what the tests are built of can have them, and no release: one at a time, named by the environment variable
//! `SEEDED_FAULT`.

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededFault {
    /// Callers are told of a commit before it is made.
    ConfirmBeforeCommit,
    /// Now and then two units get the same number.
    NumberReused,
    /// A unit, or a message, that has been applied is applied again.
    DedupeDropped,
    /// The hash in a segment's record is not looked at.
    HashIgnored,
    /// A sync that failed is asked for again, and what the kernel dropped is taken for written.
    SyncRetried,
    /// RSET leaves the transaction as it was.
    StateNotReset,
    /// The channel that an edge claims for a message is believed.
    OriginBelieved,
    /// What the edge's mail takes in an hour is not counted.
    QuotaIgnored,
    /// A lane's position is stored in a commit of its own.
    PositionApart,
    /// Confirmed units are not kept for a replay.
    SafetyCutShort,
}

impl SeededFault {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 10] = [
        ("confirm-before-commit", Self::ConfirmBeforeCommit),
        ("number-reused", Self::NumberReused),
        ("dedupe-dropped", Self::DedupeDropped),
        ("hash-ignored", Self::HashIgnored),
        ("sync-retried", Self::SyncRetried),
        ("state-not-reset", Self::StateNotReset),
        ("origin-believed", Self::OriginBelieved),
        ("quota-ignored", Self::QuotaIgnored),
        ("position-apart", Self::PositionApart),
        ("safety-cut-short", Self::SafetyCutShort),
    ];
}

/// Whether `fault` is seeded in this process.
#[cfg(all(debug_assertions, any(test, feature = "sim")))]
pub fn seeded(fault: SeededFault) -> bool {
    use std::sync::OnceLock;
    static SEEDED: OnceLock<Option<SeededFault>> = OnceLock::new();
    let seeded = SEEDED.get_or_init(|| {
        let name = std::env::var("SEEDED_FAULT").ok()?;
        let found = SeededFault::ALL.iter().find(|(known, _)| *known == name);
        Some(found.expect("SEEDED_FAULT names one of the faults").1)
    });
    *seeded == Some(fault)
}

/// Whether `fault` is seeded in this process: here, none can be.
#[cfg(not(all(debug_assertions, any(test, feature = "sim"))))]
#[inline]
pub const fn seeded(_: SeededFault) -> bool {
    false
}
