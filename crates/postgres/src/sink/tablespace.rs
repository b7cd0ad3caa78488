//! Where tablespaces go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lifeboat_core::Attributes;
use lifeboat_core::local::Root;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::former::Former;
use super::target::{is_vacant, make_directory};
use crate::error::{Error, Result};
use crate::source::{bytes_to_path, facts};

/// A tablespace that goes elsewhere than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Its oid, or its former location.
    pub tablespace: String,
    /// Its new directory: absolute, new or empty, outside the data directory.
    pub directory: PathBuf,
}

impl TablespaceMapping {
    /// The tablespace with this oid or former location goes to `directory`.
    pub fn new(tablespace: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self { tablespace: tablespace.into(), directory: directory.into() }
    }

    fn is_for(&self, oid: &str, location: &Path) -> bool {
        self.tablespace == oid || Path::new(&self.tablespace) == location
    }
}

/// Where one tablespace is written.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a directory of its own.
    Apart(Root),
    /// In the data directory.
    InPlace,
}

/// All tablespaces of a restore.
#[derive(Debug)]
pub(super) struct Tablespaces {
    target: PathBuf,
    mappings: Vec<TablespaceMapping>,
    former: Option<Former>,
    /// By oid: known when the entry that stands for the tablespace was put. Its files may be put
    /// beside it, and wait.
    places: Mutex<HashMap<Vec<u8>, watch::Sender<Option<Place>>>>,
}

impl Tablespaces {
    /// Checks what can be checked beforehand. Blocks.
    pub(super) fn new(
        target: &Path,
        mappings: Vec<TablespaceMapping>,
        facts: Option<&Attributes>,
        former: Option<Former>,
    ) -> Result<Self> {
        let this = Self { target: target.to_owned(), mappings, former, places: Mutex::default() };
        let Some(known) = facts.and_then(|facts| facts.pairs(facts::TABLESPACES)) else {
            return Ok(this);
        };
        let mut chosen: Vec<PathBuf> = Vec::new();
        for (oid, location) in known.iter().filter(|(_, location)| !location.is_empty()) {
            let directory = this.choose(oid, location)?;
            if chosen.contains(&directory) {
                let why = "two tablespaces cannot share a directory";
                return Err(Error::TargetPath { path: directory, why });
            }
            chosen.push(directory);
        }
        for mapping in &this.mappings {
            let used = known.iter().any(|(oid, location)| {
                mapping.is_for(&String::from_utf8_lossy(oid), &bytes_to_path(location))
            });
            if !used {
                return Err(Error::NoSuchTablespace { name: mapping.tablespace.clone() });
            }
        }
        Ok(this)
    }

