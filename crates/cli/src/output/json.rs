//! Events for programs: version 1 of the stream that `docs/cli-json.md` describes.

use std::borrow::Cow;

use jiff::Timestamp;
use lifeboat_core::Event;
use serde::Serialize;

use crate::failure::Failed;

/// The version of the stream. Fields may be added within a version; nothing else changes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    time: String,
    event: &'a str,
    #[serde(flatten)]
    fields: &'a T,
}

/// One line of the stream.
pub(super) fn event(name: &str, fields: &impl Serialize) -> String {
    let line = Line { v: VERSION, time: now(), event: name, fields };
    // Fields are structs of ours; what cannot be written is a defect, and still a line.
    serde_json::to_string(&line).unwrap_or_else(|error| {
        let what = error.to_string();
        serde_json::json!({ "v": VERSION, "event": "defect", "message": what }).to_string()
    })
}

/// What the libraries observed.
pub(super) fn observed(event: &Event) -> String {
    #[derive(Serialize)]
    struct Observed<'a> {
        v: u32,
        time: String,
        #[serde(flatten)]
        event: &'a Event,
    }
    match event {
        Event::Progress { progress } => self::event("progress", progress),
        _ => {
            serde_json::to_string(&Observed { v: VERSION, time: now(), event }).unwrap_or_default()
        }
    }
}

fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The event `error`.
#[derive(Serialize)]
pub(super) struct Failure<'a> {
    kind: &'a str,
    message: String,
    hint: Option<Cow<'a, str>>,
    retryable: bool,
    exit: u8,
}

impl<'a> Failure<'a> {
    pub(super) fn of(failed: &'a Failed) -> Self {
        Self {
            kind: failed.kind(),
            message: failed.message(),
            hint: failed.hint(),
            retryable: failed.is_retryable(),
            exit: failed.exit().code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::Progress;

    fn parsed(line: &str) -> serde_json::Value {
        assert!(!line.contains('\n'));
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn every_line_has_a_version_a_time_and_a_name() {
        let progress = Event::Progress { progress: Progress::default() };
        let warning = Event::Warning { subject: "a\nb".into(), message: "odd".into() };
        for (line, name) in [
            (observed(&progress), "progress"),
            (observed(&warning), "warning"),
            (observed(&Event::Phase { name: "x".into() }), "phase"),
            (event("error", &Failure::of(&Failed::usage("a", "b"))), "error"),
        ] {
            let line = parsed(&line);
            assert_eq!(line["v"], 1);
            assert_eq!(line["event"], name);
            assert!(line["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        }
        assert_eq!(parsed(&observed(&progress))["read"], 0);
        assert_eq!(parsed(&observed(&warning))["subject"], "a\nb");
    }
}
