//! LZF, with which servers compress strings of more than 20 bytes.

/// What `bytes` are when unpacked, if that gives `length` bytes exactly. The caller bounds
/// `length`; no more is allocated.
///
/// A control byte below 32 announces so many literal bytes and one; any other is a copy of what was
/// unpacked before: three bits of length (7: a further byte follows), 13 bits of distance.
pub(crate) fn unpack(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(length);
    let mut rest = bytes.iter().copied();
    while let Some(control) = rest.next() {
        if control < 32 {
            for _ in 0..=control {
                unpacked.push(rest.next()?);
            }
        } else {
            let mut count = usize::from(control >> 5);
            if count == 7 {
                count += usize::from(rest.next()?);
            }
            let distance = (usize::from(control & 31) << 8 | usize::from(rest.next()?)) + 1;
            let from = unpacked.len().checked_sub(distance)?;
            if unpacked.len() + count + 2 > length {
                return None;
            }
            // Byte by byte: what is copied may have been written by this very copy.
            for at in from..from + count + 2 {
                unpacked.push(unpacked[at]);
            }
        }
        if unpacked.len() > length {
            return None;
        }
    }
    (unpacked.len() == length).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_may_overlap_themselves() {
        // "a", then nine bytes from one byte before: a run.
        assert_eq!(unpack(&[0, b'a', 7 << 5, 0, 0], 10).unwrap(), b"aaaaaaaaaa");
        assert_eq!(unpack(&[1, b'a', b'b', 2 << 5, 1], 6).unwrap(), b"ababab");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [&[0_u8, b'a', 7 << 5, 0, 1][..], &[5, b'a'], &[0, b'a', 7 << 5], &[0]] {
            assert_eq!(unpack(bad, 10), None, "{bad:?}");
        }
        assert_eq!(unpack(&[0, b'a', 7 << 5, 0, 0], 9), None);
        assert_eq!(unpack(&[0, b'a', 7 << 5, 0, 0], 11), None);
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..64), length in 0..512_usize) {
            if let Some(unpacked) = unpack(&bytes, length) {
                prop_assert_eq!(unpacked.len(), length);
            }
        }
    }
}
