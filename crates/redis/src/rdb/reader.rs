//! Walking through an RDB.

use std::io::{self, Read, Write};

use super::copying::{Choose, Copying};
use super::error::{RdbError, Result};
use super::input::Input;
use super::kind::{self, ValueType};
use super::{Checksum, Dialect, value};

/// Names of keys are held up to this many bytes.
pub const MAX_NAME: usize = 64 << 10;
/// No name of a key has more bytes; those that are looked for by pattern are held whole.
pub(crate) const LONGEST_NAME: usize = 64 << 20;
/// Auxiliary fields are held up to this many bytes each.
const MAX_AUX: usize = 1 << 10;

/// The versions that are known.
const REDIS: std::ops::RangeInclusive<u32> = 5..=13;
const VALKEY: std::ops::RangeInclusive<u32> = 80..=80;

/// What stands in an RDB besides instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A key with its value.
    Key(Record),
    /// Something that the server says of itself.
    Aux(Aux),
    /// A library of functions.
    Functions,
    /// What a module wrote besides keys.
    ModuleData,
}

/// A key, and where it lies.
///
/// The bytes of the RDB from `start` to `end` are all that there is of it: expiry, idle time or
/// frequency, the type in one byte, the name, and from `value` on the value as it is serialised.
/// Type and value, with a version and a checksum, are what `DUMP` gives and `RESTORE` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of its database.
    pub database: u64,
    /// Its name, up to [`MAX_NAME`] bytes. Of a longer one the beginning, or nothing when it is
    /// compressed.
    pub name: Vec<u8>,
    /// How many bytes its name has.
    pub name_length: u64,
    /// What it holds.
    pub kind: ValueType,
    /// The number of the type in the RDB: how the value is laid out.
    pub encoding: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// What the server noted for choosing what to evict.
    pub eviction: Option<Eviction>,
    /// Where its record begins.
    pub start: u64,
    /// Where its value begins.
    pub value: u64,
    /// Where it ends.
    pub end: u64,
}

/// What a server notes of a key for choosing what to evict, by its `maxmemory-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// It was not used for so many seconds.
    Idle(u64),
    /// How often it is used, on a logarithmic scale.
    Frequency(u8),
}

/// Something that a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aux {
    /// What it is. 1 KiB at most.
    pub name: Vec<u8>,
    /// What it says. 1 KiB at most.
    pub value: Vec<u8>,
}

/// Walks through an RDB, item by item, with constant memory.
///
/// ```no_run
/// use lifeboat_redis::rdb::{Item, RdbReader};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut rdb = RdbReader::new(std::fs::File::open("dump.rdb")?);
/// while let Some(item) = rdb.next()? {
///     if let Item::Key(key) = item {
///         println!("{} {} {}", key.database, key.kind.as_str(), key.name.escape_ascii());
///     }
/// }
/// rdb.finish()?;
/// # Ok(()) }
/// ```
pub struct RdbReader<R> {
    input: Input<R>,
    /// Known once the header is read.
    dialect: Option<Dialect>,
    version: u32,
    database: u64,
    ended: bool,
    /// Values and libraries up to so many bytes are kept; none unless said.
    keep: Option<usize>,
    kept: Option<Vec<u8>>,
    longest_name: usize,
}

impl<R: Read> RdbReader<R> {
    /// Reads from `reader`, from its present place to its end.
    pub fn new(reader: R) -> Self {
        let input = Input::new(reader);
        let (keep, kept, longest_name) = (None, None, MAX_NAME);
        Self {
            input,
            dialect: None,
            version: 0,
            database: 0,
            ended: false,
            keep,
            kept,
            longest_name,
        }
    }

    /// Keeps the bytes of each value and of each library of functions, up to so many, and names up
    /// to `name` bytes.
    pub(crate) fn keeping(mut self, most: usize, name: usize) -> Self {
        (self.keep, self.longest_name) = (Some(most), name);
        self
    }

    /// Copies the records of keys that `choose` wants into an RDB that it writes to `to`; functions
    /// and what modules wrote besides keys are left out. [`finish_copy`](Self::finish_copy) ends it.
    pub(crate) fn copying(mut self, to: Box<dyn Write + Send>, choose: Choose) -> Self {
        self.input.copying = Some(Copying::new(to, choose));
        self.longest_name = LONGEST_NAME;
        self
    }

    /// Whether the copy cannot be written any more: reading on is of no use.
    pub(crate) fn copy_has_failed(&self) -> bool {
        self.input.copying.as_ref().is_some_and(Copying::has_failed)
    }

    /// Writes the end of the copy.
    pub(crate) fn finish_copy(&mut self) -> io::Result<()> {
        self.input.copying.take().map_or(Ok(()), Copying::finish)
    }

    fn copy(&mut self, tell: impl FnOnce(&mut Copying)) {
        if let Some(copying) = &mut self.input.copying {
            tell(copying);
        }
    }

    /// Holds names up to so many bytes.
    pub(crate) fn naming(mut self, name: usize) -> Self {
        self.longest_name = name;
        self
    }

    /// The bytes of the value, or of the library, that was the last item; `None` when there were
    /// too many.
    pub(crate) fn kept(&mut self) -> Option<Vec<u8>> {
        self.kept.take()
    }

    fn begin_to_keep(&mut self) {
        if let Some(most) = self.keep {
            self.input.capture(most);
        }
    }

