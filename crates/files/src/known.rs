//! What the last snapshot knows of what a walk found.

use std::sync::Arc;

use lifeboat_core::{Baseline, Context, EntryKind, Error};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::attributes::is_unchanged;
use crate::walk::{Found, Plan};

/// Compares what is found with the last snapshot.
pub(crate) struct Known {
    /// `None` from the moment on at which it could not be read.
    baseline: Mutex<Option<Arc<dyn Baseline>>>,
    /// Nothing that changed after this moment counts as unchanged.
    settled: i64,
    context: Context,
    runtime: Handle,
}

impl Known {
    /// Compares with `baseline`; without one everything is new. Must be made on a runtime.
    pub(crate) fn new(
        baseline: Option<Arc<dyn Baseline>>,
        settled: i64,
        context: &Context,
    ) -> Self {
        let (baseline, context) = (Mutex::new(baseline), context.clone());
        Self { baseline, settled, context, runtime: Handle::current() }
    }

    /// Asks about a batch, in ascending order of the paths. Blocks.
    pub(crate) fn compare(&self, batch: &mut [Found]) {
        // One after the other: batches that follow one another are in the same pages of the
        // snapshot, and side by side each would read and decode them for itself.
        let mut turn = self.baseline.lock();
        let Some(baseline) = &*turn else {
            return;
        };
        let ask = async {
            for found in batch.iter_mut().filter(|found| !matches!(found.plan, Plan::Link(_))) {
                let Some(old) = baseline.entry(&found.path).await? else {
                    continue;
                };
                if is_unchanged(&found.status, &old, self.settled) {
                    if found.kind == EntryKind::File {
                        found.plan = Plan::Unchanged;
                    }
                    found.known = Some(old.attributes);
                }
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = self.runtime.block_on(ask) {
            let message = format!(
                "the last snapshot cannot be compared with, so everything is read again: {}",
                error.one_line()
            );
            self.context.warn("", message);
            *turn = None;
        }
    }
}
