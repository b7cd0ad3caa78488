//! The checksum at the end of an RDB: CRC-64 with the polynomial of Jones, reflected, beginning at
//! zero and not inverted. Its value for `123456789` is in Redis' own self-test.

/// The polynomial 0xad93d23594c935a9, bits reversed.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// For each of eight bytes, what it does to the checksum when so many bytes follow it.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The checksum `before`, and then `bytes`.
pub(crate) fn crc64(before: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = before;
    for word in words {
        let x = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = TABLES[7][x[0] as usize]
            ^ TABLES[6][x[1] as usize]
            ^ TABLES[5][x[2] as usize]
            ^ TABLES[4][x[3] as usize]
            ^ TABLES[3][x[4] as usize]
            ^ TABLES[2][x[5] as usize]
            ^ TABLES[1][x[6] as usize]
            ^ TABLES[0][x[7] as usize];
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_the_one_of_redis() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(0, b""), 0);
    }

    proptest! {
        #[test]
        fn it_can_be_computed_in_parts(bytes in prop::collection::vec(any::<u8>(), 0..100), cut in 0..100_usize) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(crc64(crc64(0, one), two), crc64(0, &bytes));
        }
    }
}
