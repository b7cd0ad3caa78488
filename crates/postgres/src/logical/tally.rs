//! Counting rows, and a digest of them that does not depend on their order.
//!
//! The digest of a set of rows is the sum, modulo 2^128, of the first 128 bits (read as a little
//! endian number) of the BLAKE3 hash of each row in COPY's text form, without the line's end. No
//! row can be missing, be there twice, or differ without changing it, but by chance; it proves
//! nothing against somebody who chooses the rows (sums of this width can be steered with many
//! rows), which is not its task: what is stored is authenticated by the repository.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sum of hashes of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct Digest(pub(crate) u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(&text, 16) {
            Ok(sum) if fits => Ok(Self(sum)),
            _ => Err(serde::de::Error::custom("a digest has 32 hexadecimal digits")),
        }
    }
}

/// Counts rows as their bytes come by, however they are cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    rows: u64,
    sum: u128,
    /// The beginning of a row whose end has not come yet.
    begun: Option<Box<blake3::Hasher>>,
}

impl Tally {
    /// Goes on with the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (row, rest) = (&bytes[..end], &bytes[end + 1..]);
            let hash = match self.begun.take() {
                None => blake3::hash(row),
                Some(mut begun) => begun.update(row).finalize(),
            };
            self.add(&hash);
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.begun.get_or_insert_default().update(bytes);
        }
    }

    fn add(&mut self, hash: &blake3::Hash) {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
    }

    /// Adds what was counted elsewhere of the same rows.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.sum)
    }

    /// Whether the last row has its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.begun.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(bytes: &[u8]) -> (u64, Digest, bool) {
        let mut tally = Tally::default();
        tally.feed(bytes);
        (tally.rows(), tally.digest(), tally.is_whole())
    }

    #[test]
    fn it_is_a_sum_of_hashes() {
        let hash = |row: &[u8]| {
            u128::from_le_bytes(blake3::hash(row).as_bytes()[..16].try_into().unwrap())
        };
        let sum = hash(b"1\ta").wrapping_add(hash(b"")).wrapping_add(hash(b"2\t\\N"));
        assert_eq!(tally(b"1\ta\n\n2\t\\N\n"), (3, Digest(sum), true));
        assert_eq!(tally(b"\n2\t\\N\n1\ta\n"), (3, Digest(sum), true));
        assert_eq!(tally(b"2\t\\N\n1\ta\n").0, 2);
        assert_ne!(tally(b"1\ta\n\n2\t\\N\n2\t\\N\n").1, Digest(sum));
        assert!(!tally(b"1\ta\n2").2);
        let text = serde_json::to_string(&Digest(sum)).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&text).unwrap(), Digest(sum));
        assert!(serde_json::from_str::<Digest>("\"+1\"").is_err());
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(
            text in "[a\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..5)
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut pieces = Tally::default();
            cuts.windows(2).for_each(|pair| pieces.feed(&bytes[pair[0]..pair[1]]));
            prop_assert_eq!((pieces.rows(), pieces.digest(), pieces.is_whole()), tally(bytes));
        }
    }
}
