//! A signed root on loopback (RFC 4033 to 4035), for whoever validates: all names are in one zone, whose key is the
//! trust anchor.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_server::Server;
use hickory_server::dnssec::NxProofKind;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_server::proto::dnssec::rdata::DNSKEY;
use hickory_server::proto::dnssec::{DnssecSigner, PublicKey as _, SigningKey as _};
use hickory_server::proto::rr::rdata::NS;
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

use super::dns::{TCP_ANSWERS_MAX, TCP_IDLE, Zone, bind, name, start_of_authority};
use crate::wait::Trouble;

/// Seconds an answer may be cached.
const TTL: u32 = 60;
/// How long signatures are good.
const SIGNED_FOR: Duration = Duration::from_secs(86_400);

/// A running server. It stops when it is dropped.
pub struct SignedDns {
    address: SocketAddr,
    anchor: String,
    server: Server<Catalog>,
}

impl SignedDns {
    /// Starts on a free port of 127.0.0.1. What `signed` publish is proved; what `forged` publish is not signed, though
    /// it is in the same zone.
    pub async fn start(signed: Vec<Zone>, forged: Vec<Zone>) -> Result<Self, Trouble> {
        let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8()?)?;
        let dnskey = DNSKEY::from_key(&key.to_public_key()?);
        let public = STANDARD.encode(dnskey.public_key().public_bytes());
        let anchor = format!(". 3600 IN DNSKEY 257 3 15 {public}\n");
        let signer = DnssecSigner::new(dnskey, Box::new(key), Name::root(), SIGNED_FOR);
        let mut root = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
            Name::root(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
            Some(NxProofKind::Nsec),
        );
        root.upsert_mut(start_of_authority(), 1);
        root.upsert_mut(Record::from_rdata(Name::root(), TTL, RData::NS(NS(name("a.root.example")))), 1);
        for (owner, data) in signed.into_iter().flat_map(|zone| zone.records) {
            root.upsert_mut(Record::from_rdata(owner, TTL, data), 1);
        }
        root.add_zone_signing_key_mut(signer)?;
        root.secure_zone_mut()?;
        for (owner, data) in forged.into_iter().flat_map(|zone| zone.records) {
            root.upsert_mut(Record::from_rdata(owner, TTL, data), 1);
        }
        let mut catalog = Catalog::new();
        catalog.upsert(Name::root().into(), vec![std::sync::Arc::new(root)]);
        let (udp, tcp) = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = udp.local_addr()?;
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS_MAX);
        Ok(Self { address, anchor, server })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its key, as a file of trust anchors has it.
    pub fn anchor(&self) -> &str {
        &self.anchor
    }
}

impl Drop for SignedDns {
    fn drop(&mut self) {
        self.server.shutdown_token().cancel();
    }
}
