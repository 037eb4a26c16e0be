//! The link's line, and everything that may be wrong with it.

use ::tests::netns::{NetworkError, ip, nft, nft_list};
use serde_json::Value;

use crate::Failure;
use crate::lab::{LINK_DEVICE, Lab};

/// nftables' table in both namespaces.
const TABLE: &str = "inet storm";

/// One end of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the DMZ.
    Edge,
    /// Inside.
    Big,
}

/// How a line is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Packets vanish, and nobody is told.
    Silent,
    /// The cable is out at that side, whose node is told that there is no way.
    Unplugged(Side),
}

/// The line between the nodes of a lab. Packets are dropped where they arrive, not where they are sent:
/// a sender is not to know.
#[derive(Debug)]
pub struct Line {
    edge: String,
    big: String,
}

impl Line {
    /// A good line.
    pub async fn new(lab: Lab) -> Result<Self, NetworkError> {
        let line = Self { edge: lab.edge(), big: lab.big() };
        line.both(&format!(
            "add table {TABLE}\nadd counter {TABLE} dropped\n\
             add chain {TABLE} arriving {{ type filter hook input priority 0; }}\n"
        ))
        .await?;
        Ok(line)
    }

    /// From now on so many percent of the packets are lost, in each direction, at random.
    pub async fn lose(&self, percent: u8) -> Result<(), NetworkError> {
        self.drop_those(&format!("numgen random mod 100 < {percent} ")).await
    }

    /// Cuts it.
    pub async fn cut(&self, cut: Cut) -> Result<(), NetworkError> {
        match cut {
            Cut::Silent => self.drop_those("").await,
            Cut::Unplugged(side) => self.set(side, "down").await,
        }
    }

    /// Makes it good again after `cut`.
    pub async fn mend(&self, cut: Cut) -> Result<(), NetworkError> {
        match cut {
            Cut::Silent => self.clear().await,
            Cut::Unplugged(side) => self.set(side, "up").await,
        }
    }

    /// No packet is dropped any more.
    pub async fn clear(&self) -> Result<(), NetworkError> {
        self.both(&format!("flush chain {TABLE} arriving\n")).await
    }

    /// How many packets were dropped so far: those for edge, and those for big.
    pub async fn dropped(&self) -> Result<(u64, u64), Failure> {
        let counter = format!("counter {TABLE} dropped");
        let (edge, big) = tokio::try_join!(nft_list(&self.edge, &counter), nft_list(&self.big, &counter))?;
        Ok((packets(&edge)?, packets(&big)?))
    }

    async fn drop_those(&self, which: &str) -> Result<(), NetworkError> {
        self.both(&format!(
            "flush chain {TABLE} arriving\nadd rule {TABLE} arriving iifname \"{LINK_DEVICE}\" \
             meta l4proto udp {which}counter name dropped drop\n"
        ))
        .await
    }

    async fn set(&self, side: Side, state: &str) -> Result<(), NetworkError> {
        let name = match side {
            Side::Edge => &self.edge,
            Side::Big => &self.big,
        };
        ip(&format!("-n {name} link set {LINK_DEVICE} {state}")).await
    }

    async fn both(&self, script: &str) -> Result<(), NetworkError> {
        tokio::try_join!(nft(&self.edge, script), nft(&self.big, script))?;
        Ok(())
    }
}

/// The one counter in what nft printed.
fn packets(printed: &str) -> Result<u64, Failure> {
    let printed: Value = serde_json::from_str(printed)?;
    let all = printed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let mut counters = all.filter_map(|object| object.get("counter")?.get("packets")?.as_u64());
    counters.next().ok_or_else(|| "nft printed no counter".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read() {
        let printed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"counter":
            {"family": "inet", "name": "dropped", "table": "storm", "packets": 42, "bytes": 7}}]}"#;
        assert_eq!(packets(printed).expect("one"), 42);
        assert!(packets(r#"{"nftables": []}"#).is_err());
    }
}
