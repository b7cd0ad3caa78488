//! One restore into a running server, or into a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::{
    Completion, Context, Entry, EntryKind, EntryPath, Extent, Lane, Receipt, Timestamp, Writing,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

use super::error::until;
use super::parsing::{self, Feed, Found, Key, Wanted};
use super::pipeline::{About, Sent};
use super::routing::{Detour, Router};
use super::{Doing, Existing, LiveCounts, LiveError, LiveOptions};
use crate::cluster::{self, Parts};
use crate::connect::{Answer, Connection, printable};
use crate::error::{Error, Result};
use crate::rdb::{Dialect, Eviction, crc64};
use crate::source::DUMP;

const SELECTING: &str = "select the database that keys go to";
const ASKING: &str = "ask whether the server takes the snapshot's values";
const RESTORING: &str = "restore";
/// So many keys are told by name of each kind of trouble.
const TOLD: u64 = 20;
/// The instruction before a library of functions.
const FUNCTIONS: u8 = 245;
/// A number that is no type of value.
const NO_TYPE: u8 = 0xff;
/// Between two attempts to send a key to a cluster that cannot take it now.
const PAUSE: Duration = Duration::from_millis(250);
/// A key is not sent elsewhere more often than this.
const MOST_DETOURS: u32 = 1000;

pub(super) struct LiveWriting {
    options: Arc<LiveOptions>,
    target: String,
    /// `None` after an error.
    work: Mutex<Option<Box<Work>>>,
}

/// Connects.
pub(super) async fn begin(options: Arc<LiveOptions>, context: &Context) -> Result<LiveWriting> {
    let router = Router::open(&options).await?;
    let target = options.connection.target();
    context.phase(match options.doing {
        Doing::Write => "restore the keys",
        Doing::Look => "look at the keys",
    });
    let work = Work {
        options: Arc::clone(&options),
        context: context.clone(),
        target: target.clone(),
        router,
        parts: Parts::default(),
        dumps: 0,
        version: 0,
        database: 0,
        clock: 0,
        counts: LiveCounts::default(),
        libraries: BTreeSet::new(),
        again: Vec::new(),
        answers: Vec::new(),
        first_refused: None,
        ended: false,
    };
    Ok(LiveWriting { options, target, work: Mutex::new(Some(Box::new(work))) })
}

impl LiveWriting {
    async fn take(&self, entry: Entry) -> lifeboat_core::Result<()> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let strange = |entry: String| Error::StrangeContent { target: self.target.clone(), entry };
        let mut held = self.work.lock().await;
        let Some(mut work) = held.take() else {
            return Err(strange(path).into());
        };
        if entry.kind != EntryKind::File {
            return Err(strange(path).into());
        }
        if path == cluster::MAP && work.parts.is_empty() && work.dumps == 0 {
            work.parts.take_map(&self.target, entry).await?;
            *held = Some(work);
            return Ok(());
        }
        let expected = match cluster::shard_of(&entry.path) {
            Some(first) => work.parts.take_shard(first).is_some(),
            None => path == DUMP && work.parts.is_empty() && work.dumps == 0,
        };
        if !expected {
            return Err(strange(path).into());
        }
        work.dumps += 1;
        self.restore(&mut work, path, entry).await?;
        *held = Some(work);
        Ok(())
    }

    /// Restores what one RDB holds.
    async fn restore(
        &self,
        work: &mut Work,
        path: String,
        mut entry: Entry,
    ) -> lifeboat_core::Result<()> {
        let (feed, found) = parsing::start(Arc::clone(&self.options));
        let feeding = async {
            // Moved, so that the thread sees the end.
            let feed: Feed = feed;
            while let Some(extent) = entry.content.next().await? {
                let Extent::Data(bytes) = extent else {
                    let (target, entry) =
                        (self.target.clone(), format!("a {path} without its bytes"));
                    return Err(Error::StrangeContent { target, entry }.into());
                };
                if feed.send(bytes).await.is_err() {
                    // The thread has said why.
                    break;
                }
            }
            drop(feed);
            Ok::<_, lifeboat_core::Error>(())
        };
        let (fed, worked) = tokio::join!(feeding, work.run(found));
        // Whoever hears of an error here hears how far it came.
        work.ended = fed.is_err() || worked.is_err();
        if let Err(error) = fed {
            // The thread takes it for an RDB that was cut off: this is why.
            let until = until(self.options.doing, &work.counts);
            return Err(error.context(format!("restore into {}: {until}", self.target)));
        }
        worked
    }
}

