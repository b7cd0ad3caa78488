//! Names of what a snapshot of a cluster records about itself, and what a later backup takes from
//! it.
//!
//! | fact | value |
//! |---|---|
//! | `postgres.version` | the server's version, `15.18` |
//! | `postgres.system_id` | the system identifier, as `pg_controldata` shows it |
//! | `postgres.catalog_version`, `postgres.control_version` | as `pg_controldata` shows them |
//! | `postgres.block_size`, `postgres.wal_segment_size` | bytes |
//! | `postgres.checksum_version` | 0 when pages carry no checksums |
//! | `postgres.start_lsn`, `postgres.stop_lsn` | from where to where WAL belongs to the backup |
//! | `postgres.checkpoint_lsn` | the checkpoint from which a restored cluster recovers |
//! | `postgres.timeline` | the timeline of both |
//! | `journal.wal.timeline`, `journal.wal.from` | from where on recovery to a later moment needs the WAL: the timeline (`<system identifier>/<timeline>`), and the start as a number |
//! | `postgres.started`, `postgres.stopped` | nanoseconds since 1970: by this host's clock, by the server's |
//! | `postgres.databases` | oid and name |
//! | `postgres.tablespaces` | oid and location; empty for one inside the data directory |
//! | `postgres.devices` | tablespace (0: data directory) and the device that holds it |
//! | `postgres.pages` | `verified` when page checksums were looked at |
//! | `postgres.damaged_pages`, `postgres.damaged` | how many; path and page numbers |
//! | `postgres.wal_summaries` | the last WAL summaries that end at the start, where the server had them: by them a later backup knows that the server's history is the same |
//! | `postgres.standby` | `on` when the backup was taken from a standby |
//! | `postgres.archive_mode` | the setting, when the role could read it |
//! | `postgres.standby` | `on` when it was taken from a standby |

pub(crate) const VERSION: &str = "postgres.version";
pub(crate) const SYSTEM_ID: &str = "postgres.system_id";
pub(crate) const CATALOG_VERSION: &str = "postgres.catalog_version";
pub(crate) const CONTROL_VERSION: &str = "postgres.control_version";
pub(crate) const BLOCK_SIZE: &str = "postgres.block_size";
pub(crate) const SEGMENT_SIZE: &str = "postgres.wal_segment_size";
pub(crate) const CHECKSUM_VERSION: &str = "postgres.checksum_version";
pub(crate) const START: &str = "postgres.start_lsn";
pub(crate) const STOP: &str = "postgres.stop_lsn";
pub(crate) const CHECKPOINT: &str = "postgres.checkpoint_lsn";
pub(crate) const TIMELINE: &str = "postgres.timeline";
pub(crate) const STARTED: &str = "postgres.started";
pub(crate) const STOPPED: &str = "postgres.stopped";
pub(crate) const DATABASES: &str = "postgres.databases";
pub(crate) const TABLESPACES: &str = "postgres.tablespaces";
pub(crate) const DEVICES: &str = "postgres.devices";
pub(crate) const PAGES: &str = "postgres.pages";
pub(crate) const VERIFIED: &str = "verified";
pub(crate) const DAMAGED_PAGES: &str = "postgres.damaged_pages";
pub(crate) const DAMAGED: &str = "postgres.damaged";
/// Of an inspection, and of the receipt of a restore.
pub(crate) const DIRECTORY: &str = "postgres.directory";
pub(crate) const SUMMARIES: &str = "postgres.wal_summaries";
pub(crate) const STANDBY: &str = "postgres.standby";
pub(crate) const ARCHIVE_MODE: &str = "postgres.archive_mode";
