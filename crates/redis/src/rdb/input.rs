//! The bytes of an RDB as they come, counted and summed, through one buffer of fixed size.

use std::io::{ErrorKind, Read};

use super::checksum::crc64;
use super::copying::Copying;
use super::error::{RdbError, Result};
use super::lzf;

/// The one buffer.
const BUFFER: usize = 64 << 10;

/// A length, or what stands in the place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes or elements follow; or a number.
    Plain(u64),
    /// A string in an encoding of its own follows.
    Encoded(u8),
}

pub(super) struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    /// What is taken of the buffer, and how far it is filled.
    at: usize,
    end: usize,
    /// Where the buffer begins in the whole.
    before: u64,
    /// The checksum of all that was read but for its last eight bytes, which may be its own.
    crc: u64,
    last: Vec<u8>,
    /// What is taken is kept here as well, while somebody wants it.
    capture: Option<Capture>,
    /// And goes to another RDB, where it is wanted there.
    pub(super) copying: Option<Copying>,
}

/// Bytes that are kept while they are passed over.
struct Capture {
    bytes: Vec<u8>,
    /// No more of them than this.
    most: usize,
    overflown: bool,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: vec![0; BUFFER],
            at: 0,
            end: 0,
            before: 0,
            crc: 0,
            last: Vec::new(),
            capture: None,
            copying: None,
        }
    }

    /// How many bytes were taken.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Fills the buffer when all of it is taken. `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.at < self.end {
            return Ok(true);
        }
        self.before += self.at as u64;
        (self.at, self.end) = (0, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(count) => {
                    self.end = count.min(self.buffer.len());
                    self.sum();
                    return Ok(self.end > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(RdbError::Read { offset: self.offset(), source }),
            }
        }
    }

    /// Sums what was just read, and keeps its last eight bytes back.
    fn sum(&mut self) {
        let new = &self.buffer[..self.end];
        let (settled, last) = new.split_at(new.len().saturating_sub(8));
        let old = (self.last.len() + last.len()).saturating_sub(8);
        self.crc = crc64(self.crc, &self.last[..old]);
        self.last.drain(..old);
        self.crc = crc64(self.crc, settled);
        self.last.extend_from_slice(last);
    }

    /// Keeps what is taken from here on, up to so many bytes.
    pub(super) fn capture(&mut self, most: usize) {
        self.capture = Some(Capture { bytes: Vec::new(), most, overflown: false });
    }

    /// What was taken since; `None` when it was more than that.
    pub(super) fn captured(&mut self) -> Option<Vec<u8>> {
        self.capture.take().filter(|it| !it.overflown).map(|it| it.bytes)
    }

    /// Takes so many bytes of the buffer.
    fn take(&mut self, count: usize) {
        if let Some(capture) = &mut self.capture {
            if capture.bytes.len() + count > capture.most {
                (capture.overflown, capture.bytes) = (true, Vec::new());
            } else if !capture.overflown {
                capture.bytes.extend_from_slice(&self.buffer[self.at..self.at + count]);
            }
        }
        if let Some(copying) = &mut self.copying {
            copying.take(&self.buffer[self.at..self.at + count]);
        }
        self.at += count;
    }

    fn need(&mut self) -> Result<()> {
        if self.fill()? { Ok(()) } else { Err(RdbError::Truncated { offset: self.offset() }) }
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.need()?;
        let byte = self.buffer[self.at];
        self.take(1);
        Ok(byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        if let Some(bytes) = self.buffer[self.at..self.end].first_chunk() {
            array = *bytes;
            self.take(N);
        } else {
            for byte in &mut array {
                *byte = self.byte()?;
            }
        }
        Ok(array)
    }

    /// Passes over so many bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            self.need()?;
            let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.end - self.at);
            self.take(here);
            count -= here as u64;
        }
        Ok(())
    }

    /// So many bytes. Grows with what comes, not with what was announced.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(BUFFER));
        while bytes.len() < count {
            self.need()?;
            let here = (count - bytes.len()).min(self.end - self.at);
            bytes.extend_from_slice(&self.buffer[self.at..self.at + here]);
            self.take(here);
        }
        Ok(bytes)
    }

    /// A length, or the encoding of the string that follows.
    pub(super) fn length(&mut self) -> Result<Length> {
        let start = self.offset();
        let first = self.byte()?;
        Ok(match first >> 6 {
            0 => Length::Plain(first.into()),
            1 => Length::Plain(u64::from(first & 63) << 8 | u64::from(self.byte()?)),
            3 => Length::Encoded(first & 63),
            _ => match first {
                0x80 => Length::Plain(u32::from_be_bytes(self.array()?).into()),
                0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => {
                    return Err(RdbError::Malformed {
                        what: format!("a length that begins with {first:#04x}"),
                        offset: start,
                    });
                }
            },
        })
    }

    /// A length where no encoding may stand: a count, or a number.
    pub(super) fn count(&mut self) -> Result<u64> {
        let offset = self.offset();
        match self.length()? {
            Length::Plain(count) => Ok(count),
            Length::Encoded(_) => {
                Err(RdbError::Malformed { what: "an encoding in place of a count".into(), offset })
            }
        }
    }

    /// Passes over a string.
    pub(super) fn skip_string(&mut self) -> Result<()> {
        match self.string_head()? {
            Head::Plain(length) => self.skip(length),
            Head::Number(_) => Ok(()),
            Head::Packed { packed, .. } => self.skip(packed),
        }
    }

    /// A string of `most` bytes or less, else its length and as much of its beginning as is at
    /// hand: nothing of one that is packed.
    pub(super) fn string(&mut self, most: usize) -> Result<(Vec<u8>, u64)> {
        let offset = self.offset();
        match self.string_head()? {
            Head::Plain(length) => {
                let held = usize::try_from(length).unwrap_or(usize::MAX).min(most);
                let bytes = self.bytes(held)?;
                self.skip(length - held as u64)?;
                Ok((bytes, length))
            }
            Head::Number(number) => {
                let bytes = number.to_string().into_bytes();
                let length = bytes.len() as u64;
                Ok((bytes, length))
            }
            Head::Packed { packed, length } => {
                let fits = |size: u64| usize::try_from(size).ok().filter(|size| *size <= most);
                let (Some(packed_size), Some(size)) = (fits(packed), fits(length)) else {
                    self.skip(packed)?;
                    return Ok((Vec::new(), length));
                };
                let packed = self.bytes(packed_size)?;
                let unpacked = lzf::unpack(&packed, size).ok_or_else(|| RdbError::Malformed {
                    what: "a compressed string that cannot be unpacked".into(),
                    offset,
                })?;
                Ok((unpacked, length))
            }
        }
    }

    fn string_head(&mut self) -> Result<Head> {
        let offset = self.offset();
        Ok(match self.length()? {
            Length::Plain(length) => Head::Plain(length),
            Length::Encoded(0) => Head::Number(i8::from_le_bytes(self.array()?).into()),
            Length::Encoded(1) => Head::Number(i16::from_le_bytes(self.array()?).into()),
            Length::Encoded(2) => Head::Number(i32::from_le_bytes(self.array()?).into()),
            Length::Encoded(3) => {
                let packed = self.count()?;
                Head::Packed { packed, length: self.count()? }
            }
            Length::Encoded(other) => {
                let what = format!("a string in the encoding {other}");
                return Err(RdbError::Malformed { what, offset });
            }
        })
    }

    /// Reads all that is left. Gives what the last eight bytes say that the checksum of everything
    /// before them is, and what it is.
    pub(super) fn finish(&mut self) -> Result<(u64, u64)> {
        while self.fill()? {
            self.at = self.end;
        }
        let Some(last) = self.last.first_chunk::<8>() else {
            return Err(RdbError::Truncated { offset: self.offset() });
        };
        Ok((u64::from_le_bytes(*last), self.crc))
    }
}