/// What is done, and how far it is.
struct Work {
    options: Arc<LiveOptions>,
    context: Context,
    target: String,
    router: Router,
    /// Of a cluster's snapshot: what has come.
    parts: Parts,
    /// How many RDBs have come.
    dumps: u64,
    /// The version of the format; zero before anything was written.
    version: u16,
    /// The database that the connection is in.
    database: u64,
    /// So many milliseconds is the server's clock ahead of ours.
    clock: i64,
    counts: LiveCounts,
    /// Libraries of functions that were sent, by checksum and length: all shards of a cluster hold
    /// the same.
    libraries: BTreeSet<(u64, usize)>,
    /// Keys that the cluster wants to be sent elsewhere.
    again: Vec<(Sent, Detour, String)>,
    answers: Vec<(About, Answer)>,
    first_refused: Option<(String, String)>,
    /// It came to an end of which somebody is told.
    ended: bool,
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.ended && self.version > 0 && self.options.doing == Doing::Write {
            let told = format!(
                "it was stopped; until then: {}; what was sent last may be there as well",
                self.counts
            );
            self.context.warn(&self.target, told);
        }
    }
}

impl Work {
    async fn run(&mut self, mut found: mpsc::Receiver<Found>) -> lifeboat_core::Result<()> {
        let done = loop {
            match found.recv().await {
                Some(Found::Version(dialect, version)) => {
                    self.may_begin(dialect, version).await?;
                }
                Some(Found::Batch(batch)) => {
                    let written = match self.write(batch).await {
                        Ok(()) => self.follow().await,
                        error => error,
                    };
                    if let Err(error) = written {
                        break Err(error);
                    }
                }
                Some(Found::End { unwanted }) => {
                    self.counts.unwanted += unwanted;
                    break Ok(());
                }
                Some(Found::Failed(source)) => {
                    break Err(Error::Given { target: self.target.clone(), source });
                }
                None => break Err(Error::Unfinished),
            }
        };
        // What was sent is answered, and counted, whatever happened.
        let finished = self.finish().await;
        let followed = match (&done, &finished) {
            (Ok(()), Ok(())) => self.follow().await,
            _ => Ok(()),
        };
        if let Err(error) = done.and(finished).and(followed) {
            let (counts, source) = (Box::new(self.counts), Box::new(error));
            let (target, doing) = (self.target.clone(), self.options.doing);
            return Err(LiveError::Stopped { target, doing, counts, source }.into());
        }
        Ok(())
    }

    /// Asks, before anything is written, whether it can be.
    async fn may_begin(&mut self, dialect: Dialect, version: u32) -> lifeboat_core::Result<()> {
        let target = self.target.clone();
        let format = u16::try_from(version).unwrap_or(u16::MAX);
        let name = probe_name();
        for index in 0..self.router.len() {
            let Some(name) = self.router.probe(index, &name) else {
                continue;
            };
            let connection = self.router.pipeline(index).connection();
            let elsewhere = match probe(connection, &name, format).await? {
                Probed::Takes => continue,
                Probed::TooNew => {
                    let (system, counts) = (dialect.as_str(), Box::new(self.counts));
                    return Err(LiveError::TooNew { target, version, system, counts }.into());
                }
                Probed::Elsewhere(answer) => answer,
            };
            // It has moved within this moment, which keys will find out as well.
            if self.router.detour(index, &elsewhere).is_none() {
                return Err(LiveError::Cluster { target }.into());
            }
        }
        let targets = self.options.targets();
        // A connection begins in the first one, which takes no right to select.
        let other = targets.iter().find(|database| **database != 0).copied();
        match other {
            Some(database) if self.router.is_cluster() => {
                return Err(LiveError::ClusterDatabase { target, database }.into());
            }
            Some(_) => {
                for database in targets {
                    if let Err(source) = self.select(database).await {
                        let source = Box::new(source);
                        return Err(LiveError::NotBegun { target, source }.into());
                    }
                }
            }
            None => {}
        }
        self.clock = self.clock_ahead().await?;
        self.version = format;
        Ok(())
    }

