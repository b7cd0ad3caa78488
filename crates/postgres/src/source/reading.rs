//! One backup: the files of the cluster, then the end of backup mode, then what recovery needs.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use lifeboat_core::journal::{Need, Position};
use lifeboat_core::{
    Attributes, Baseline, Completion, Content, Context, Entry, EntryKind, EntryPath, Reading,
    Value, names,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::backup::{Backup, Ended, keep_wal};
use super::cluster::{Cluster, blocking};
use super::content::{Check, FileContent};
use super::damage::Damage;
use super::listing::{Item, Listing, Origin, Places, Trust, measure};
use super::summaries::Changes;
use super::{ClusterOptions, VerifyPages, facts, lineage};
use crate::archive::{WAL, WalLine};
use crate::connect::Session;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::wal::{self, Expected};

/// The name under which a snapshot keeps what recovery needs.
pub(crate) const RECOVERY: &str = "recovery";

/// A backup in progress.
pub(super) struct ClusterReading {
    backup: Backup,
    cluster: Arc<Cluster>,
    items: mpsc::Receiver<Result<Item>>,
    places: Arc<Mutex<Places>>,
    damage: Arc<Damage>,
    gate: Gate,
    facts: Attributes,
    stage: Stage,
    context: Context,
}

enum Stage {
    /// The files of the cluster.
    Cluster,
    /// What recovery needs, in the order of the names.
    Recovery { rest: VecDeque<Needed>, ended: Ended },
}

/// An entry of the second part.
enum Needed {
    Directory,
    History(Vec<u8>),
    Segment(Expected),
    File(&'static str, Vec<u8>),
}

/// A server that was asked everything, and keeps its WAL for the backup to come.
#[derive(Debug)]
pub(super) struct Prepared {
    session: Session,
    cluster: Cluster,
}

impl Prepared {
    pub(super) async fn make(options: &ClusterOptions) -> Result<Self> {
        let session = Session::open(&options.connection).await?;
        let cluster = Cluster::find(&session, options.data_directory.as_deref()).await?;
        Backup::may_be_taken(&session).await?;
        keep_wal(&session).await?;
        Ok(Self { session, cluster })
    }
}

impl ClusterReading {
    pub(super) async fn start(
        options: &ClusterOptions,
        prepared: Option<Prepared>,
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> Result<Self> {
        context.phase("start the backup");
        let Prepared { session, mut cluster } = match prepared {
            Some(prepared) => prepared,
            None => Prepared::make(options).await?,
        };
        let (databases, mut recorded) = ask(&session).await?;

        let system_id = cluster.control.system_id;
        lineage::tell_of_another(since.as_deref(), facts::SYSTEM_ID, system_id, context);
        let trust = Trust::of(since, &cluster, options.unchanged, options.verify_pages);
        let began = Timestamp::now();
        let backup =
            Backup::start(session, &mut cluster, &options.label, options.checkpoint).await?;
        let cluster = Arc::new(cluster);
        let changes = match &trust {
            Some(trust) => {
                let session = backup.session();
                let start = backup.starts_at();
                Changes::since(trust.facts(), &cluster, session, start, context).await?
            }
            None => None,
        };

        let verify =
            options.verify_pages == VerifyPages::Verify && cluster.control.checksum_version != 0;
        record_cluster(&mut recorded, &cluster, began, verify);
        expect_size(&cluster, options, context);
        context.phase("copy the cluster");
        let places = Arc::default();
        let listing = Listing {
            cluster: Arc::clone(&cluster),
            logs: options.server_logs,
            verify,
            trust,
            changes,
            context: context.clone(),
            places: Arc::clone(&places),
        };
        Ok(Self {
            damage: Damage::new(options.connection.clone(), databases),
            backup,
            cluster,
            items: listing.start(),
            places,
            gate: Gate::new(),
            facts: recorded,
            stage: Stage::Cluster,
            context: context.clone(),
        })
    }

    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.backup.session().check()?;
        if matches!(self.stage, Stage::Cluster) {
            match self.items.recv().await {
                Some(Ok(Item::End)) => self.stage = self.end_of_files().await?,
                Some(Ok(item)) => return Ok(Some(self.entry_of(item)?)),
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Unfinished),
            }
        }
        let Stage::Recovery { rest, .. } = &mut self.stage else {
            return Ok(None);
        };
        match rest.pop_front() {
            Some(needed) => self.needed_entry(needed).await.map(Some),
            None => Ok(None),
        }
    }

    fn entry_of(&self, item: Item) -> Result<Entry> {
        match item {
            Item::Plain { path, kind, attributes } => Ok(Entry::new(path, kind, attributes)),
            Item::File { path, attributes, size, layout, content } => {
                let content = match content {
                    Origin::Unchanged => {
                        self.context.count_unchanged(size);
                        Content::unchanged(size)
                    }
                    Origin::Read { file, on_disk, pages, ranges } => FileContent {
                        file,
                        path: path.clone(),
                        on_disk,
                        size,
                        ranges,
                        check: match pages {
                            Some(pages) => Check::Pages(pages, Arc::clone(&self.damage)),
                            None => Check::Nothing,
                        },
                        context: self.context.clone(),
                        ticket: self.gate.ticket(),
                    }
                    .into_content(),
                };
                let entry = Entry::new(path, EntryKind::File, attributes);
                Ok(entry.with_layout(layout).with_content(size, content))
            }
            Item::End => Err(Error::Unfinished),
        }
    }

    /// Waits until all files are read, and ends the backup mode.
    async fn end_of_files(&self) -> Result<Stage> {
        tokio::select! {
            () = self.gate.idle() => {}
            () = self.backup.session().ended() => return Err(Error::SessionLost),
        }
        // Last of all files: it must not be older than any of them.
        let control = self.cluster.control_now().await?;
        self.context.phase("end the backup");
        let ended = self.backup.stop().await?;
        if control.timeline != ended.label.timeline
            || control.system_id != self.cluster.control.system_id
        {
            return Err(Error::OtherServer {
                path: self.cluster.directory.clone(),
                target: self.backup.session().target().to_owned(),
                why: "its timeline changed during the backup".into(),
            });
        }
        self.context.phase("copy the WAL");
        let rest = self.plan(&control, &ended).await?;
        Ok(Stage::Recovery { rest, ended })
    }

    async fn plan(&self, control: &Control, ended: &Ended) -> Result<VecDeque<Needed>> {
        let size = control.segment_size;
        let segments = size.holding(ended.label.start)..=size.ending_at(ended.stop);
        let segments: Vec<Expected> = segments
            .map(|segment| {
                Expected::new(
                    self.cluster.major,
                    control,
                    ended.label.timeline,
                    segment,
                    ended.stop,
                )
            })
            .collect();
        let directory = self.wal_directory();
        let names: Vec<String> = segments.iter().map(Expected::name).collect();
        let histories = blocking(move || {
            // Better to learn now that one is missing than after hours of copying.
            let missing = names.iter().find(|name| !directory.join(name).exists());
            if let Some(segment) = missing {
                return Err(Error::WalMissing { segment: segment.clone() });
            }
            histories(&directory)
        })
        .await?;
        self.context.expect(segments.len() as u64 * size.bytes());

        // The order of the names: "00000002.history" < "00000002…" < "backup_label" < …
        let mut wal: Vec<(Vec<u8>, Needed)> = Vec::new();
        wal.extend(histories.into_iter().map(|name| (name.clone(), Needed::History(name))));
        wal.extend(segments.into_iter().map(|s| (s.name().into_bytes(), Needed::Segment(s))));
        wal.sort_by(|one, two| one.0.cmp(&two.0));

        let mut rest = VecDeque::from([Needed::Directory]);
        rest.extend(wal.into_iter().map(|(_, needed)| needed));
        rest.push_back(Needed::File("backup_label", ended.label_text.clone().into_bytes()));
        rest.push_back(Needed::File("pg_control", control.bytes.clone()));
        if !ended.tablespace_map.is_empty() {
            let map = ended.tablespace_map.clone().into_bytes();
            rest.push_back(Needed::File("tablespace_map", map));
        }
        Ok(rest)
    }

    fn wal_directory(&self) -> PathBuf {
        self.cluster.directory.join("pg_wal")
    }

    async fn needed_entry(&self, needed: Needed) -> Result<Entry> {
        // Modes as the server gives to such files.
        let attributes = |mode: u32| Attributes::new().with(names::MODE, mode);
        match needed {
            Needed::Directory => {
                Ok(Entry::new(recovery_name(None)?, EntryKind::Directory, attributes(0o700)))
            }
            Needed::File(file, bytes) => {
                self.context.count_read(bytes.len() as u64);
                Ok(Entry::file(recovery_name(Some(file.as_bytes()))?, attributes(0o600), bytes))
            }
            Needed::History(file) => {
                let path = self.wal_directory().join(crate::source::walk::bytes_to_path(&file));
                let bytes = blocking(move || {
                    std::fs::read(&path).map_err(|source| Error::File {
                        what: "read",
                        path,
                        source,
                    })
                });
                let bytes = bytes.await?;
                self.context.count_read(bytes.len() as u64);
                Ok(Entry::file(recovery_name(Some(&file))?, attributes(0o600), bytes))
            }
            Needed::Segment(expected) => {
                let segment = expected.name();
                let on_disk = self.wal_directory().join(&segment);
                let path = recovery_name(Some(segment.as_bytes()))?;
                let file = self.open_segment(on_disk.clone(), segment, &expected).await?;
                let size = expected.size.bytes();
                let content = FileContent {
                    file,
                    path: path.clone(),
                    on_disk,
                    size,
                    ranges: None,
                    check: Check::Wal(expected),
                    context: self.context.clone(),
                    ticket: self.gate.ticket(),
                };
                let entry = Entry::new(path, EntryKind::File, attributes(0o600));
                Ok(entry.with_content(size, content.into_content()))
            }
        }
    }

    async fn open_segment(
        &self,
        on_disk: PathBuf,
        segment: String,
        expected: &Expected,
    ) -> Result<File> {
        let size = expected.size.bytes();
        blocking(move || {
            let file = match File::open(&on_disk) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::WalMissing { segment });
                }
                Err(source) => {
                    return Err(Error::File { what: "open", path: on_disk, source });
                }
                Ok(file) => file,
            };
            let about = file.metadata();
            let about =
                about.map_err(|source| Error::File { what: "read", path: on_disk, source })?;
            if about.len() != size {
                let why = format!("it has {} bytes, not {size}", about.len());
                return Err(Error::WalDamaged { segment, why });
            }
            Ok(file)
        })
        .await
    }

    async fn complete(mut self) -> Result<Completion> {
        self.gate.idle().await;
        let Stage::Recovery { rest, ended } = self.stage else {
            return Err(Error::Unfinished);
        };
        if !rest.is_empty() {
            return Err(Error::Unfinished);
        }
        let (session, label) = (self.backup.session(), &ended.label);
        let summaries = lineage::remembered(session, label.timeline, label.start).await;
        let facts = &mut self.facts;
        if let Some(summaries) = summaries {
            facts.set(facts::SUMMARIES, summaries);
        }
        facts.set(facts::START, ended.label.start.to_string());
        facts.set(facts::CHECKPOINT, ended.label.checkpoint.to_string());
        facts.set(facts::STOP, ended.stop.to_string());
        facts.set(facts::TIMELINE, ended.label.timeline);
        facts.set(facts::STOPPED, nanoseconds(ended.at));
        let line = WalLine::new(self.cluster.control.system_id, ended.label.timeline);
        if let Ok(timeline) = line.to_timeline() {
            Need { timeline, from: Position(ended.label.start.0) }.record(WAL, facts);
        }
        let places = self.places.lock();
        let row = |oid: &u32, value: Vec<u8>| (oid.to_string().into_bytes(), value);
        let devices =
            places.devices.iter().map(|(oid, device)| row(oid, device.to_string().into_bytes()));
        facts.set(facts::DEVICES, devices.collect::<Vec<_>>());
        let tablespaces =
            places.tablespaces.iter().map(|(oid, location)| row(oid, location.clone()));
        facts.set(facts::TABLESPACES, tablespaces.collect::<Vec<_>>());
        self.damage.record(facts);
        Ok(Completion {
            taken: ended.at,
            position: ended.stop.to_string(),
            facts: std::mem::take(facts),
        })
    }
}

