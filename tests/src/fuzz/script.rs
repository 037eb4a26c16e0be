//! Reads an input as a script. Zero stands for whatever is right, so that a short input goes far.

use super::BYTES_MAX;

/// What is left of an input. After its end every byte is zero.
#[derive(Debug)]
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// The script that `bytes` are.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(&bytes[..bytes.len().min(BYTES_MAX)])
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// True for one byte in sixteen, and not for zero.
    pub fn rarely(&mut self) -> bool {
        self.byte() > 239
    }

    /// The next `length` bytes, or as many as are left.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Mostly the number that is right; else one that is near it, or at an end of all numbers.
    pub fn number(&mut self, right: u64) -> u64 {
        match self.byte() {
            0..200 => right,
            near @ 200..220 => right.saturating_add(u64::from(near - 199)),
            near @ 220..240 => right.saturating_sub(u64::from(near - 219)),
            240..244 => 0,
            near @ 244..248 => u64::MAX - u64::from(near - 244),
            248..252 => right.saturating_add(1 << 40),
            252.. => {
                let mut eight = [0; 8];
                let taken = self.bytes(8);
                eight[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(eight)
            }
        }
    }

    /// Mostly what is right; else all ones.
    pub fn field<const N: usize>(&mut self, right: [u8; N]) -> [u8; N] {
        if self.rarely() { [0xff; N] } else { right }
    }
}
