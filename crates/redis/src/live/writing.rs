//! One restore into a running server.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Completion, Context, Entry, EntryKind, Extent, Receipt, Timestamp, Writing};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::error::until;
use super::parsing::{self, Feed, Found, Key, Wanted};
use super::pipeline::{About, Pipeline};
use super::{Doing, Existing, LiveCounts, LiveError, LiveOptions};
use crate::connect::{Answer, Connection, printable};
use crate::error::{Error, Result};
use crate::rdb::{Dialect, Eviction, crc64};
use crate::source::DUMP;

const SELECTING: &str = "select the database that keys go to";
const ASKING: &str = "ask whether the server takes the snapshot's values";
/// So many keys are told by name of each kind of trouble.
const TOLD: u64 = 20;
/// The instruction before a library of functions.
const FUNCTIONS: u8 = 245;
/// A number that is no type of value.
const NO_TYPE: u8 = 0xff;

pub(super) struct LiveWriting {
    options: Arc<LiveOptions>,
    context: Context,
    target: String,
    state: Mutex<State>,
}

enum State {
    Connected(Box<Connection>),
    Taken,
    Whole(LiveCounts),
}

/// Connects.
pub(super) async fn begin(options: Arc<LiveOptions>, context: &Context) -> Result<LiveWriting> {
    let connection = options.connection.connect().await?;
    let target = connection.target().to_owned();
    context.phase(match options.doing {
        Doing::Write => "restore the keys",
        Doing::Look => "look at the keys",
    });
    let state = Mutex::new(State::Connected(Box::new(connection)));
    Ok(LiveWriting { options, context: context.clone(), target, state })
}

impl LiveWriting {
    async fn take(&self, mut entry: Entry) -> lifeboat_core::Result<()> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let strange = |entry: String| Error::StrangeContent { target: self.target.clone(), entry };
        if path != DUMP || entry.kind != EntryKind::File {
            return Err(strange(path).into());
        }
        let state = std::mem::replace(&mut *self.state.lock(), State::Taken);
        let State::Connected(connection) = state else {
            return Err(strange(format!("a second {path}")).into());
        };
        let pipeline = Pipeline::new(*connection, self.options.ahead);
        let mut work = Work {
            options: &self.options,
            context: &self.context,
            target: &self.target,
            pipeline,
            version: 0,
            database: 0,
            clock: 0,
            counts: LiveCounts::default(),
            first_refused: None,
            ended: false,
        };
        let (feed, found) = parsing::start(Arc::clone(&self.options));
        let feeding = async {
            // Moved, so that the thread sees the end.
            let feed: Feed = feed;
            while let Some(extent) = entry.content.next().await? {
                let Extent::Data(bytes) = extent else {
                    return Err(strange(format!("a {path} without its bytes")).into());
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
        work.ended = true;
        if let Err(error) = fed {
            // The thread takes it for an RDB that was cut off: this is why.
            let until = until(self.options.doing, &work.counts);
            return Err(error.context(format!("restore into {}: {until}", self.target)));
        }
        worked?;
        *self.state.lock() = State::Whole(work.counts);
        Ok(())
    }
}

/// What is done, and how far it is.
struct Work<'a> {
    options: &'a LiveOptions,
    context: &'a Context,
    target: &'a str,
    pipeline: Pipeline,
    /// The version of the snapshot's format.
    version: u16,
    /// The database that the connection is in.
    database: u64,
    /// So many milliseconds is the server's clock ahead of ours.
    clock: i64,
    counts: LiveCounts,
    first_refused: Option<(String, String)>,
    /// It came to an end of which somebody is told.
    ended: bool,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if !self.ended && self.version > 0 && self.options.doing == Doing::Write {
            let told = format!(
                "it was stopped; until then: {}; what was sent last may be there as well",
                self.counts
            );
            self.context.warn(self.target, told);
        }
    }
}

