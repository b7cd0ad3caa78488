//! Changes to bytes that have found faults in decoders before.

/// Numbers from a seed: the same seed gives the same run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() >> 16) as usize % end }
    }
}

/// Where counts overflow, signs turn and bounds lie.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    8 << 20,
    (8 << 20) + 1,
    64 << 20,
    i64::MAX as u64,
    u64::MAX,
];

/// Heads of CBOR items: long arrays, maps, texts and byte strings, of definite and indefinite
/// length, tags, and what is no item at all.
const HEADS: [&[u8]; 16] = [
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0x5b, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff],
    &[0x5a, 0x10, 0, 0, 0],
    &[0x7a, 0x10, 0, 0, 0],
    &[0xbb, 0, 0, 0, 1, 0, 0, 0, 0],
    &[0x9f],
    &[0x5f],
    &[0xff],
    &[0x80],
    &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81],
    &[0xf6],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xd8, 0x18],
    &[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
];

/// Nothing grows beyond this.
const LONGEST: usize = 1 << 16;

/// Changes `bytes` in one to eight ways; `other` is something to take pieces from.
pub(crate) fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        change(bytes, other, random);
    }
    bytes.truncate(LONGEST);
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let length = random.below((bytes.len() - at).min(64) + 1);
    match random.below(12) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        3 => bytes.insert(at, random.next() as u8),
        4 => drop(bytes.drain(at..at + length)),
        5 => bytes.truncate(at),
        6 => {
            let copy = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len() + 1);
            drop(bytes.splice(to..to, copy));
        }
        7 | 8 => {
            let edge = EDGES[random.below(EDGES.len())];
            let wide = [1, 2, 4, 8][random.below(4)];
            let number = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
            let number = if number[0] == 0 { &number[8 - wide..] } else { &number[..wide] };
            let end = (at + wide).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        9 => {
            let head = HEADS[random.below(HEADS.len())];
            let end = if random.below(2) == 0 { at } else { (at + head.len()).min(bytes.len()) };
            drop(bytes.splice(at..end, head.iter().copied()));
        }
        10 => {
            let from = random.below(other.len() + 1);
            let count = random.below((other.len() - from).min(256) + 1);
            drop(bytes.splice(at..at + length, other[from..from + count].iter().copied()));
        }
        _ => {
            // The same short piece very often: what is counted, nested or repeated.
            let piece = bytes[at..at + length.min(16)].to_vec();
            let times = 1 << random.below(12);
            drop(bytes.splice(at..at, piece.repeat(times)));
        }
    }
}
