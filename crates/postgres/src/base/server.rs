//! A server that was asked everything that a base backup of it needs to know.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifeboat_core::{Attributes, Value};

use super::error::{BaseBackupError, Result};
use crate::connect::{ConnectOptions, Session};
use crate::lsn::SegmentSize;
use crate::replication::{Client, Identity, ReplicationError, SlotName};
use crate::source::facts;

/// The majors whose base backups are known to be right.
pub(super) const SUPPORTED: std::ops::RangeInclusive<u32> = 15..=18;

/// How often, and after which pause, a connection is opened again.
const REOPENS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Where a server's log files are unless it says otherwise.
const USUAL_LOGS: &str = "log";

/// A server, and the connection on which it sends its backup.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) about: About,
    /// Whether it keeps the WAL that the backup needs.
    pub(super) keeps_wal: bool,
    /// By oid, where they could be asked for.
    pub(super) databases: BTreeMap<u32, String>,
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) identity: Identity,
    pub(super) major: u32,
    pub(super) version: String,
    pub(super) standby: bool,
    /// Bytes in a page, and pages in a file of a relation.
    pub(super) page_size: u32,
    pub(super) relation_segment_pages: u32,
    pub(super) segment_size: SegmentSize,
    /// Whether pages carry checksums.
    pub(super) checksums: bool,
    /// Permission bits of the data directory.
    pub(super) directory_mode: u32,
    /// Where its log files are, relative to the data directory, when they are in it.
    pub(super) logs: Option<String>,
    /// When the role may see it.
    pub(super) archive_mode: Option<String>,
}

impl Server {
    /// Connects, asks, and has the server keep its WAL.
    pub(super) async fn open(connection: &ConnectOptions) -> lifeboat_core::Result<Self> {
        let mut client = Client::connect(connection).await?;
        let about = About::ask(&mut client).await?;
        let keeps_wal = client.keep_wal(&slot()?).await?;
        let databases = databases(connection).await;
        Ok(Self { client, about, keeps_wal, databases })
    }

    /// Gives up the connection for another one.
    pub(super) async fn again(self, connection: &ConnectOptions) -> lifeboat_core::Result<Self> {
        drop(self);
        Self::reopen(connection).await
    }

    /// As [`open`](Self::open), right after another connection was given up: the server may need
    /// a moment to notice, and have no sender to spare until then.
    pub(super) async fn reopen(connection: &ConnectOptions) -> lifeboat_core::Result<Self> {
        for _ in 0..REOPENS {
            match Self::open(connection).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
                opened => return opened,
            }
        }
        Self::open(connection).await
    }

    /// The facts that are known before the backup begins.
    pub(super) fn facts(&self) -> Attributes {
        let about = &self.about;
        let mut facts = Attributes::new()
            .with(facts::VERSION, about.version.as_str())
            .with(facts::TABLESPACES, Value::Pairs(Vec::new()));
        if !self.databases.is_empty() {
            let rows = self.databases.iter();
            let rows =
                rows.map(|(oid, name)| (oid.to_string().into_bytes(), name.clone().into_bytes()));
            facts.set(facts::DATABASES, Value::from(rows.collect::<Vec<_>>()));
        }
        if let Some(mode) = &about.archive_mode {
            facts.set(facts::ARCHIVE_MODE, mode.as_str());
        }
        if about.standby {
            facts.set(facts::STANDBY, "on");
        }
        facts
    }
}

impl About {
    pub(super) async fn ask(client: &mut Client) -> Result<Self> {
        let (major, version) = (client.major()?, client.version_text().to_owned());
        if !SUPPORTED.contains(&major) {
            return Err(BaseBackupError::Version { found: version });
        }
        let identity = client.identify().await?;
        let page_size = client.size_setting("block_size").await?;
        let relation_size = client.size_setting("segment_size").await?;
        let mode = client.setting("data_directory_mode").await?;
        let mode = mode.and_then(|mode| u32::from_str_radix(&mode, 8).ok());
        if !page_size.is_power_of_two() || !(1024..=32768).contains(&page_size) {
            let why = format!("it has pages of {page_size} bytes");
            return Err(ReplicationError::protocol("ask the server for block_size", why).into());
        }
        let logs = client.setting("log_directory").await?;
        Ok(Self {
            identity,
            major,
            version,
            standby: client.is_standby(),
            page_size,
            relation_segment_pages: relation_size / page_size,
            segment_size: client.segment_size().await?,
            checksums: client.setting("data_checksums").await?.as_deref() == Some("on"),
            directory_mode: mode.unwrap_or(0o700) & 0o7777,
            // Where it is outside of the data directory, nothing of it is sent.
            logs: Some(logs.unwrap_or_else(|| USUAL_LOGS.to_owned()))
                .filter(|logs| !logs.starts_with('/')),
            archive_mode: client.setting("archive_mode").await?,
        })
    }
}

/// A name for a slot that nobody else has: it ends with the connection.
fn slot() -> lifeboat_core::Result<SlotName> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("lifeboat_{:x}_{:x}", std::process::id(), since.as_nanos());
    Ok(name.parse::<SlotName>()?)
}

/// The databases by name. A courtesy: a role that may only replicate cannot ask, and then damage
/// is told by number.
async fn databases(connection: &ConnectOptions) -> BTreeMap<u32, String> {
    let ask = async {
        let session = Session::open(connection).await.ok()?;
        let statement = "SELECT oid, datname::text FROM pg_database";
        let rows = session.all("ask for the databases", statement, &[]).await.ok()?;
        let pair = |row: &tokio_postgres::Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
        rows.iter().map(pair).collect::<Option<_>>()
    };
    ask.await.unwrap_or_default()
}
