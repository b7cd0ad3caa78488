//! From the names of a snapshot to places in a restored cluster.

use lifeboat_core::{EntryPath, Result};

use crate::error::Error;
use crate::source::{CLUSTER, RECOVERY};
use crate::wal;

/// Where an entry of the snapshot goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// The data directory itself.
    Top,
    /// The directory that stands for a tablespace; its oid.
    Tablespace(Vec<u8>),
    /// Beneath a tablespace: its oid, and the path there.
    InTablespace(Vec<u8>, EntryPath),
    /// Beneath the data directory.
    Inside(EntryPath),
    /// A WAL segment or a history file.
    Wal(Vec<u8>),
    /// A file that recovery needs, kept until the commit.
    Note(Note),
    /// Nowhere: it is there to hold others.
    Nowhere,
}

/// A file that is held against the others at the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    Label,
    Control,
    TablespaceMap,
}

impl Goes {
    pub(super) fn of(path: &EntryPath) -> Result<Self> {
        let components: Vec<&[u8]> = path.components().collect();
        let below = |skip: usize| EntryPath::new(components[skip..].join(&b'/'));
        Ok(match components.as_slice() {
            [top] if *top == CLUSTER.as_bytes() => Self::Top,
            [top] if *top == RECOVERY.as_bytes() => Self::Nowhere,
            [top, b"global", b"pg_control"] if *top == CLUSTER.as_bytes() => {
                return Err(not_restorable(format!("{path} is not where it belongs")));
            }
            [top, b"pg_tblspc", oid] if *top == CLUSTER.as_bytes() => {
                Self::Tablespace(oid.to_vec())
            }
            [top, b"pg_tblspc", oid, ..] if *top == CLUSTER.as_bytes() => {
                Self::InTablespace(oid.to_vec(), below(3)?)
            }
            [top, ..] if *top == CLUSTER.as_bytes() => Self::Inside(below(1)?),
            [top, file] if *top == RECOVERY.as_bytes() => match *file {
                b"backup_label" => Self::Note(Note::Label),
                b"pg_control" => Self::Note(Note::Control),
                b"tablespace_map" => Self::Note(Note::TablespaceMap),
                name if wal::is_segment(name) || wal::is_history(name) => Self::Wal(name.to_vec()),
                _ => {
                    return Err(not_restorable(format!("{path} is nothing that recovery knows")));
                }
            },
            _ => return Err(not_restorable(format!("{path} is not of a cluster"))),
        })
    }
}

/// The snapshot is of something else, or lacks what a restore needs.
pub(super) fn not_restorable(why: String) -> lifeboat_core::Error {
    Error::NotRestorable { why }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(path: &str) -> Result<Goes> {
        Goes::of(&EntryPath::new(path)?)
    }

    #[test]
    fn every_entry_has_its_place() {
        let inside = |path: &str| EntryPath::new(path).unwrap();
        for (path, place) in [
            ("cluster", Goes::Top),
            ("recovery", Goes::Nowhere),
            ("cluster/base/5/1249", Goes::Inside(inside("base/5/1249"))),
            ("cluster/pg_tblspc", Goes::Inside(inside("pg_tblspc"))),
            ("cluster/pg_tblspc/16400", Goes::Tablespace(b"16400".to_vec())),
            (
                "cluster/pg_tblspc/16400/PG_15_1/5",
                Goes::InTablespace(b"16400".to_vec(), inside("PG_15_1/5")),
            ),
            ("recovery/backup_label", Goes::Note(Note::Label)),
            ("recovery/00000002.history", Goes::Wal(b"00000002.history".to_vec())),
        ] {
            assert_eq!(goes(path).unwrap(), place, "{path}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for stranger in [
            "etc",
            "etc/passwd",
            "recovery/x",
            "recovery/pg_control/x",
            "recovery/00000001000000000000000g",
            "cluster/global/pg_control",
        ] {
            assert!(goes(stranger).is_err(), "{stranger}");
        }
    }
}
