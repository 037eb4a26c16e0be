//! The bytes of version 1, one file of hex a frame. From the first release on what was sent once is understood for ever;
//! before it a version that nobody has may change, and these files with it.

use std::fmt::Write;
use std::path::Path;

use super::hostile::samples;
use crate::frame::{Decoder, Frame};

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text + "\n"
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// The committed bytes of a frame, in hex.
fn golden(frame: &Frame) -> String {
    let name = format!("v1-{}.hex", frame.name().to_lowercase().replace(' ', "-"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden").join(&name);
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn every_frame_of_version_1_keeps_its_bytes() {
    let mut wrong = String::new();
    for frame in samples() {
        let (golden, written) = (golden(&frame), hex(&frame.encode().concat()));
        if written != golden {
            wrong += &format!("{}: read\n{golden}but written is\n{written}", frame.name());
            continue;
        }
        let mut decoder = Decoder::default();
        decoder.push(&bytes(&golden));
        assert_eq!(decoder.next_frame(), Ok(Some(frame)));
        assert!(decoder.is_empty());
    }
    assert!(wrong.is_empty(), "{wrong}");
}
