//! What is asked of the keys that sign mail.

use std::sync::Arc;

use serde_json::Value;
use shared::id::unix_millis;

use super::{Commands, json};
use crate::error::Refused;
use crate::request::Request;

impl Commands {
    pub(super) async fn dkim(&self, request: Request) -> Result<Value, Refused> {
        let (node, state) = (Arc::clone(&self.node), self.state.clone());
        // Finding the primes of an RSA key takes seconds.
        let done = tokio::task::spawn_blocking(move || {
            let (signers, domains) = (&node.site.dkim, &node.topology.site.domains);
            match request {
                Request::DkimKeygen(new) => json(signers.make(&state, domains, &new)?),
                Request::DkimRemove { domain, selector } => {
                    json(signers.remove(&state, domains, domain.as_deref(), &selector)?)
                }
                Request::DkimList => json(signers.list(unix_millis())),
                _ => Err(Refused::new("not about a key that signs mail")),
            }
        });
        done.await.map_err(|error| Refused::new(error.to_string()))?
    }
}
