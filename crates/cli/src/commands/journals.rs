//! `lifeboat journals`: lists journals, and what is in one.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use lifeboat_core::journal::{
    Gap, JournalLog, JournalName, ListedSegment, Position, Segment, SegmentKind, current,
};
use lifeboat_core::{Error, ErrorKind};
use lifeboat_postgres::Lsn;
use lifeboat_repository::{JournalOptions, JournalSurvey, TimelineSurvey};
use serde::Serialize;

use crate::args::Journals;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, size, time};
use crate::session::{Opened, Session};

/// The event `timeline`.
#[derive(Serialize)]
struct Line<'a> {
    journal: String,
    store: String,
    stream: &'a str,
    timeline: &'a str,
    parent: Option<Parent<'a>>,
    from: Option<String>,
    to: Option<String>,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    segments: usize,
    gaps: usize,
    stored: u64,
}

/// Where a timeline left another one.
#[derive(Serialize)]
struct Parent<'a> {
    timeline: &'a str,
    at: String,
}

/// The event `segment`.
#[derive(Serialize)]
struct Part<'a> {
    journal: String,
    timeline: &'a str,
    from: String,
    to: String,
    stored: u64,
    superseded: bool,
    size: Option<u64>,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
}

/// The event `gap`.
#[derive(Serialize)]
pub(super) struct Hole<'a> {
    journal: String,
    timeline: &'a str,
    from: String,
    to: String,
    recorded: Option<Timestamp>,
    reason: Option<&'a str>,
}

impl<'a> Hole<'a> {
    pub(super) fn new(journal: &JournalName, gap: &'a Gap) -> Self {
        Self {
            journal: journal.to_string(),
            timeline: gap.timeline.as_str(),
            from: gap.span.from().to_string(),
            to: gap.span.to().to_string(),
            recorded: gap.record.as_ref().and_then(|record| record.at),
            reason: gap.record.as_ref().map(|record| record.reason.as_str()),
        }
    }
}

#[derive(Serialize, Default)]
struct Summary {
    journals: usize,
    timelines: usize,
    segments: usize,
    gaps: usize,
    stored: u64,
    damaged: usize,
    exit: u8,
}

pub(super) async fn run(arguments: &Journals, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let listing = session.unless_cancelled(opened.repository.journals()).await?;
    let list = listing.map_err(|error| opened.failed(error))?;
    for (object, what) in &list.damaged {
        let told = format!("the journal to which it belongs cannot be told: {what}");
        session.context.warn(object, told);
    }
    let chosen = match &arguments.journal {
        None => list.journals,
        Some(name) => vec![choose(name, &list.journals)?.clone()],
    };
    let mut summary = Summary { damaged: list.damaged.len(), ..Summary::default() };
    let mut surveys = Vec::new();
    for name in &chosen {
        let survey = session.unless_cancelled(opened.repository.survey_journal(name)).await?;
        let survey = survey.map_err(|error| opened.failed(error))?;
        for what in &survey.damaged {
            session.context.warn(&survey.name, format!("a part of it cannot be read: {what}"));
        }
        summary.journals += 1;
        summary.timelines += survey.timelines.len();
        summary.gaps += survey.gaps.len();
        summary.damaged += survey.damaged.len();
        for line in &survey.timelines {
            summary.segments += line.segments().count();
            summary.stored += line.stored();
        }
        events(&survey, session);
        surveys.push(survey);
    }
    if surveys.iter().any(|survey| !survey.timelines.is_empty()) {
        session.output.listed(&table(&surveys));
    }
    if arguments.journal.is_some() {
        for survey in &surveys {
            segments(survey, arguments, &opened, session).await?;
        }
    }
    for survey in &surveys {
        for gap in &survey.gaps {
            session.output.listed(&format!("  {}", told(&survey.name, gap)));
        }
    }
    let exit = Exit::with_warnings(session.context.warnings());
    summary.exit = exit.code();
    session.output.event("summary", &summary);
    session.output.say(&format!(
        "{}, {}, {}, {}",
        number(summary.journals as u64, "journal", "journals"),
        number(summary.segments as u64, "segment", "segments"),
        number(summary.gaps as u64, "gap", "gaps"),
        size(summary.stored)
    ));
    Ok(exit)
}

