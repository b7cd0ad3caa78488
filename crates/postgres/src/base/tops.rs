//! What of an archive is no file: directories, and what stands for an archive as a whole.

use lifeboat_core::{Attributes, Entry, EntryKind, EntryPath, Value, names};

use super::error::Result;
use super::files::Current;
use super::member::{Archive, Place, owner};
use super::pump::{Item, KNOWS_IN_PLACE, Pump, bad, recovery};
use super::tar::{Member, MemberKind};
use crate::source::{CLUSTER, RECOVERY, ServerLogs, facts};

impl Pump {
    /// A member begins; the result is a file whose content follows.
    pub(super) async fn member(
        &mut self,
        archive: &Archive,
        member: &Member,
    ) -> Result<Option<Current>> {
        let path = archive.path_of(&member.name);
        let logs = match self.logs {
            ServerLogs::LeaveOut => self.about.logs.as_deref().map(str::as_bytes),
            ServerLogs::Keep => None,
        };
        // Only who asked for changes is sent any.
        let whole = self.prior.as_ref().and_then(|_| changes_of(&path));
        let named = whole.as_ref().unwrap_or(&path);
        let place = Place::of(named, member, self.about.segment_size, logs);
        let place = place.map_err(|why| bad(archive, why))?;
        self.tops(archive, member).await?;
        match (&member.kind, place) {
            (MemberKind::Directory, Place::Cluster { path: entry, .. }) => {
                if let [b"pg_tblspc", oid] =
                    path.split(|byte| *byte == b'/').collect::<Vec<_>>()[..]
                {
                    self.record_tablespace(oid.to_vec(), Vec::new());
                }
                let path = entry;
                let entry = Entry::new(path, EntryKind::Directory, owner(member));
                self.give(Item::Entry(entry)).await?;
                Ok(None)
            }
            (MemberKind::Directory, _) => Ok(None),
            (MemberKind::Symlink(_), _) if self.is_tablespace(&path) => Ok(None),
            (MemberKind::Symlink(_), _) => {
                let name = member.name.escape_ascii();
                Err(bad(archive, format!("it has the link \"{name}\", which nobody asked for")))
            }
            (MemberKind::File, place) => {
                let former = match whole {
                    Some(_) => Some(self.former(archive, &place).await?),
                    None => None,
                };
                let goes = self.goes(archive, member, place, former).await?;
                Ok(Some(Current::new(path, member.size, goes)))
            }
        }
    }

    /// How many bytes the last snapshot has of a file of which changes are sent.
    async fn former(&self, archive: &Archive, place: &Place) -> Result<u64> {
        let (Place::Cluster { path, relation: Some(_) }, Some(prior)) = (place, &self.prior) else {
            return Err(bad(archive, "it has changes of what is no relation"));
        };
        let former = prior.size_of(path).await;
        former.ok_or_else(|| bad(archive, format!("it has changes of {path}, which is not known")))
    }

    /// The entries of which no archive has a member: the data directory, what recovery needs, and
    /// the directory of a tablespace.
    async fn tops(&mut self, archive: &Archive, member: &Member) -> Result<()> {
        let mode = u64::from(self.about.directory_mode);
        match archive {
            Archive::Base if self.notes.top => {}
            Archive::Base => {
                self.notes.top = true;
                let attributes = owner(member).with(names::MODE, mode);
                self.directory(path_of(CLUSTER)?, attributes).await?;
                let attributes = Attributes::new().with(names::MODE, 0o700_u32);
                self.directory(path_of(RECOVERY)?, attributes).await?;
                self.tablespace_map().await?;
            }
            Archive::Tablespace(oid) => {
                let oid = *oid;
                let place = self.begun.tablespaces.iter().position(|space| space.oid == oid);
                let Some(space) = place.map(|at| self.begun.tablespaces.remove(at)) else {
                    return Ok(());
                };
                let mut attributes = owner(member).with(names::MODE, mode);
                let mut location = space.location;
                if location.starts_with(b"/") {
                    attributes.set(names::TARGET, location.clone());
                } else {
                    // It lies in the data directory itself.
                    location.clear();
                }
                self.record_tablespace(oid.to_string().into_bytes(), location);
                let path = path_of(&format!("{CLUSTER}/pg_tblspc/{oid}"))?;
                self.directory(path, attributes).await?;
            }
        }
        Ok(())
    }

    /// The `tablespace_map` of a server that was not asked for it. All other archives have come.
    async fn tablespace_map(&self) -> Result<()> {
        let known = self.facts.pairs(facts::TABLESPACES).unwrap_or_default();
        if self.about.major >= KNOWS_IN_PLACE || known.is_empty() {
            return Ok(());
        }
        let mut map = Vec::new();
        for (oid, location) in known {
            map.extend_from_slice(oid);
            map.push(b' ');
            for byte in location {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    map.push(b'\\');
                }
                map.push(*byte);
            }
            map.push(b'\n');
        }
        let attributes = Attributes::new().with(names::MODE, 0o600_u32);
        let entry = Entry::file(recovery(b"tablespace_map")?, attributes, map);
        self.give(Item::Entry(entry)).await
    }

    fn record_tablespace(&mut self, oid: Vec<u8>, location: Vec<u8>) {
        let known = self.facts.pairs(facts::TABLESPACES).unwrap_or_default();
        let mut known: Vec<(Vec<u8>, Vec<u8>)> = known.to_vec();
        known.push((oid, location));
        self.facts.set(facts::TABLESPACES, Value::from(known));
    }

    /// Whether a path is that of the link to a tablespace whose archive has come.
    fn is_tablespace(&self, path: &[u8]) -> bool {
        let known = self.facts.pairs(facts::TABLESPACES).unwrap_or_default();
        let oid = path.strip_prefix(b"pg_tblspc/");
        oid.is_some_and(|oid| known.iter().any(|(known, _)| known == oid))
    }

    async fn directory(&self, path: EntryPath, attributes: Attributes) -> Result<()> {
        self.give(Item::Entry(Entry::new(path, EntryKind::Directory, attributes))).await
    }
}

fn path_of(text: &str) -> Result<EntryPath> {
    EntryPath::new(text).map_err(|error| bad(&Archive::Base, error.to_string()))
}

/// The path of the file of which this one holds the changes.
fn changes_of(path: &[u8]) -> Option<Vec<u8>> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let whole = name.strip_prefix(b"INCREMENTAL.")?;
    Some([&path[..path.len() - name.len()], whole].concat())
}
