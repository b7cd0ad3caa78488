//! What people read, on standard error.

use std::io::{self, IsTerminal, Write};

use lifeboat_core::Event;
use parking_lot::Mutex;

use super::bar::Bar;
use super::text::one_line;
use crate::args::Global;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Warnings and errors.
    Quiet,
    /// And what happens.
    Normal,
    /// And what the libraries log.
    Verbose,
}

/// Standard error, as people read it.
pub(super) struct Human {
    level: Level,
    /// A bar is drawn: on a terminal, unless lines of a log would tear it.
    draws: bool,
    bar: Mutex<Option<Bar>>,
}

impl Human {
    pub(super) fn new(global: &Global) -> Self {
        let level = match (global.quiet, global.verbose) {
            (true, _) => Level::Quiet,
            (false, true) => Level::Verbose,
            (false, false) => Level::Normal,
        };
        let draws = level == Level::Normal && io::stderr().is_terminal();
        Self { level, draws, bar: Mutex::new(None) }
    }

    /// Whether what the libraries log is to be shown.
    pub(super) fn is_verbose(&self) -> bool {
        self.level == Level::Verbose
    }

    pub(super) fn observed(&self, event: &Event) {
        match event {
            Event::Phase { name } => self.phase(name),
            Event::Progress { progress } => {
                if let Some(bar) = &*self.bar.lock() {
                    bar.progress(progress);
                }
            }
            Event::Notice { subject, message } if subject.is_empty() => {
                self.write(&format!("note: {}", one_line(message)));
            }
            Event::Notice { subject, message } => {
                self.write(&format!("note: {}: {}", one_line(subject), one_line(message)));
            }
            Event::Warning { subject, message } if subject.is_empty() => {
                self.write(&format!("warning: {}", one_line(message)));
            }
            Event::Warning { subject, message } => {
                self.write(&format!("warning: {}: {}", one_line(subject), one_line(message)));
            }
            _ => {}
        }
    }

    fn phase(&self, name: &str) {
        if !self.draws {
            // Most runs off a terminal are cron's, and every line of those becomes a mail.
            return self.begin(name);
        }
        let mut bar = self.bar.lock();
        match &*bar {
            Some(bar) => bar.phase(name),
            None => *bar = Some(Bar::new(name)),
        }
    }

    pub(super) fn say(&self, line: &str) {
        if self.level >= Level::Normal {
            self.write(line);
        }
    }

    /// What begins: on a terminal, or when somebody asked for more.
    pub(super) fn begin(&self, line: &str) {
        if self.draws || self.is_verbose() {
            self.write(line);
        }
    }

    pub(super) fn warn(&self, line: &str) {
        self.write(line);
    }

    pub(super) fn note(&self, line: &str) {
        self.say(line);
    }

    pub(super) fn error(&self, line: &str) {
        self.write(&format!("error: {}", one_line(line)));
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.clear();
        }
    }

    fn write(&self, line: &str) {
        // Nobody is left to be told when standard error is closed.
        let write = || drop(writeln!(io::stderr(), "{line}"));
        match &*self.bar.lock() {
            Some(bar) => bar.aside(write),
            None => write(),
        }
    }
}
