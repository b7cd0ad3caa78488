//! From where on WAL is received: which timeline, and which position.

use crate::archive::TimelineHistory;
use crate::lsn::Lsn;

/// A timeline as far as it belongs to the history of the one that the server is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) timeline: u32,
    pub(super) from: Lsn,
    /// Where the next one leaves it; `None` for the last.
    pub(super) to: Option<Lsn>,
}

/// The way to `timeline`, the oldest ancestor first.
pub(super) fn stretches(timeline: u32, history: Option<&TimelineHistory>) -> Vec<Stretch> {
    let mut from = Lsn(0);
    let mut way = Vec::new();
    for (ancestor, at) in history.map(TimelineHistory::parents).unwrap_or_default() {
        way.push(Stretch { timeline: *ancestor, from, to: Some(*at) });
        from = *at;
    }
    way.push(Stretch { timeline, from, to: None });
    way
}

/// Where to go on on this way, when `ends` says up to where the archive has each of its timelines:
/// on the newest of which it has something, there; or where the next one leaves it. `None` when it
/// has nothing of the way.
///
/// What a timeline holds after it was left belongs to another history, that of a server that did
/// not know yet.
pub(super) fn frontier(way: &[Stretch], ends: &[Option<Lsn>]) -> Option<(usize, Lsn)> {
    for (index, (stretch, end)) in way.iter().zip(ends).enumerate().rev() {
        let Some(end) = *end else { continue };
        if end <= stretch.from {
            continue;
        }
        return Some(match stretch.to {
            Some(to) if end >= to => (index + 1, to),
            _ => (index, end),
        });
    }
    None
}

/// Which part of the way has the byte at `lsn`.
pub(super) fn holding(way: &[Stretch], lsn: Lsn) -> usize {
    way.iter().rposition(|stretch| stretch.from <= lsn).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 up to 100, 2 up to 150, 4 from there on.
    fn way() -> Vec<Stretch> {
        let text = "1\t0/64\tpromoted\n2\t0/96\tpromoted\n";
        stretches(4, Some(&TimelineHistory::parse(4, text).unwrap()))
    }

    fn ends(ends: [u64; 3]) -> Option<(u32, u64)> {
        let ends = ends.map(|end| (end > 0).then_some(Lsn(end)));
        let way = way();
        frontier(&way, &ends).map(|(index, lsn)| (way[index].timeline, lsn.0))
    }

    #[test]
    fn the_way_is_that_of_the_history() {
        let found: Vec<_> = way().iter().map(|one| (one.timeline, one.from.0)).collect();
        assert_eq!(found, [(1, 0), (2, 100), (4, 150)]);
        assert_eq!(stretches(1, None), [Stretch { timeline: 1, from: Lsn(0), to: None }]);
    }

    #[test]
    fn it_goes_on_where_the_archive_ends() {
        assert_eq!(ends([0, 0, 0]), None);
        assert_eq!(ends([80, 0, 0]), Some((1, 80)));
        assert_eq!(ends([100, 0, 0]), Some((2, 100)));
        // The old primary wrote on after it was left: that is not our history.
        assert_eq!(ends([140, 0, 0]), Some((2, 100)));
        assert_eq!(ends([140, 120, 0]), Some((2, 120)));
        // The tail of the old timeline comes before the new one, also when nothing of that is
        // there.
        assert_eq!(ends([99, 0, 0]), Some((1, 99)));
        assert_eq!(ends([100, 150, 0]), Some((4, 150)));
        assert_eq!(ends([100, 150, 170]), Some((4, 170)));
        // What a timeline repeats of its parent is no content of its own.
        assert_eq!(ends([90, 96, 0]), Some((1, 90)));
    }

    #[test]
    fn a_position_has_one_timeline() {
        let at = |lsn| way()[holding(&way(), Lsn(lsn))].timeline;
        assert_eq!([at(0), at(99), at(100), at(149), at(150), at(9999)], [1, 1, 2, 2, 4, 4]);
    }
}
