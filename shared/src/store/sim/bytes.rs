//! A file's bytes in pages that copies share, so that a copy of a whole disk costs little.

use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Bytes that grow where they are written and read as zeros where they were not.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    /// `None` is a page of zeros. There are as many as `length` needs.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    length: usize,
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.length
    }

    /// Fills `buffer` from `offset`; `None` if there are not so many bytes.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        if offset.checked_add(buffer.len())? > self.length {
            return None;
        }
        let mut done = 0;
        while done < buffer.len() {
            let (page, within) = ((offset + done) / PAGE, (offset + done) % PAGE);
            let count = (PAGE - within).min(buffer.len() - done);
            let target = &mut buffer[done..done + count];
            match &self.pages[page] {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
        Some(())
    }

    /// Writes at `offset`, growing if need be.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.resize(self.length.max(offset + bytes.len()));
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = ((offset + done) / PAGE, (offset + done) % PAGE);
            let count = (PAGE - within).min(bytes.len() - done);
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    /// Cuts, or grows with zeros.
    pub fn resize(&mut self, length: usize) {
        let cut_within = length % PAGE;
        if length < self.length && cut_within > 0 {
            // What is behind the end must read as zeros should the file grow again.
            if let Some(Some(last)) = self.pages.get_mut(length / PAGE) {
                Arc::make_mut(last)[cut_within..].fill(0);
            }
        }
        self.pages.resize(length.div_ceil(PAGE), None);
        self.length = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let mut bytes = Bytes::default();
        bytes.write(PAGE - 2, b"across");
        let copy = bytes.clone();
        bytes.resize(PAGE);
        bytes.resize(2 * PAGE);
        let mut read = [9; 6];
        bytes.read(PAGE - 2, &mut read).expect("there");
        assert_eq!(&read, b"ac\0\0\0\0");
        copy.read(PAGE - 2, &mut read).expect("there");
        assert_eq!(&read, b"across");
        assert_eq!(copy.read(PAGE, &mut read), None, "behind the end");
    }
}
