//! Compression of chunks and sealed objects.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// How bytes are stored. The number is part of the format; 2 is reserved for patches on another
/// chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// As they are.
    Raw = 0,
    /// One zstd frame (RFC 8878) without dictionary.
    Zstd = 1,
    /// With neighbours, in one zstd frame for all of them: a block.
    Solid = 3,
}

/// No block is larger when it is open.
pub(crate) const MAX_BLOCK: usize = 1 << 20;

thread_local! {
    /// Contexts are costly to make; each thread keeps one of each.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses at `level`, where it pays: what does not shrink is stored as it is.
pub(crate) fn compress(plain: &[u8], level: i32) -> (Encoding, Vec<u8>) {
    match squeeze(plain, level) {
        Some(smaller) => (Encoding::Zstd, smaller),
        None => (Encoding::Raw, exact(plain)),
    }
}

/// Compresses a block at `level`, whether it pays or not: its frame tells its length.
pub(crate) fn compress_block(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    with_compressor(level, |compressor| {
        let room = zstd::zstd_safe::compress_bound(plain.len()) + crate::crypto::TAG;
        let mut out = Vec::with_capacity(room);
        compressor.compress_to_buffer(plain, &mut out).ok()?;
        Some(exact(&out))
    })
}

/// Restores a block, or `None` when it is none.
pub(crate) fn decompress_block(stored: &[u8]) -> Option<Vec<u8>> {
    let length = zstd::zstd_safe::get_frame_content_size(stored).ok()??;
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BLOCK)?;
    decompress(Encoding::Zstd as u8, stored, length)
}

fn with_compressor<T>(
    level: i32,
    work: impl FnOnce(&mut Compressor<'static>) -> Option<T>,
) -> Option<T> {
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(at, _)| *at != level) {
            *kept = Some((level, Compressor::new(level).ok()?));
        }
        let (_, compressor) = kept.as_mut()?;
        work(compressor)
    })
}

/// Only what is used: where much was saved, the room for it is given back, since packs hold what
/// is in them for a while.
fn exact(bytes: &[u8]) -> Vec<u8> {
    let mut exact = Vec::with_capacity(bytes.len() + crate::crypto::TAG);
    exact.extend_from_slice(bytes);
    exact
}

fn squeeze(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    if plain.len() < 64 {
        return None;
    }
    with_compressor(level, |compressor| {
        // A result that would not be smaller does not fit, and ends the attempt.
        let room = plain.len() - plain.len() / 32;
        let mut out = Vec::with_capacity(room);
        compressor.compress_to_buffer(plain, &mut out).ok()?;
        Some(exact(&out))
    })
}

/// Restores `length` bytes, or `None` when the stored form does not give exactly that many.
pub(crate) fn decompress(encoding: u8, stored: &[u8], length: usize) -> Option<Vec<u8>> {
    if encoding == Encoding::Raw as u8 {
        return (stored.len() == length).then(|| stored.to_vec());
    }
    if encoding != Encoding::Zstd as u8 {
        return None;
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Some(Decompressor::new().ok()?);
        }
        let plain = kept.as_mut()?.decompress(stored, length).ok()?;
        (plain.len() == length).then_some(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_does_not_unfold() {
        let (encoding, stored) = compress(&vec![0; 8 << 20], 3);
        assert_eq!(encoding, Encoding::Zstd);
        assert!(stored.len() < 2000);
        assert!(decompress(encoding as u8, &stored, 1000).is_none());
        assert!(decompress(encoding as u8, &stored, (8 << 20) + 1).is_none());
        assert!(decompress(7, &stored, 8 << 20).is_none());
    }

    #[test]
    fn a_block_is_bounded_and_tells_its_length() {
        for plain in [Vec::new(), vec![7; 5], vec![0; MAX_BLOCK]] {
            let stored = compress_block(&plain, 2).unwrap();
            assert_eq!(decompress_block(&stored).unwrap(), plain);
        }
        let too_large = compress_block(&vec![0; MAX_BLOCK + 1], 2).unwrap();
        assert!(decompress_block(&too_large).is_none());
        // A stream does not tell its length: it is no block.
        let stream = zstd::stream::encode_all(&[0_u8; 5000][..], 1).unwrap();
        assert!(decompress_block(&stream).is_none());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(plain in proptest::collection::vec(0_u8..4, 0..5000), level in 1..4) {
            let (encoding, stored) = compress(&plain, level);
            prop_assert!(stored.len() <= plain.len());
            prop_assert_eq!(decompress(encoding as u8, &stored, plain.len()).unwrap(), plain);
        }

        #[test]
        fn garbage_is_refused(stored in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decompress(Encoding::Zstd as u8, &stored, 100_000).is_none());
        }
    }
}
