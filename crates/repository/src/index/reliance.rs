//! What a write relies on.

use parking_lot::Mutex;

/// The packs on which a write relies: the ones that hold what it did not store again.
#[derive(Default)]
pub(crate) struct Reliance(Mutex<Vec<u64>>);

impl Reliance {
    pub(super) fn note(&self, number: u32) {
        let (word, bit) = (number as usize / 64, number % 64);
        let mut words = self.0.lock();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << bit;
    }

    pub(super) fn forget(&self, number: u32) {
        if let Some(word) = self.0.lock().get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let words = self.0.lock();
        words.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }
}
