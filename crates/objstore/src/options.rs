//! How a store is opened.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a store is opened. The default opens what exists, with limits that suit a slow uplink.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Whether a directory that is not there is made.
    pub intent: Intent,
    /// How long a request may take, and how long it is tried again.
    pub patience: Patience,
    /// How a request to S3 protects what it carries.
    pub integrity: Integrity,
    /// Whether requests may go over a network in the clear.
    pub plain_http: PlainHttp,
    /// Where credentials and other settings of the provider come from.
    pub variables: Variables,
    /// Counts what was tried again. Keep a clone to read it.
    pub retries: Retries,
}

impl StoreOptions {
    /// The defaults, with this intent.
    pub fn new(intent: Intent) -> Self {
        Self { intent, ..Self::default() }
    }
}

/// What the caller is about to do.
///
/// Only a directory and a store in memory can be missing before the first request; whether a
/// bucket exists is known when it answers. A bucket is never made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Intent {
    /// Use what is there. A mistyped path is an error, and not an empty store.
    #[default]
    Existing,
    /// Make what is not there.
    Create,
}

/// How long a request may take, and how long it is tried again.
///
/// A request may take `base` plus the time in which `minimum_rate` moves its bytes. A failure that
/// can pass is answered by trying again after a pause, until `give_up` is over; a store that never
/// answered since it was opened is given `first_contact` only, so that a mistyped endpoint is
/// reported while somebody looks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// For making a connection. 10 s.
    pub connect: Duration,
    /// For a request that carries nothing, and for each wait within an answer. 30 s.
    pub base: Duration,
    /// The slowest transfer that is not given up, in bytes per second; at least 1. 64 KiB/s.
    pub minimum_rate: u64,
    /// How long to go on trying, since the request was made first. 10 min. No new try begins after
    /// it; one under way has its own limit.
    pub give_up: Duration,
    /// The same, as long as the store has not answered once. 15 s.
    pub first_contact: Duration,
    /// The pause before the first new try; it doubles, and a random half of it is waited. 200 ms.
    pub first_pause: Duration,
    /// The longest pause. 30 s.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            base: Duration::from_secs(30),
            minimum_rate: 64 << 10,
            give_up: Duration::from_secs(600),
            first_contact: Duration::from_secs(15),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// How long a request that carries `bytes` may take.
    pub fn limit(&self, bytes: u64) -> Duration {
        self.base.saturating_add(Duration::from_secs(bytes / self.minimum_rate.max(1)))
    }
}

/// How a request to S3 protects what it carries. Other providers have one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Integrity {
    /// The body's SHA-256 is part of the signature: works everywhere, at about 2 GB/s per core.
    #[default]
    Signed,
    /// The same, and the store keeps the SHA-256 as a checksum: for buckets with object lock,
    /// which demand one.
    SignedSha256,
    /// The body is not signed, TLS protects it on its way, and the store checks its CRC-64/NVME:
    /// the fastest, but some stores refuse it. Over plain http the body is signed all the same.
    Crc64,
}

/// Whether requests may go over a network in the clear. What a repository holds is encrypted, but
/// whoever is on the way can drop, delay and replay requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PlainHttp {
    /// Only to this machine.
    #[default]
    Loopback,
    /// To any host. `?allow_http=true` in the URL and the provider's own variable
    /// (`AWS_ALLOW_HTTP`, …) ask for the same.
    Anywhere,
}

/// Where credentials and other settings of a provider come from.
#[derive(Clone, Default)]
pub enum Variables {
    /// From the environment of the process.
    #[default]
    Environment,
    /// From these, as names and values, under the same names as in the environment. For programs
    /// that use several accounts, or keep their secrets elsewhere.
    Given(Vec<(String, String)>),
}

impl Variables {
    /// Names in lower case, with their values. What is empty, or not text, counts as not set.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        let mut pairs: Vec<_> = match self {
            Self::Given(pairs) => pairs.iter().cloned().map(lower).collect(),
            Self::Environment => std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .map(lower)
                .collect(),
        };
        pairs.retain(|(_, value)| !value.is_empty());
        pairs
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Given(pairs) => {
                let names = pairs.iter().map(|(name, _)| name);
                f.write_str("Given")?;
                f.debug_list().entries(names).finish()
            }
        }
    }
}

/// Counts the requests that were tried again, and the time waited before. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Retries(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    tries: AtomicU64,
    waited: AtomicU64,
}

impl Retries {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many requests were made again.
    pub fn count(&self) -> u64 {
        self.0.tries.load(Ordering::Relaxed)
    }

    /// The sum of the pauses before them, to the millisecond.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.0.waited.load(Ordering::Relaxed))
    }

    pub(crate) fn note(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.0.tries.fetch_add(1, Ordering::Relaxed);
        self.0.waited.fetch_add(pause, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_not_shown() {
        let given = Variables::Given(vec![("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into())]);
        let options = StoreOptions { variables: given, ..StoreOptions::default() };
        let shown = format!("{options:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_limit_grows_with_the_size() {
        let patience = Patience::default();
        assert_eq!(patience.limit(0), patience.base);
        assert_eq!(patience.limit(64 << 20), patience.base + Duration::from_secs(1024));
        let odd = Patience { minimum_rate: 0, ..Patience::default() };
        assert!(odd.limit(u64::MAX) > odd.base);
    }
}
