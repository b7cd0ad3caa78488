//! Which snapshots stay.

use jiff::Timestamp;

use crate::snapshot::{SnapshotId, SnapshotInfo};

/// What becomes of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It may go.
    Remove,
}

/// What a policy decided of one snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, in words for a person. Never empty.
    pub reason: String,
}

/// Decides which snapshots stay.
///
/// # Contract
/// - There is exactly one decision for each snapshot given.
/// - It is idempotent: of the snapshots that it keeps, it keeps all.
/// - It depends on its arguments only, never on the clock.
pub trait RetentionPolicy: Send + Sync {
    /// Decides of `snapshots` of one store, in any order, as of `now`.
    fn decide(&self, snapshots: &[SnapshotInfo], now: Timestamp) -> Vec<Decision>;
}

/// Keeps the newest `n` snapshots, and always at least one.
///
/// ```
/// use lifeboat_core::{KeepLast, RetentionPolicy, SnapshotId, SnapshotInfo, StoreRef, Verdict};
/// let day = |n: u8| {
///     let taken = format!("2026-03-{n:02}T00:00:00Z").parse().unwrap();
///     SnapshotInfo::new(SnapshotId::from_bytes([n; 32]), StoreRef::new("files", "etc"), taken)
/// };
/// let all = [day(1), day(3), day(2)];
/// let kept: Vec<_> = KeepLast(2)
///     .decide(&all, "2026-03-04T00:00:00Z".parse().unwrap())
///     .into_iter()
///     .filter(|decision| decision.verdict == Verdict::Keep)
///     .map(|decision| decision.snapshot)
///     .collect();
/// assert_eq!(kept, [all[1].id, all[2].id]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepLast(pub usize);

impl RetentionPolicy for KeepLast {
    fn decide(&self, snapshots: &[SnapshotInfo], _: Timestamp) -> Vec<Decision> {
        let count = self.0.max(1);
        let mut newest: Vec<_> = snapshots.iter().collect();
        newest.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.taken, snapshot.id)));
        let decide = |(rank, snapshot): (usize, &SnapshotInfo)| Decision {
            snapshot: snapshot.id,
            verdict: if rank < count { Verdict::Keep } else { Verdict::Remove },
            reason: if rank < count {
                format!("number {} of the last {count}", rank + 1)
            } else {
                format!("older than the last {count}")
            },
        };
        newest.into_iter().enumerate().map(decide).collect()
    }
}
