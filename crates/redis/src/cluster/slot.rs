//! In which of the 16384 slots a key lies.

/// How many slots there are.
pub(crate) const SLOTS: u16 = 16384;

/// The slot of a key: CRC16 (XMODEM) of the name, or of what stands between its first `{` and the
/// next `}` when that is not empty, by the number of slots. As in Redis' cluster specification.
pub(crate) fn slot_of(name: &[u8]) -> u16 {
    let tag = name.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(name)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-16/XMODEM, and slots of the documentation of `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"somekey"), 11058);
        assert_eq!(slot_of(b"foo{hash_tag}"), 2515);
        assert_eq!(slot_of(b"bar{hash_tag}"), 2515);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn slots_are_those_of_a_server() {
        use lifeboat_testbed::redis::{Cluster, newest};
        let server = Cluster::node(newest().unwrap()).start().unwrap();
        let mut names: Vec<String> = (0..200).map(|number| format!("key:{number}")).collect();
        let odd = ["", "{}", "{", "}", "a{b", "a}b{c}", "{}{x}", "x{{y}z}", "ä{ö}ü", "a b{c d}"];
        names.extend(odd.map(ToOwned::to_owned));
        for name in names {
            let told = server.ask(&["CLUSTER", "KEYSLOT", &name]).unwrap();
            assert_eq!(slot_of(name.as_bytes()).to_string(), told, "{name}");
        }
    }
}
