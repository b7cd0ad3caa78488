//! Where the members of the server's archives belong in a snapshot.
//!
//! A snapshot has the same form however it was taken, so what the local way leaves out or keeps
//! elsewhere is left out or kept elsewhere here, too, also where the server sends it.

use lifeboat_core::{Attributes, EntryPath, names};

use super::tar::{Member, MemberKind};
use crate::archive::WalName;
use crate::lsn::SegmentSize;
use crate::relation::{RelationDirectory, RelationFile};
use crate::source::{CLUSTER, left_out};

/// One of the archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Archive {
    /// The data directory.
    Base,
    /// A tablespace, by its oid.
    Tablespace(u32),
}

impl Archive {
    /// From the name that the server gives it; `None` for one that it did not announce.
    pub(super) fn parse(name: &[u8], tablespaces: &[u32]) -> Option<Self> {
        let stem = std::str::from_utf8(name).ok()?.strip_suffix(".tar")?;
        if stem == "base" {
            return Some(Self::Base);
        }
        let known = tablespaces.iter().find(|oid| oid.to_string() == stem)?;
        Some(Self::Tablespace(*known))
    }

    /// A member's path in the data directory, under which the manifest names it.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match self {
            // Some directories are named so, and others not.
            Self::Base => name.strip_prefix(b"./").unwrap_or(name).to_vec(),
            Self::Tablespace(oid) => {
                let mut path = format!("pg_tblspc/{oid}/").into_bytes();
                path.extend_from_slice(name);
                path
            }
        }
    }
}

/// Where a member belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Under this path.
    Cluster { path: EntryPath, relation: Option<(RelationDirectory, RelationFile)> },
    /// A transaction that was prepared, if that was before the backup began.
    Prepared { path: EntryPath, name: Vec<u8> },
    /// `backup_label`.
    Label,
    /// `tablespace_map`.
    Map,
    /// `global/pg_control`.
    Control,
    /// A WAL segment.
    Segment { timeline: u32, segment: u64 },
    /// The history of a timeline.
    History(String),
    /// What says that a segment was archived: made by the server at the end of the backup.
    Done,
    /// Nowhere.
    LeftOut,
}

impl Place {
    /// Where the member at `path` in the data directory belongs.
    ///
    /// # Errors
    /// When that is no path beneath the data directory.
    pub(super) fn of(
        path: &[u8],
        member: &Member,
        size: SegmentSize,
        logs: Option<&[u8]>,
    ) -> Result<Self, String> {
        let entry = EntryPath::new(CLUSTER).and_then(|top| {
            // Joined at once, a path with a dot or an empty part would pass for several.
            EntryPath::new(path)?.components().try_fold(top, |top, part| top.join(part))
        });
        let entry = entry.map_err(|error| error.to_string())?;
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (name, parents) = components.split_last().ok_or("a member has no name")?;
        if member.kind == MemberKind::File {
            match components.as_slice() {
                [b"backup_label"] => return Ok(Self::Label),
                [b"tablespace_map"] => return Ok(Self::Map),
                [b"global", b"pg_control"] => return Ok(Self::Control),
                [b"pg_wal", name] => return Ok(Self::wal(name, size)),
                [b"pg_wal", b"archive_status", _] => return Ok(Self::Done),
                [b"pg_wal", ..] => return Ok(Self::LeftOut),
                [b"pg_twophase", name] => {
                    return Ok(Self::Prepared { path: entry, name: name.to_vec() });
                }
                _ => {}
            }
        }
        let in_logs = logs
            .is_some_and(|logs| path.strip_prefix(logs).is_some_and(|rest| rest.starts_with(b"/")));
        if in_logs || left_out(parents, name) {
            return Ok(Self::LeftOut);
        }
        let relation = RelationDirectory::parse(parents).zip(RelationFile::parse(name));
        let relation = relation.filter(|_| member.kind == MemberKind::File);
        if relation.is_some_and(|(_, file)| file.temporary) {
            return Ok(Self::LeftOut);
        }
        Ok(Self::Cluster { path: entry, relation })
    }

    fn wal(name: &[u8], size: SegmentSize) -> Self {
        let name = std::str::from_utf8(name).unwrap_or_default();
        match WalName::parse(name, size) {
            Some(WalName::Segment { timeline, segment }) => Self::Segment { timeline, segment },
            Some(WalName::History { .. }) => Self::History(name.to_owned()),
            _ => Self::LeftOut,
        }
    }
}