/// The journal that is meant: by its whole name, its store, or the name of that.
fn choose<'a>(name: &str, journals: &'a [JournalName]) -> Result<&'a JournalName, Failed> {
    if let Some(journal) = journals.iter().find(|journal| journal.to_string() == name) {
        return Ok(journal);
    }
    let of_store = |journal: &&JournalName| {
        journal.store().to_string() == name || journal.store().name() == name
    };
    let names = |journals: &mut dyn Iterator<Item = &JournalName>| {
        journals.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let found: Vec<_> = journals.iter().filter(of_store).collect();
    match found[..] {
        [journal] => Ok(journal),
        [] => {
            let hint = match names(&mut journals.iter()) {
                none if none.is_empty() => "the repository has no journals".to_owned(),
                all => format!("the repository has {all}"),
            };
            let message = format!("there is no journal \"{}\"", one_line(name));
            Err(Error::new(ErrorKind::NotFound, message).with_hint(hint).into())
        }
        _ => {
            let all = names(&mut found.into_iter());
            let message = format!("more than one journal is called \"{name}\": {all}");
            Err(Failed::usage(message, "write all of the name, as KIND/NAME/STREAM"))
        }
    }
}

fn events(survey: &JournalSurvey, session: &Session) {
    for line in &survey.timelines {
        let fork = line.info.fork.as_ref();
        let timeline = &line.info.timeline;
        session.output.event(
            "timeline",
            &Line {
                journal: survey.name.to_string(),
                store: survey.name.store().to_string(),
                stream: survey.name.stream(),
                timeline: timeline.as_str(),
                parent: fork
                    .map(|fork| Parent { timeline: fork.parent.as_str(), at: fork.at.to_string() }),
                from: line.span().map(|span| span.from().to_string()),
                to: line.span().map(|span| span.to().to_string()),
                first_time: line.first.as_ref().and_then(|first| first.info.first_time),
                last_time: line.last.as_ref().and_then(|last| last.info.last_time),
                segments: line.segments().count(),
                gaps: survey.gaps.iter().filter(|gap| gap.timeline == *timeline).count(),
                stored: line.stored(),
            },
        );
    }
    for gap in &survey.gaps {
        session.output.event("gap", &Hole::new(&survey.name, gap));
    }
}

fn table(surveys: &[JournalSurvey]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "journal", "timeline", "from", "to", "since", "until", "segments", "size", "gaps",
    ]);
    for survey in surveys {
        for line in &survey.timelines {
            let spot =
                |at: Option<Position>| at.map_or("-".to_owned(), |at| place(&survey.name, at));
            let moment = |at: Option<Timestamp>| at.map_or("-".to_owned(), time);
            let timeline = &line.info.timeline;
            table.add_row([
                one_line(&survey.name.to_string()),
                one_line(timeline.as_str()),
                spot(line.span().map(|span| span.from())),
                spot(line.span().map(|span| span.to())),
                moment(line.first.as_ref().and_then(|first| first.info.first_time)),
                moment(line.last.as_ref().and_then(|last| last.info.last_time)),
                line.segments().count().to_string(),
                size(line.stored()),
                survey.gaps.iter().filter(|gap| gap.timeline == *timeline).count().to_string(),
            ]);
        }
    }
    for column in 6..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Lists the segments of a journal, timeline by timeline.
async fn segments(
    survey: &JournalSurvey,
    arguments: &Journals,
    opened: &Opened,
    session: &Session,
) -> Result<(), Failed> {
    let log = opened.repository.journal(&survey.name, &JournalOptions::default());
    for line in &survey.timelines {
        session.output.listed(&heading(survey, line));
        let kept = current(&line.listed);
        for one in line.segments() {
            if session.output.is_unread() {
                return Ok(());
            }
            let mut known = None;
            if arguments.long {
                let asked = session.unless_cancelled(log.segment(&one.place)).await?;
                known = match asked {
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        session.context.warn(&survey.name, error.to_string());
                        None
                    }
                    asked => asked.map_err(|error| opened.failed(error))?,
                };
            }
            show(&survey.name, one, kept.contains(one), known.as_ref(), session);
        }
    }
    Ok(())
}

