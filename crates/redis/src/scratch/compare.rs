//! Comparing keys of a scratch server one by one: with what stands in the file, and with a running
//! server.

use std::time::Instant;

use lifeboat_core::Timestamp;

use super::report::{Examination, Problem, SourceComparison, shown};
use super::server::ScratchServer;
use super::walk::Chosen;
use crate::bulk::{self, Head, write_command};
use crate::connect::{Answer, ConnectOptions, Connection, printable};
use crate::error::Result;
use crate::live::footed;

const COMPARING: &str = "compare keys of the scratch server";
const ASKING_SOURCE: &str = "ask for keys to compare";
/// What a server answers for the digest of a key that is not there.
const NO_DIGEST: &[u8] = b"0000000000000000000000000000000000000000";
/// Values of a running server are held up to so many bytes.
const LARGEST: usize = 512 << 20;
/// So many keys that differ are told by name.
const TOLD: usize = 1000;
/// Hashes whose fields expire by themselves: one may have done so between two looks.
const FIELDS_EXPIRE: [u8; 3] = [22, 24, 25];

pub(super) struct Comparer {
    /// In the database that is compared.
    held: Connection,
    /// In a database of its own.
    spare: Connection,
    source: Option<Connection>,
    database: u64,
    version: u16,
    /// The moment at which a key expires can be asked for.
    knows_moments: bool,
    too_large: u64,
    fields: u64,
}

/// What is known of a key in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Digest {
    Is(Vec<u8>),
    None,
    /// The server did not take the value.
    Refused(String),
}

impl Comparer {
    pub(super) async fn new(
        server: &ScratchServer,
        source: Option<&ConnectOptions>,
    ) -> Result<Self> {
        let held = server.connect().await?;
        let mut spare = server.connect().await?;
        let number = server.spare.to_string();
        spare.demand(COMPARING, &[b"SELECT", number.as_bytes()]).await?;
        let source = match source {
            Some(options) => Some(options.connect().await?),
            None => None,
        };
        Ok(Self {
            held,
            spare,
            source,
            database: 0,
            version: 0,
            knows_moments: server.program.number() >= (7, 0),
            too_large: 0,
            fields: 0,
        })
    }

    /// The version of the format of the values.
    pub(super) fn set_version(&mut self, version: u32) {
        self.version = u16::try_from(version).unwrap_or(u16::MAX);
    }

    /// Compares some keys.
    pub(super) async fn compare(&mut self, keys: &[Chosen], found: &mut Examination) -> Result<()> {
        for group in keys.chunk_by(|one, other| one.database == other.database) {
            self.group(group, found).await?;
        }
        Ok(())
    }

    /// Compares keys of one database.
    async fn group(&mut self, keys: &[Chosen], found: &mut Examination) -> Result<()> {
        let Some(database) = keys.first().map(|key| key.database) else { return Ok(()) };
        if database != self.database {
            self.database = database;
            let number = database.to_string();
            self.held.demand(COMPARING, &[b"SELECT", number.as_bytes()]).await?;
            if let Some(source) = &mut self.source {
                source.demand(ASKING_SOURCE, &[b"SELECT", number.as_bytes()]).await?;
            }
        }
        let (begun, now) = (Instant::now(), Timestamp::now().as_millisecond());
        let keys: Vec<_> =
            keys.iter().filter(|key| key.expires.is_none_or(|at| at > now)).collect();
        let in_file: Vec<_> = keys.iter().map(|key| key.value.as_deref()).collect();
        let values = keys.iter().zip(&in_file).map(|(key, value)| {
            value.map(|value| {
                [&[key.encoding], value, &footed(&[key.encoding], value, self.version)].concat()
            })
        });
        let values: Vec<_> = values.collect();
        let expected = self.digests_in_spare(&keys, &values).await?;
        let held = self.digests_held(&keys).await?;
        let later = Timestamp::now().as_millisecond();
        let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        for ((key, expected), (digest, expiry)) in keys.iter().zip(&expected).zip(&held) {
            let gone = *digest == Digest::None || matches!(expected, Some(Digest::None));
            if gone && key.expires.is_some_and(|at| at <= later) {
                continue;
            }
            found.compared += 1;
            if *digest == Digest::None {
                found.problem(database, &key.name, "it is not there");
                continue;
            }
            if !self.expires_as(*expiry, key.expires, later, took) {
                let what = format!("it expires at another moment: {expiry:?}");
                found.problem(database, &key.name, what);
            }
            match expected {
                None => self.too_large += 1,
                Some(Digest::Refused(answer)) => {
                    let what = format!("the server does not take the value in the file: {answer}");
                    found.problem(database, &key.name, what);
                }
                Some(expected) if expected == digest => {}
                Some(_) if FIELDS_EXPIRE.contains(&key.encoding) => self.fields += 1,
                Some(_) => {
                    found.problem(database, &key.name, "its value is not the one in the file");
                }
            }
        }
        self.compare_with_source(&keys, &held, found).await?;
        self.spare.demand(COMPARING, &[b"FLUSHDB"]).await.map(|_| ())
    }

