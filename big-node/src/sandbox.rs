//! What big confines itself to: an edge that is taken over may find a fault in what reads its bytes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use shared::sandbox::{InForce, Sandbox};
use shared::store::StoreError;
use shared::topology::Topology;

use crate::directory;
use crate::node::Node;
use crate::record::Transport;

/// Where mail systems listen (RFC 2033 §5, RFC 5321 §4.5.4.2): a gateway at one of these works as soon as it is added.
const MAIL_PORTS: [u16; 2] = [24, 25];

/// All that a running big needs: its state, and what its gateways are reached by.
pub fn of(node: &Node) -> Result<Sandbox, StoreError> {
    let Topology { big, .. } = &node.topology;
    let (mut sandbox, mut connects) = (Sandbox::of_state(&big.state), BTreeSet::from(MAIL_PORTS));
    // The socket goes when big does.
    sandbox.removable.extend(big.desk.as_deref().and_then(Path::parent).map(Path::to_path_buf));
    for gateway in directory::gateways(&node.store.read()?)? {
        connects.extend(ports(&gateway.transport));
        for folder in gateway.transport.folders().map(Path::new) {
            if folder.is_dir() {
                sandbox.writable.insert(folder.to_path_buf());
            } else {
                let name = &gateway.name;
                tracing::warn!(
                    gateway = name,
                    ?folder,
                    "a folder is missing; make it, and start big-node again"
                );
            }
        }
    }
    Ok(Sandbox { connects: Some(connects), ..sandbox })
}

/// Whether a gateway is reached before big is started again.
pub fn reaches(in_force: &InForce, transport: &Transport) -> bool {
    transport.folders().all(|folder| in_force.may_write(Path::new(folder)))
        && ports(transport).all(|port| in_force.may_connect(port))
}

fn ports(transport: &Transport) -> impl Iterator<Item = u16> {
    transport.hosts().iter().filter_map(|host| host.parse::<SocketAddr>().ok()).map(|host| host.port())
}
