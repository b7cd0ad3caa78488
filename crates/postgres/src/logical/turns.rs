//! Whose turn it is: entries are put side by side, and some must wait for all before them.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Knows which puts are done.
#[derive(Debug)]
pub(super) struct Turns {
    /// All below are done.
    mark: watch::Sender<u64>,
    /// These above it are done.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { mark: watch::Sender::new(0), ahead: Mutex::default() }
    }

    /// Returns when everything before `ordinal` is done. Puts begin in their order, so that those
    /// that are waited for are under way.
    pub(super) async fn wait(&self, ordinal: u64) {
        // The sender lives in this value, so waiting cannot fail.
        let _ = self.mark.subscribe().wait_for(|mark| *mark >= ordinal).await;
    }

    /// Says that `ordinal` is done.
    pub(super) fn done(&self, ordinal: u64) {
        let mut ahead = self.ahead.lock();
        ahead.insert(ordinal);
        self.mark.send_modify(|mark| {
            while ahead.remove(mark) {
                *mark += 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_turn_comes_when_all_before_it_are_done() {
        let turns = Turns::new();
        let comes = |ordinal| turns.wait(ordinal).now_or_never().is_some();
        assert!(comes(0) && !comes(1));
        turns.done(1);
        turns.done(2);
        assert!(!comes(1));
        turns.done(0);
        assert!(comes(3) && !comes(4));
    }
}
