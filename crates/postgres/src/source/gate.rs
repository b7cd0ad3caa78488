//! Waiting until every content that was handed out has been read or dropped.
//!
//! The backup may be ended at the server only when no file will be read any more: a page read
//! later could be newer than the WAL that belongs to the backup.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts the contents in other people's hands.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<watch::Sender<usize>>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// One more content; it counts until the ticket is dropped.
    pub(super) fn ticket(&self) -> Ticket {
        self.0.send_modify(|count| *count += 1);
        Ticket(Arc::clone(&self.0))
    }

    /// Returns when no ticket is out.
    pub(super) async fn idle(&self) {
        // The sender lives in this value, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Held by a content while it may still be read.
#[derive(Debug)]
pub(super) struct Ticket(Arc<watch::Sender<usize>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn it_opens_when_the_last_ticket_is_gone() {
        let gate = Gate::new();
        assert!(gate.idle().now_or_never().is_some());
        let (one, two) = (gate.ticket(), gate.ticket());
        drop(one);
        assert!(gate.idle().now_or_never().is_none());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.idle().await }
        });
        drop(two);
        waiting.await.unwrap();
    }
}
