//! How long a request may take, and whether and when it is made again.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::HttpErrorKind;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{Error, Result};
use rand::RngExt;
use tokio::time::Instant;

use crate::error::classify;
use crate::options::{Patience, Retries};
use crate::trouble::{self, Trouble};

/// What may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Made twice, it is as if it was made once.
    Always,
    /// As `Always`; and where two conditional writes met, S3 wants one of them to come again.
    Create,
    /// Made twice, it is something else: only when it certainly was not done.
    IfUndone,
}

/// The limits of one store, and what is known of it.
#[derive(Debug)]
pub(crate) struct Policy {
    store: String,
    patience: Patience,
    retries: Retries,
    /// Whether the store ever answered.
    contact: AtomicBool,
}

impl Policy {
    pub(super) fn new(store: String, patience: Patience, retries: Retries) -> Self {
        Self { store, patience, retries, contact: AtomicBool::new(false) }
    }

    pub(crate) fn limit(&self, bytes: u64) -> Duration {
        self.patience.limit(bytes)
    }

    /// How long a part of an upload, which repeats itself, may take in all.
    pub(super) fn limit_with_retries(&self, bytes: u64) -> Duration {
        self.limit(bytes).saturating_add(self.patience.give_up)
    }

    /// Makes a request until it succeeds, fails for good, or the time is over.
    pub(crate) async fn run<T, F>(
        &self,
        action: &'static str,
        subject: &Path,
        limit: Duration,
        repeat: Repeat,
        mut request: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut effort = self.begin(action, subject, repeat);
        loop {
            match self.within(limit, request()).await {
                Ok(done) => return Ok(done),
                Err(error) => effort.after(error).await?,
            }
        }
    }

    /// Makes a request once, within a limit.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(done)) => {
                self.contact.store(true, Ordering::Relaxed);
                Ok(done)
            }
            Ok(Err(error)) => Err(trouble::tidy(error)),
            Err(_) => Err(trouble::generic(Trouble::Overdue(limit))),
        }
    }

    pub(super) fn begin<'a>(
        &'a self,
        action: &'static str,
        subject: &Path,
        repeat: Repeat,
    ) -> Effort<'a> {
        Effort {
            policy: self,
            action,
            subject: subject.clone(),
            repeat,
            began: Instant::now(),
            tries: 0,
        }
    }

    fn budget(&self) -> Duration {
        if self.contact.load(Ordering::Relaxed) {
            self.patience.give_up
        } else {
            self.patience.first_contact
        }
    }

    /// The pause after so many tries: between half of it and the whole, so that many clients of a
    /// store that was away do not come back at once.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = self.patience.first_pause.saturating_mul(1 << tries.min(20));
        let whole = doubled.min(self.patience.longest_pause);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// One request and its new tries.
pub(super) struct Effort<'a> {
    policy: &'a Policy,
    action: &'static str,
    subject: Path,
    repeat: Repeat,
    began: Instant,
    tries: u32,
}

impl Effort<'_> {
    /// Returns when it is time to make the request again.
    ///
    /// # Errors
    /// The error given, when there is no sense in that.
    pub(super) async fn after(&mut self, error: Error) -> Result<()> {
        let trouble = Trouble::of(&error);
        if trouble.as_ref().is_some_and(Trouble::is_contact) {
            self.policy.contact.store(true, Ordering::Relaxed);
        }
        let again = match (&trouble, self.repeat) {
            (Some(trouble), Repeat::Create) if trouble.is_conflict() => true,
            // Where there were some, there will be some again; where not, nobody should wait.
            (Some(Trouble::NoCredentials(_)), _) => self.policy.contact.load(Ordering::Relaxed),
            (Some(trouble), Repeat::IfUndone) => {
                trouble.kind().is_retryable() && trouble.is_undone()
            }
            (Some(_), _) => classify(&error).is_retryable(),
            (None, _) => false,
        };
        let pause = self.policy.pause(self.tries);
        if !again || self.began.elapsed() + pause > self.policy.budget() {
            return Err(error);
        }
        self.tries += 1;
        self.policy.retries.note(pause);
        tracing::warn!(
            store = self.policy.store,
            action = self.action,
            object = %self.subject,
            tries = self.tries,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "{}",
            trouble.map_or_else(|| error.to_string(), |trouble| trouble.to_string()),
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// For the parts of an upload: only the store beneath can make one again.
#[async_trait]
impl RetryPolicy for Policy {
    async fn retry(&self, context: RetryContext) -> bool {
        let tries = u32::try_from(context.attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let can_pass = match context.failure {
            RetryFailure::Status(status) => {
                status.is_server_error() || matches!(status.as_u16(), 200 | 408 | 429)
            }
            RetryFailure::Transport(HttpErrorKind::Decode) => false,
            RetryFailure::Transport(_) => true,
            _ => false,
        };
        let pause = self.pause(tries);
        if !can_pass || context.elapsed + pause > self.budget() {
            return false;
        }
        self.retries.note(pause);
        tracing::warn!(store = self.store, failure = ?context.failure, "upload a part again");
        tokio::time::sleep(pause).await;
        true
    }
}
