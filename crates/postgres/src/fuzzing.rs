//! Every decoder of this crate that reads what a server, a program of PostgreSQL or a snapshot
//! gives, for the fuzz targets. Not for use: it changes without notice.
//!
//! A checksum would hide what is behind it from an input that is changed at random; so it is set
//! right in the input, as a server with a defect would set it.

use crate::{base, logical, recovery, replication};

/// What a decoder said: nothing when it took the bytes, else why not.
pub type Outcome = Result<(), String>;

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// So many bytes it may have in memory at once, besides a multiple of what it was given.
    pub bound: usize,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]) -> Outcome,
}

impl Target {
    /// Bytes that it takes.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the decoder says.
    pub fn run(&self, bytes: &[u8]) -> Outcome {
        (self.run)(bytes)
    }
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let target = |name, seeds, run| Target { name, bound: 1 << 20, seeds, run };
    vec![
        target("base_tar", base::fuzzing::tar_seeds as _, base::fuzzing::tar as _),
        target("base_manifest", base::fuzzing::manifest_seeds, base::fuzzing::manifest),
        target("base_changes", base::fuzzing::changes_seeds, base::fuzzing::changes),
        target("wal_records", recovery::fuzzing::records_seeds, recovery::fuzzing::records),
        target("wal_history", history_seeds, history),
        target("replication", replication::fuzzing::frames_seeds, replication::fuzzing::frames),
        target("dump_contents", logical::fuzzing::contents_seeds, logical::fuzzing::contents),
        target("dump_script", logical::fuzzing::script_seeds, logical::fuzzing::script),
        target("copy_rows", logical::fuzzing::rows_seeds, logical::fuzzing::rows),
    ]
}

/// An answer without what differs from input to input, which stands in double quotes.
pub(crate) fn without_quoted(why: &str) -> String {
    match (why.find('"'), why.rfind('"')) {
        (Some(from), Some(upto)) => format!("{}…{}", &why[..from], &why[upto + 1..]),
        _ => why.to_owned(),
    }
}

fn history_seeds() -> Vec<Vec<u8>> {
    vec![b"# why\n1\t0/3000000\tno recovery target specified\n\n2\t1/A\tx\n".to_vec()]
}

fn history(bytes: &[u8]) -> Outcome {
    let history = crate::TimelineHistory::parse(7, bytes.to_vec());
    let parents = history.map_err(|error| without_quoted(&error.to_string()))?.parents().to_vec();
    assert!(parents.is_sorted_by_key(|(timeline, _)| *timeline), "{parents:?}");
    Ok(())
}
