//! What time it is at the store.

use std::time::{Duration, Instant};

use lifeboat_core::Timestamp;
use object_store::PutPayload;

use crate::crypto::random;
use crate::error::{Error, Result};
use crate::objects::{LEASES, Objects};

/// A host whose clock is further off deletes nothing.
const MOST_SKEW: Duration = Duration::from_mins(5);

/// The store's clock, as an object that was just written shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreClock {
    store: Timestamp,
    host: Timestamp,
    asked: Instant,
}

impl StoreClock {
    /// Asks the store, by writing a small object and looking at its time.
    pub(crate) async fn ask(objects: &Objects) -> Result<Self> {
        let name = format!("{LEASES}/clock-{}", hex::encode(random::<16>()?));
        objects.replace(&name, PutPayload::from_static(b"what time is it?")).await?;
        let (asked, host) = (Instant::now(), Timestamp::now());
        let written = objects.head(&name).await?;
        objects.delete_if_allowed(&name).await?;
        let written = written.ok_or_else(|| Error::damaged(&name, "it was written and is gone"))?;
        Ok(Self { store: written.modified, host, asked })
    }

    /// The time at the store, now.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.saturating_add(self.asked.elapsed()).unwrap_or(Timestamp::MAX)
    }

    /// How long ago something was, by the store's clock. What lies ahead was just now.
    pub(crate) fn age(&self, then: Timestamp) -> Duration {
        Duration::try_from(self.now().duration_since(then)).unwrap_or_default()
    }

    /// Refuses to go on where the host's clock and the store's differ by more than five minutes.
    pub(crate) fn agree(&self) -> Result<()> {
        let skew = self.host.duration_since(self.store).unsigned_abs();
        if skew > MOST_SKEW {
            return Err(Error::ClockSkew { seconds: skew.as_secs() });
        }
        Ok(())
    }

    /// For tests: as if so much time had passed.
    #[cfg(test)]
    pub(crate) fn later(self, by: Duration) -> Self {
        Self { store: self.store.saturating_add(by).unwrap(), ..self }
    }

    /// For tests: as if the host's clock showed something else.
    #[cfg(test)]
    fn with_host(self, host: Timestamp) -> Self {
        Self { host, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_clock_that_is_far_off_is_refused() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let clock = StoreClock::ask(&objects).await.unwrap();
        clock.agree().unwrap();
        let off = |seconds: i64| {
            let host = clock.store + jiff::SignedDuration::from_secs(seconds);
            clock.with_host(host).agree()
        };
        assert!(off(299).is_ok() && off(-299).is_ok());
        for seconds in [301, -301] {
            assert!(matches!(off(seconds), Err(Error::ClockSkew { seconds: 301 })), "{seconds}");
        }
        assert!(clock.age(clock.store + jiff::SignedDuration::from_hours(1)).is_zero());
        let left: Vec<_> = objects.list(LEASES).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
