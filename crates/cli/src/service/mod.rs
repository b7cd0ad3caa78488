//! A service that answers for `wal push` and `wal get` on a Unix socket, so that a call does not
//! open the repository by itself.
//!
//! `lifeboat follow postgres` and `lifeboat wal serve` listen. A call looks for the socket where both
//! reckon it to be, in the directory for caches, by the name of the repository and the cluster. Where
//! nobody answers, or the answer breaks off, it does the work alone: both do the same, and doing it
//! twice does no harm.
//!
//! A request and an answer are a line of JSON each. Service and call are of one installation, and one
//! that does not understand the other is one that does not answer.

mod client;
mod server;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use lifeboat_objstore::Location;
use serde::{Deserialize, Serialize};

pub(crate) use client::ask;
pub(crate) use server::Listener;

use crate::session::Session;

/// No line is longer.
const MAX_LINE: u64 = 64 << 10;
/// What both must speak.
const VERSION: u32 = 1;

/// What a server asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(crate) enum Request {
    /// `archive_command`.
    Push { path: PathBuf, data_directory: PathBuf, ahead: u64 },
    /// `restore_command`.
    Get {
        file: String,
        path: PathBuf,
        data_directory: PathBuf,
        ahead: u64,
        standby: bool,
        over_gaps: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// As it should be: a word for what was done, and how many segments were done with it.
    Done { result: String, ahead: usize },
    /// The file does not exist, and that is proved.
    Absent,
    /// Anything else.
    Failed { message: String, hint: Option<String> },
}

/// An answer, with what people should know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    said: T,
}

fn line<T: Serialize>(said: T) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(&Versioned { v: VERSION, said }).ok()?;
    line.push(b'\n');
    (line.len() as u64 <= MAX_LINE).then_some(line)
}

fn understood<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Option<T> {
    let versioned: Versioned<T> = serde_json::from_slice(line).ok()?;
    (versioned.v == VERSION).then_some(versioned.said)
}

/// Where the service of a cluster listens; `None` without a directory for caches.
pub(crate) fn socket(session: &Session, location: &Location, name: &str) -> Option<PathBuf> {
    let directory = session.cache_directory()?.join("wal");
    let mut hasher = DefaultHasher::new();
    format!("{location} postgres/{name}").hash(&mut hasher);
    Some(directory.join(format!("{:016x}.sock", hasher.finish())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_by_the_same_version_only() {
        let request = Request::Get {
            file: "00000002.history".into(),
            path: "pg_wal/x".into(),
            data_directory: "/data".into(),
            ahead: 7,
            standby: false,
            over_gaps: true,
        };
        let said = line(&request).unwrap();
        let Some(Request::Get { file, over_gaps: true, .. }) = understood(&said) else {
            panic!("{}", String::from_utf8_lossy(&said))
        };
        assert_eq!(file, "00000002.history");
        let other = String::from_utf8(said).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(understood::<Request>(other.as_bytes()).is_none());
        assert!(understood::<Request>(b"{}").is_none());
        for outcome in [
            Outcome::Absent,
            Outcome::Done { result: "noted".into(), ahead: 0 },
            Outcome::Failed { message: "m".into(), hint: None },
        ] {
            let answer = Answer { outcome, notes: vec!["a note".into()] };
            let back: Answer = understood(&line(&answer).unwrap()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{answer:?}"));
        }
    }
}