    /// How far the server's clock, by which keys expire, is ahead of ours, in milliseconds.
    async fn clock_ahead(&mut self) -> Result<i64> {
        let connection = self.router.pipeline(0).connection();
        let time = connection.demand("ask for the time", &[b"TIME"]).await?;
        let number = |answer: &Answer| match answer {
            Answer::Text(digits) => printable(digits).parse::<i64>().ok(),
            Answer::Error(_) | Answer::Nil | Answer::List(_) => None,
        };
        let theirs = match &time {
            Answer::List(parts) => match &parts[..] {
                [seconds, micros] => number(seconds).zip(number(micros)),
                _ => None,
            },
            Answer::Text(_) | Answer::Error(_) | Answer::Nil => None,
        };
        let Some((seconds, micros)) = theirs else {
            return Err(connection.nonsense(ASKING, format!("the time {time:?}")));
        };
        let theirs = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        Ok(theirs.saturating_sub(Timestamp::now().as_millisecond()))
    }

    /// Goes to another database. Nothing may be without its answer before, and nothing is sent
    /// behind it: where it is refused, what follows would be written to the former one.
    async fn select(&mut self, database: u64) -> Result<()> {
        let target = self.target.clone();
        if self.router.is_cluster() {
            let answer = "a cluster has database 0 alone".to_owned();
            return Err(Error::NotSelected { target, database, answer });
        }
        let connection = self.router.pipeline(0).connection();
        let number = database.to_string();
        match connection.ask(SELECTING, &[b"SELECT", number.as_bytes()]).await? {
            Answer::Text(text) if text == b"OK" => {}
            Answer::Error(answer) => {
                return Err(match connection.refused(SELECTING, answer.clone()) {
                    error @ (Error::Login { .. } | Error::NotNow { .. }) => error,
                    _ => {
                        let answer = printable(answer.as_bytes());
                        Error::NotSelected { target, database, answer }
                    }
                });
            }
            other => return Err(connection.nonsense(SELECTING, format!("{other:?}"))),
        }
        self.database = database;
        Ok(())
    }

    async fn write(&mut self, batch: Vec<Wanted>) -> Result<()> {
        for wanted in batch {
            match wanted {
                Wanted::Key(key) => self.write_key(key).await?,
                Wanted::Functions(Some(library)) => self.write_functions(&library).await?,
                Wanted::Functions(None) => self.refuse(b"a library of functions", "too large"),
            }
        }
        Ok(())
    }

    async fn write_functions(&mut self, library: &[u8]) -> Result<()> {
        if !self.libraries.insert((crc64(0, library), library.len())) {
            return Ok(());
        }
        if self.options.doing == Doing::Look {
            self.counts.functions += 1;
            return Ok(());
        }
        let foot = footed(&[FUNCTIONS], library, self.version);
        let policy: &[u8] = match self.options.existing {
            Existing::Keep => b"APPEND",
            Existing::Replace => b"REPLACE",
        };
        let words: [&[&[u8]]; 4] =
            [&[b"FUNCTION"], &[b"RESTORE"], &[&[FUNCTIONS], library, &foot], &[policy]];
        for index in 0..self.router.len() {
            self.send(index, About::Functions { counts: index == 0 }, &words).await?;
        }
        Ok(())
    }

    async fn write_key(&mut self, key: Key) -> Result<()> {
        let now = Timestamp::now().as_millisecond().saturating_add(self.clock);
        if key.expires.is_some_and(|at| at <= now) {
            self.counts.expired += 1;
            return Ok(());
        }
        if key.value.is_none() || key.name.len() as u64 != key.name_length {
            self.refuse(&key.name, "it is larger than what is held of one key");
            return Ok(());
        }
        if key.database != self.database {
            self.finish().await?;
            self.select(key.database).await?;
        }
        let index = self.router.server_of(&key.name);
        self.send_key(index, Sent { key: Arc::new(key), detours: 0, since: None }).await
    }

