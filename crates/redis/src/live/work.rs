//! What a restore into a running server does, and how far it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Context, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::parsing::{Found, Key, Wanted};
use super::pipeline::{About, Sent};
use super::probe::{Probed, footed, may_not, probe, probe_name};
use super::routing::{Detour, Router};
use super::{Doing, Existing, LiveCounts, LiveError, LiveOptions};
use crate::cluster::Parts;
use crate::connect::{Answer, printable};
use crate::error::{Error, Result};
use crate::rdb::{Dialect, Eviction, crc64};

const SELECTING: &str = "select the database that keys go to";
const ASKING: &str = "ask whether the server takes the snapshot's values";
const RESTORING: &str = "restore";
/// So many keys are told by name of each kind of trouble.
const TOLD: u64 = 20;
/// The instruction before a library of functions.
const FUNCTIONS: u8 = 245;
/// Between two attempts to send a key to a cluster that cannot take it now.
const PAUSE: Duration = Duration::from_millis(250);
/// A key is not sent elsewhere more often than this.
const MOST_DETOURS: u32 = 1000;

/// What is done, and how far it is.
pub(super) struct Work {
    options: Arc<LiveOptions>,
    context: Context,
    target: String,
    pub(super) router: Router,
    /// Of a cluster's snapshot: what has come.
    pub(super) parts: Parts,
    /// How many RDBs have come.
    pub(super) dumps: u64,
    /// The version of the format; zero before anything was written.
    version: u16,
    /// The database that the connection is in.
    database: u64,
    /// So many milliseconds is the server's clock ahead of ours.
    clock: i64,
    pub(super) counts: LiveCounts,
    /// Libraries of functions that were sent, by checksum and length: all shards of a cluster hold
    /// the same.
    libraries: BTreeSet<(u64, usize)>,
    /// Keys that the cluster wants to be sent elsewhere.
    again: Vec<(Sent, Detour, String)>,
    answers: Vec<(About, Answer)>,
    first_refused: Option<(String, String)>,
    /// It came to an end of which somebody is told.
    pub(super) ended: bool,
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
    /// Nothing is done yet.
    pub(super) fn new(options: Arc<LiveOptions>, router: Router, context: &Context) -> Self {
        Self {
            target: options.connection.target(),
            options,
            context: context.clone(),
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
        }
    }

    pub(super) async fn run(
        &mut self,
        mut found: mpsc::Receiver<Found>,
    ) -> lifeboat_core::Result<()> {
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
    pub(super) fn end(&mut self) -> lifeboat_core::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_all_keys_stops_and_what_holds_for_one_does_not() {
        assert!(stops("OOM command not allowed when used memory > 'maxmemory'."));
        assert!(stops("READONLY You can't write against a read only replica."));
        assert!(!stops("ERR Bad data format"));
        assert!(!stops("BUSYKEY Target key name already exists."));
    }
}