#[async_trait]
impl Reading for ClusterReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        self.context.check()?;
        Ok(self.next_entry().await?)
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        Ok(self.complete().await?)
    }
}

/// The path of what recovery needs; of the directory that holds it without a file's name.
pub(crate) fn recovery_name(file: Option<&[u8]>) -> Result<EntryPath> {
    let path = EntryPath::new(RECOVERY);
    let path = match file {
        Some(file) => path.and_then(|path| path.join(file)),
        None => path,
    };
    path.map_err(|error| Error::Answer { what: "name the entries", why: error.to_string() })
}

pub(crate) fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or_default()
}

/// The history files of the timelines that led to the present one: a standby of a restored cluster
/// wants them. Blocks.
fn histories(directory: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt;
    let failed = |source| Error::File { what: "list", path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().into_vec();
        if wal::is_history(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

/// The databases, and what only the server knows.
async fn ask(session: &Session) -> Result<(BTreeMap<u32, String>, Attributes)> {
    const WHAT: &str = "ask for the databases";
    let answer =
        |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
    let mut databases = BTreeMap::new();
    for row in session.all(WHAT, "SELECT oid, datname::text FROM pg_database", &[]).await? {
        databases.insert(row.try_get(0).map_err(answer)?, row.try_get(1).map_err(answer)?);
    }
    let rows = databases.iter().map(|(oid, name): (&u32, &String)| {
        (oid.to_string().into_bytes(), name.clone().into_bytes())
    });
    let mut facts = Attributes::new()
        .with(facts::VERSION, session.version_text())
        .with(facts::DATABASES, Value::from(rows.collect::<Vec<_>>()));
    if let Some(mode) = session.setting("archive_mode").await? {
        facts.set(facts::ARCHIVE_MODE, mode);
    }
    Ok((databases, facts))
}

fn record_cluster(into: &mut Attributes, cluster: &Cluster, began: Timestamp, verify: bool) {
    let control = &cluster.control;
    into.set(facts::SYSTEM_ID, control.system_id.to_string());
    into.set(facts::CATALOG_VERSION, control.catalog_version);
    into.set(facts::CONTROL_VERSION, control.control_version);
    into.set(facts::BLOCK_SIZE, control.block_size);
    into.set(facts::SEGMENT_SIZE, control.segment_size.bytes());
    into.set(facts::CHECKSUM_VERSION, control.checksum_version);
    into.set(facts::STARTED, nanoseconds(began));
    into.set(facts::PAGES, if verify { facts::VERIFIED } else { "not verified" });
}

/// Finds out how much there is to read, beside the reading.
fn expect_size(cluster: &Arc<Cluster>, options: &ClusterOptions, context: &Context) {
    let (cluster, logs, context) = (Arc::clone(cluster), options.server_logs, context.clone());
    tokio::task::spawn_blocking(move || {
        // It only feeds the estimate; whatever fails here fails in the reading, too.
        if let Ok(bytes) = measure(&cluster, logs) {
            context.expect(bytes);
        }
    });
}
