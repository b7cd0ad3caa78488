//! Which snapshot, and which store, is meant.

use std::collections::BTreeSet;
use std::fmt;

use lifeboat_core::{Completeness, EntryPath, Error, ErrorKind, SnapshotInfo, StoreRef};
use lifeboat_repository::{Snapshot, SnapshotList, repaired_original};

use crate::args::{StoreName, Which};
use crate::failure::Failed;
use crate::output::number;
use crate::session::{Opened, Session};

/// The name of the newest snapshot.
pub(super) const LATEST: &str = "latest";

/// Finds the snapshot that is meant.
pub(super) async fn find(
    which: &Which,
    opened: &Opened,
    session: &Session,
) -> Result<SnapshotInfo, Failed> {
    let list = opened.listed(session).await?;
    choose(&which.snapshot, which.store.as_ref(), &list, opened, session)
}

/// As [`find`]; an id may also mean a checkpoint. `latest` never does.
pub(super) async fn find_any(
    which: &Which,
    opened: &Opened,
    session: &Session,
) -> Result<SnapshotInfo, Failed> {
    let list = opened.listed(session).await?;
    let list = candidates(list, &which.snapshot, opened, session).await?;
    choose(&which.snapshot, which.store.as_ref(), &list, opened, session)
}

/// What `name` may mean: the snapshots; and where it is an id, the checkpoints as well.
pub(super) async fn candidates(
    mut list: SnapshotList,
    name: &str,
    opened: &Opened,
    session: &Session,
) -> Result<SnapshotList, Failed> {
    if name != LATEST {
        let checkpoints = opened.checkpoints(session).await?;
        list.snapshots.extend(checkpoints.snapshots);
        list.damaged.extend(checkpoints.damaged);
    }
    Ok(list)
}

/// What an incomplete snapshot has.
pub(super) struct Reach {
    pub(super) entries: u64,
    /// Its last entry; `None` when that cannot be told.
    pub(super) until: Option<EntryPath>,
}

impl Reach {
    /// `None` of a whole snapshot.
    pub(super) async fn of(snapshot: &Snapshot) -> Option<Self> {
        if snapshot.info().completeness == Completeness::Whole {
            return None;
        }
        // It is for people: what cannot be read fails where it is needed.
        let last = snapshot.last().await.ok().flatten();
        Some(Self { entries: snapshot.info().entries, until: last.map(|entry| entry.path) })
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = number(self.entries, "entry", "entries");
        write!(f, "it is incomplete: a backup that did not finish had stored {entries}")?;
        match &self.until {
            Some(path) => {
                write!(f, ", up to \"{path}\"; what follows in the order of paths is not in it")
            }
            None => Ok(()),
        }
    }
}

/// Says so when a snapshot that is looked into is incomplete.
pub(super) async fn note_reach(snapshot: &Snapshot, session: &Session) {
    if let Some(reach) = Reach::of(snapshot).await {
        let subject = format!("snapshot {}", snapshot.info().id.short());
        session.context.note(&subject, reach.to_string());
    }
}

/// Finds the snapshot that is meant, in a list that was read already.
pub(super) fn choose(
    name: &str,
    store: Option<&StoreName>,
    list: &SnapshotList,
    opened: &Opened,
    session: &Session,
) -> Result<SnapshotInfo, Failed> {
    if name == LATEST {
        for (object, what) in &list.damaged {
            let told = format!("this snapshot may be the latest, and cannot be read: {what}");
            session.context.warn(object, told);
        }
    }
    let info = in_list(name, store, list, opened)?;
    if name == LATEST {
        note_repaired(&info, session);
    }
    Ok(info)
}

/// Says so when the newest snapshot has a repaired sibling, which is taken for it.
pub(super) fn note_repaired(info: &SnapshotInfo, session: &Session) {
    if let Some(original) = repaired_original(info) {
        let (sibling, original) = (info.id.short(), original.short());
        let told = format!(
            "it has what a repair found left of snapshot {original}, which is of the same moment; \
             name that one to take it as it is"
        );
        session.context.note(&format!("snapshot {sibling}"), told);
    }
}

/// Finds the snapshot that is called `name`, and tells nothing but the error.
pub(super) fn in_list(
    name: &str,
    store: Option<&StoreName>,
    list: &SnapshotList,
    opened: &Opened,
) -> Result<SnapshotInfo, Failed> {
    let store = store.map(|name| resolve(name, list)).transpose()?;
    list.find(name, store.as_ref()).map_err(|error| opened.failed(error))
}

/// Finds the store that is meant.
pub(super) fn resolve(name: &StoreName, list: &SnapshotList) -> Result<StoreRef, Failed> {
    let known: BTreeSet<_> = list.snapshots.iter().map(|info| &info.store).collect();
    let meant: Vec<_> = known.iter().copied().filter(|store| name.means(store)).collect();
    match meant[..] {
        [store] => Ok(store.clone()),
        [] => {
            let message = format!("there is no snapshot of a store \"{name}\"");
            let hint = match joined(known) {
                stores if stores.is_empty() => "list them with `lifeboat snapshots`".to_owned(),
                stores => format!("the repository has snapshots of {stores}"),
            };
            Err(Error::new(ErrorKind::NotFound, message).with_hint(hint).into())
        }
        _ => {
            let message = format!("more than one store is called \"{name}\": {}", joined(meant));
            Err(Failed::usage(message, "give the kind as well, as in --store KIND/NAME"))
        }
    }
}

fn joined<'a>(stores: impl IntoIterator<Item = &'a StoreRef>) -> String {
    let stores: Vec<_> = stores.into_iter().map(ToString::to_string).collect();
    stores.join(", ")
}

#[cfg(test)]
mod tests {
    use lifeboat_core::{SnapshotId, Timestamp};

    use super::*;

    #[test]
    fn a_name_alone_is_enough_when_no_other_store_has_it() {
        let mut list = SnapshotList::default();
        for (id, (kind, name)) in
            [("files", "etc"), ("files", "shop"), ("postgres", "shop")].into_iter().enumerate()
        {
            let id = SnapshotId::from_bytes([u8::try_from(id).unwrap(); 32]);
            let store = StoreRef::new(kind, name);
            list.snapshots.push(SnapshotInfo::new(id, store, Timestamp::UNIX_EPOCH));
        }
        let alone = |name: &str| resolve(&StoreName::Name(name.to_owned()), &list);
        assert_eq!(alone("etc").unwrap(), StoreRef::new("files", "etc"));
        let line = alone("shop").unwrap_err().to_string();
        assert!(line.contains("files/shop, postgres/shop; ") && line.contains("--store"), "{line}");
        let line = alone("nothing").unwrap_err().to_string();
        assert!(line.contains("files/etc, files/shop, postgres/shop"), "{line}");
        let whole = StoreRef::new("postgres", "shop");
        assert_eq!(resolve(&StoreName::Whole(whole.clone()), &list).unwrap(), whole);
        let other = StoreName::Whole(StoreRef::new("postgres", "etc"));
        assert!(resolve(&other, &list).is_err());
    }
}
