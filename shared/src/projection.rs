//! Digests of the directory's projection, by bucket: what the nodes compare to see that the edge knows
//! what big has told it.
//!
//! They are computed anew from the rows at each comparison. A sum that is kept with every change costs
//! less, and misses just what is looked for: a row that is there or not there without the code having
//! changed it. And sums of hashes can be played with by whoever chooses the rows; BLAKE3 over the rows in
//! the order of their keys cannot.

use crate::unit::AddressRow;

/// Parts of the projection, by the first byte of the hash: what differs is told anew by these.
pub const BUCKETS: usize = 256;

/// The digest of one bucket.
pub type BucketDigest = [u8; 16];

/// The digests of all buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests(Vec<BucketDigest>);

impl Digests {
    /// Digests that a partner reports; `None` if they are not one for each bucket.
    pub fn reported(digests: Vec<BucketDigest>) -> Option<Self> {
        (digests.len() == BUCKETS).then_some(Self(digests))
    }

    /// One for each bucket, as they are reported.
    pub fn into_buckets(self) -> Vec<BucketDigest> {
        self.0
    }

    /// One digest of all of them.
    pub fn root(&self) -> [u8; 32] {
        *blake3::hash(self.0.as_flattened()).as_bytes()
    }

    /// The buckets in which others are not the same.
    pub fn differing(&self, others: &Self) -> Vec<u8> {
        let pairs = (0..=u8::MAX).zip(self.0.iter().zip(&others.0));
        pairs.filter(|(_, (mine, other))| mine != other).map(|(bucket, _)| bucket).collect()
    }
}

/// Takes the rows, in the order of their hashes.
#[derive(Debug)]
pub struct Digester {
    bucket: usize,
    hasher: blake3::Hasher,
    digests: Vec<BucketDigest>,
}

impl Default for Digester {
    fn default() -> Self {
        Self { bucket: 0, hasher: blake3::Hasher::new(), digests: Vec::with_capacity(BUCKETS) }
    }
}

impl Digester {
    /// The next row. Rows that are not in order have another digest, and do no other harm.
    pub fn push(&mut self, row: &AddressRow) {
        while self.bucket < usize::from(row.hash[0]) {
            self.end_bucket();
        }
        self.hasher.update(&row.hash);
        match &row.person {
            Some(person) => self.hasher.update(&[1]).update(person),
            None => self.hasher.update(&[0]),
        };
    }

    fn end_bucket(&mut self) {
        let mut digest = BucketDigest::default();
        self.hasher.finalize_xof().fill(&mut digest);
        self.digests.push(digest);
        self.hasher.reset();
        self.bucket += 1;
    }

    /// The digests of what was pushed.
    pub fn finish(mut self) -> Digests {
        while self.bucket < BUCKETS {
            self.end_bucket();
        }
        Digests(self.digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bucket: u8, rest: u8) -> AddressRow {
        let mut hash = [rest; 32];
        hash[0] = bucket;
        AddressRow { hash, person: Some([rest; 16]) }
    }

    fn digests(rows: &[AddressRow]) -> Digests {
        let mut digester = Digester::default();
        rows.iter().for_each(|row| digester.push(row));
        digester.finish()
    }

    #[test]
    fn any_change_of_a_row_changes_its_bucket_and_no_other() {
        let rows = [row(0, 1), row(0, 2), row(7, 1), row(255, 3)];
        let whole = digests(&rows);
        assert_eq!(whole.clone().into_buckets().len(), BUCKETS);
        for (at, bucket) in [(0, 0), (1, 0), (2, 7), (3, 255)] {
            let mut other = rows.to_vec();
            other.remove(at);
            assert_eq!(whole.differing(&digests(&other)), [bucket], "one is gone");
            other.insert(at, AddressRow { person: None, ..rows[at].clone() });
            assert_eq!(whole.differing(&digests(&other)), [bucket], "one is somebody else's");
            assert_ne!(whole.root(), digests(&other).root());
        }
        let added = [row(0, 1), row(0, 2), row(7, 1), row(7, 9), row(255, 3)];
        assert_eq!(whole.differing(&digests(&added)), [7]);
        assert_eq!(digests(&[]).differing(&whole), [0, 7, 255]);
        assert!(whole.differing(&digests(&rows)).is_empty());
    }

    #[test]
    fn what_a_partner_reports_is_one_digest_for_each_bucket() {
        for (length, good) in [(0, false), (1, false), (255, false), (256, true), (257, false)] {
            assert_eq!(Digests::reported(vec![[0; 16]; length]).is_some(), good, "{length}");
        }
    }
}
