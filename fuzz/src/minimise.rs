//! Smaller inputs that get the same answer.

/// So many inputs are tried for one that is to be kept.
const TRIES: usize = 4000;

/// Takes away what does not matter to `same`, in pieces that get smaller; then makes bytes zero.
pub(crate) fn minimise(input: &[u8], mut same: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut tries = 0;
    let mut length = best.len().next_power_of_two();
    while length > 0 && tries < TRIES {
        let mut at = 0;
        while at < best.len() && tries < TRIES {
            let end = (at + length).min(best.len());
            let shorter = [&best[..at], &best[end..]].concat();
            tries += 1;
            if same(&shorter) { best = shorter } else { at = end }
        }
        length /= 2;
    }
    for at in 0..best.len() {
        if tries >= TRIES {
            break;
        }
        if best[at] != 0 {
            let mut plainer = best.clone();
            plainer[at] = 0;
            tries += 1;
            if same(&plainer) {
                best = plainer;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let input: Vec<u8> = (0..200).collect();
        let same = |bytes: &[u8]| bytes.windows(2).any(|pair| pair == [70, 71]) && bytes.len() > 3;
        assert_eq!(minimise(&input, same).len(), 4);
        assert_eq!(minimise(b"abc", |bytes| bytes == b"abc"), b"abc");
    }
}
