//! Whether a scratch server holds what the snapshot holds.

use std::collections::BTreeMap;

use lifeboat_core::{Context, Result};

use super::compare::Comparer;
use super::report::Examination;
use super::server::ScratchServer;
use super::walk::{self, Step, Walked};
use crate::connect::{Answer, ConnectOptions, printable};
use crate::error::Error;
use crate::source::facts;

const COUNTING: &str = "count the keys of the scratch server";

/// How many keys are compared one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// All of them.
    All,
    /// About so many, spread over all.
    Keys(u64),
}

/// How a scratch server is examined.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExamineOptions {
    /// Which keys are compared one by one: some 100,000 unless said.
    pub sample: Sample,
    /// A running server that they are compared with, too. The user needs
    /// `+select +dump +pttl ~*`.
    pub source: Option<ConnectOptions>,
}

impl Default for ExamineOptions {
    fn default() -> Self {
        Self { sample: Sample::Keys(100_000), source: None }
    }
}

/// Compares what a scratch server holds with what the snapshot says: its keys by database, and some or
/// all of them one by one, value and expiry, with what stands in the restored file and with a running
/// server. Of append-only files the keys are counted only.
///
/// # Errors
/// When the scratch server or the running one cannot be asked, or when the restored file cannot be
/// read any more. What is wrong with the data is no error, but a [`Problem`](super::Problem).
pub async fn examine(
    server: &ScratchServer,
    options: &ExamineOptions,
    context: &Context,
) -> Result<Examination> {
    let mut found = Examination::default();
    let held = counts(server, &mut found).await?;
    found.databases = held.len() as u64;
    found.keys = held.values().sum();
    let file = super::rdb(&server.place);
    if !file.exists() {
        // A moment of a journal: nothing says what it should hold.
        return Ok(found);
    }
    let keys = server.facts.unsigned(facts::KEYS).unwrap_or(found.keys);
    let mut steps = walk::start(file.clone(), options.sample, keys, server.loading);
    let mut comparer = Comparer::new(server, options.source.as_ref()).await?;
    let walked = loop {
        context.check()?;
        match steps.recv().await {
            Some(Step::Version(version)) => comparer.set_version(version),
            Some(Step::Batch(batch)) => comparer.compare(&batch, &mut found).await?,
            Some(Step::End(walked)) => break walked,
            Some(Step::Failed(source)) => return Err(Error::Restored { path: file, source }.into()),
            None => return Err(Error::Unfinished.into()),
        }
    };
    comparer.finish(&mut found);
    let in_file: u64 = walked.databases.values().map(|database| database.keys).sum();
    found.expired = in_file.saturating_sub(found.keys);
    compare_counts(server, &held, &walked, &mut found);
    Ok(found)
}

/// How many keys the server has, by database, and how many libraries.
async fn counts(server: &ScratchServer, found: &mut Examination) -> Result<BTreeMap<u64, u64>> {
    let mut connection = server.connect().await?;
    let text = async |connection: &mut crate::connect::Connection, section: &[u8]| match connection
        .demand(COUNTING, &[b"INFO", section])
        .await?
    {
        Answer::Text(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(connection.nonsense(COUNTING, printable(format!("{other:?}").as_bytes()))),
    };
    let keyspace = text(&mut connection, b"keyspace").await?;
    let memory = text(&mut connection, b"memory").await?;
    let libraries =
        memory.lines().find_map(|line| line.trim().strip_prefix("number_of_libraries:"));
    found.libraries = libraries.and_then(|number| number.parse().ok());
    Ok(keyspace.lines().filter_map(database).collect())
}

/// `db0:keys=1,expires=0,avg_ttl=0`
fn database(line: &str) -> Option<(u64, u64)> {
    let (number, counts) = line.trim().strip_prefix("db")?.split_once(':')?;
    let keys = counts.split(',').find_map(|count| count.strip_prefix("keys="))?;
    Some((number.parse().ok()?, keys.parse().ok()?))
}

fn compare_counts(
    server: &ScratchServer,
    held: &BTreeMap<u64, u64>,
    walked: &Walked,
    found: &mut Examination,
) {
    let said = server.facts.pairs(facts::DATABASES).unwrap_or_default();
    let number = |text: &[u8]| str::from_utf8(text).ok()?.parse::<u64>().ok();
    let said: BTreeMap<u64, u64> =
        said.iter().filter_map(|(database, keys)| number(database).zip(number(keys))).collect();
    let mut databases: Vec<u64> =
        held.keys().chain(walked.databases.keys()).chain(said.keys()).copied().collect();
    databases.sort_unstable();
    databases.dedup();
    for database in databases {
        let here = held.get(&database).copied().unwrap_or(0);
        let file = walked.databases.get(&database).copied().unwrap_or_default();
        if !(file.certain..=file.possible).contains(&here) {
            let what = format!(
                "the server holds {here} keys, and the file {} that had not expired",
                file.certain
            );
            found.problem(database, b"", what);
        }
        let then = said.get(&database).copied().unwrap_or(0);
        if !said.is_empty() && then != file.keys {
            let what =
                format!("the file holds {} keys, and held {then} when it was taken", file.keys);
            found.problem(database, b"", what);
        }
    }
    if let Some(libraries) = found.libraries.filter(|libraries| *libraries != walked.libraries) {
        let what = format!(
            "the server holds {libraries} libraries of functions, and the file {}",
            walked.libraries
        );
        found.problem(0, b"", what);
    }
    if let Some(why) = server.facts.text(facts::NOT_UNDERSTOOD) {
        found.unchecked.push(format!("what this program does not know: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_the_server_writes_them() {
        assert_eq!(database("db0:keys=12,expires=3,avg_ttl=0\r"), Some((0, 12)));
        assert_eq!(database("db15:keys=1,expires=0,avg_ttl=0,subexpiry=0"), Some((15, 1)));
        assert_eq!(database("# Keyspace"), None);
    }
}
