//! Packs, as events count them.

use lifeboat_repository::PackCount;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Count {
    packs: u64,
    bytes: u64,
}

impl From<PackCount> for Count {
    fn from(count: PackCount) -> Self {
        Self { packs: count.packs, bytes: count.bytes }
    }
}
