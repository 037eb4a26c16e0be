//! Waiting for what a node does in its own time: asked again and again until it is so, or too late.

use std::time::{Duration, Instant};

/// Why a test or a story cannot go on; for people.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// How long a node may take for what it does at once.
pub const SOON: Duration = Duration::from_secs(20);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see, and gives it.
///
/// # Errors
/// What `look` fails with, at once; or that `what` did not come about in time.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Trouble>,
) -> Result<T, Trouble> {
    let since = Instant::now();
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if since.elapsed() >= within {
            return Err(format!("{what}: this did not come about within {within:?}").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_what_is_seen_or_with_what_was_waited_for() {
        let mut looks = 0;
        let seen = until("three", SOON, async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(seen.await.expect("seen"), 3);
        let never = until("the second coming", Duration::ZERO, async || Ok(None::<()>)).await;
        assert!(never.expect_err("late").to_string().starts_with("the second coming"));
    }
}
