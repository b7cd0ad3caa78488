//! What holds over several segments and timelines: which are superseded, what is missing, what is
//! needed.

use std::collections::BTreeMap;

use super::{ListedSegment, Need, Position, SegmentKind, Span, Timeline, TimelineInfo};
use crate::error::{Error, ErrorKind, Result};

/// A part of a timeline's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline that has it: the one asked for, or one of its ancestors.
    pub timeline: Timeline,
    /// From where to where it counts.
    pub span: Span,
}

/// The history of a timeline, from its oldest ancestor on: of each ancestor what came before the
/// fork.
///
/// A parent of which nothing is known ends the search: the history begins at the fork.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the timeline itself is not among `timelines`;
/// [`ErrorKind::Corrupt`] when one is its own ancestor.
pub fn lineage(timelines: &[TimelineInfo], timeline: &Timeline) -> Result<Vec<Stretch>> {
    let find = |name: &Timeline| timelines.iter().find(|info| info.timeline == *name);
    let mut info = find(timeline).ok_or_else(|| unknown(timeline))?;
    let mut history = Vec::new();
    let mut until = Position::MAX;
    // No way up is longer than there are timelines, unless it goes in a ring.
    for _ in 0..timelines.len() {
        let from = info.fork.as_ref().map_or(Position::MIN, |fork| fork.at);
        // A grandparent that was left later than the parent has nothing of this history.
        if let Some(span) = Span::checked(from.min(until), until) {
            history.push(Stretch { timeline: info.timeline.clone(), span });
        }
        until = until.min(from);
        let Some(parent) = info.fork.as_ref().and_then(|fork| find(&fork.parent)) else {
            history.reverse();
            return Ok(history);
        };
        info = parent;
    }
    Err(Error::new(ErrorKind::Corrupt, format!("timeline {timeline} is its own ancestor")))
}

pub(super) fn unknown(timeline: &Timeline) -> Error {
    Error::new(ErrorKind::NotFound, format!("timeline {timeline} is not in this journal"))
        .with_hint("begin it first, with the timeline that it comes from")
}

/// The segments that no other one contains, in order: both their beginnings and their ends ascend.
///
/// Short segments that were sealed while a long one was still being written are superseded by it.
/// Of two that are the same positions, the sealed one counts and the record of a gap does not.
pub fn current(segments: &[ListedSegment]) -> Vec<ListedSegment> {
    let mut sealed: Vec<_> =
        segments.iter().filter(|one| one.place.kind == SegmentKind::Sealed).collect();
    // Of those that begin together, the longest comes first.
    sealed.sort_by_key(|one| (one.place.span.from(), std::cmp::Reverse(one.place.span.to())));
    let mut kept: Vec<ListedSegment> = Vec::new();
    for one in sealed {
        if kept.last().is_none_or(|last| last.place.span.to() < one.place.span.to()) {
            kept.push(one.clone());
        }
    }
    kept
}

/// What of `whole` is in none of `parts`, in order.
pub fn missing(whole: Span, parts: impl IntoIterator<Item = Span>) -> Vec<Span> {
    let mut parts: Vec<_> = parts.into_iter().filter_map(|part| part.intersect(&whole)).collect();
    parts.sort_unstable();
    let mut next = whole.from();
    let mut missing = Vec::new();
    for part in parts {
        missing.extend(Span::checked(next, part.from()));
        next = next.max(part.to());
    }
    missing.extend(Span::checked(next, whole.to()));
    missing
}

/// Which of `segments`, of all timelines, nothing in `needs` depends on.
///
/// A base needs its own timeline from where it begins; of the ancestors, what lies between there
/// and the fork; and all of every timeline that was forked off later, since recovery can follow
/// any of them. Besides, what a larger sealed segment contains is needed by nobody.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] without any need, since then everything would go;
/// [`ErrorKind::NotFound`] when a need names a timeline that is not known.
pub fn removable(
    timelines: &[TimelineInfo],
    segments: &[ListedSegment],
    needs: &[Need],
) -> Result<Vec<ListedSegment>> {
    let first = needed_from(timelines, needs)?;
    let mut by_timeline: BTreeMap<&Timeline, Vec<ListedSegment>> = BTreeMap::new();
    for segment in segments {
        by_timeline.entry(&segment.place.timeline).or_default().push(segment.clone());
    }
    let mut gone = Vec::new();
    for (timeline, segments) in by_timeline {
        let kept = current(&segments);
        for segment in segments {
            let needed = first.get(timeline).is_some_and(|from| segment.place.span.to() > *from);
            let superseded = segment.place.kind == SegmentKind::Sealed && !kept.contains(&segment);
            if !needed || superseded {
                gone.push(segment);
            }
        }
    }
    Ok(gone)
}

