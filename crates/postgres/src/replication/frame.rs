//! Messages of the wire protocol: cut out of the stream, and taken apart.
//!
//! Nothing here is trusted: every length is compared with what is there before it is used, and no
//! message may be longer than [`MAX_FRAME`]. What is wrong is said in words, without the content.

use bytes::{Buf, Bytes, BytesMut};

use super::error::ServerAnswer;

/// No message of a server is longer. The longest regular ones are rows with a timeline's history
/// and runs of WAL of 128 KiB.
pub(super) const MAX_FRAME: usize = 16 << 20;

/// What is wrong with bytes from the server.
pub(super) type Flaw = String;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Which message it is.
    pub(super) tag: u8,
    /// What follows the length.
    pub(super) body: Bytes,
}

/// Takes the first message out of `buffer`; `None` when it is not there as a whole yet.
pub(super) fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, Flaw> {
    let Some(header) = buffer.first_chunk::<5>() else {
        return Ok(None);
    };
    let [tag, length @ ..] = *header;
    // The length counts itself, and not the tag.
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=MAX_FRAME).contains(&length) {
        return Err(format!("a message with the tag {tag} claims {length} bytes"));
    }
    if buffer.len() <= length {
        return Ok(None);
    }
    let mut body = buffer.split_to(1 + length).freeze();
    body.advance(5);
    Ok(Some(Frame { tag, body }))
}

/// Reads a body from its beginning to its end.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let found = self.0.first_chunk::<N>().copied().ok_or("it is cut short")?;
        self.0.advance(N);
        Ok(found)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Flaw> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Flaw> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32, Flaw> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn uint64(&mut self) -> Result<u64, Flaw> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<Bytes, Flaw> {
        if self.0.len() < count {
            return Err("it is cut short".into());
        }
        Ok(self.0.split_to(count))
    }

    /// Bytes up to a zero, which is taken as well.
    pub(super) fn cstring(&mut self) -> Result<Bytes, Flaw> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or("a string has no end")?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        Ok(text)
    }

    pub(super) fn text(&mut self) -> Result<String, Flaw> {
        // Messages come in the database's encoding before the client's is agreed on.
        self.cstring().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn end(self) -> Result<(), Flaw> {
        if self.0.is_empty() { Ok(()) } else { Err("it is longer than it should be".into()) }
    }
}

/// What a server says beside its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether it is a warning, and no mere remark.
    pub(crate) warning: bool,
    /// The function of the server that says it: the same in every language.
    pub(crate) routine: String,
    pub(crate) answer: ServerAnswer,
}

/// The body of an error.
pub(super) fn answer(body: Bytes) -> Result<ServerAnswer, Flaw> {
    notice(body).map(|notice| notice.answer)
}

/// The body of an error or a notice.
pub(super) fn notice(body: Bytes) -> Result<Notice, Flaw> {
    let mut fields = Fields(body);
    let mut answer = ServerAnswer::default();
    let (mut warning, mut routine) = (false, String::new());
    loop {
        match fields.byte()? {
            0 => break,
            b'C' => answer.code = fields.text()?,
            b'M' => answer.message = fields.text()?,
            b'D' => answer.detail = Some(fields.text()?),
            b'H' => answer.hint = Some(fields.text()?),
            // The severity that is not translated.
            b'V' => warning = fields.text()? == "WARNING",
            b'R' => routine = fields.text()?,
            _ => drop(fields.cstring()?),
        }
    }
    fields.end()?;
    Ok(Notice { warning, routine, answer })
}

/// How many columns the rows have that follow.
pub(super) fn columns(body: Bytes) -> Result<usize, Flaw> {
    let mut fields = Fields(body);
    let count = usize::try_from(fields.int16()?).map_err(|_| "a negative number of columns")?;
    for _ in 0..count {
        fields.cstring()?;
        fields.array::<18>()?;
    }
    fields.end()?;
    Ok(count)
}

/// The values of one row.
pub(super) fn row(body: Bytes) -> Result<Vec<Option<Bytes>>, Flaw> {
    let mut fields = Fields(body);
    let count = usize::try_from(fields.int16()?).map_err(|_| "a negative number of columns")?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match fields.int32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| "a negative length")?;
                Some(fields.bytes(length)?)
            }
        });
    }
    fields.end()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffer(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let whole = b"Z\0\0\0\x05IC\0\0\0";
        for cut in 0..6 {
            assert_eq!(take_frame(&mut buffer(&whole[..cut])), Ok(None), "{cut}");
        }
        let mut bytes = buffer(whole);
        let frame = take_frame(&mut bytes).unwrap().unwrap();
        assert_eq!((frame.tag, &frame.body[..]), (b'Z', &b"I"[..]));
        assert_eq!(&bytes[..], b"C\0\0\0");
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused_before_anything_is_reserved() {
        for length in [0, 3, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut bytes = buffer(b"d");
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(take_frame(&mut bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn an_error_is_taken_apart() {
        let body = b"SFATAL\0VFATAL\0C28000\0Mno entry\0Ddetail\nof it\0Hhint\0Fauth.c\0L1\0\0";
        let found = answer(Bytes::from_static(body)).unwrap();
        assert_eq!(found.code, "28000");
        assert_eq!(found.to_string(), "no entry (detail of it) (hint)");
        for cut in 0..body.len() {
            assert!(answer(Bytes::copy_from_slice(&body[..cut])).is_err(), "{cut}");
        }
        let body = b"SWARNUNG\0VWARNING\0C01000\0Mx\0RsendDir\0\0";
        let found = notice(Bytes::from_static(body)).unwrap();
        assert_eq!((found.warning, found.routine.as_str()), (true, "sendDir"));
    }

    #[test]
    fn a_row_is_taken_apart() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        let found = row(Bytes::from_static(body)).unwrap();
        assert_eq!(found, [Some(Bytes::from_static(b"ab")), None, Some(Bytes::new())]);
        for bad in [&b"\xff\xff"[..], b"\0\x01\xff\xff\xff\xfe", b"\0\x01\0\0\0\x09ab", b"\0\0x"] {
            assert!(row(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        assert!(columns(Bytes::from_static(b"\0\x01x\0too short")).is_err());
    }

    proptest! {
        /// Whatever comes is an answer or a flaw, never a panic, and never more than was there.
        #[test]
        fn anything_can_come(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let body = Bytes::from(bytes.clone());
            let _ = (answer(body.clone()), columns(body.clone()));
            if let Ok(values) = row(body) {
                let size: usize = values.iter().flatten().map(Bytes::len).sum();
                prop_assert!(size <= bytes.len());
            }
            let mut left = buffer(&bytes);
            while let Ok(Some(frame)) = take_frame(&mut left) {
                prop_assert!(frame.body.len() < bytes.len());
            }
        }
    }
}