    async fn send_key(&mut self, index: usize, sent: Sent) -> Result<()> {
        let key = Arc::clone(&sent.key);
        let name: [&[u8]; 1] = [&key.name];
        if self.options.doing == Doing::Look {
            return self.send(index, About::Key(sent), &[&[b"EXISTS"], &name]).await;
        }
        let kind = [key.encoding];
        let value = key.value.as_deref().unwrap_or_default();
        let foot = footed(&kind, value, self.version);
        let expires = key.expires.unwrap_or(0).to_string();
        let payload: [&[u8]; 3] = [&kind, value, &foot];
        let at: [&[u8]; 1] = [expires.as_bytes()];
        let mut words: Vec<&[&[u8]]> = vec![&[b"RESTORE"], &name, &at, &payload];
        if self.options.existing == Existing::Replace {
            words.push(&[b"REPLACE"]);
        }
        if key.expires.is_some() {
            words.push(&[b"ABSTTL"]);
        }
        let number = match key.eviction {
            Some(Eviction::Idle(seconds)) => seconds.to_string(),
            Some(Eviction::Frequency(frequency)) => frequency.to_string(),
            None => String::new(),
        };
        let number: [&[u8]; 1] = [number.as_bytes()];
        let word: Option<&[&[u8]]> = match key.eviction {
            Some(Eviction::Idle(_)) => Some(&[b"IDLETIME"]),
            Some(Eviction::Frequency(_)) => Some(&[b"FREQ"]),
            None => None,
        };
        if let Some(word) = word {
            words.extend([word, &number[..]]);
        }
        self.send(index, About::Key(sent), &words).await
    }

    /// Sends a command, and counts what was answered meanwhile.
    async fn send(&mut self, index: usize, about: About, words: &[&[&[u8]]]) -> Result<()> {
        let sent = self.router.pipeline(index).send(about, words, &mut self.answers).await;
        let heard = self.hear(index);
        sent.and(heard)
    }

    /// Waits for all answers, and counts them.
    async fn finish(&mut self) -> Result<()> {
        let mut done = Ok(());
        for index in 0..self.router.len() {
            let finished = self.router.pipeline(index).finish(&mut self.answers).await;
            let heard = self.hear(index);
            done = done.and(finished).and(heard);
        }
        done
    }

    /// Sends keys to where the cluster wants them, until it takes them.
    async fn follow(&mut self) -> Result<()> {
        while !self.again.is_empty() {
            let round = std::mem::take(&mut self.again);
            if round.iter().any(|(_, detour, _)| *detour == Detour::Later) {
                sleep(PAUSE).await;
            }
            for (mut sent, detour, answer) in round {
                let since = *sent.since.get_or_insert_with(Instant::now);
                sent.detours += 1;
                let patience = self.options.connection.patience;
                if since.elapsed() > patience || sent.detours > MOST_DETOURS {
                    let (target, answer) = (self.target.clone(), printable(answer.as_bytes()));
                    return Err(Error::NotNow { doing: RESTORING, target, answer });
                }
                let index = match detour {
                    Detour::Moved { slot, host, port } => {
                        self.router.moved(slot, &host, port).await?
                    }
                    Detour::Ask { host, port } => {
                        let index = usize::from(self.router.reach(&host, port).await?);
                        self.send(index, About::Asking, &[&[b"ASKING"]]).await?;
                        index
                    }
                    Detour::Later => self.router.server_of(&sent.key.name),
                };
                self.send_key(index, sent).await?;
            }
            self.finish().await?;
        }
        Ok(())
    }

