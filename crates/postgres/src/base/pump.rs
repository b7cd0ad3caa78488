//! Taking a base backup apart as it arrives.
//!
//! One task, since there is one stream. It goes a few buffers ahead of whoever takes the entries,
//! so that receiving, checking and storing go on at the same time; the bytes it holds are of the
//! transfer's budget. When nobody takes them any more, it ends, and with it the connection.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_core::journal::{Need, Position};
use lifeboat_core::{Attributes, Baseline, Completion, Context, Entry, EntryPath, Extent};
use tokio::sync::mpsc;

use super::BaseBackupOptions;
use super::error::{BaseBackupError, Result};
use super::files::Current;
use super::manifest::{Arrived, Manifest};
use super::member::Archive;
use super::prior::{Offered, Prior};
use super::proof::{Proof, Unproved};
use super::reading::{Failure, Items};
use super::server::{About, Server};
use super::tar::{Part, Tar};
use crate::archive::{WAL, WalLine};
use crate::connect::{ConnectOptions, Session};
use crate::control::Control;
use crate::lsn::Lsn;
use crate::replication::{BaseBackup, Begun, Client, Notice, Sent, Stopped};
use crate::source::{
    Checkpoint, Damage, Label, ServerLogs, VerifyPages, facts, is_later, lineage, nanoseconds,
    recovery_name,
};

/// How many pieces are ahead of whoever takes them.
const AHEAD: usize = 4;

/// Earlier versions do not announce a tablespace that lies in the data directory, and leave it out
/// when they are asked for a `tablespace_map`. So they are asked for links, with which they send it
/// as a part of the data directory; the map is made here.
pub(super) const KNOWS_IN_PLACE: u32 = 16;

/// What the server says of pages, which are looked at here, too, comes from these functions of it.
const OF_PAGES: [&str; 2] = ["sendFile", "read_file_data_into_buffer"];

/// What the pump gives.
pub(super) enum Item {
    /// An entry with its content.
    Entry(Entry),
    /// An entry whose content follows.
    Begin(Entry),
    /// Some of that content.
    Extent(Extent),
    /// The end of that content.
    End,
    /// All entries have come, and all of them are right.
    Completion(Completion),
}

/// A base backup that arrives.
pub(super) struct Pump {
    pub(super) client: Client,
    pub(super) about: About,
    pub(super) begun: Begun,
    pub(super) context: Context,
    pub(super) logs: ServerLogs,
    connection: ConnectOptions,
    /// What changes are of.
    pub(super) prior: Option<Prior>,
    /// Whether pages are looked at.
    pub(super) verify: bool,
    pub(super) damage: Arc<Damage>,
    pub(super) facts: Attributes,
    pub(super) output: mpsc::Sender<Item>,
    pub(super) arrived: Arrived,
    pub(super) notes: Notes,
}

/// What is kept until the end.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) label: Option<Label>,
    pub(super) control: Option<Control>,
    pub(super) proof: Option<Proof>,
    pub(super) prepared: Vec<Prepared>,
    /// When the server had ended the backup, by its own clock.
    pub(super) ended: Option<Timestamp>,
    /// Whether the entries that stand for directories as a whole were given.
    pub(super) top: bool,
}

/// A prepared transaction that belongs to the backup if it was prepared before its beginning.
pub(super) struct Prepared {
    pub(super) name: Vec<u8>,
    pub(super) path: EntryPath,
    pub(super) attributes: Attributes,
    pub(super) bytes: Bytes,
}

impl Pump {
    /// Begins a backup, of what changed since a snapshot where the server can tell.
    pub(super) async fn begin(
        mut server: Server,
        since: Option<Arc<dyn Baseline>>,
        options: &BaseBackupOptions,
        context: &Context,
    ) -> lifeboat_core::Result<(Self, mpsc::Receiver<Item>)> {
        let verify = options.verify_pages == VerifyPages::Verify && server.about.checksums;
        let system_id = server.about.identity.system_id;
        lineage::tell_of_another(since.as_deref(), facts::SYSTEM_ID, system_id, context);
        if let Some(since) = since {
            let connection = &options.connection;
            let why = match Prior::offer(&mut server, since, connection, verify).await? {
                Offered::Unfit => None,
                Offered::Not(why) => Some(why),
                Offered::Refused(why) => {
                    server = server.again(connection).await?;
                    Some(why)
                }
                Offered::Taken(prior) => {
                    match Self::start_at(server, Some(prior), options, context).await {
                        // The server may lack summaries, or have no time for them.
                        Err(error) if error.is_refusal() => {
                            server = Server::reopen(connection).await?;
                            Some(error.to_string())
                        }
                        begun => return Ok(begun?),
                    }
                }
            };
            if let Some(why) = why {
                context.note(server.client.target(), format!("everything is sent: {why}"));
            }
        }
        Ok(Self::start_at(server, None, options, context).await?)
    }

