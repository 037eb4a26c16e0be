//! Requests to the nodes over their control sockets, without a process for each: what a run asks
//! thousands of times.
//!
//! The same requests as the command lines make, by the same call.

use std::path::Path;

use big_node::request::Request as BigRequest;
use edge_node::request::{QueueFilter, QueuePage, Queued, Request as EdgeRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::control::{CallError, call};
use shared::report::LinkView;

use crate::process::Node;

/// Asks big, whose control socket is `control`; `body` goes with the request, and one may come with
/// the answer.
pub async fn big<A>(control: &Path, request: BigRequest, body: Vec<u8>) -> Result<(A, Vec<u8>), CallError>
where
    A: DeserializeOwned + Send + 'static,
{
    ask(Node::Big, control, request, body).await
}

/// Asks edge, whose control socket is `control`.
pub async fn edge<A>(control: &Path, request: EdgeRequest) -> Result<A, CallError>
where
    A: DeserializeOwned + Send + 'static,
{
    Ok(ask(Node::Edge, control, request, Vec::new()).await?.0)
}

/// What waits on edge for delivery, page by page.
pub async fn edge_queue(control: &Path) -> Result<Vec<Queued>, CallError> {
    let mut queue = Vec::new();
    let mut filter = QueueFilter::default();
    loop {
        let page: QueuePage = edge(control, EdgeRequest::QueueList(filter.clone())).await?;
        queue.extend(page.queue);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return Ok(queue),
        }
    }
}

/// The link as big sees it.
pub async fn big_link(control: &Path) -> Result<LinkView, CallError> {
    Ok(big(control, BigRequest::LinkStatus, Vec::new()).await?.0)
}

/// The link as edge sees it.
pub async fn edge_link(control: &Path) -> Result<LinkView, CallError> {
    edge(control, EdgeRequest::LinkStatus).await
}

/// How much mail big has taken over the link, since the pair was made: the units on the lanes that
/// carry mail. A unit counts once it is applied, which files its message: an exact and cheap count.
pub fn filed(link: &LinkView) -> u64 {
    let carries_mail = |lane: &str| lane == "inter" || lane == "batch";
    link.lanes.iter().filter(|lane| carries_mail(&lane.lane)).map(|lane| lane.received).sum()
}

/// Whether the partner has confirmed everything that this end had for it, large bodies and all.
pub fn is_confirmed(link: &LinkView) -> bool {
    link.lanes.iter().all(|lane| lane.sent == lane.confirmed && lane.ahead + lane.deferred == 0)
}

async fn ask<Q, A>(node: Node, control: &Path, request: Q, body: Vec<u8>) -> Result<(A, Vec<u8>), CallError>
where
    Q: Serialize + Send + 'static,
    A: DeserializeOwned + Send + 'static,
{
    let control = control.to_owned();
    let asked = tokio::task::spawn_blocking(move || call(node.name(), &control, &request, &body)).await;
    asked.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))
}
