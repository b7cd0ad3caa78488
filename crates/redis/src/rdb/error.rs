//! What can be wrong with an RDB.

use std::io;

/// A result whose error is [`RdbError`].
pub(super) type Result<T, E = RdbError> = std::result::Result<T, E>;

/// Why an RDB cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RdbError {
    /// It cannot be read at all.
    #[error("read the RDB at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// It ends before it says that it does.
    #[error("the RDB ends at byte {offset}, in the midst of its data")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// It does not begin like one.
    #[error("this is no RDB: it begins with \"{start}\"")]
    NotRdb {
        /// The first nine bytes, escaped.
        start: String,
    },
    /// A version of the format that this program does not know.
    #[error("the RDB is of version {version} of {system}, which this program does not know")]
    Version {
        /// What the header says.
        version: u32,
        /// `Redis` or `Valkey`.
        system: &'static str,
    },
    /// A type of value or an instruction that this program does not know.
    #[error("the RDB holds {what} {code} at byte {offset}, which this program does not know")]
    Unknown {
        /// `the type of value`, `the instruction`, …
        what: &'static str,
        /// Its number.
        code: u64,
        /// Where.
        offset: u64,
    },
    /// Something that makes no sense.
    #[error("the RDB holds {what} at byte {offset}")]
    Malformed {
        /// What it is.
        what: String,
        /// Where.
        offset: u64,
    },
    /// Its checksum is not that of its bytes.
    #[error(
        "the RDB is damaged: its checksum is {written:#018x}, and that of its bytes {computed:#018x}"
    )]
    Checksum {
        /// What stands at its end.
        written: u64,
        /// What its bytes give.
        computed: u64,
    },
    /// Something follows its end.
    #[error("the RDB ends at byte {offset}, and something follows")]
    Trailing {
        /// Where it ends.
        offset: u64,
    },
}
