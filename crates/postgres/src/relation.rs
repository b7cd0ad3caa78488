//! Names of files that hold relations.

/// What the name of a file in a relation directory says: `16384`, `16384_fsm`, `16384.2`,
/// `t3_16384`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelationFile {
    pub(crate) number: u32,
    pub(crate) fork: Fork,
    /// Which of the files of the relation: each holds up to 1 GiB.
    pub(crate) segment: u32,
    /// Whether it belongs to a session's temporary table.
    pub(crate) temporary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    Main,
    FreeSpace,
    Visibility,
    /// What an unlogged relation is set back to after a crash.
    Init,
}

impl RelationFile {
    /// Reads a file name; `None` when it is no relation's.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (name, temporary) = match name.strip_prefix('t') {
            Some(rest) => {
                let (backend, rest) = rest.split_once('_')?;
                number(backend)?;
                (rest, true)
            }
            None => (name, false),
        };
        let (name, segment) = match name.split_once('.') {
            // The first file has no number at all.
            Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (name, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((name, "fsm")) => (name, Fork::FreeSpace),
            Some((name, "vm")) => (name, Fork::Visibility),
            Some((name, "init")) => (name, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: number(name)?, fork, segment, temporary })
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && !text.is_empty() && !text.starts_with('0') || text == "0")
        .then(|| text.parse().ok())?
}

/// Where a relation directory is: which database in which tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelationDirectory {
    /// 0 for the relations that all databases share.
    pub(crate) database: u32,
    /// 0 for the database's default tablespace.
    pub(crate) tablespace: u32,
}

impl RelationDirectory {
    /// Reads a path relative to the data directory: `global`, `base/<oid>`, or
    /// `pg_tblspc/<oid>/PG_<major>_<catalog>/<oid>`.
    pub(crate) fn parse(components: &[&[u8]]) -> Option<Self> {
        let oid = |name: &[u8]| number(std::str::from_utf8(name).ok()?);
        match components {
            [b"global"] => Some(Self { database: 0, tablespace: 1664 }),
            [b"base", database] => Some(Self { database: oid(database)?, tablespace: 0 }),
            [b"pg_tblspc", tablespace, version, database] if version.starts_with(b"PG_") => {
                Some(Self { database: oid(database)?, tablespace: oid(tablespace)? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations_are_read() {
        let parse = |name: &str| RelationFile::parse(name.as_bytes());
        let file = |number, fork, segment, temporary| {
            Some(RelationFile { number, fork, segment, temporary })
        };
        assert_eq!(parse("16384"), file(16384, Fork::Main, 0, false));
        assert_eq!(parse("16384.12"), file(16384, Fork::Main, 12, false));
        assert_eq!(parse("16384_fsm"), file(16384, Fork::FreeSpace, 0, false));
        assert_eq!(parse("16384_vm.1"), file(16384, Fork::Visibility, 1, false));
        assert_eq!(parse("16384_init"), file(16384, Fork::Init, 0, false));
        assert_eq!(parse("t3_16384"), file(16384, Fork::Main, 0, true));
        assert_eq!(parse("t3_16384_vm"), file(16384, Fork::Visibility, 0, true));
        for other in [
            "",
            "pg_control",
            "PG_VERSION",
            "16384.",
            "16384.0",
            "16384_",
            "16384_old",
            "t_1",
            "t3",
            "pg_filenode.map",
            "+1",
            "99999999999",
            "016384",
            "1.2.3",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn directories_of_relations_are_known() {
        let parse = |path: &str| {
            let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            RelationDirectory::parse(&components)
        };
        assert_eq!(parse("base/5"), Some(RelationDirectory { database: 5, tablespace: 0 }));
        assert!(parse("global").is_some());
        assert!(parse("pg_tblspc/16400/PG_15_202209061/5").is_some());
        for other in ["base", "base/pgsql_tmp", "pg_xact", "pg_tblspc/16400", "base/5/6"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