    /// The version of the format, once the first item was read.
    pub fn version(&self) -> Option<(Dialect, u32)> {
        Some((self.dialect?, self.version))
    }

    /// How many bytes were taken.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The next item, or `None` at the end.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense: then nothing further can be told, but
    /// [`finish`](Self::finish) can still say whether the checksum is right.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item>> {
        let dialect = match self.dialect {
            Some(dialect) => dialect,
            None => self.header()?,
        };
        if self.ended {
            return Ok(None);
        }
        let (mut expires, mut eviction, mut start) = (None, None, None);
        loop {
            let offset = self.input.offset();
            let code = self.input.byte()?;
            if start.is_none() {
                self.copy(|copying| copying.hold(code));
            }
            let begins = *start.get_or_insert(offset);
            match code {
                255 => {
                    // The checksum.
                    self.input.skip(8)?;
                    self.ended = true;
                    return Ok(None);
                }
                254 => {
                    self.database = self.input.count()?;
                    start = None;
                }
                253 => {
                    let seconds = i32::from_le_bytes(self.input.array()?);
                    expires = Some(i64::from(seconds) * 1000);
                }
                252 => expires = Some(i64::from_le_bytes(self.input.array()?)),
                // How many keys are coming, and how many of them expire.
                251 => {
                    self.input.count()?;
                    self.input.count()?;
                    start = None;
                }
                250 => {
                    let (name, _) = self.input.string(MAX_AUX)?;
                    let (value, _) = self.input.string(MAX_AUX)?;
                    let aux = Aux { name, value };
                    self.copy(|copying| copying.aux(&aux));
                    return Ok(Some(Item::Aux(aux)));
                }
                249 => eviction = Some(Eviction::Frequency(self.input.byte()?)),
                248 => eviction = Some(Eviction::Idle(self.input.count()?)),
                247 => {
                    // Which module, and when it wants it: a number with its mark.
                    self.input.count()?;
                    let offset = self.input.offset();
                    let mark = self.input.count()?;
                    if mark != 2 {
                        let what = "the moment of a module's data";
                        return Err(RdbError::Unknown { what, code: mark, offset });
                    }
                    self.input.count()?;
                    value::module_parts(&mut self.input)?;
                    return Ok(Some(Item::ModuleData));
                }
                245 => {
                    self.begin_to_keep();
                    self.input.skip_string()?;
                    self.kept = self.input.captured();
                    return Ok(Some(Item::Functions));
                }
                // A hash slot, how many keys are in it, and how many of them expire.
                244 => {
                    for _ in 0..3 {
                        self.input.count()?;
                    }
                    start = None;
                }
                // What modules attached to the key that follows: for each a class in four bytes.
                243 if dialect == Dialect::Redis => {
                    for _ in 0..self.input.count()? {
                        self.input.skip(4)?;
                        value::module_parts(&mut self.input)?;
                    }
                }
                _ => {
                    let Some((kind, shape)) = kind::lookup(code, dialect) else {
                        let what = if code < 128 { "the type of value" } else { "the instruction" };
                        return Err(RdbError::Unknown { what, code: code.into(), offset });
                    };
                    let (name, name_length) = self.input.string(self.longest_name)?;
                    let value = self.input.offset();
                    self.begin_to_keep();
                    let database = self.database;
                    self.copy(|copying| copying.name(database, &name));
                    value::skip(&mut self.input, shape)?;
                    self.copy(Copying::end);
                    self.kept = self.input.captured();
                    return Ok(Some(Item::Key(Record {
                        database: self.database,
                        name,
                        name_length,
                        kind,
                        encoding: code,
                        expires,
                        eviction,
                        start: begins,
                        value,
                        end: self.input.offset(),
                    })));
                }
            }
        }
    }

    fn header(&mut self) -> Result<Dialect> {
        let bytes: [u8; 9] = self.input.array()?;
        let number = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let (dialect, digits) = match bytes {
            [b'R', b'E', b'D', b'I', b'S', ..] => (Dialect::Redis, &bytes[5..]),
            [b'V', b'A', b'L', b'K', b'E', b'Y', ..] => (Dialect::Valkey, &bytes[6..]),
            _ => return Err(RdbError::NotRdb { start: bytes.escape_ascii().to_string() }),
        };
        let Some(version) = number(digits) else {
            return Err(RdbError::NotRdb { start: bytes.escape_ascii().to_string() });
        };
        let known = match dialect {
            Dialect::Redis => REDIS,
            Dialect::Valkey => VALKEY,
        };
        if !known.contains(&version) {
            return Err(RdbError::Version { version, system: dialect.as_str() });
        }
        (self.dialect, self.version) = (Some(dialect), version);
        self.copy(|copying| copying.version(dialect, version));
        Ok(dialect)
    }

    /// Reads to the end of the stream, and says whether the checksum there is right, and how many
    /// bytes there were. Can be asked at any moment, also after an error other than
    /// [`RdbError::Read`].
    ///
    /// # Errors
    /// When the checksum is wrong, or the stream cannot be read or is too short for one.
    pub fn finish(mut self) -> Result<(Checksum, u64)> {
        let (written, computed) = self.input.finish()?;
        let length = self.input.offset();
        match written {
            0 => Ok((Checksum::Absent, length)),
            _ if written == computed => Ok((Checksum::Right, length)),
            _ => Err(RdbError::Checksum { written, computed }),
        }
    }
}
