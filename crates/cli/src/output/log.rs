//! What the libraries log, for people and programs.
//!
//! With `--verbose` all of it goes to standard error. Without, one thing is picked out: requests to
//! the repository's store that are made again. A command that waits ten minutes for a store to come
//! back must not look as if it hung.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as log};

use super::Output;

/// People are told no more often than this; many requests fail at once.
const EVERY: Duration = Duration::from_secs(5);

/// What is logged with `--verbose`; the variable `LIFEBOAT_LOG` says it differently. Warnings that
/// are told anyway are left out.
const FILTER: &str = "warn,lifeboat_core=off,lifeboat_repository=debug,lifeboat_objstore=debug,\
                      lifeboat_postgres=debug,lifeboat_files=debug";

/// Starts listening. Somebody else's log is as good: then this does nothing.
pub(super) fn start(output: &Output, verbose: bool) {
    let retries = Retries { output: output.clone(), told: Mutex::new(None), verbose };
    let registry = tracing_subscriber::registry().with(retries.with_filter(LevelFilter::WARN));
    let started = if verbose {
        let filter = EnvFilter::try_from_env("LIFEBOAT_LOG").unwrap_or_else(|_| FILTER.into());
        let ansi = io::stderr().is_terminal();
        let layer = log::layer().with_writer(io::stderr).with_ansi(ansi).with_filter(filter);
        registry.with(layer).try_init()
    } else {
        registry.try_init()
    };
    drop(started);
}

/// Tells of requests that are made again.
struct Retries {
    output: Output,
    told: Mutex<Option<Instant>>,
    verbose: bool,
}

/// The event `retry`.
#[derive(Default, Serialize)]
struct Retry {
    action: String,
    object: String,
    tries: u64,
    message: String,
}

impl Visit for Retry {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "tries" {
            self.tries = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "action" {
            value.clone_into(&mut self.action);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "object" => self.object = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Retries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let ours = metadata.target().starts_with("lifeboat_objstore");
        if !ours || *metadata.level() != Level::WARN {
            return;
        }
        let mut retry = Retry::default();
        event.record(&mut retry);
        self.output.event("retry", &retry);
        let mut told = self.told.lock();
        if !self.verbose && told.is_none_or(|told| told.elapsed() >= EVERY) {
            *told = Some(Instant::now());
            self.output.note(&format!("{}; trying again", retry.message));
        }
    }
}
