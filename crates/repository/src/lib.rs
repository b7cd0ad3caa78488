//! Lifeboat's repository: where snapshots live.

mod check;
mod chunk;
mod config;
mod content;
mod crypto;
mod error;
mod id;
mod index;
mod objects;
mod pack;
mod pool;
mod read;
mod repository;
mod sealed;
mod snapshot;
mod tree;
mod write;

pub use check::{CheckOptions, CheckReport, Damage, Depth, check_without_key};
pub use config::Parameters;
pub use crypto::{KdfCost, Secret};
pub use error::{Error, Result};
pub use id::{ChunkId, ObjectId, RepositoryId};
pub use read::Selection;
pub use repository::{Compression, InitOptions, Repository, SnapshotList, WriteOptions};
pub use snapshot::{Listing, Snapshot};
