//! What comes over the wire, for the fuzz targets.

use bytes::BytesMut;

use super::frame::{columns, notice, row, take_frame};
use super::{base, copy};

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[tag][..], &length, body].concat()
}

pub(crate) fn frames_seeds() -> Vec<Vec<u8>> {
    let wal = [&b"w"[..], &[0, 0, 0, 0, 1, 0, 0, 0].repeat(3), b"bytes"].concat();
    let alive = [&b"k"[..], &[0; 16], &[1]].concat();
    let described = [&b"\x00\x02spcoid\x00"[..], &[0; 18], b"size\x00", &[0; 18]].concat();
    let tablespace = b"\x00\x03\x00\x00\x00\x051663\x30\x00\x00\x00\x04/srv\x00\x00\x00\x0242";
    let directory = b"\x00\x03\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x04\x34\x32\x34\x32";
    vec![
        frame(b'd', &wal),
        frame(b'd', &alive),
        frame(b'd', b"nbase.tar\x00\x00"),
        frame(b'd', b"m"),
        frame(b'd', b"p\x00\x00\x00\x00\x00\x00\x10\x00"),
        [frame(b'T', &described), frame(b'D', tablespace), frame(b'D', directory)].concat(),
        [
            frame(b'N', b"SWARNING\x00VWARNING\x00C01000\x00Mwhat\x00Dmore\x00Rroutine\x00\x00"),
            frame(b'c', b""),
        ]
        .concat(),
    ]
}

/// Each message is read as what it may be at any place in a session.
pub(crate) fn frames(bytes: &[u8]) -> Result<(), String> {
    let mut buffer = BytesMut::from(bytes);
    let (mut rows, mut taken) = (Vec::new(), 0);
    while let Some(frame) = take_frame(&mut buffer)? {
        let body = frame.body.clone();
        match frame.tag {
            b'T' => drop(columns(body)?),
            b'D' => rows.push(row(body)?),
            b'N' | b'E' => drop(notice(body)?),
            _ => {
                let of_copy = copy::read(frame.clone()).map(drop);
                let of_base = base::read(frame).map(drop);
                of_copy.or(of_base).map_err(|error| error.to_string())?;
            }
        }
        taken += 1;
    }
    base::tablespaces(&rows)?;
    if taken > 0 && buffer.is_empty() { Ok(()) } else { Err("it is cut short".into()) }
}