    /// Counts what the server `index` answered.
    fn hear(&mut self, index: usize) -> Result<()> {
        let mut stopped = Ok(());
        for (about, answer) in std::mem::take(&mut self.answers) {
            match (about, answer) {
                (About::Asking, Answer::Error(answer)) => {
                    let connection = self.router.pipeline(index).connection();
                    stopped = stopped.and(Err(may_not(connection, RESTORING, answer)));
                }
                (About::Asking, _) => {}
                (About::Key(sent), Answer::Error(answer)) => {
                    let told = self.hear_error(index, sent, answer);
                    stopped = stopped.and(told);
                }
                (About::Key(sent), answer) => self.hear_key(&sent.key.name, &answer),
                (About::Functions { counts }, Answer::Error(answer)) => {
                    if !answer.contains("already exists") {
                        self.refuse(b"functions", &answer);
                    } else if counts {
                        self.context.warn("functions", format!("{answer}: it stays as it is"));
                    }
                }
                (About::Functions { counts }, _) => self.counts.functions += u64::from(counts),
            }
        }
        stopped
    }

    /// A key was written, or looked for.
    fn hear_key(&mut self, name: &[u8], answer: &Answer) {
        match (self.options.doing, answer) {
            (Doing::Write, _) => self.counts.written += 1,
            (Doing::Look, Answer::Text(count)) => {
                let there = count != b"0";
                self.counts.existing += u64::from(there);
                let stays = there && self.options.existing == Existing::Keep;
                self.counts.written += u64::from(!stays);
                if stays {
                    self.tell_existing(name);
                }
            }
            (Doing::Look, _) => self.refuse(name, "no number"),
        }
    }

    fn hear_error(&mut self, index: usize, sent: Sent, answer: String) -> Result<()> {
        if let Some(detour) = self.router.detour(index, &answer) {
            self.again.push((sent, detour, answer));
        } else if answer.starts_with("BUSYKEY") {
            self.counts.existing += 1;
            self.tell_existing(&sent.key.name);
        } else if stops(&answer) {
            self.counts.refused += 1;
            let connection = self.router.pipeline(index).connection();
            return Err(may_not(connection, RESTORING, answer));
        } else {
            self.refuse(&sent.key.name, &answer);
        }
        Ok(())
    }

    fn tell_existing(&mut self, name: &[u8]) {
        if self.counts.existing <= TOLD {
            self.context.warn(&shown(name), "the key is there already, and stays as it is");
        }
    }

    fn refuse(&mut self, name: &[u8], answer: &str) {
        self.counts.refused += 1;
        let (name, answer) = (shown(name), printable(answer.as_bytes()));
        if self.counts.refused <= TOLD {
            self.context.warn(&name, format!("the key was refused: {answer}"));
        }
        self.first_refused.get_or_insert((name, answer));
    }

    /// All of the snapshot has come: what is to be told of it.
    fn end(&mut self) -> lifeboat_core::Result<()> {
        self.ended = true;
        let target = self.target.clone();
        if let Some(entry) = self.parts.missing() {
            let (counts, source) = (
                Box::new(self.counts),
                Box::new(Error::MissingShard { target: target.clone(), entry }),
            );
            let doing = self.options.doing;
            return Err(LiveError::Stopped { target, doing, counts, source }.into());
        }
        if self.dumps == 0 {
            let entry = "no dump.rdb".to_owned();
            return Err(Error::StrangeContent { target, entry }.into());
        }
        if let Some((first, answer)) = self.first_refused.take() {
            let (keys, counts) = (self.counts.refused, Box::new(self.counts));
            let doing = self.options.doing;
            return Err(LiveError::Refused { target, keys, first, answer, doing, counts }.into());
        }
        let LiveCounts { written, existing, expired, refused, .. } = self.counts;
        if !self.options.wants_functions() && written + existing + expired + refused == 0 {
            let told = "no key of the snapshot is what was chosen (--keys, --db): `lifeboat redis \
                        keys` lists those that it holds";
            self.context.warn(&target, told);
        }
        if self.counts.existing > TOLD && self.options.existing == Existing::Keep {
            let told =
                format!("{} keys in all were there and stay as they are", self.counts.existing);
            self.context.warn(&target, told);
        }
        Ok(())
    }
}

/// What a server says to a value that is none.
pub(crate) enum Probed {
    /// That it is none: it takes values of this version.
    Takes,
    /// That it knows no such version.
    TooNew,
    /// That keys of that name go elsewhere.
    Elsewhere(String),
}

