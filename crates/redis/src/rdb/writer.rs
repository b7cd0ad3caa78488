//! Writing an RDB: as much of the format as is needed to put keys that are serialised already into a
//! file that servers load.

use std::io::{self, Write};

use super::Dialect;
use super::checksum::crc64;

/// So much is gathered before it is handed on.
const GATHERED: usize = 256 << 10;

/// Writes an RDB from its first byte to its last.
pub(crate) struct RdbWriter<W> {
    to: W,
    gathered: Vec<u8>,
    /// The checksum of all that was handed on.
    crc: u64,
    /// Which database the keys that follow belong to.
    database: Option<u64>,
}

impl<W: Write> RdbWriter<W> {
    /// An RDB of this version.
    pub(crate) fn begin(to: W, dialect: Dialect, version: u32) -> Self {
        let header = match dialect {
            Dialect::Redis => format!("REDIS{version:04}"),
            Dialect::Valkey => format!("VALKEY{version:03}"),
        };
        Self { to, gathered: header.into_bytes(), crc: 0, database: None }
    }

    /// Something that is said of the data. Before any key.
    pub(crate) fn aux(&mut self, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.gathered.push(250);
        self.string(name);
        self.string(value);
        self.hand_on(GATHERED)
    }

    /// The keys that follow belong to this database.
    pub(crate) fn database(&mut self, number: u64) {
        if self.database != Some(number) {
            self.database = Some(number);
            self.gathered.push(254);
            self.length(number);
        }
    }

    /// All that stands before the value of a key: when it expires, its type and its name.
    pub(crate) fn key(&mut self, expires: Option<i64>, kind: u8, name: &[u8]) {
        if let Some(at) = expires {
            self.gathered.push(252);
            self.gathered.extend(at.to_le_bytes());
        }
        self.gathered.push(kind);
        self.string(name);
    }

    /// Bytes as they stand in an RDB: values, or whole records.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        self.hand_on(GATHERED)
    }

    /// The end, and the checksum of all before it.
    pub(crate) fn end(mut self) -> io::Result<W> {
        self.gathered.push(255);
        self.hand_on(0)?;
        self.to.write_all(&self.crc.to_le_bytes())?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn string(&mut self, bytes: &[u8]) {
        self.length(bytes.len() as u64);
        self.gathered.extend_from_slice(bytes);
    }

    fn length(&mut self, length: u64) {
        match length {
            0..64 => self.gathered.push(length as u8),
            64..0x4000 => self.gathered.extend((0x4000 | length as u16).to_be_bytes()),
            0x4000..0x1_0000_0000 => {
                self.gathered.push(0x80);
                self.gathered.extend((length as u32).to_be_bytes());
            }
            _ => {
                self.gathered.push(0x81);
                self.gathered.extend(length.to_be_bytes());
            }
        }
    }

    fn hand_on(&mut self, least: usize) -> io::Result<()> {
        if self.gathered.len() < least {
            return Ok(());
        }
        self.crc = crc64(self.crc, &self.gathered);
        self.to.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

impl RdbWriter<Vec<u8>> {
    /// What was handed on since.
    pub(crate) fn ready(&mut self) -> Option<Vec<u8>> {
        (!self.to.is_empty()).then(|| std::mem::take(&mut self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Item, RdbReader, check};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = vec![b'n'; 70_000];
        let mut rdb = RdbWriter::begin(Vec::new(), Dialect::Redis, 10);
        rdb.aux(b"redis-ver", b"7.0.15").unwrap();
        rdb.database(0);
        rdb.key(None, 0, b"a");
        rdb.raw(b"\x011").unwrap();
        rdb.database(300);
        rdb.database(300);
        rdb.key(Some(1_900_000_000_123), 0, &[b'm'; 100]);
        rdb.raw(b"\x012").unwrap();
        rdb.key(None, 0, &long);
        rdb.raw(b"\x013").unwrap();
        let bytes = rdb.end().unwrap();
        assert_eq!(check(&bytes[..]).unwrap().census.keys(), 3);
        let mut reader = RdbReader::new(&bytes[..]).keeping(10, 1 << 20);
        let mut found = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            let value = reader.kept();
            if let Item::Key(key) = item {
                found.push((key.database, key.name, key.expires, value.unwrap()));
            }
        }
        let value = |digit: u8| vec![1, digit];
        assert_eq!(
            found,
            [
                (0, b"a".to_vec(), None, value(b'1')),
                (300, vec![b'm'; 100], Some(1_900_000_000_123), value(b'2')),
                (300, long, None, value(b'3')),
            ]
        );
    }

    #[test]
    fn an_empty_one_is_whole() {
        for (dialect, version) in [(Dialect::Redis, 9), (Dialect::Valkey, 80)] {
            let bytes = RdbWriter::begin(Vec::new(), dialect, version).end().unwrap();
            assert_eq!(check(&bytes[..]).unwrap().census.keys(), 0);
        }
    }
}
