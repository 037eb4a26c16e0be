//! The line between the ends: an ordered stream of bytes for each channel, delivered in pieces of any
//! size, cut at any byte; and bodies on streams of their own.

use std::collections::{BTreeMap, VecDeque};

use link_proto::session::Channel;
use link_proto::unit::{Digest, Lane, UnitId};

/// A channel's place on the line.
pub fn place(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Lane(lane) => 1 + usize::from(lane.index()),
    }
}

/// The channel at a place.
pub fn channel(place: usize) -> Channel {
    place
        .checked_sub(1)
        .and_then(|index| Lane::ALL.get(index))
        .map_or(Channel::Control, |lane| Channel::Lane(*lane))
}

/// A large body on its way.
#[derive(Debug)]
pub struct Body {
    /// Whose.
    pub unit: UnitId,
    /// All of it.
    pub bytes: Vec<u8>,
    /// So many have arrived, with those from an earlier connection.
    pub arrived: usize,
    /// BLAKE3 of all of it.
    pub digest: Digest,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Line {
    /// Bytes under way, by place.
    pub streams: BTreeMap<usize, VecDeque<u8>>,
    /// Bodies under way.
    pub bodies: Vec<Body>,
}

impl Line {
    /// Puts a frame's bytes on the line.
    pub fn send(&mut self, to: Channel, pieces: Vec<bytes::Bytes>) {
        let stream = self.streams.entry(place(to)).or_default();
        pieces.iter().for_each(|piece| stream.extend(piece.iter()));
    }

    /// Takes off up to `max` bytes of a stream.
    pub fn take(&mut self, place: usize, max: usize) -> Vec<u8> {
        let Some(stream) = self.streams.get_mut(&place) else { return Vec::new() };
        let count = max.min(stream.len());
        stream.drain(..count).collect()
    }

    /// Places with bytes under way.
    pub fn busy(&self) -> Vec<usize> {
        self.streams.iter().filter(|(_, stream)| !stream.is_empty()).map(|(place, _)| *place).collect()
    }

    /// Everything under way is gone.
    pub fn cut(&mut self) {
        self.streams.clear();
        self.bodies.clear();
    }
}