/// From where on each timeline is needed; one that is not in it is not needed at all.
fn needed_from<'a>(
    timelines: &'a [TimelineInfo],
    needs: &[Need],
) -> Result<BTreeMap<&'a Timeline, Position>> {
    if needs.is_empty() {
        let message = "trim the journal: nothing is said to need it, so that all of it would go";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let mut first: BTreeMap<&Timeline, Position> = BTreeMap::new();
    let mut note = |timeline, from: Position| {
        first.entry(timeline).and_modify(|known| *known = from.min(*known)).or_insert(from);
    };
    for need in needs {
        if !timelines.iter().any(|info| info.timeline == need.timeline) {
            return Err(unknown(&need.timeline));
        }
    }
    for info in timelines {
        let history = lineage(timelines, &info.timeline)?;
        for need in needs {
            let on_the_way = history
                .iter()
                .any(|part| part.timeline == need.timeline && part.span.to() > need.from);
            // The base may begin on an ancestor, before the fork of the timeline it names.
            if on_the_way {
                for part in history.iter().filter(|part| part.span.to() > need.from) {
                    let known = timelines.iter().find(|info| info.timeline == part.timeline);
                    if let Some(known) = known {
                        // What the first segment of a timeline repeats of its parent counts, too.
                        let from =
                            if part.span.from() > need.from { Position::MIN } else { need.from };
                        note(&known.timeline, from);
                    }
                }
            }
        }
    }
    Ok(first)
}

