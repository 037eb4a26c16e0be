//! The identifiers of messages and bodies.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 128-bit id given where a message is first accepted; never the `Message-ID` header.
///
/// It rises with time (48 bits of milliseconds, 80 random bits), so that keys of one day are
/// neighbours in the store. Written as 26 letters and digits (ULID).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// An id born at `unix_millis` with the given randomness.
    pub fn from_parts(unix_millis: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(bytes)
    }

    /// A new id, from the system's clock and randomness.
    pub fn generate() -> Self {
        Self::from_parts(unix_millis(), random())
    }

    /// When the id was born, in milliseconds since 1970.
    pub fn unix_millis(self) -> u64 {
        self.0[..6].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 26 letters and digits of a message id.
#[derive(Debug, thiserror::Error)]
#[error("not a message id: it is 26 letters and digits, as `mail list` and `queue list` print it")]
pub struct NotAMessageId;

impl FromStr for MessageId {
    type Err = NotAMessageId;

    fn from_str(text: &str) -> Result<Self, NotAMessageId> {
        ulid::Ulid::from_string(text).map(|id| Self(id.to_bytes())).map_err(|_| NotAMessageId)
    }
}

/// 256-bit BLAKE3 hash of a body's original bytes; how big addresses content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyId(pub [u8; 32]);

impl fmt::Debug for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..16])
    }
}

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has no randomness: nothing here is safe without it.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(any(test, feature = "sim"))]
    if sim::fill(&mut bytes) {
        return bytes;
    }
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// The system's clock, in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    #[cfg(any(test, feature = "sim"))]
    if let Some(now) = sim::now() {
        return now;
    }
    #[cfg(any(test, feature = "sim"))]
    let ahead = sim::ahead();
    #[cfg(not(any(test, feature = "sim")))]
    let ahead = Duration::ZERO;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + ahead).as_millis()).unwrap_or(u64::MAX)
}

/// Time that has passed since a moment early in this process, by a clock that nobody sets.
pub fn monotonic() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let start = *START;
    #[cfg(any(test, feature = "sim"))]
    if let Some(passed) = sim::passed() {
        return passed;
    }
    start.elapsed()
}

/// A clock and dice that a seed decides, in the place of the system's, for a whole process that plays
/// simulated schedules.
#[cfg(any(test, feature = "sim"))]
pub mod sim {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    use crate::store::sim::Dice;

    /// 0 while the system's clock counts.
    static NOW: AtomicU64 = AtomicU64::new(0);
    /// Milliseconds that have passed, whatever the clock says.
    static PASSED: AtomicU64 = AtomicU64::new(0);
    static DICE: Mutex<Option<Dice>> = Mutex::new(None);

    /// From now on the clock stands at `millis` and moves only by [`advance`], and random bytes follow
    /// from `seed`.
    pub fn begin(seed: u64, millis: u64) {
        NOW.store(millis, Ordering::Release);
        PASSED.store(0, Ordering::Release);
        *DICE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Dice::new(!seed));
    }

    /// Time passes.
    pub fn advance(millis: u64) {
        NOW.fetch_add(millis, Ordering::AcqRel);
        PASSED.fetch_add(millis, Ordering::AcqRel);
    }

    /// Names the environment variable that says by how many seconds the clock of a whole process is ahead of the system's.
    pub const AHEAD: &str = "CLOCK_AHEAD";

    pub(super) fn ahead() -> Duration {
        static SECONDS: LazyLock<u64> = LazyLock::new(|| {
            let text = std::env::var(AHEAD).ok();
            text.map_or(0, |text| text.parse().expect("CLOCK_AHEAD is a number of seconds"))
        });
        Duration::from_secs(*SECONDS)
    }

    /// Sets the clock ahead, without any time passing.
    pub fn go_ahead(millis: u64) {
        NOW.fetch_add(millis, Ordering::AcqRel);
    }

    /// The time that has passed; `None` while the system's clock counts.
    pub(crate) fn passed() -> Option<Duration> {
        now().map(|_| Duration::from_millis(PASSED.load(Ordering::Acquire)))
    }

    /// Sets the clock back, but not to the beginning of time.
    pub fn go_back(millis: u64) {
        let _ = NOW
            .try_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(now.saturating_sub(millis).max(1)));
    }

    pub(super) fn now() -> Option<u64> {
        Some(NOW.load(Ordering::Acquire)).filter(|now| *now > 0)
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let mut dice = DICE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(dice) = dice.as_mut() else { return false };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.roll().to_le_bytes()[..chunk.len()]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_with_time_and_survive_being_written() {
        let early = MessageId::from_parts(1_700_000_000_000, [0xff; 10]);
        let late = MessageId::from_parts(1_700_000_000_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.unix_millis(), 1_700_000_000_000);
        assert_eq!(early.to_string().parse::<MessageId>().ok(), Some(early));
        assert!("not an id".parse::<MessageId>().is_err());
    }
}