    async fn start_at(
        server: Server,
        prior: Option<Prior>,
        options: &BaseBackupOptions,
        context: &Context,
    ) -> Result<(Self, mpsc::Receiver<Item>)> {
        let mut recorded = server.facts();
        let Server { mut client, about, keeps_wal, databases } = server;
        if !keeps_wal {
            let message = "no replication slot is free: the server may remove WAL that the backup needs before it is sent; the backup then fails";
            context.note(client.target(), message);
        }
        let verify = options.verify_pages == VerifyPages::Verify && about.checksums;
        recorded.set(facts::STARTED, nanoseconds(Timestamp::now()));
        let begun = client
            .begin_backup(&BaseBackup {
                label: options.label.clone(),
                at_once: options.checkpoint == Checkpoint::Fast,
                verify,
                tablespace_map: about.major >= KNOWS_IN_PLACE,
                incremental: prior.is_some(),
            })
            .await?;
        context.expect(begun.size);
        context.phase("copy the cluster");
        let (output, items) = mpsc::channel(AHEAD);
        let pump = Self {
            client,
            about,
            begun,
            context: context.clone(),
            logs: options.server_logs,
            connection: options.connection.clone(),
            prior,
            verify,
            damage: Damage::new(options.connection.clone(), databases),
            facts: recorded,
            output,
            arrived: Arrived::default(),
            notes: Notes::default(),
        };
        Ok((pump, items))
    }

    /// Starts it, and returns what it gives.
    pub(super) fn start(self, items: mpsc::Receiver<Item>) -> Items {
        let failure: Failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        tokio::spawn(async move {
            let output = self.output.clone();
            let running = Box::pin(self.run());
            let ended = tokio::select! {
                () = output.closed() => return,
                ended = running => ended,
            };
            if let Err(error) = ended {
                // Nobody set it before, and the channel is still open.
                let _ = told.set(Arc::new(error));
            }
        });
        Items::new(items, failure)
    }

    async fn run(mut self) -> Result<()> {
        let mut archive: Option<(Archive, Tar)> = None;
        let mut current: Option<Current> = None;
        let mut manifest: Option<Manifest> = None;
        loop {
            match self.client.next_sent().await? {
                Sent::Archive(name) => {
                    ended(archive.take())?;
                    archive = Some((self.archive(&name).await?, Tar::new()));
                }
                Sent::Manifest => {
                    ended(archive.take())?;
                    let arrived = std::mem::take(&mut self.arrived);
                    manifest = Some(Manifest::new(self.about.identity.system_id, arrived));
                }
                Sent::Data(mut bytes) => match (&mut manifest, &mut archive) {
                    (Some(manifest), _) => manifest.feed(&bytes).map_err(not_as_sent)?,
                    (None, Some((archive, tar))) => {
                        while let Some(part) =
                            tar.next(&mut bytes).map_err(|why| bad(archive, why))?
                        {
                            self.part(archive, &mut current, part).await?;
                        }
                    }
                    (None, None) => {
                        return Err(bad(&Archive::Base, "content before its beginning"));
                    }
                },
                Sent::Notice(notice) => self.hear(&notice),
                Sent::Copied => break,
            }
        }
        let manifest = manifest.ok_or_else(|| not_as_sent("it did not come"))?;
        self.context.phase("end the backup");
        let stopped = self.client.end_backup().await?;
        self.finish(manifest, stopped).await
    }

    /// An archive begins.
    async fn archive(&mut self, name: &[u8]) -> Result<Archive> {
        let known: Vec<u32> = self.begun.tablespaces.iter().map(|space| space.oid).collect();
        Archive::parse(name, &known).ok_or_else(|| BaseBackupError::Archive {
            archive: name.escape_ascii().to_string(),
            why: "the server did not announce it".into(),
        })
    }

    async fn part(
        &mut self,
        archive: &Archive,
        current: &mut Option<Current>,
        part: Part,
    ) -> Result<()> {
        match part {
            Part::Member(member) => *current = self.member(archive, &member).await?,
            Part::Content(bytes) => {
                if let Some(current) = current {
                    self.content(current, bytes).await?;
                }
            }
            Part::End => {
                if let Some(current) = current.take() {
                    self.end_of_file(current).await?;
                }
            }
        }
        Ok(())
    }

    /// What the server says beside its files.
    fn hear(&self, notice: &Notice) {
        let Notice { warning, routine, answer } = notice;
        if *warning && !OF_PAGES.contains(&routine.as_str()) {
            self.context.warn("", format!("the server says: {answer}"));
        } else {
            tracing::debug!(%answer, routine, "the server says");
        }
    }

    pub(super) async fn give(&self, item: Item) -> Result<()> {
        // Nobody takes it when the reading was dropped; then nobody hears of it, either.
        self.output.send(item).await.map_err(|_| BaseBackupError::Unfinished)
    }

