//! A filter in front of a run: tells of most chunks that they are not in it, by one line of the
//! processor's cache.
//!
//! A Bloom filter in blocks of 256 bits, as Putze, Sanders and Singler describe it (*Cache-, Hash-
//! and Space-Efficient Bloom Filters*, 2007), with one bit in each of a block's eight words, so
//! that all are tested side by side. Ids are hashes already: their bits choose block and bits,
//! and nothing is hashed. With a byte for each chunk, three in a hundred that are not there pass.

use super::record::Prefix;

const WORDS: usize = 8;
/// Bytes of a block.
pub(super) const BLOCK: usize = 4 * WORDS;
/// So many chunks share a block.
const CHUNKS: u64 = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(Vec<[u32; WORDS]>);

impl Filter {
    /// For so many chunks. More only make it pass more.
    pub(super) fn with_room(chunks: u64) -> Self {
        Self(vec![[0; WORDS]; chunks.div_ceil(CHUNKS).max(1) as usize])
    }

    pub(super) fn insert(&mut self, prefix: &Prefix) {
        let at = self.block(prefix);
        for (word, bit) in self.0[at].iter_mut().zip(bits(prefix)) {
            *word |= bit;
        }
    }

    /// Whether a chunk may be there; `false` is certain.
    pub(super) fn may_have(&self, prefix: &Prefix) -> bool {
        let block = &self.0[self.block(prefix)];
        block.iter().zip(bits(prefix)).all(|(word, bit)| word & bit != 0)
    }

    /// Which block, by four bytes of the id that nothing else here looks at.
    fn block(&self, prefix: &Prefix) -> usize {
        let number = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
        ((u64::from(number) * self.0.len() as u64) >> 32) as usize
    }

    pub(super) fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn to_bytes(&self) -> impl Iterator<Item = [u8; BLOCK]> {
        self.0.iter().map(|words| {
            let mut bytes = [0; BLOCK];
            for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
                part.copy_from_slice(&word.to_le_bytes());
            }
            bytes
        })
    }

    /// From whole blocks; `None` when there is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let words = |block: &[u8; BLOCK]| {
            let (words, _) = block.as_chunks::<4>();
            let mut block = [0; WORDS];
            for (word, bytes) in block.iter_mut().zip(words) {
                *word = u32::from_le_bytes(*bytes);
            }
            block
        };
        (rest.is_empty() && !blocks.is_empty()).then(|| Self(blocks.iter().map(words).collect()))
    }
}

/// One bit for each word of a block, by five bits of the id each.
fn bits(prefix: &Prefix) -> [u32; WORDS] {
    let [.., a, b, c, d, e, _, _, _] = *prefix;
    let seed = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
    std::array::from_fn(|word| 1 << ((seed >> (5 * word)) & 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Prefix {
        *blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn what_was_put_in_passes_and_little_else() {
        let mut filter = Filter::with_room(50_000);
        (0..50_000).for_each(|number| filter.insert(&id(number)));
        assert!((0..50_000).all(|number| filter.may_have(&id(number))));
        let passed = (50_000..150_000).filter(|number| filter.may_have(&id(*number))).count();
        assert!(passed < 4_000, "{passed} of 100000 pass");
        assert!(filter.blocks() * BLOCK as u64 <= 50_000 + BLOCK as u64);
        let bytes: Vec<u8> = filter.to_bytes().flatten().collect();
        assert_eq!(Filter::parse(&bytes), Some(filter));
        assert_eq!(Filter::parse(&bytes[1..]), None);
    }
}
