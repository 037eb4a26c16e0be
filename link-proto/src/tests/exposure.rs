//! What each frame can make a node reveal. A frame without a row does not compile.

use super::hostile::samples;
use super::protocol::document;
use crate::frame::Frame;

/// What must not be in the table: no frame is a way to ask for one of these (promises §5.7 T53).
const NEVER_REVEALED: [&str; 5] = ["mailbox", "message", "search", "file", "person"];

/// What the other end learns by sending a frame. There is no word here for what is [`NEVER_REVEALED`], and there
/// must not be one.
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
        | Frame::NextKey(_)
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
        for word in NEVER_REVEALED {
            assert!(!row.to_lowercase().contains(word), "{row}");
        }
    }
}