    /// The directory for a tablespace: absolute, apart from the data directory, and vacant.
    fn choose(&self, oid: &[u8], location: &[u8]) -> Result<PathBuf> {
        let (oid, location) = (String::from_utf8_lossy(oid), bytes_to_path(location));
        let mapped = self.mappings.iter().find(|mapping| mapping.is_for(&oid, &location));
        let path = mapped.map_or(location, |mapping| mapping.directory.clone());
        let bad = |why| Error::TargetPath { path: path.clone(), why };
        if !path.is_absolute() {
            return Err(bad("the directory of a tablespace must be absolute"));
        }
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(bad("the directory of a tablespace must not hold .."));
        }
        if path.starts_with(&self.target) || self.target.starts_with(&path) {
            return Err(bad("a tablespace must not lie in the data directory, nor around it"));
        }
        // What a snapshot says must not be enough to make a directory anywhere.
        if mapped.is_none() && !path.is_dir() {
            let oid = oid.into_owned();
            return Err(Error::TablespaceNotThere { oid, path });
        }
        let ours = |former: &Former| former.has_tablespace(&oid, &path);
        match is_vacant(&path) {
            Ok(true) => Ok(path),
            Ok(false) if self.former.as_ref().is_some_and(ours) => Ok(path),
            Ok(false) => Err(Error::TablespaceNotEmpty { oid: oid.into_owned(), path }),
            Err(source) => Err(Error::File { what: "list", path, source }),
        }
    }

    /// The entry of this tablespace is about to be put.
    pub(super) fn announce(&self, oid: &[u8]) {
        let mut places = self.places.lock();
        places.entry(oid.to_vec()).or_insert_with(|| watch::Sender::new(None));
    }

    /// Makes the directory of a tablespace. Blocks.
    pub(super) fn make(&self, oid: &[u8], location: Option<&[u8]>) -> lifeboat_core::Result<Place> {
        let place = match location {
            None => Place::InPlace,
            Some(location) => {
                let root = make_directory(&self.choose(oid, location)?)?;
                if let Some(former) = &self.former {
                    former.gather_tablespace(&root)?;
                }
                Place::Apart(root)
            }
        };
        self.announce(oid);
        if let Some(sender) = self.places.lock().get(oid) {
            sender.send_replace(Some(place.clone()));
        }
        Ok(place)
    }

    /// Where the files of a tablespace go; waits until that is known.
    pub(super) async fn place(&self, oid: &[u8]) -> Result<Place> {
        let receiver = self.places.lock().get(oid).map(watch::Sender::subscribe);
        let missing = || Error::NotRestorable {
            why: format!(
                "it has files of a tablespace {} that it does not have",
                oid.escape_ascii()
            ),
        };
        let mut receiver = receiver.ok_or_else(missing)?;
        let known = receiver.wait_for(Option::is_some).await.map_err(|_| missing())?;
        let place = known.clone();
        drop(known);
        place.ok_or_else(missing)
    }

    /// The directories made so far, with their oids.
    pub(super) fn apart(&self) -> Vec<(Vec<u8>, Root)> {
        let places = self.places.lock();
        let made = places.iter().filter_map(|(oid, place)| match &*place.borrow() {
            Some(Place::Apart(root)) => Some((oid.clone(), root.clone())),
            Some(Place::InPlace) | None => None,
        });
        made.collect()
    }

    /// Whether the snapshot had an entry for this tablespace.
    pub(super) fn has(&self, oid: &[u8]) -> bool {
        self.places.lock().contains_key(oid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(location: &Path) -> Attributes {
        use std::os::unix::ffi::OsStrExt;
        let row = (b"16400".to_vec(), location.as_os_str().as_bytes().to_vec());
        Attributes::new().with(facts::TABLESPACES, vec![row])
    }

    #[test]
    fn directories_are_checked_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        let new = |mappings: Vec<TablespaceMapping>| {
            Tablespaces::new(&target, mappings, Some(&facts(&old)), None)
        };
        assert!(new(vec![]).is_ok());
        std::fs::remove_dir(&old).unwrap();
        assert!(matches!(new(vec![]), Err(Error::TablespaceNotThere { .. })));
        std::fs::create_dir(&old).unwrap();
        std::fs::write(old.join("x"), "").unwrap();
        assert!(matches!(new(vec![]), Err(Error::TablespaceNotEmpty { .. })));

        let elsewhere = dir.path().join("elsewhere");
        for name in ["16400", old.to_str().unwrap()] {
            assert!(new(vec![TablespaceMapping::new(name, &elsewhere)]).is_ok());
        }
        let unknown = vec![
            TablespaceMapping::new("16400", &elsewhere),
            TablespaceMapping::new("1", dir.path().join("b")),
        ];
        assert!(matches!(new(unknown), Err(Error::NoSuchTablespace { .. })));
        for bad in [target.join("in"), dir.path().to_owned(), "relative".into(), old.join("../z")] {
            let mapped = new(vec![TablespaceMapping::new("16400", bad)]);
            assert!(matches!(mapped, Err(Error::TargetPath { .. })));
        }
    }

    #[tokio::test]
    async fn files_of_an_unknown_tablespace_are_refused() {
        let spaces = Tablespaces::new(Path::new("/data"), vec![], None, None).unwrap();
        assert!(spaces.place(b"5").await.is_err());
        spaces.announce(b"5");
        spaces.make(b"5", None).unwrap();
        assert!(matches!(spaces.place(b"5").await, Ok(Place::InPlace)));
    }
}
