//! The checksum of a data page.
//!
//! The algorithm is PostgreSQL's: FNV-1a over 32-bit words in 32 lanes at once, with a shift mixed
//! in so that high bits reach low ones. The lanes are an array that the compiler turns into vector
//! registers.

use crate::lsn::Lsn;

/// Lanes that are summed side by side.
const LANES: usize = 32;
const ROW: usize = LANES * 4;
const PRIME: u32 = 16_777_619;

/// Where each lane begins: part of the on-disk format.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where the checksum is stored within the page's header.
const PLACE: usize = 8;

/// Where `pd_upper` is: 0 in a page that was allocated and never written.
const UPPER: usize = 14;

/// Whether the page was allocated and never written.
pub(crate) fn is_new(page: &[u8]) -> bool {
    page[UPPER] == 0 && page[UPPER + 1] == 0
}

/// Where in the WAL the last change of the page is.
pub(crate) fn changed_at(page: &[u8]) -> Lsn {
    let half = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| page[at + byte]));
    Lsn(u64::from(half(0)) << 32 | u64::from(half(4)))
}

/// Whether the page is what the server wrote as block `block` of its relation: its checksum is
/// right, or it was never written and is zero throughout.
///
/// `page` has at least 128 bytes, and a multiple of that.
pub(crate) fn is_intact(page: &[u8], block: u32) -> bool {
    if is_new(page) {
        return page.iter().all(|byte| *byte == 0);
    }
    let stored = u16::from_ne_bytes([page[PLACE], page[PLACE + 1]]);
    compute(page, block) == stored
}

/// The checksum that the page must carry as block `block` of its relation.
pub(crate) fn compute(page: &[u8], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW>();
    let Some((first, rest)) = rows.split_first() else {
        return 0;
    };
    // The field itself counts as zero.
    let mut first = *first;
    first[PLACE..PLACE + 2].fill(0);

    let mut sums = OFFSETS;
    mix_row(&mut sums, &first);
    for row in rest {
        mix_row(&mut sums, row);
    }
    let zeros = [0; ROW];
    mix_row(&mut sums, &zeros);
    mix_row(&mut sums, &zeros);
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Never 0, so that a checksum can be told from the lack of one. Fits: at most 65535.
    (folded % 65_535 + 1) as u16
}

#[inline(always)]
fn mix_row(sums: &mut [u32; LANES], row: &[u8; ROW]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_ne_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A page that carries the right checksum as block `block`.
    pub(crate) fn page(fill: u8, block: u32) -> Vec<u8> {
        let mut page = vec![fill.max(1); 8192];
        let sum = compute(&page, block);
        page[PLACE..PLACE + 2].copy_from_slice(&sum.to_ne_bytes());
        page
    }

    #[test]
    fn every_bit_counts() {
        let good = page(7, 3);
        assert!(is_intact(&good, 3));
        assert!(!is_intact(&good, 4), "a page in the wrong place");
        for at in [0, 7, 8, 9, 13, 127, 128, 4096, 8191] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(!is_intact(&bad, 3), "byte {at}");
        }
    }

    #[test]
    fn a_page_never_written_is_zero_throughout() {
        let mut page = vec![0; 8192];
        assert!(is_intact(&page, 0));
        page[5000] = 1;
        assert!(!is_intact(&page, 0));
    }
}
