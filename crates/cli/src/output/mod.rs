//! What is shown, and to whom.
//!
//! People read standard error: progress (a bar on a terminal; otherwise nothing, since it would end
//! up in the mails of cron, or a line for each phase with `--verbose`), warnings, the summary, the
//! error. What they asked for, such as a list of snapshots, goes to
//! standard output, so that it can be piped. Programs read standard output as JSON events, one a
//! line, when `--json` is given; `docs/cli-json.md` is the contract, and a test holds it.

mod bar;
mod human;
mod json;
mod log;
mod text;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use clap::error::ErrorKind as ClapKind;
use lifeboat_core::{Event, Observer};
use parking_lot::Mutex;
use serde::Serialize;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failed;
use human::Human;
pub(crate) use text::{
    duration, facts_to_json, long_entry, moment as moment_at, number, one_line, size, time,
};

/// Where people and programs read what happens. Clones share it.
#[derive(Clone)]
pub(crate) struct Output(Arc<Inner>);

struct Inner {
    human: Human,
    /// Whether standard output is a stream of events.
    json: bool,
    /// Whether whoever read standard output has gone away.
    gone: Mutex<bool>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("json", &self.0.json).finish_non_exhaustive()
    }
}

impl Output {
    /// Sets up what the global options ask for, and the log of the libraries with it.
    pub(crate) fn new(global: &Global) -> Self {
        let human = Human::new(global);
        let verbose = human.is_verbose();
        let gone = Mutex::new(false);
        let output = Self(Arc::new(Inner { human, json: global.json, gone }));
        log::start(&output, verbose);
        output
    }

    /// Whether programs read.
    pub(crate) fn is_json(&self) -> bool {
        self.0.json
    }

    /// The command begins.
    pub(crate) fn started(&self, command: &str) {
        #[derive(Serialize)]
        struct Started<'a> {
            command: &'a str,
            version: &'a str,
        }
        self.event("started", &Started { command, version: env!("CARGO_PKG_VERSION") });
    }

    /// Writes an event, when programs read. `fields` must serialise as a map.
    pub(crate) fn event(&self, name: &str, fields: &impl Serialize) {
        if self.0.json {
            self.line(&json::event(name, fields));
        }
    }

    /// Writes a line of what was asked for, when people read.
    pub(crate) fn listed(&self, line: &str) {
        if !self.0.json {
            self.line(line);
        }
    }

    /// Writes bytes that were asked for, as they are. Blocks when nobody takes them.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    }

    /// Tells people something.
    pub(crate) fn say(&self, line: &str) {
        self.0.human.say(line);
    }

    /// Tells people something that they must hear, also with `--quiet`.
    pub(crate) fn warn(&self, line: &str) {
        self.0.human.warn(line);
    }

    /// Tells people what begins, when they are there to see it.
    pub(crate) fn begin(&self, line: &str) {
        self.0.human.begin(line);
    }

    /// Tells people something in passing, also while a bar is shown.
    pub(crate) fn note(&self, line: &str) {
        self.0.human.note(line);
    }

    /// Ends the progress that is shown.
    pub(crate) fn finish(&self) {
        self.0.human.finish();
    }

    /// Tells why the command failed.
    pub(crate) fn failed(&self, failed: &Failed) -> Exit {
        self.finish();
        let exit = failed.exit();
        self.event("error", &json::Failure::of(failed));
        self.0.human.error(&failed.to_string());
        exit
    }

    /// Whether whoever read standard output has gone away: a listing may stop then.
    pub(crate) fn is_unread(&self) -> bool {
        *self.0.gone.lock()
    }

    fn line(&self, line: &str) {
        let mut gone = self.0.gone.lock();
        if *gone {
            return;
        }
        // A backup must not die because a pipe did.
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        *gone = written.is_err();
    }
}

impl Observer for Output {
    fn event(&self, event: &Event) {
        if self.0.json {
            self.line(&json::observed(event));
        }
        self.0.human.observed(event);
    }
}

/// Tells what is wrong with a command line that could not be parsed.
///
/// There is no [`Output`] yet, and nobody knows whether JSON was asked for; but who wrote `--json`
/// reads standard output, and should find the error there.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    let asked_for = matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion);
    if asked_for {
        let _ = error.print();
        return Exit::Complete;
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text);
        let message = message.split("\n\n").next().unwrap_or(message).trim();
        let hint = "run `lifeboat --help`";
        let failed = Failed::usage(one_line(message), hint);
        let line = json::event("error", &json::Failure::of(&failed));
        let _ = writeln!(io::stdout(), "{line}");
    }
    let _ = error.print();
    Exit::Usage
}