/// Whose a member is, and its mode.
pub(super) fn owner(member: &Member) -> Attributes {
    let mut attributes = Attributes::new()
        .with(names::MODE, u64::from(member.mode))
        .with(names::UID, member.uid)
        .with(names::GID, member.gid);
    for (name, text) in [(names::USER, &member.user), (names::GROUP, &member.group)] {
        if let Ok(text) = std::str::from_utf8(text)
            && !text.is_empty()
        {
            attributes.set(name, text);
        }
    }
    attributes
}

/// What is known of a file. The archive has times to the second, and no inode.
pub(super) fn of_file(member: &Member) -> Attributes {
    let seconds = i64::try_from(member.modified).unwrap_or_default();
    owner(member).with(names::MODIFIED, seconds.saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(kind: MemberKind) -> Member {
        Member {
            name: Vec::new(),
            kind,
            mode: 0o600,
            uid: 26,
            gid: 27,
            user: b"postgres".to_vec(),
            group: Vec::new(),
            modified: 3,
            size: 0,
        }
    }

    fn place(path: &str) -> Result<Place, String> {
        let size = SegmentSize::new(16 << 20).unwrap();
        Place::of(path.as_bytes(), &member(MemberKind::File), size, Some(b"log"))
    }

    fn shown(path: &str) -> String {
        match place(path).unwrap() {
            Place::Cluster { path, relation } => format!("{path} {}", relation.is_some()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn files_have_their_places() {
        assert_eq!(shown("base/5/1249_fsm"), "cluster/base/5/1249_fsm true");
        assert_eq!(shown("global/1262"), "cluster/global/1262 true");
        assert_eq!(shown("base/5/PG_VERSION"), "cluster/base/5/PG_VERSION false");
        assert_eq!(shown("base/1249"), "cluster/base/1249 false");
        let moved = Archive::Tablespace(16400).path_of(b"PG_17_202406281/5/16390");
        let moved = String::from_utf8(moved).unwrap();
        assert_eq!(shown(&moved), "cluster/pg_tblspc/16400/PG_17_202406281/5/16390 true");
        assert_eq!(Archive::Base.path_of(b"./pg_wal/archive_status"), b"pg_wal/archive_status");
        assert_eq!(place("backup_label"), Ok(Place::Label));
        assert_eq!(place("global/pg_control"), Ok(Place::Control));
        assert_eq!(
            place("pg_wal/00000003000000010000000A"),
            Ok(Place::Segment { timeline: 3, segment: 266 })
        );
        assert_eq!(place("pg_wal/00000003.history"), Ok(Place::History("00000003.history".into())));
        assert!(matches!(place("pg_twophase/00000000000002E6"), Ok(Place::Prepared { .. })));
        assert_eq!(place("pg_wal/archive_status/00000003000000010000000A.done"), Ok(Place::Done));
    }

    #[test]
    fn what_the_local_way_leaves_out_is_left_out() {
        for path in [
            "standby.signal",
            "recovery.signal",
            "postmaster.pid",
            "backup_label.old",
            "backup_manifest",
            "pg_wal/00000003000000010000000A.partial",
            "pg_wal/xlogtemp.17",
            "base/5/pg_internal.init",
            "base/5/t3_16400",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "log/postgresql.log",
        ] {
            assert_eq!(place(path), Ok(Place::LeftOut), "{path}");
        }
        assert_eq!(shown("logs"), "cluster/logs false");
    }

    #[test]
    fn what_lies_elsewhere_is_refused() {
        for path in ["", "/etc/passwd", "../x", "base/../../x", "base//1", "./base", "a\0b"] {
            assert!(place(path).is_err(), "{path:?}");
        }
        for (name, known) in [("base.tar", true), ("16400.tar", true), ("16401.tar", false)] {
            assert_eq!(Archive::parse(name.as_bytes(), &[16400]).is_some(), known, "{name}");
        }
        for name in ["", "base", "016400.tar", "../base.tar", "16400.tar.gz"] {
            assert!(Archive::parse(name.as_bytes(), &[16400]).is_none(), "{name}");
        }
    }

    #[test]
    fn attributes_are_those_that_an_archive_has() {
        let attributes = of_file(&member(MemberKind::File));
        assert_eq!(attributes.unsigned(names::MODE), Some(0o600));
        assert_eq!(attributes.text(names::USER), Some("postgres"));
        assert_eq!(attributes.text(names::GROUP), None);
        assert_eq!(attributes.signed(names::MODIFIED), Some(3_000_000_000));
    }
}
