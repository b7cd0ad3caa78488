//! Waiting until nothing is under way any more.
//!
//! A backup may be ended at the server only when no file will be read any more: a page read later
//! could be newer than the WAL that belongs to the backup. A restore may be undone only when no
//! file will be made any more: work on a blocking thread goes on when its future is dropped.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what is under way.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<usize>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// One more thing; it counts until the ticket is dropped.
    pub(crate) fn ticket(&self) -> Ticket {
        self.0.send_modify(|count| *count += 1);
        Ticket(Arc::clone(&self.0))
    }

    /// Returns when no ticket is out.
    pub(crate) async fn idle(&self) {
        // The sender lives in this value, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Held by something for as long as it is under way.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<watch::Sender<usize>>);

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
