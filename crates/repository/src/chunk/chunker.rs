//! Content-defined cutting: FastCDC with a table of our own.
//!
//! Wen Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
//! Deduplication" (USENIX ATC 2016): a gear hash, no cuts below a minimum, and two masks, a
//! stricter one before the average size and a looser one after it, which narrows the spread of
//! sizes ("normalised chunking").
//!
//! The gear table is derived from the repository's key, so that cut points tell less of a known
//! file. Gear tables can be recovered from chosen plaintext (IACR eprint 2025/532 and 2025/558);
//! that is why sizes are hidden as well, by spreading chunks over several open packs.
//!
//! Streams of small records are cut likewise, into pieces of a sixty-fourth: where records change all
//! over, what is stored for one is the chunk that it lies in. Such chunks are sealed in blocks, so that
//! they compress and are read as larger ones do.
//!
//! The cut points of a repository must never move: a golden test holds them.

use crate::config::Parameters;

/// The table of a repository.
pub(crate) struct Gear([u64; 256]);

impl Gear {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mut bytes = [0; 256 * 8];
        blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut bytes);
        let mut table = [0; 256];
        for (number, bytes) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        Self(table)
    }
}

/// Chunks of records have such a part of the size of others.
const RECORDS_PART: u32 = 64;
/// But never less than so much on average, in bytes.
const LEAST_RECORDS: u32 = 4 << 10;

/// Finds where chunks end.
pub(crate) struct Chunker {
    gear: Gear,
    min: usize,
    average: usize,
    max: usize,
    strict: u64,
    loose: u64,
}

/// Bits are taken from the top of the hash, where every one of the last 64 bytes counts.
const fn mask(bits: u32) -> u64 {
    u64::MAX << (64 - bits)
}

impl Chunker {
    /// For streams.
    pub(crate) fn new(gear: Gear, parameters: &Parameters) -> Self {
        let Parameters { chunk_min, chunk_average, chunk_max, .. } = *parameters;
        Self::with_sizes(gear, chunk_min, chunk_average, chunk_max)
    }

    /// For streams of records.
    pub(crate) fn of_records(gear: Gear, parameters: &Parameters) -> Self {
        let Parameters { chunk_min, chunk_average, chunk_max, .. } = *parameters;
        let part = |size: u32, least: u32| (size / RECORDS_PART).max(least);
        Self::with_sizes(
            gear,
            part(chunk_min, LEAST_RECORDS / 4),
            part(chunk_average, LEAST_RECORDS),
            part(chunk_max, LEAST_RECORDS * 4),
        )
    }

    fn with_sizes(gear: Gear, min: u32, average: u32, max: u32) -> Self {
        let bits = average.ilog2();
        Self {
            gear,
            min: min as usize,
            average: average as usize,
            max: max as usize,
            strict: mask(bits + 1),
            loose: mask(bits - 1),
        }
    }

    /// The largest chunk.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// The length of the first chunk of `data`; all of it when there is no cut in it.
    ///
    /// Unless the content ends there, `data` must have [`Chunker::max`] bytes or more, so that
    /// the answer does not depend on how much is at hand.
    pub(crate) fn cut(&self, data: &[u8]) -> usize {
        let end = data.len().min(self.max);
        if end <= self.min {
            return end;
        }
        let middle = self.average.min(end);
        let mut hash = 0;
        // The hash of a window of 64 bytes before the first possible cut.
        for byte in &data[self.min - 64..self.min] {
            hash = self.step(hash, *byte);
        }
        let (hash, found) = self.scan(hash, &data[self.min..middle], self.strict);
        if let Some(at) = found {
            return self.min + at;
        }
        match self.scan(hash, &data[middle..end], self.loose) {
            (_, Some(at)) => middle + at,
            (_, None) => end,
        }
    }

    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear.0[usize::from(byte)])
    }

    /// The hash after `data`, and the length up to the first place where `mask` holds.
    fn scan(&self, mut hash: u64, data: &[u8], mask: u64) -> (u64, Option<usize>) {
        for (at, byte) in data.iter().enumerate() {
            hash = self.step(hash, *byte);
            if hash & mask == 0 {
                return (hash, Some(at + 1));
            }
        }
        (hash, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_keyed(&[5; 32]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(data: &[u8]) -> Vec<usize> {
        let chunker = Chunker::new(Gear::new(&[9; 32]), &Parameters::default());
        let mut at = 0;
        let mut cuts = Vec::new();
        while at < data.len() {
            at += chunker.cut(&data[at..]);
            cuts.push(at);
        }
        cuts
    }

    #[test]
    fn the_cut_points_of_repositories_never_move() {
        let golden = include_str!("golden_cuts.txt");
        let found: Vec<_> = cuts(&noise(32 << 20)).iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n"), golden.trim());
    }

    #[test]
    fn sizes_stay_within_bounds_and_near_the_average() {
        let data = noise(64 << 20);
        let cuts = cuts(&data);
        let sizes: Vec<_> =
            std::iter::once(cuts[0]).chain(cuts.windows(2).map(|pair| pair[1] - pair[0])).collect();
        let (last, inner) = sizes.split_last().unwrap();
        assert!(inner.iter().all(|size| (256 << 10..=4 << 20).contains(size)) && *last <= 4 << 20);
        let mean = data.len() / sizes.len();
        assert!((700_000..1_600_000).contains(&mean), "{mean}");
        assert_eq!(self::cuts(&vec![0; 9 << 20]), [4 << 20, 8 << 20, 9 << 20]);
    }

    #[test]
    fn records_are_cut_into_far_smaller_pieces() {
        let data = noise(8 << 20);
        let chunker = Chunker::of_records(Gear::new(&[9; 32]), &Parameters::default());
        let (mut at, mut sizes) = (0, Vec::new());
        while at < data.len() {
            sizes.push(chunker.cut(&data[at..]));
            at += sizes[sizes.len() - 1];
        }
        let (_, inner) = sizes.split_last().unwrap();
        assert!(inner.iter().all(|size| (4 << 10..=64 << 10).contains(size)));
        let mean = data.len() / sizes.len();
        assert!((12 << 10..24 << 10).contains(&mean), "{mean}");
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let data = noise(32 << 20);
        let mut edited = data.clone();
        edited.splice(5_000_000..5_000_000, *b"inserted");
        let ends: std::collections::HashSet<_> =
            cuts(&data).into_iter().map(|cut| data.len() - cut).collect();
        let after = cuts(&edited);
        let same = after.iter().filter(|cut| ends.contains(&(edited.len() - **cut))).count();
        assert!(after.len() - same < 12, "{same} of {} cuts are the same", after.len());
    }
}
