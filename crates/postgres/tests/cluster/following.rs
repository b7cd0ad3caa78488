//! What tests of the receiver share: an archive that can be away, an address that stays the same,
//! and a receiver at work.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use lifeboat_core::journal::{
    Appended, JournalLog, JournalName, ListedSegment, Need, Place, Position, Segment, SegmentInfo,
    SegmentKind, Span, Timeline, TimelineInfo, Trim, current,
};
use lifeboat_core::memory::MemoryJournal;
use lifeboat_core::{
    Collecting, Content, Context, Error, ErrorKind, Extent, Result, StoreRef, Timestamp,
};
use lifeboat_postgres::{
    ConnectOptions, Following, Lsn, Receiver, ReceiverOptions, WalArchive, WalLine,
};
use lifeboat_testbed::postgres::Cluster;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

/// What a test waits for happens long before this.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until something is there.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A journal in memory that can be out of reach.
#[derive(Clone)]
pub struct Flaky {
    inner: MemoryJournal,
    away: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    pub refused: Arc<AtomicU64>,
}

impl Flaky {
    fn check(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Unavailable, "the repository does not answer"));
        }
        Ok(())
    }
}

#[lifeboat_core::async_trait]
impl JournalLog for Flaky {
    fn name(&self) -> &JournalName {
        self.inner.name()
    }

    async fn begin(&self, timeline: &TimelineInfo) -> Result<Appended> {
        self.check()?;
        self.inner.begin(timeline).await
    }

    async fn timeline(&self, timeline: &Timeline) -> Result<Option<TimelineInfo>> {
        self.check()?;
        self.inner.timeline(timeline).await
    }

    async fn timelines(&self) -> Result<Vec<TimelineInfo>> {
        self.check()?;
        self.inner.timelines().await
    }

    async fn append(
        &self,
        timeline: &Timeline,
        span: Span,
        info: &SegmentInfo,
        content: Content,
    ) -> Result<Appended> {
        while self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.check()?;
        self.inner.append(timeline, span, info, content).await
    }

    async fn record_gap(
        &self,
        timeline: &Timeline,
        span: Span,
        reason: &str,
        at: Timestamp,
    ) -> Result<Appended> {
        self.check()?;
        self.inner.record_gap(timeline, span, reason, at).await
    }

    async fn segment(&self, place: &Place) -> Result<Option<Segment>> {
        self.check()?;
        self.inner.segment(place).await
    }

    async fn read(&self, place: &Place) -> Result<Option<Content>> {
        self.check()?;
        self.inner.read(place).await
    }

    async fn list(&self, timeline: &Timeline, within: Span) -> Result<Vec<ListedSegment>> {
        self.check()?;
        self.inner.list(timeline, within).await
    }

    async fn trim(&self, needs: &[Need], mode: Trim) -> Result<Vec<ListedSegment>> {
        self.check()?;
        self.inner.trim(needs, mode).await
    }
}

/// An archive in memory.
#[derive(Clone)]
pub struct Kept {
    pub journal: Flaky,
    pub archive: WalArchive,
}

impl Kept {
    pub fn new() -> Self {
        let store = StoreRef::new("postgres", "main");
        let name = JournalName::new(store.clone(), "wal").unwrap();
        let journal = Flaky {
            inner: MemoryJournal::new(name.clone()),
            away: Arc::default(),
            slow: Arc::default(),
            refused: Arc::default(),
        };
        let archive = WalArchive::open(&store, |asked| -> Arc<dyn JournalLog> {
            if *asked == name {
                Arc::new(journal.clone())
            } else {
                Arc::new(MemoryJournal::new(asked.clone()))
            }
        });
        Self { archive: archive.unwrap(), journal }
    }

    /// Puts the repository out of reach, or back.
    pub fn away(&self, away: bool) {
        self.journal.away.store(away, Ordering::SeqCst);
    }

    /// Lets nothing become durable, without an error; or lets go what waits.
    pub fn slow(&self, slow: bool) {
        self.journal.slow.store(slow, Ordering::SeqCst);
    }

    /// The segments of a timeline.
    pub async fn segments(&self, line: WalLine) -> Vec<ListedSegment> {
        let timeline = line.to_timeline().unwrap();
        self.journal.inner.list(&timeline, Span::ALL).await.unwrap()
    }

    /// The gaps that were recorded on a timeline.
    pub async fn gaps(&self, line: WalLine) -> Vec<(Lsn, Lsn)> {
        let all = self.segments(line).await.into_iter();
        let gaps = all.filter(|one| one.place.kind == SegmentKind::Gap);
        gaps.map(|one| (Lsn(one.place.span.from().0), Lsn(one.place.span.to().0))).collect()
    }

