//! What accompanies an operation from end to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use crate::budget::ByteBudget;
use crate::error::{Error, Result};
use crate::observer::{Counters, Event, Observer, Progress, Silent};

/// The observer, the budget, the counters and the way to cancel, passed last to every operation.
/// Clones share all of it.
///
/// ```
/// use std::sync::Arc;
/// use lifeboat_core::{Collecting, Context};
/// let observer = Arc::new(Collecting::new());
/// let context = Context::new(observer.clone());
/// context.warn("etc/hosts", "it changed while it was read");
/// assert_eq!(observer.warnings().len(), 1);
/// assert_eq!(context.warnings(), 1);
/// ```
#[derive(Clone)]
pub struct Context {
    observer: Arc<dyn Observer>,
    budget: ByteBudget,
    counters: Arc<Counters>,
    cancel: CancellationToken,
}

impl Context {
    /// A context with the default budget.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self {
            observer,
            budget: ByteBudget::default(),
            counters: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    /// Nobody watches.
    pub fn silent() -> Self {
        Self::new(Arc::new(Silent))
    }

    /// Sets the budget for buffers.
    #[must_use]
    pub fn with_budget(mut self, budget: ByteBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The budget from which sources take their buffers.
    pub fn budget(&self) -> &ByteBudget {
        &self.budget
    }

    /// Tells the observer that a new part of the work begins.
    pub fn phase(&self, name: impl Into<String>) {
        self.observer.event(&Event::Phase { name: name.into() });
    }

    /// Says that something needs attention, and counts it. `subject` is what it is about.
    pub fn warn(&self, subject: &(impl std::fmt::Display + ?Sized), message: impl Into<String>) {
        self.counters.warnings.fetch_add(1, Ordering::Relaxed);
        let (subject, message) = (subject.to_string(), message.into());
        tracing::warn!(subject, "{message}");
        self.observer.event(&Event::Warning { subject, message });
    }

    /// Says something that is worth knowing, and because of which nothing is missing. `subject` is
    /// what it is about.
    pub fn note(&self, subject: &(impl std::fmt::Display + ?Sized), message: impl Into<String>) {
        let (subject, message) = (subject.to_string(), message.into());
        tracing::info!(subject, "{message}");
        self.observer.event(&Event::Notice { subject, message });
    }

    /// How many warnings there were.
    pub fn warnings(&self) -> u64 {
        self.counters.warnings.load(Ordering::Relaxed)
    }

    /// Where the counts stand.
    pub fn progress(&self) -> Progress {
        self.counters.progress()
    }

    /// Sends the counts to the observer.
    pub fn report(&self) {
        self.observer.event(&Event::Progress { progress: self.progress() });
    }

    /// Adds to the number of bytes that the whole is expected to have.
    pub fn expect(&self, bytes: u64) {
        self.counters.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a finished entry.
    pub fn count_entry(&self) {
        self.counters.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes read from the source.
    pub fn count_read(&self, bytes: u64) {
        self.counters.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that the baseline has.
    pub fn count_unchanged(&self, bytes: u64) {
        self.counters.unchanged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that the sink did not have.
    pub fn count_new(&self, bytes: u64) {
        self.counters.new.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that the sink wrote.
    pub fn count_stored(&self, bytes: u64) {
        self.counters.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Asks everything that runs with this context to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns when somebody asks to stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// For loops without another await.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) when somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
