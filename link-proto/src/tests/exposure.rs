//! What each frame can make a node reveal. A frame without a row does not compile.

use super::hostile::samples;
use super::protocol::document;
use super::sim::{BIG, EDGE, Sim};
use crate::frame::Frame;
use crate::session::{Channel, Input, Output};
use crate::unit::{Body, Lane};

/// What the other end learns by sending a frame. There is no word here for a mailbox, a message, a search
/// or a file, and there must not be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reveals {
    /// Nothing, or only that it was wrong.
    Nothing,
    /// Identity of this node, or the stored generation and epoch.
    Identity,
    /// Positions and chains of the lanes.
    Positions,
    /// For ids of the asker's own units, whether this node has applied them: one bit each.
    OwnBits,
    /// Units that this node has numbered for the asker by itself, in order.
    Queued,
    /// That a commit was made, and what of the asker's own units was refused or deferred.
    Confirms,
    /// The rest of a body that this node sends to the asker anyway.
    Body,
}

impl Reveals {
    fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Identity => "identity, or the stored generation and epoch",
            Self::Positions => "positions of the lanes",
            Self::OwnBits => "one bit for each id of its own units",
            Self::Queued => "units that were queued for it anyway",
            Self::Confirms => "confirms and rejections of its own units",
            Self::Body => "the rest of a body that goes to it anyway",
        }
    }
}

/// The table: no wildcard, so that a new frame needs a row.
fn reveals(frame: &Frame) -> Reveals {
    match frame {
        Frame::Hello(_) => Reveals::Identity,
        Frame::Compare(_) => Reveals::Positions,
        Frame::Offer(_) => Reveals::OwnBits,
        Frame::Resume(_) | Frame::Batch(_) => Reveals::Confirms,
        Frame::Confirmed(_) | Frame::Credit(..) => Reveals::Queued,
        Frame::BodyPart(..) => Reveals::Body,
        Frame::Refused(_)
        | Frame::Welcome(_)
        | Frame::Known(_)
        | Frame::Stopped(_)
        | Frame::BodyHeld(_)
        | Frame::BodyFailed(_) => Reveals::Nothing,
    }
}

#[test]
fn the_document_says_of_every_frame_what_it_can_reveal() {
    let document = document();
    for frame in samples() {
        let row = format!("| {} | {} |", frame.name(), reveals(&frame).text());
        assert!(document.contains(&row), "PROTOCOL.md has no row `{row}`");
    }
}

/// What a node asks of its own store on account of a frame, as far as the answer may leave it: no wildcard, so
/// that a new question needs a row.
fn read_for(output: &Output) -> Option<Reveals> {
    match output {
        Output::LookUp { .. } => Some(Reveals::OwnBits),
        Output::Fetch { .. } | Output::ListUnconfirmed { .. } => Some(Reveals::Queued),
        Output::Recall { .. } | Output::Apply { .. } => Some(Reveals::Confirms),
        Output::SendBody { .. } => Some(Reveals::Body),
        // Positions that both compare, which bodies wait, and commits.
        Output::LookBack { .. }
        | Output::ListBodies { .. }
        | Output::BodyHeld(_)
        | Output::Send(..)
        | Output::Remember(_)
        | Output::PairedBy(_)
        | Output::PairedWith(..)
        | Output::Adopt(_)
        | Output::Opened
        | Output::Compared { .. }
        | Output::Settle { .. }
        | Output::Rebased { .. }
        | Output::Confirmed(_)
        | Output::Stopped { .. } => None,
    }
}

#[test]
fn a_frame_makes_a_node_read_no_more_than_its_row_says() {
    let mut reads = 0;
    for (node, resumed) in [(BIG, false), (BIG, true), (EDGE, false), (EDGE, true)] {
        for channel in [Channel::Control].into_iter().chain(Lane::ALL.map(Channel::Lane)) {
            for frame in samples() {
                let mut sim = Sim::paired();
                for lane in Lane::ALL {
                    sim.nodes[node].offer(lane, [1; 16], b"secret", Body::None);
                }
                sim.connect().unwrap();
                if resumed {
                    sim.settle().unwrap();
                    sim.nodes[node].offer(Lane::Inter, [2; 16], b"secret", Body::None);
                }
                let Some(mut session) = sim.sessions[node].take() else { continue };
                let mut allowed = vec![reveals(&frame)];
                // Whoever confirms may be sent the next ones.
                allowed.extend((allowed[0] == Reveals::Confirms).then_some(Reveals::Queued));
                let (name, at) = (frame.name(), sim.now);
                if session.handle(Input::Frame(channel, frame), at).is_err() {
                    continue;
                }
                while let Some(output) = session.poll() {
                    if let Some(read) = read_for(&output) {
                        reads += 1;
                        assert!(allowed.contains(&read), "{name} on {channel:?}: {output:?}");
                    }
                }
            }
        }
    }
    assert!(reads > 0, "nothing was looked at");
}