fn heading(survey: &JournalSurvey, line: &TimelineSurvey) -> String {
    let timeline = one_line(line.info.timeline.as_str());
    let left = line.info.fork.as_ref().map_or(String::new(), |fork| {
        let parent = one_line(fork.parent.as_str());
        format!(", which left timeline {parent} at {}", place(&survey.name, fork.at))
    });
    format!("\ntimeline {timeline}{left}:")
}

fn show(
    name: &JournalName,
    one: &ListedSegment,
    counts: bool,
    known: Option<&Segment>,
    session: &Session,
) {
    let span = one.place.span;
    debug_assert!(one.place.kind == SegmentKind::Sealed);
    session.output.event(
        "segment",
        &Part {
            journal: name.to_string(),
            timeline: one.place.timeline.as_str(),
            from: span.from().to_string(),
            to: span.to().to_string(),
            stored: one.stored,
            superseded: !counts,
            size: known.map(|known| known.size),
            first_time: known.and_then(|known| known.info.first_time),
            last_time: known.and_then(|known| known.info.last_time),
        },
    );
    if session.output.is_json() {
        return;
    }
    let mut line = format!(
        "  {:>17} {:>17} {:>12}",
        place(name, span.from()),
        place(name, span.to()),
        size(one.stored)
    );
    if let Some(known) = known {
        let moment = |at: Option<Timestamp>| at.map_or("-".to_owned(), time);
        let (first, last) = (moment(known.info.first_time), moment(known.info.last_time));
        line += &format!(" {:>12} {first:>19} {last:>19}", size(known.size));
    }
    if !counts {
        line += "  superseded by a longer one";
    }
    session.output.listed(&line);
}

/// A position in the words of the store, where this program knows them.
pub(super) fn place(name: &JournalName, at: Position) -> String {
    match name.store().kind() {
        "postgres" => Lsn(at.0).to_string(),
        // Bytes, as INFO replication counts them.
        "redis" => at.0.to_string(),
        _ => at.to_string(),
    }
}

/// What is missing, in a sentence.
pub(super) fn told(name: &JournalName, gap: &Gap) -> String {
    let (from, to) = (place(name, gap.span.from()), place(name, gap.span.to()));
    let line = one_line(gap.timeline.as_str());
    let why = match &gap.record {
        None => "and nobody recorded why".to_owned(),
        Some(record) => {
            let at = record.at.map_or(String::new(), |at| format!(" on {}", time(at)));
            format!("recorded{at}: {}", one_line(&record.reason))
        }
    };
    format!("{name}: timeline {line} lacks {from} to {to}, {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::StoreRef;

    #[test]
    fn a_journal_is_found_by_what_is_enough_to_tell_it() {
        let journal = |kind: &str, name: &str, stream: &str| {
            JournalName::new(StoreRef::new(kind, name), stream).unwrap()
        };
        let all = [
            journal("postgres", "shop", "wal"),
            journal("redis", "cache", "a"),
            journal("redis", "cache", "b"),
        ];
        for name in ["shop", "postgres/shop", "postgres/shop/wal"] {
            assert_eq!(choose(name, &all).unwrap(), &all[0], "{name}");
        }
        assert_eq!(choose("redis/cache/b", &all).unwrap(), &all[2]);
        let line = choose("cache", &all).unwrap_err().to_string();
        assert!(line.contains("redis/cache/a, redis/cache/b; "), "{line}");
        let line = choose("web", &all).unwrap_err().to_string();
        assert!(line.contains("the repository has postgres/shop/wal, "), "{line}");
        let line = choose("web", &[]).unwrap_err().to_string();
        assert!(line.contains("no journals"), "{line}");
        assert_eq!(place(&all[0], Position(0x1_6b37_4d48)), "1/6B374D48");
        assert_eq!(place(&all[1], Position(0x10)), "16");
        assert_eq!(place(&journal("other", "x", "y"), Position(0x10)), "0000000000000010");
    }
}
