//! The journal of a server's changes.

use std::sync::Arc;

use lifeboat_core::journal::{JournalLog, JournalName};
use lifeboat_core::{Result, StoreRef};

use crate::stream::STREAM;

/// The journal of a store's changes: its stream `stream`, whose timelines are replication ids and
/// whose positions are bytes of the history.
#[derive(Clone)]
pub struct StreamJournal(Arc<dyn JournalLog>);

impl StreamJournal {
    /// The journal of a store. `journal` gives the one of a name.
    ///
    /// # Errors
    /// Never: the name of the stream is a name.
    pub fn open(
        store: &StoreRef,
        journal: impl FnOnce(&JournalName) -> Arc<dyn JournalLog>,
    ) -> Result<Self> {
        Ok(Self(journal(&JournalName::new(store.clone(), STREAM)?)))
    }

    /// Its name, for messages.
    pub fn name(&self) -> &JournalName {
        self.0.name()
    }

    pub(crate) fn log(&self) -> &dyn JournalLog {
        &*self.0
    }

    pub(crate) fn share(&self) -> Arc<dyn JournalLog> {
        Arc::clone(&self.0)
    }
}

impl std::fmt::Debug for StreamJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamJournal").field(&self.name().to_string()).finish()
    }
}