    /// Everything has come: it is held against what the server says, and the backup is complete.
    async fn finish(mut self, manifest: Manifest, stopped: Stopped) -> Result<()> {
        let (start, timeline) = (self.begun.start, self.begun.timeline);
        let range = manifest.finish().map_err(not_as_sent)?;
        if stopped.timeline != timeline || range.timeline != timeline {
            let to = stopped.timeline;
            return Err(BaseBackupError::TimelineChanged { from: timeline, to });
        }
        let stop = stopped.stop;
        if stop <= start {
            return Err(BaseBackupError::Backwards { start, stop });
        }
        if (range.start, range.end) != (start, stop) {
            let why = format!(
                "it names WAL from {} to {}, not from {start} to {stop}",
                range.start, range.end
            );
            return Err(not_as_sent(why));
        }
        let label = self.notes.label.take().ok_or_else(|| missing("backup_label"))?;
        let control = self.notes.control.take().ok_or_else(|| missing("pg_control"))?;
        if let Some(space) = self.begun.tablespaces.first() {
            return Err(bad(&Archive::Tablespace(space.oid), "it did not come"));
        }
        let size = self.about.segment_size;
        let name = |segment: u64| size.name(timeline, segment);
        let proof = self.notes.proof.take();
        let proof = proof.unwrap_or_else(|| Proof::new(size, label.checkpoint));
        let checkpoint = proof.finish(start, stop).map_err(|unproved| match unproved {
            Unproved::Missing(segment) => BaseBackupError::WalMissing { segment: name(segment) },
            Unproved::Damaged(segment, why) => {
                BaseBackupError::WalDamaged { segment: name(segment), why }
            }
            Unproved::Checkpoint(why) => BaseBackupError::Checkpoint { at: label.checkpoint, why },
        })?;
        for held in std::mem::take(&mut self.notes.prepared) {
            // One that was prepared later comes back from the WAL.
            if !is_later(&held.name, checkpoint.next_transaction) {
                let entry = Entry::file(held.path, held.attributes, held.bytes);
                self.give(Item::Entry(entry)).await?;
            }
        }
        self.hear_of_damage(&stopped);
        // By these a later backup knows that the server's history is the same.
        if let Ok(session) = Session::open(&self.connection).await
            && let Some(summaries) = lineage::remembered(&session, timeline, start).await
        {
            self.facts.set(facts::SUMMARIES, summaries);
        }
        let completion = self.completion(&label, &control, stop);
        self.give(Item::Completion(completion)).await
    }

    /// The server says only that there is damage. When none was found here, that is all there is.
    fn hear_of_damage(&self, stopped: &Stopped) {
        let mut found = Attributes::new();
        self.damage.record(&mut found);
        if let Some(answer) = &stopped.damaged
            && found.unsigned(facts::DAMAGED_PAGES) == Some(0)
        {
            self.context.warn("", format!("the server says: {answer}"));
        }
    }

    fn completion(&mut self, label: &Label, control: &Control, stop: Lsn) -> Completion {
        let taken = self.notes.ended.unwrap_or_else(Timestamp::now);
        let facts = &mut self.facts;
        facts.set(facts::SYSTEM_ID, control.system_id.to_string());
        facts.set(facts::CATALOG_VERSION, control.catalog_version);
        facts.set(facts::CONTROL_VERSION, control.control_version);
        facts.set(facts::BLOCK_SIZE, control.block_size);
        facts.set(facts::SEGMENT_SIZE, control.segment_size.bytes());
        facts.set(facts::CHECKSUM_VERSION, control.checksum_version);
        facts.set(facts::PAGES, if self.verify { facts::VERIFIED } else { "not verified" });
        facts.set(facts::START, label.start.to_string());
        facts.set(facts::CHECKPOINT, label.checkpoint.to_string());
        facts.set(facts::STOP, stop.to_string());
        facts.set(facts::TIMELINE, label.timeline);
        facts.set(facts::STOPPED, nanoseconds(taken));
        let line = WalLine::new(control.system_id, label.timeline);
        if let Ok(timeline) = line.to_timeline() {
            Need { timeline, from: Position(label.start.0) }.record(WAL, facts);
        }
        self.damage.record(facts);
        Completion { taken, position: stop.to_string(), facts: std::mem::take(facts) }
    }
}

fn ended(archive: Option<(Archive, Tar)>) -> Result<()> {
    match archive {
        Some((archive, tar)) => tar.finish().map_err(|why| bad(&archive, why)),
        None => Ok(()),
    }
}

pub(super) fn bad(archive: &Archive, why: impl Into<String>) -> BaseBackupError {
    let archive = match archive {
        Archive::Base => "base.tar".to_owned(),
        Archive::Tablespace(oid) => format!("{oid}.tar"),
    };
    BaseBackupError::Archive { archive, why: why.into() }
}

fn not_as_sent(why: impl Into<String>) -> BaseBackupError {
    BaseBackupError::Manifest { why: why.into() }
}

pub(super) fn file(file: &'static str, why: impl Into<String>) -> BaseBackupError {
    BaseBackupError::File { file, why: why.into() }
}

pub(super) fn missing(name: &'static str) -> BaseBackupError {
    file(name, "did not come")
}

pub(super) fn recovery(name: &[u8]) -> Result<EntryPath> {
    recovery_name(Some(name)).map_err(|error| bad(&Archive::Base, error.to_string()))
}