    /// Whether an answer about the expiry means this moment.
    fn expires_as(&self, answer: i64, expires: Option<i64>, now: i64, took: i64) -> bool {
        match expires {
            None => answer == -1,
            Some(at) if self.knows_moments => answer == at,
            Some(at) => answer >= 0 && (now + answer - at).abs() <= took + 1000,
        }
    }

    /// Gives values to the spare database, and asks for their digests there.
    async fn digests_in_spare(
        &mut self,
        keys: &[&Chosen],
        values: &[Option<Vec<u8>>],
    ) -> Result<Vec<Option<Digest>>> {
        let mut buffer = Vec::new();
        for (key, value) in keys.iter().zip(values) {
            let Some(value) = value else { continue };
            let expires = key.expires.unwrap_or(0).to_string();
            let name: [&[u8]; 1] = [&key.name];
            let at: [&[u8]; 1] = [expires.as_bytes()];
            let value: [&[u8]; 1] = [value];
            let mut words: Vec<&[&[u8]]> = vec![&[b"RESTORE"], &name, &at, &value, &[b"REPLACE"]];
            if key.expires.is_some() {
                words.push(&[b"ABSTTL"]);
            }
            write_command(&mut buffer, &words);
            write_command(&mut buffer, &[&[b"DEBUG"], &[b"DIGEST-VALUE"], &name]);
        }
        self.spare.send_raw(COMPARING, &buffer).await?;
        drop(buffer);
        let mut digests = Vec::with_capacity(keys.len());
        for value in values {
            if value.is_none() {
                digests.push(None);
                continue;
            }
            let restored = self.spare.answer(COMPARING).await?;
            let digest = digest(self.spare.answer(COMPARING).await?);
            digests.push(Some(match restored {
                Answer::Error(answer) => Digest::Refused(answer),
                _ => digest,
            }));
        }
        Ok(digests)
    }

    /// The digests of keys where they were loaded, and what the server says of their expiry.
    async fn digests_held(&mut self, keys: &[&Chosen]) -> Result<Vec<(Digest, i64)>> {
        let asking: &[u8] = if self.knows_moments { b"PEXPIRETIME" } else { b"PTTL" };
        let mut buffer = Vec::new();
        for key in keys {
            let name: [&[u8]; 1] = [&key.name];
            write_command(&mut buffer, &[&[b"DEBUG"], &[b"DIGEST-VALUE"], &name]);
            write_command(&mut buffer, &[&[asking], &name]);
        }
        self.held.send_raw(COMPARING, &buffer).await?;
        let mut digests = Vec::with_capacity(keys.len());
        for _ in keys {
            let digest = digest(self.held.answer(COMPARING).await?);
            digests.push((digest, number(&self.held.answer(COMPARING).await?)));
        }
        Ok(digests)
    }