    /// All that is there of a timeline: where it begins, and its bytes, which must have no gap.
    pub async fn bytes(&self, line: WalLine) -> (Lsn, Vec<u8>) {
        let parts = current(&self.segments(line).await);
        let start = parts.first().map_or(Position(0), |part| part.place.span.from());
        let mut all = Vec::new();
        for part in parts {
            let span = part.place.span;
            let mut content = self.journal.inner.read(&part.place).await.unwrap().unwrap();
            let mut bytes = Vec::new();
            while let Some(extent) = content.next().await.unwrap() {
                match extent {
                    Extent::Data(data) => bytes.extend_from_slice(&data),
                    Extent::Hole(length) => bytes.resize(bytes.len() + length as usize, 0),
                    Extent::Unchanged(_) => panic!("nothing to be unchanged from"),
                }
            }
            let have = start.0 + all.len() as u64;
            assert!(span.from().0 <= have, "a gap before {span}");
            all.extend_from_slice(&bytes[(have - span.from().0) as usize..]);
        }
        (Lsn(start.0), all)
    }
}

/// An address that stays the same, whichever server is behind it.
pub struct Address {
    dir: tempfile::TempDir,
}

impl Address {
    pub fn of(cluster: &Cluster) -> Self {
        let address = Self { dir: tempfile::tempdir().unwrap() };
        address.lead_to(cluster);
        address
    }

    /// From now on the server behind it is this one.
    pub fn lead_to(&self, cluster: &Cluster) {
        let port = cluster.port();
        let new = self.dir.path().join("new");
        let socket = cluster.socket_dir().join(format!(".s.PGSQL.{port}"));
        symlink(socket, &new).unwrap();
        fs::rename(&new, self.dir.path().join(".s.PGSQL.5432")).unwrap();
    }

    pub fn connection(&self) -> ConnectOptions {
        let text = format!("host={} port=5432 user=postgres", self.dir.path().display());
        ConnectOptions::parse(&text).unwrap()
    }
}

/// A receiver at work.
pub struct Follower {
    pub done: Arc<Mutex<Vec<Following>>>,
    pub observer: Arc<Collecting>,
    context: Context,
    task: JoinHandle<Result<()>>,
}

/// How tests receive: as everybody, with shorter pauses.
pub fn receiving(connection: ConnectOptions) -> ReceiverOptions {
    ReceiverOptions::new(connection, "lifeboat".parse().unwrap())
        .with_longest_pause(Duration::from_millis(500))
}

impl Follower {
    pub fn start(kept: &Kept, connection: ConnectOptions) -> Self {
        Self::with(kept, receiving(connection))
    }

    pub fn with(kept: &Kept, options: ReceiverOptions) -> Self {
        let done: Arc<Mutex<Vec<Following>>> = Arc::default();
        let observer = Arc::new(Collecting::new());
        let context = Context::new(observer.clone());
        let receiver = Receiver::new(kept.archive.clone(), options);
        let (list, within) = (Arc::clone(&done), context.clone());
        let task = tokio::spawn(async move {
            let outcome = receiver.run(&move |what| list.lock().push(what.clone()), &within).await;
            if let Err(error) = &outcome {
                within.warn("ended", error.one_line());
            }
            outcome
        });
        Self { done, observer, context, task }
    }

    /// Up to where it said that a timeline is durable.
    pub fn durable(&self, timeline: u32) -> Lsn {
        let done = self.done.lock();
        let ends = done.iter().filter_map(|what| match what {
            Following::Durable { line, to, .. } if line.timeline == timeline => Some(*to),
            _ => None,
        });
        ends.max().unwrap_or(Lsn(0))
    }

    /// Waits until a position is durable.
    pub async fn reaches(&self, timeline: u32, lsn: Lsn) {
        let start = Instant::now();
        while self.durable(timeline) < lsn {
            let (warned, over) = (self.observer.warnings(), self.is_over());
            assert!(!over && start.elapsed() < LIMIT, "{lsn} is not durable: {warned:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// How it ended by itself.
    pub async fn outcome(self) -> Result<()> {
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap()
    }

    /// Asks it to stop, and waits for that.
    pub async fn stop(self) -> Arc<Mutex<Vec<Following>>> {
        self.context.cancel();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
        self.done
    }
}

/// Up to where the server has flushed its WAL.
pub async fn flushed(cluster: &Cluster) -> Lsn {
    let client = cluster.connect("postgres").await.unwrap();
    let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

/// The timelines of a cluster, as the archive names them.
pub async fn line(cluster: &Cluster, timeline: u32) -> WalLine {
    let client = cluster.connect("postgres").await.unwrap();
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let id: String = client.query_one(sql, &[]).await.unwrap().get(0);
    WalLine::new(id.parse().unwrap(), timeline)
}

/// The WAL of a server from one position to another, from the files that it has itself.
pub fn wal_of(data: &Path, timeline: u32, size: u64, from: Lsn, to: Lsn) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut at = from.0;
    while at < to.0 {
        let segment = at / size;
        let bytes = fs::read(segment_file(&data.join("pg_wal"), timeline, size, segment))?;
        assert_eq!(bytes.len() as u64, size);
        let end = to.0.min((segment + 1) * size);
        all.extend_from_slice(&bytes[(at % size) as usize..(end - segment * size) as usize]);
        at = end;
    }
    Ok(all)
}

/// Where the file of a segment is, by the rule of the documentation.
pub fn segment_file(dir: &Path, timeline: u32, size: u64, segment: u64) -> PathBuf {
    let per_id = (1 << 32) / size;
    dir.join(format!("{timeline:08X}{:08X}{:08X}", segment / per_id, segment % per_id))
}
