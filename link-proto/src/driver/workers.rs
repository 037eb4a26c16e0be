//! The tasks that call the node: per lane one for applies and one for confirms.
//!
//! While one commit is on its way the next batches arrive; they are applied together with the next
//! one. So the order within a lane is kept, lanes do not wait for each other, and the number of
//! commits adapts to how long one takes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::engine::Event;
use crate::frame::Confirmed;
use crate::host::Host;
use crate::session::{Input, Window};
use crate::unit::{Lane, Position, Unit};

/// Confirms that wait to be recorded; beyond that the session waits for the node.
const CONFIRMS_QUEUE: usize = 64;

/// What the node has to apply.
pub(super) struct Apply {
    pub(super) units: Vec<Unit>,
    /// Where it stands before.
    pub(super) from: Position,
    /// Where it stands then.
    pub(super) position: Position,
}

/// Where the session puts what the node has to do for one lane.
pub(super) struct Workers {
    pub(super) apply: mpsc::Sender<Apply>,
    pub(super) confirm: mpsc::Sender<Confirmed>,
}

impl Workers {
    /// Starts them; they end, after what they were given, when this is dropped.
    pub(super) fn start<H: Host>(
        host: &Arc<H>,
        lane: Lane,
        events: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        // As many batches as there can be units: the credit keeps what they hold within bounds.
        let (apply, applies) = mpsc::channel(usize::try_from(Window::of(lane).units).unwrap_or(usize::MAX));
        let (confirm, confirms) = mpsc::channel(CONFIRMS_QUEUE);
        tasks.spawn(apply_all(Arc::clone(host), lane, applies, events.clone()));
        tasks.spawn(confirm_all(Arc::clone(host), confirms, events.clone()));
        Self { apply, confirm }
    }
}

async fn apply_all<H: Host>(
    host: Arc<H>,
    lane: Lane,
    mut applies: mpsc::Receiver<Apply>,
    events: mpsc::Sender<Event>,
) {
    while let Some(Apply { mut units, from, mut position }) = applies.recv().await {
        while let Ok(more) = applies.try_recv() {
            units.extend(more.units);
            position = more.position;
        }
        let applied = match host.apply(lane, units, from, position).await {
            Ok(applied) => Input::Applied { lane, number: position.number, applied },
            Err(error) => {
                // What follows must not be applied without it: the partner would take it for applied. And nobody waits for
                // room in a queue that this worker would read no more, while it waits for room itself.
                drop(applies);
                let _ = events.send(Event::Failed(error.into())).await;
                return;
            }
        };
        if events.send(Event::Input(applied)).await.is_err() {
            return;
        }
    }
}

async fn confirm_all<H: Host>(
    host: Arc<H>,
    mut confirms: mpsc::Receiver<Confirmed>,
    events: mpsc::Sender<Event>,
) {
    while let Some(mut confirmed) = confirms.recv().await {
        while let Ok(more) = confirms.try_recv() {
            confirmed.position = more.position;
            confirmed.applied.refused.extend(more.applied.refused);
            confirmed.applied.deferred.extend(more.applied.deferred);
        }
        let Confirmed { lane, position, applied, .. } = confirmed;
        if let Err(error) = host.confirmed(lane, position, applied).await {
            // The session ends; what was not recorded is compared at the next contact. Nobody waits for room here any more.
            drop(confirms);
            let _ = events.send(Event::Failed(error.into())).await;
            return;
        }
    }
}
