//! Progress on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat_core::Progress;

use super::text::{number, size};

/// How often the bar moves by itself, so that people see that it lives.
const TICK: Duration = Duration::from_millis(120);

/// One line at the bottom of the terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(phase: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {prefix}  {msg}"));
        bar.set_prefix(phase.to_owned());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// A new part of the work begins.
    pub(super) fn phase(&self, name: &str) {
        self.0.set_prefix(name.to_owned());
        self.0.set_message(String::new());
    }

    /// The counts moved.
    pub(super) fn progress(&self, progress: &Progress) {
        let done = progress.read + progress.unchanged;
        if let Some(expected) = progress.expected
            && self.0.length() != Some(expected.max(done))
        {
            self.0.set_length(expected.max(done));
            self.0.set_style(style("{spinner} {prefix}  [{bar:24}] {percent}%  {msg}  {eta} left"));
        }
        self.0.set_position(done);
        self.0.set_message(counts(progress));
    }

    /// Does something with the line out of the way.
    pub(super) fn aside<T>(&self, then: impl FnOnce() -> T) -> T {
        self.0.suspend(then)
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test draws them.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

/// The counts in a few words.
pub(super) fn counts(progress: &Progress) -> String {
    let entries = number(progress.entries, "entry", "entries");
    let mut words = format!("{entries}, {} read", size(progress.read));
    if progress.unchanged > 0 {
        words += &format!(", {} unchanged", size(progress.unchanged));
    }
    if progress.stored > 0 {
        words += &format!(", {} stored", size(progress.stored));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_right() {
        for template in [
            "{spinner} {prefix}  {msg}",
            "{spinner} {prefix}  [{bar:24}] {percent}%  {msg}  {eta} left",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