/// The beginning of a name that no key has.
pub(crate) fn probe_name() -> String {
    format!("lifeboat:no-key:{}", Timestamp::now().as_nanosecond())
}

/// Asks a server whether it takes values of this version of the format, and whether this user may
/// write them. Nothing is written.
pub(crate) async fn probe(connection: &mut Connection, name: &str, version: u16) -> Result<Probed> {
    let payload = [&[NO_TYPE][..], &footed(&[NO_TYPE], &[], version)].concat();
    let words: [&[u8]; 4] = [b"RESTORE", name.as_bytes(), b"0", &payload];
    match connection.ask(ASKING, &words).await? {
        Answer::Error(answer) if answer.contains("Bad data format") => Ok(Probed::Takes),
        Answer::Error(answer) if answer.contains("payload version or checksum") => {
            Ok(Probed::TooNew)
        }
        Answer::Error(answer)
            if ["MOVED", "ASK", "CLUSTERDOWN"].iter().any(|word| answer.starts_with(word)) =>
        {
            Ok(Probed::Elsewhere(answer))
        }
        Answer::Error(answer) => Err(may_not(connection, ASKING, answer)),
        other => {
            let what = format!("{other:?} to a value that is none");
            Err(connection.nonsense(ASKING, what))
        }
    }
}

/// A name of a key, for people.
fn shown(name: &[u8]) -> String {
    name[..name.len().min(200)].escape_ascii().to_string()
}

/// Whether an answer to one key holds for all.
fn stops(answer: &str) -> bool {
    let word = answer.split(' ').next().unwrap_or_default();
    let all = [
        "OOM",
        "READONLY",
        "NOPERM",
        "NOAUTH",
        "LOADING",
        "MISCONF",
        "BUSY",
        "MASTERDOWN",
        "NOREPLICAS",
        "MOVED",
        "ASK",
        "CLUSTERDOWN",
        "TRYAGAIN",
    ];
    all.contains(&word)
}

/// What an error means to who writes keys.
fn may_not(connection: &Connection, doing: &'static str, answer: String) -> Error {
    if answer.starts_with("NOPERM") {
        let target = connection.target().to_owned();
        return Error::MayNotWrite { target, answer };
    }
    connection.refused(doing, answer)
}

/// What stands behind a serialised value: the version of the format in two bytes, and the checksum
/// of all before it in eight.
pub(crate) fn footed(kind: &[u8], value: &[u8], version: u16) -> [u8; 10] {
    let version = version.to_le_bytes();
    let crc = crc64(crc64(crc64(0, kind), value), &version);
    let mut foot = [0; 10];
    foot[..2].copy_from_slice(&version);
    foot[2..].copy_from_slice(&crc.to_le_bytes());
    foot
}

#[async_trait]
impl Writing for LiveWriting {
    /// One after the other: of a cluster, the map comes first, and one value is held at a time.
    fn lane(&self, _path: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Box::pin(self.take(entry)).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let Some(mut work) = self.work.lock().await.take() else {
            return Err(Error::Unfinished.into());
        };
        work.end()?;
        let counts = work.counts;
        let told = match self.options.doing {
            Doing::Write => format!("done: {counts}"),
            Doing::Look => format!("nothing was written; this would be done: {}", counts.seen()),
        };
        let facts = counts.facts().with("redis.note.counts", told);
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of `DUMP` in the documentation of that command, for the value 10.
    #[test]
    fn a_value_is_footed_as_the_server_does() {
        let dumped = b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb";
        assert_eq!(footed(&dumped[..1], &dumped[1..3], 10), dumped[3..]);
    }

    #[test]
    fn what_holds_for_all_keys_stops_and_what_holds_for_one_does_not() {
        assert!(stops("OOM command not allowed when used memory > 'maxmemory'."));
        assert!(stops("READONLY You can't write against a read only replica."));
        assert!(!stops("ERR Bad data format"));
        assert!(!stops("BUSYKEY Target key name already exists."));
    }
}