impl Work<'_> {
    async fn run(&mut self, mut found: mpsc::Receiver<Found>) -> lifeboat_core::Result<()> {
        let mut answers = Vec::new();
        let done = loop {
            match found.recv().await {
                Some(Found::Version(dialect, version)) => {
                    self.may_begin(dialect, version).await?;
                }
                Some(Found::Batch(batch)) => {
                    let written = self.write(batch, &mut answers).await;
                    let answered = self.hear(&mut answers);
                    if let Err(error) = written.and(answered) {
                        break Err(error);
                    }
                }
                Some(Found::End { unwanted }) => {
                    self.counts.unwanted = unwanted;
                    break Ok(());
                }
                Some(Found::Failed(source)) => {
                    break Err(Error::Given { target: self.target.to_owned(), source });
                }
                None => break Err(Error::Unfinished),
            }
        };
        // What was sent is answered, and counted, whatever happened.
        let finished = self.pipeline.finish(&mut answers).await;
        let finished = finished.and(self.hear(&mut answers));
        let target = self.target.to_owned();
        if let Err(error) = done.and(finished) {
            let (counts, source) = (Box::new(self.counts), Box::new(error));
            let doing = self.options.doing;
            return Err(LiveError::Stopped { target, doing, counts, source }.into());
        }
        if let Some((first, answer)) = self.first_refused.take() {
            let (keys, counts) = (self.counts.refused, Box::new(self.counts));
            let doing = self.options.doing;
            return Err(LiveError::Refused { target, keys, first, answer, doing, counts }.into());
        }
        if self.counts.existing > TOLD && self.options.existing == Existing::Keep {
            let told =
                format!("{} keys in all were there and stay as they are", self.counts.existing);
            self.context.warn(self.target, told);
        }
        Ok(())
    }

    /// Asks, before anything is written, whether it can be.
    async fn may_begin(&mut self, dialect: Dialect, version: u32) -> lifeboat_core::Result<()> {
        self.version = u16::try_from(version).unwrap_or(u16::MAX);
        let target = self.target.to_owned();
        let probe = footed(&[NO_TYPE], &[], self.version);
        let name = format!("lifeboat:no-key:{}", Timestamp::now().as_nanosecond());
        let connection = self.pipeline.connection();
        let words: [&[u8]; 4] =
            [b"RESTORE", name.as_bytes(), b"0", &[&[NO_TYPE][..], &probe].concat()];
        match connection.ask(ASKING, &words).await? {
            Answer::Error(answer) if answer.contains("Bad data format") => {}
            Answer::Error(answer) if answer.contains("payload version or checksum") => {
                let system = dialect.as_str();
                return Err(LiveError::TooNew { target, version, system }.into());
            }
            Answer::Error(answer)
                if ["MOVED", "ASK", "CLUSTERDOWN"].iter().any(|word| answer.starts_with(word)) =>
            {
                return Err(LiveError::Cluster { target }.into());
            }
            Answer::Error(answer) => return Err(may_not(connection, ASKING, answer).into()),
            other => {
                let what = format!("{other:?} to a value that is none");
                return Err(connection.nonsense(ASKING, what).into());
            }
        }
        let targets = self.options.targets();
        // A connection begins in the first one, which takes no right to select.
        if targets.iter().any(|database| *database != 0) {
            for database in targets {
                if let Err(source) = self.select(database).await {
                    let source = Box::new(source);
                    return Err(LiveError::NotBegun { target, source }.into());
                }
            }
        }
        // Keys expire by the server's clock.
        let connection = self.pipeline.connection();
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
            let what = format!("the time {time:?}");
            return Err(self.pipeline.connection().nonsense(ASKING, what).into());
        };
        let theirs = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        self.clock = theirs.saturating_sub(Timestamp::now().as_millisecond());
        Ok(())
    }

    /// Goes to another database. Nothing may be without its answer before, and nothing is sent
    /// behind it: where it is refused, what follows would be written to the former one.
    async fn select(&mut self, database: u64) -> Result<()> {
        let connection = self.pipeline.connection();
        let number = database.to_string();
        match connection.ask(SELECTING, &[b"SELECT", number.as_bytes()]).await? {
            Answer::Text(text) if text == b"OK" => {}
            Answer::Error(answer) => {
                return Err(match connection.refused(SELECTING, answer.clone()) {
                    error @ (Error::Login { .. } | Error::NotNow { .. }) => error,
                    _ => {
                        let (target, answer) =
                            (self.target.to_owned(), printable(answer.as_bytes()));
                        Error::NotSelected { target, database, answer }
                    }
                });
            }
            other => return Err(connection.nonsense(SELECTING, format!("{other:?}"))),
        }
        self.database = database;
        Ok(())
    }

    async fn write(
        &mut self,
        batch: Vec<Wanted>,
        answers: &mut Vec<(About, Answer)>,
    ) -> Result<()> {
        for wanted in batch {
            match wanted {
                Wanted::Key(key) => self.write_key(key, answers).await?,
                Wanted::Functions(Some(library)) => match self.options.doing {
                    Doing::Look => self.counts.functions += 1,
                    Doing::Write => {
                        let foot = footed(&[FUNCTIONS], &library, self.version);
                        let policy: &[u8] = match self.options.existing {
                            Existing::Keep => b"APPEND",
                            Existing::Replace => b"REPLACE",
                        };
                        let words: [&[&[u8]]; 4] = [
                            &[b"FUNCTION"],
                            &[b"RESTORE"],
                            &[&[FUNCTIONS], &library, &foot],
                            &[policy],
                        ];
                        self.pipeline.send(About::Functions, &words, answers).await?;
                    }
                },
                Wanted::Functions(None) => self.refuse(b"a library of functions", "too large"),
            }
        }
        Ok(())
    }

    async fn write_key(&mut self, key: Key, answers: &mut Vec<(About, Answer)>) -> Result<()> {
        let now = Timestamp::now().as_millisecond().saturating_add(self.clock);
        if key.expires.is_some_and(|at| at <= now) {
            self.counts.expired += 1;
            return Ok(());
        }
        let Some(value) = key.value.filter(|_| key.name.len() as u64 == key.name_length) else {
            self.refuse(&key.name, "it is larger than what is held of one key");
            return Ok(());
        };
        if key.database != self.database {
            let finished = self.pipeline.finish(answers).await;
            finished.and(self.hear(answers))?;
            self.select(key.database).await?;
        }
        if self.options.doing == Doing::Look {
            let words: [&[&[u8]]; 2] = [&[b"EXISTS"], &[&key.name]];
            return self.pipeline.send(About::Exists(key.name.clone()), &words, answers).await;
        }
        let kind = [key.encoding];
        let foot = footed(&kind, &value, self.version);
        let expires = key.expires.unwrap_or(0).to_string();
        let payload: [&[u8]; 3] = [&kind, &value, &foot];
        let name: [&[u8]; 1] = [&key.name];
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
        self.pipeline.send(About::Key(key.name.clone()), &words, answers).await
    }

    /// Counts what was answered.
    fn hear(&mut self, answers: &mut Vec<(About, Answer)>) -> Result<()> {
        let mut stopped = Ok(());
        for (about, answer) in answers.drain(..) {
            match (about, answer) {
                (About::Key(_), Answer::Text(_) | Answer::Nil | Answer::List(_)) => {
                    self.counts.written += 1;
                }
                (About::Functions, Answer::Text(_) | Answer::Nil | Answer::List(_)) => {
                    self.counts.functions += 1;
                }
                (About::Exists(name), Answer::Text(count)) => {
                    let there = count != b"0";
                    self.counts.existing += u64::from(there);
                    let stays = there && self.options.existing == Existing::Keep;
                    self.counts.written += u64::from(!stays);
                    if stays {
                        self.tell_existing(&name);
                    }
                }
                (About::Key(name), Answer::Error(answer)) if answer.starts_with("BUSYKEY") => {
                    self.counts.existing += 1;
                    self.tell_existing(&name);
                }
                (About::Functions, Answer::Error(answer)) if answer.contains("already exists") => {
                    self.context.warn("functions", format!("{answer}: it stays as it is"));
                }
                (About::Key(name) | About::Exists(name), Answer::Error(answer)) => {
                    if stops(&answer) {
                        self.counts.refused += 1;
                        let error = may_not(self.pipeline.connection(), "restore", answer);
                        stopped = stopped.and(Err(error));
                    } else {
                        self.refuse(&name, &answer);
                    }
                }
                (About::Functions, Answer::Error(answer)) => self.refuse(b"functions", &answer),
                (About::Exists(name), _) => self.refuse(&name, "no number"),
            }
        }
        stopped
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
fn footed(kind: &[u8], value: &[u8], version: u16) -> [u8; 10] {
    let version = version.to_le_bytes();
    let crc = crc64(crc64(crc64(0, kind), value), &version);
    let mut foot = [0; 10];
    foot[..2].copy_from_slice(&version);
    foot[2..].copy_from_slice(&crc.to_le_bytes());
    foot
}

#[async_trait]
impl Writing for LiveWriting {
    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Box::pin(self.take(entry)).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Taken);
        let State::Whole(counts) = state else {
            let entry = "no dump.rdb".to_owned();
            return Err(Error::StrangeContent { target: self.target.clone(), entry }.into());
        };
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