/// Which of `segments`, of all timelines, lie before all that `needs` depend on, on the way that
/// led to one of them.
///
/// That is less than what [`removable`] says, and safe beside a base that is being made: what no
/// base can follow stays where nobody can tell that it is older. So do timelines that lead to no
/// base, such as that of a server that was set back and has no backup yet; what a timeline holds
/// after the fork to the one that counts; and what is superseded, from the oldest base on.
///
/// # Errors
/// Those of [`removable`].
pub fn outlived(
    timelines: &[TimelineInfo],
    segments: &[ListedSegment],
    needs: &[Need],
) -> Result<Vec<ListedSegment>> {
    let first = needed_from(timelines, needs)?;
    let mut passed = Vec::new();
    for need in needs {
        let history = lineage(timelines, &need.timeline)?.into_iter();
        passed.extend(history.map(|part| (part.timeline, part.span.to().min(need.from))));
    }
    let gone = segments.iter().filter(|one| {
        let (timeline, to) = (&one.place.timeline, one.place.span.to());
        let needed = first.get(timeline).is_some_and(|from| to > *from);
        !needed && passed.iter().any(|(line, upto)| line == timeline && to <= *upto)
    });
    Ok(gone.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Place;

    fn line(name: &str) -> Timeline {
        Timeline::new(name).unwrap()
    }

    fn span(from: u64, to: u64) -> Span {
        Span::new(Position(from), Position(to)).unwrap()
    }

    fn sealed(timeline: &str, from: u64, to: u64) -> ListedSegment {
        ListedSegment { place: Place::sealed(&line(timeline), span(from, to)), stored: 1 }
    }

    fn forked(name: &str, parent: &str, at: u64) -> TimelineInfo {
        TimelineInfo::forked(line(name), line(parent), Position(at))
    }

    fn family() -> Vec<TimelineInfo> {
        vec![
            TimelineInfo::first(line("1")),
            forked("2", "1", 100),
            forked("3", "2", 150),
            forked("4", "1", 60),
        ]
    }

    #[test]
    fn a_history_goes_through_the_forks() {
        let parts = |name: &str| -> Vec<_> {
            let history = lineage(&family(), &line(name)).unwrap();
            let part = |part: Stretch| (part.timeline.to_string(), part.span);
            history.into_iter().map(part).collect()
        };
        let to_the_end = |from| Span::new(Position(from), Position::MAX).unwrap();
        let expected = [
            ("1".to_owned(), span(0, 100)),
            ("2".to_owned(), span(100, 150)),
            ("3".to_owned(), to_the_end(150)),
        ];
        assert_eq!(parts("3"), expected);
        assert_eq!(parts("4"), [("1".to_owned(), span(0, 60)), ("4".to_owned(), to_the_end(60))]);
        assert_eq!(lineage(&family(), &line("9")).unwrap_err().kind(), ErrorKind::NotFound);
        // A parent of which nothing is known, and rings.
        let alone = [forked("7", "6", 5)];
        assert_eq!(lineage(&alone, &line("7")).unwrap().len(), 1);
        let ring = [forked("7", "6", 5), forked("6", "7", 5)];
        assert_eq!(lineage(&ring, &line("7")).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_is_contained_is_superseded() {
        let all = [sealed("1", 0, 2), sealed("1", 0, 10), sealed("1", 2, 4), sealed("1", 8, 12)];
        let kept: Vec<_> = current(&all).into_iter().map(|one| one.place.span).collect();
        assert_eq!(kept, [span(0, 10), span(8, 12)]);
    }

    #[test]
    fn runs_that_are_missing_are_found() {
        let parts = [span(5, 10), span(0, 3), span(9, 12), span(30, 40)];
        assert_eq!(missing(span(1, 35), parts), [span(3, 5), span(12, 30)]);
        assert_eq!(missing(span(0, 3), []), [span(0, 3)]);
        assert!(missing(span(5, 12), parts).is_empty());
    }

    fn required(needs: &[(&str, u64)]) -> Vec<Need> {
        let need = |&(name, from)| Need { timeline: line(name), from: Position(from) };
        needs.iter().map(need).collect()
    }

    /// The places, without most of their zeros.
    fn short(segments: Vec<ListedSegment>) -> Vec<String> {
        let places = segments.into_iter().map(|one| one.place.to_string());
        places.map(|place| place.replace("0000000000000", "")).collect()
    }

    #[test]
    fn only_what_no_base_can_follow_goes() {
        let all = [
            sealed("1", 0, 50),
            sealed("1", 50, 100),
            sealed("1", 100, 150),
            sealed("2", 96, 120),
            sealed("2", 120, 150),
            sealed("3", 144, 200),
            sealed("4", 60, 70),
        ];
        let gone =
            |needs: &[(&str, u64)]| short(removable(&family(), &all, &required(needs)).unwrap());
        // Timeline 4 was forked off before this base; 2 and 3 after it.
        assert_eq!(gone(&[("1", 80)]), ["1/000-032", "4/03c-046"]);
        // The oldest need counts.
        assert!(gone(&[("1", 80), ("1", 20)]).is_empty());
        // A base on 2 needs 3, and nothing of 1 or 4.
        let of_2 = ["1/000-032", "1/032-064", "1/064-096", "2/060-078", "4/03c-046"];
        assert_eq!(gone(&[("2", 120)]), of_2);
        // A base that began before the fork of the timeline on which it ended.
        assert_eq!(gone(&[("2", 90)]), ["1/000-032", "4/03c-046"]);
        assert!(removable(&family(), &all, &[]).is_err());
        let unknown = Need { timeline: line("9"), from: Position(1) };
        assert!(removable(&family(), &all, &[unknown]).is_err());
    }

    #[test]
    fn what_nobody_can_compare_with_a_base_stays() {
        let all = [
            sealed("1", 0, 50),
            sealed("1", 0, 20),
            sealed("1", 50, 100),
            sealed("1", 50, 60),
            sealed("1", 100, 150),
            sealed("2", 96, 120),
            sealed("2", 120, 150),
            sealed("3", 144, 200),
            sealed("4", 60, 70),
        ];
        let gone =
            |needs: &[(&str, u64)]| short(outlived(&family(), &all, &required(needs)).unwrap());
        // What is superseded stays from the base on.
        assert_eq!(gone(&[("1", 50)]), ["1/000-032", "1/000-014"]);
        // Timeline 4, which this base cannot follow, may be where the server is now.
        assert_eq!(gone(&[("1", 80)]), ["1/000-032", "1/000-014", "1/032-03c"]);
        // A segment in which a base begins stays, and so does all after it.
        assert!(gone(&[("1", 49)]).iter().all(|name| name == "1/000-014"));
        // On the way to 2 lies 1 up to the fork; what 1 holds after it may be another server's.
        let of_2 = ["1/000-032", "1/000-014", "1/032-064", "1/032-03c", "2/060-078"];
        assert_eq!(gone(&[("2", 120)]), of_2);
        // What one base has outlived another one may need.
        assert_eq!(gone(&[("2", 120), ("1", 50)]), ["1/000-032", "1/000-014"]);
        assert!(gone(&[("4", 65), ("1", 20)]).iter().all(|name| name == "1/000-014"));
        assert!(outlived(&family(), &all, &[]).is_err());
    }
}
