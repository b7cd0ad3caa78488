//! A cluster whose WAL is kept under another name already: most likely, one of the two is mistyped.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_core::{Context, ErrorKind, Result, StoreRef};
use lifeboat_postgres::WalArchive;
use lifeboat_repository::{JournalOptions, Repository};

/// The names under which the repository has the WAL of clusters, by system identifier, but for
/// `name`. Who may write and not read sees none.
pub(super) async fn other_names(
    repository: &Repository,
    name: &str,
) -> Result<BTreeMap<u64, String>> {
    let mut names = BTreeMap::new();
    let list = repository.journals().await?;
    let mut stores: Vec<_> = list.journals.iter().map(|journal| journal.store().clone()).collect();
    stores.dedup();
    for store in stores.into_iter().filter(|it| it.kind() == "postgres" && it.name() != name) {
        let options = JournalOptions::default();
        let archive =
            WalArchive::open(&store, |name| Arc::new(repository.journal(name, &options)))?;
        match archive.systems().await {
            Err(error) if error.kind() == ErrorKind::Refused => {}
            systems => {
                names.extend(systems?.into_iter().map(|id| (id, store.name().to_owned())));
            }
        }
    }
    Ok(names)
}

/// Warns when the WAL of a system is kept under one of these names as well.
pub(super) fn tell(names: &BTreeMap<u64, String>, system: u64, name: &str, context: &Context) {
    if let Some(other) = names.get(&system) {
        let told = format!(
            "the WAL of this cluster, of the system {system}, is kept under the name {other} already; from now on under {name} as well. If that is a mistake, use --name {other}: a recovery knows only what is under one name"
        );
        context.warn(&StoreRef::new("postgres", name).to_string(), told);
    }
}