    async fn compare_with_source(
        &mut self,
        keys: &[&Chosen],
        held: &[(Digest, i64)],
        found: &mut Examination,
    ) -> Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let mut buffer = Vec::new();
        for key in keys {
            let name: [&[u8]; 1] = [&key.name];
            write_command(&mut buffer, &[&[b"PTTL"], &name]);
            write_command(&mut buffer, &[&[b"DUMP"], &name]);
        }
        source.send_raw(ASKING_SOURCE, &buffer).await?;
        let mut there = Vec::with_capacity(keys.len());
        for _ in keys {
            let expires = match source.answer(ASKING_SOURCE).await? {
                Answer::Error(answer) => return Err(source.refused(ASKING_SOURCE, answer)),
                answer => number(&answer) >= 0,
            };
            let value = match bulk::head(source, ASKING_SOURCE).await? {
                Head::Refused(answer) => return Err(source.refused(ASKING_SOURCE, answer)),
                Head::Nil => None,
                Head::Length(length) => {
                    let bytes = bulk::whole(source, ASKING_SOURCE, length, LARGEST).await?;
                    Some((bytes, expires))
                }
            };
            there.push(value);
        }
        let values: Vec<_> =
            there.iter_mut().map(|value| value.as_mut().and_then(|it| it.0.take())).collect();
        let theirs = self.digests_in_spare(keys, &values).await?;
        let mut comparison = found.source.take().unwrap_or_default();
        for (((key, (ours, _)), there), theirs) in keys.iter().zip(held).zip(&there).zip(theirs) {
            let other = match (there, theirs) {
                _ if *ours == Digest::None => continue,
                (None, _) => Some("it is not there any more"),
                (Some((_, expires)), _) if *expires != key.expires.is_some() => {
                    Some("it expires on one side only")
                }
                (Some(_), None) => {
                    self.too_large += 1;
                    continue;
                }
                (Some(_), Some(Digest::Refused(answer))) => {
                    let what = format!("values of the running server are not taken: {answer}");
                    if !found.unchecked.contains(&what) {
                        found.unchecked.push(what);
                    }
                    continue;
                }
                (Some(_), Some(theirs)) => (theirs != *ours).then_some("it has another value"),
            };
            comparison.note(key, other, there.is_some());
        }
        found.source = Some(comparison);
        Ok(())
    }

    /// Tells what could not be compared.
    pub(super) fn finish(self, found: &mut Examination) {
        if self.too_large > 0 {
            let what = format!("{} values of more than 512 MiB", self.too_large);
            found.unchecked.push(what);
        }
        if self.fields > 0 {
            let what = format!("{} hashes of which fields may have expired meanwhile", self.fields);
            found.unchecked.push(what);
        }
        if self.source.is_some() {
            found.source.get_or_insert_default();
        }
    }
}

impl SourceComparison {
    fn note(&mut self, key: &Chosen, other: Option<&str>, is_there: bool) {
        self.compared += 1;
        let Some(what) = other else {
            self.same += 1;
            return;
        };
        match is_there {
            true => self.changed += 1,
            false => self.gone += 1,
        }
        if self.different.len() < TOLD {
            let (database, key) = (key.database, shown(&key.name));
            self.different.push(Problem { database, key, what: what.to_owned() });
        }
    }
}

fn digest(answer: Answer) -> Digest {
    match answer {
        Answer::List(parts) => match parts.into_iter().next() {
            Some(Answer::Text(digest)) if digest == NO_DIGEST => Digest::None,
            Some(Answer::Text(digest)) => Digest::Is(digest),
            _ => Digest::Refused("no digest".to_owned()),
        },
        Answer::Error(answer) => Digest::Refused(answer),
        Answer::Text(_) | Answer::Nil => Digest::Refused("no digest".to_owned()),
    }
}

/// A number that a server answers; -3 for what is none.
fn number(answer: &Answer) -> i64 {
    match answer {
        Answer::Text(digits) => printable(digits).parse().unwrap_or(-3),
        Answer::Error(_) | Answer::Nil | Answer::List(_) => -3,
    }
}
