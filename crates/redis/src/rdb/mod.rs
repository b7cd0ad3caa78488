//! Redis' format for a whole dataset, read as a stream: `dump.rdb`, and what a server sends to a
//! replica.
//!
//! [`RdbReader`] walks through it from the first byte to the last with one small buffer, whatever
//! the size of the dataset or of one value, and says of every key where it lies in the stream, so
//! that its bytes can be found again in what was stored. It does not look into values further than
//! is needed to find their ends: what an element *is* only a server has to know.
//!
//! # The format
//!
//! `REDIS` and four digits, or `VALKEY` and three, name the version. Then follow instructions, one
//! byte each, and keys, whose first byte is the type of the value; at the end an instruction that
//! says so, and eight bytes of checksum (zero when the server was told not to compute it).
//!
//! | system | versions | written by |
//! |---|---|---|
//! | Redis | 5 to 13 | Redis 2.6 to 8, Valkey 7 and 8 |
//! | Valkey | 80 | Valkey 9 |
//!
//! All types of value up to 25 are known, but for those that only release candidates wrote (6, 22
//! and 23 of Redis). The layout is that of the servers' `rdb.h` and `rdb.c`.
//!
//! # What is not understood
//!
//! A newer server may write what this program does not know. Where such a thing ends cannot be told,
//! so nothing after it can be listed; but the checksum covers it all the same. [`Outcome`] therefore
//! keeps the two apart: an RDB whose checksum is right is whole, also when it is not understood.
//! What is neither understood nor has a checksum is an error.

mod census;
mod checksum;
mod copying;
mod error;
mod input;
mod kind;
mod lzf;
mod reader;
mod value;
mod writer;

pub(crate) use self::checksum::crc64;
pub(crate) use self::writer::RdbWriter;

use std::io::Read;

pub use self::census::{Census, DatabaseCount, TypeCount};
pub use self::error::RdbError;
pub use self::kind::ValueType;
pub(crate) use self::reader::LONGEST_NAME;
pub use self::reader::{Aux, Eviction, Item, MAX_NAME, RdbReader, Record};

/// Whose format it is. The two are one up to version 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Redis, and Valkey before 9.
    Redis,
    /// Valkey from 9 on.
    Valkey,
}

impl Dialect {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        }
    }
}

/// Whether an RDB has a checksum. A wrong one is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// It is that of the bytes.
    Right,
    /// The server was told to write none (`rdbchecksum no`).
    Absent,
}

/// What is known of an RDB that was read from its first byte to its last, and is whole.
#[derive(Debug)]
pub struct Outcome {
    /// What it holds, as far as it was understood.
    pub census: Census,
    /// Whether a checksum says that it is whole.
    pub checksum: Checksum,
    /// How many bytes it has.
    pub length: u64,
    /// Why the census is not complete, if it is not.
    pub not_understood: Option<RdbError>,
}

/// Reads a whole RDB, counts what is in it, and checks it. Reads to the end of `reader` also where
/// something is wrong.
///
/// # Errors
/// [`RdbError`], when it is damaged or not whole, or when `reader` fails.
pub fn check(reader: impl Read) -> Result<Outcome, RdbError> {
    let mut reader = RdbReader::new(reader);
    let mut census = Census::default();
    let walked = loop {
        match reader.next() {
            Ok(Some(item)) => census.add(&item),
            Ok(None) => break Ok(()),
            Err(error @ RdbError::Read { .. }) => return Err(error),
            Err(error) => break Err(error),
        }
    };
    let end = reader.offset();
    let checksum = reader.finish();
    let (checksum, length) = match (walked, checksum) {
        (Ok(()), checksum) => checksum?,
        (Err(not_understood), Ok((Checksum::Right, length))) => {
            let not_understood = Some(not_understood);
            return Ok(Outcome { census, checksum: Checksum::Right, length, not_understood });
        }
        // That bytes differ is the reason for which they make no sense; that it is cut off, is the
        // reason for which the checksum is wrong.
        (Err(RdbError::Malformed { .. } | RdbError::Unknown { .. }), Err(wrong)) => {
            return Err(wrong);
        }
        (Err(error), _) => return Err(error),
    };
    if length != end {
        return Err(RdbError::Trailing { offset: end });
    }
    Ok(Outcome { census, checksum, length, not_understood: None })
}

#[cfg(test)]
mod tests;
