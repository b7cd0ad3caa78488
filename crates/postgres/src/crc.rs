//! CRC-32C (Castagnoli): what `pg_control`, WAL records and the manifests of base backups are
//! checked with.
//!
//! Eight bytes at a time, with a table for each of them: some GB/s, without instructions that not
//! every processor has.

static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = value & 1;
            value >>= 1;
            if carry == 1 {
                value ^= 0x82F6_3B78;
            }
            bit += 1;
        }
        tables[0][at] = value;
        at += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut at = 0;
        while at < 256 {
            let before = tables[table - 1][at];
            tables[table][at] = tables[0][(before & 0xFF) as usize] ^ (before >> 8);
            at += 1;
        }
        table += 1;
    }
    tables
};

/// A checksum of bytes that come in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32c(u32);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(u32::MAX)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for word in words {
            let [a, b, c, d, e, f, g, h] = *word;
            let [a, b, c, d] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            crc = TABLES[7][usize::from(a)]
                ^ TABLES[6][usize::from(b)]
                ^ TABLES[5][usize::from(c)]
                ^ TABLES[4][usize::from(d)]
                ^ TABLES[3][usize::from(e)]
                ^ TABLES[2][usize::from(f)]
                ^ TABLES[1][usize::from(g)]
                ^ TABLES[0][usize::from(h)];
        }
        for byte in rest {
            crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8);
        }
        self.0 = crc;
    }

    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

/// The checksum of bytes that are there as a whole.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_castagnoli() {
        // The check value of the catalogue of CRCs, and the vectors of RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
    }

    proptest! {
        #[test]
        fn pieces_are_as_good_as_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0..100_usize
        ) {
            let (one, two) = bytes.split_at(at.min(bytes.len()));
            let mut crc = Crc32c::new();
            crc.update(one);
            crc.update(two);
            prop_assert_eq!(crc.value(), crc32c(&bytes));
        }
    }
}