enum Head {
    Plain(u64),
    Number(i64),
    Packed { packed: u64, length: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_read_in_all_their_forms() {
        let forms: [(&[u8], Length); 6] = [
            (&[63], Length::Plain(63)),
            (&[0x7f, 0xff], Length::Plain(16383)),
            (&[0x80, 0, 1, 0, 0], Length::Plain(65536)),
            (&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], Length::Plain(1 << 32)),
            (&[0xc3], Length::Encoded(3)),
            (&[0xff], Length::Encoded(63)),
        ];
        for (bytes, length) in forms {
            assert_eq!(Input::new(bytes).length().unwrap(), length);
        }
        assert!(matches!(Input::new(&[0x82_u8][..]).length(), Err(RdbError::Malformed { .. })));
        assert!(matches!(Input::new(&[0x80_u8, 0][..]).length(), Err(RdbError::Truncated { .. })));
    }

    #[test]
    fn strings_are_read_in_all_their_forms() {
        let forms: [(&[u8], &str); 6] = [
            (b"\x03abc", "abc"),
            (b"\x00", ""),
            (b"\xc0\xff", "-1"),
            (b"\xc1\x00\x80", "-32768"),
            (b"\xc2\x15\xcd\x5b\x07", "123456789"),
            (b"\xc3\x05\x0a\x00a\xe0\x00\x00", "aaaaaaaaaa"),
        ];
        for (bytes, text) in forms {
            let mut input = Input::new(bytes);
            assert_eq!(input.string(100).unwrap().0, text.as_bytes());
            assert!(!input.fill().unwrap());
            let mut input = Input::new(bytes);
            input.skip_string().unwrap();
            assert!(!input.fill().unwrap());
        }
        assert_eq!(Input::new(&b"\x03abc"[..]).string(2).unwrap(), (b"ab".to_vec(), 3));
    }

    #[test]
    fn what_is_announced_is_not_allocated() {
        let mut input = Input::new(&b"\x81\x7f\xff\xff\xff\xff\xff\xff\xffabc"[..]);
        assert!(matches!(input.string(1 << 20), Err(RdbError::Truncated { offset: 12 })));
    }

    proptest! {
        #[test]
        fn the_whole_is_summed_however_it_comes(
            bytes in prop::collection::vec(any::<u8>(), 0..300), taken in 0..300_usize,
            piece in 1..20_usize
        ) {
            let crc = crc64(0, &bytes);
            let whole = [&bytes[..], &crc.to_le_bytes()].concat();
            let mut input = Input::new(Pieces(&whole, piece));
            input.skip(taken.min(bytes.len()) as u64).unwrap();
            prop_assert_eq!(input.finish().unwrap(), (crc, crc));
            prop_assert_eq!(input.offset(), whole.len() as u64);
        }
    }

    /// Gives so many bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }
}
