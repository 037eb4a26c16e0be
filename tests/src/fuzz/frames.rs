//! Frames out of any bytes.

use link_proto::frame::{Decoder, Frame, FrameError};

use super::cut::pieces;
use super::script::Script;

/// The first byte says how the stream is cut into pieces (0: not at all), the others are the stream.
///
/// # Panics
/// If frames depend on how the stream is cut, or do not come back when they are encoded.
pub fn frames(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let cuts = script.byte();
    let stream = script.rest();
    let whole = decoded([stream]);
    if cuts > 0 {
        assert_eq!(decoded(pieces(stream, cuts)), whole, "it matters how the stream is cut");
    }
    for frame in whole.0 {
        // Reasons are cut where many are long (`frame::wire`); an input has no room for that many.
        let again = decoded([frame.encode().concat().as_slice()]);
        assert_eq!(again, (vec![frame], Ok(true)), "a frame does not come back");
    }
}

/// All frames of a stream, and whether it ended between two of them.
fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Result<bool, FrameError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    let between = decoder.is_empty();
    (frames, Ok(between))
}
