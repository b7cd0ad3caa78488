//! What a person or a machine is told while work goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// A count of the work done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Entries finished.
    pub entries: u64,
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes that did not have to be read, since the baseline has them.
    pub unchanged: u64,
    /// Bytes that the sink did not have yet, before compression.
    pub new: u64,
    /// Bytes that the sink wrote, after compression.
    pub stored: u64,
    /// Bytes that the whole is expected to have, once that is known.
    pub expected: Option<u64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A new part of the work begins.
    Phase {
        /// What begins, in a few words.
        name: String,
    },
    /// The counts moved. Sent a few times a second at most.
    Progress {
        /// Where they stand.
        progress: Progress,
    },
    /// Something is worth knowing, and nothing is missing because of it.
    Notice {
        /// What it is about: an entry's path, an object's name; may be empty.
        subject: String,
        /// What happened.
        message: String,
    },
    /// Something needs attention; the work goes on.
    Warning {
        /// What it is about: an entry's path, an object's name; may be empty.
        subject: String,
        /// What happened.
        message: String,
    },
}

/// Receives events. Calls come from any thread and must return quickly.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

/// Keeps everything except progress; for tests, and for services that look afterwards.
#[derive(Debug, Default)]
pub struct Collecting(Mutex<Vec<Event>>);

impl Collecting {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().clone()
    }

    /// The warnings so far, as subject and message.
    pub fn warnings(&self) -> Vec<(String, String)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Warning { subject, message } => Some((subject, message)),
                _ => None,
            })
            .collect()
    }
}

impl Collecting {
    /// The notices so far, as subject and message.
    pub fn notices(&self) -> Vec<(String, String)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Notice { subject, message } => Some((subject, message)),
                _ => None,
            })
            .collect()
    }
}

impl Observer for Collecting {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Progress { .. }) {
            self.0.lock().push(event.clone());
        }
    }
}

/// The counters behind [`Progress`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) unchanged: AtomicU64,
    pub(crate) new: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) expected: AtomicU64,
    pub(crate) warnings: AtomicU64,
}

impl Counters {
    pub(crate) fn progress(&self) -> Progress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            entries: get(&self.entries),
            read: get(&self.read),
            unchanged: get(&self.unchanged),
            new: get(&self.new),
            stored: get(&self.stored),
            expected: Some(get(&self.expected)).filter(|expected| *expected > 0),
        }
    }
}
