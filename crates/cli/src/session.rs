//! What one run of the command works with.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Context, Error};
use lifeboat_objstore::{Intent, Location, StoreOptions, Variables};
use lifeboat_repository::{Cache, OpenOptions, Repository, Secret, SnapshotList};
use object_store::ObjectStore;

use crate::args::{Global, OtherSecret};
use crate::failure::{Failed, in_repository, is_of_store, place};
use crate::output::Output;
use crate::secret::{self, Purpose};

/// Where the repository is, when no option says so.
const VARIABLE: &str = "LIFEBOAT_REPO";

/// What one run of the command works with.
#[derive(Debug)]
pub(crate) struct Session {
    /// What holds for every command.
    pub(crate) global: Global,
    /// Where people and programs read what happens.
    pub(crate) output: Output,
    /// The observer, the budget, the counts, and the way to cancel.
    pub(crate) context: Context,
}

impl Session {
    pub(crate) fn new(global: Global, output: Output) -> Self {
        let context = Context::new(Arc::new(output.clone()));
        Self { global, output, context }
    }

    /// Where the repository is said to be.
    pub(crate) fn location(&self) -> Result<Location, Failed> {
        let named = self.global.repo.clone().map(Into::into);
        let named = named.or_else(|| std::env::var_os(VARIABLE).filter(|text| !text.is_empty()));
        let Some(text) = named else {
            let hint = "name it with --repo, or once for the shell with LIFEBOAT_REPO";
            return Err(Failed::usage("no repository is named", hint));
        };
        let Some(text) = text.to_str() else {
            let hint = "give it another name, or a link with one";
            return Err(Failed::usage("the location of the repository is not UTF-8", hint));
        };
        parse(text)
    }

    /// Opens the store that the repository is in.
    pub(crate) fn store(
        &self,
        location: &Location,
        intent: Intent,
    ) -> Result<Arc<dyn ObjectStore>, Failed> {
        self.whole(location, intent).map(|opened| opened.store)
    }

    /// As [`Session::store`], with what it keeps beside the bytes of objects.
    pub(crate) fn whole(
        &self,
        location: &Location,
        intent: Intent,
    ) -> Result<lifeboat_objstore::Opened, Failed> {
        Ok(lifeboat_objstore::open_whole(location, &StoreOptions::new(intent))?)
    }

    /// As [`Session::whole`], for a store in whose stead another one can be asked: a request that
    /// fails is tried again for so long only.
    pub(crate) fn hasty_store(
        &self,
        location: &Location,
        give_up: Duration,
    ) -> Result<lifeboat_objstore::Opened, Failed> {
        let mut options = StoreOptions::new(Intent::Existing);
        let patience = &mut options.patience;
        for limit in [
            &mut patience.connect,
            &mut patience.base,
            &mut patience.give_up,
            &mut patience.first_contact,
        ] {
            *limit = give_up.min(*limit);
        }
        Ok(lifeboat_objstore::open_whole(location, &options)?)
    }

    /// Opens a second repository, whose secrets and variables are its own.
    pub(crate) async fn other(&self, at: &str, secret: &OtherSecret) -> Result<Opened, Failed> {
        let location = parse(at)?;
        let mut options = StoreOptions::new(Intent::Existing);
        options.variables = Variables::Given(variables_of_other(std::env::vars_os()));
        let store = lifeboat_objstore::open_whole(&location, &options)?;
        let at = place(&location);
        let finding = Box::pin(secret::find_other(secret, &at));
        let secret = self.unless_cancelled(finding).await??;
        self.open(location, store, &secret).await
    }

    /// Finds the passphrase.
    pub(crate) async fn secret(&self, purpose: Purpose) -> Result<Secret, Failed> {
        let finding = Box::pin(secret::find(&self.global, purpose));
        self.unless_cancelled(finding).await?
    }

    /// Opens the repository.
    pub(crate) async fn repository(&self) -> Result<Opened, Failed> {
        let location = self.location()?;
        let store = self.whole(&location, Intent::Existing)?;
        let secret = self.secret(Purpose::Open).await?;
        self.open(location, store, &secret).await
    }

    /// Opens the repository with a secret that is known already.
    pub(crate) async fn open(
        &self,
        location: Location,
        opened: lifeboat_objstore::Opened,
        secret: &Secret,
    ) -> Result<Opened, Failed> {
        let mut options = OpenOptions::default().with_cache(self.cache());
        options.warehouse = opened.warehouse;
        let opening = Repository::open_with(opened.store, secret, &options);
        let repository = self
            .unless_cancelled(opening)
            .await?
            .map_err(|error| in_repository(error, &location))?;
        Ok(Opened { repository, location })
    }

    /// Where what is read of the index is kept: nowhere, if no directory can be found for it.
    fn cache(&self) -> Cache {
        self.cache_directory().map_or(Cache::None, Cache::Directory)
    }

    /// The directory for what may be deleted at any time, if there is to be one.
    pub(crate) fn cache_directory(&self) -> Option<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if self.global.no_cache {
            return None;
        }
        if let Some(named) = variable("LIFEBOAT_CACHE_DIR") {
            return Some(named.into());
        }
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
        // A relative path is to be ignored: XDG Base Directory Specification, version 0.8.
        let caches =
            variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        caches.or_else(home).map(|path| path.join("lifeboat"))
    }

    /// Runs what does not look at the context itself.
    ///
    /// # Errors
    /// When somebody asked to stop.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.context.cancelled() => Err(Error::cancelled()),
            done = work => Ok(done),
        }
    }
}

fn parse(location: &str) -> Result<Location, Failed> {
    location.parse().map_err(|error: lifeboat_objstore::Error| Failed::argument(error))
}

/// The variables that count for the store of another repository: where one begins with
/// `LIFEBOAT_OTHER_`, what follows is its name there.
///
/// Half of one account and half of another help nobody: once there is one of a provider, those
/// that the first repository uses of that provider do not count.
fn variables_of_other(
    all: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(String, String)> {
    let mut others = Vec::new();
    let mut plain = Vec::new();
    for (name, value) in all {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
            continue;
        };
        match name.strip_prefix("LIFEBOAT_OTHER_") {
            Some(name) => others.push((name.to_owned(), value)),
            None => plain.push((name, value)),
        }
    }
    let provider = |name: &str| name.split('_').next().unwrap_or(name).to_ascii_uppercase();
    let own: BTreeSet<_> = others.iter().map(|(name, _)| provider(name)).collect();
    plain.retain(|(name, _)| !own.contains(&provider(name)));
    plain.extend(others);
    plain
}

/// An open repository, and where it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) repository: Repository,
    pub(crate) location: Location,
}

impl Opened {
    /// The snapshots.
    pub(crate) async fn listed(&self, session: &Session) -> Result<SnapshotList, Failed> {
        let listing = session.unless_cancelled(self.repository.snapshots()).await?;
        listing.map_err(|error| self.failed(error))
    }

    /// The snapshots; a warning for each that cannot be read.
    pub(crate) async fn snapshots(&self, session: &Session) -> Result<SnapshotList, Failed> {
        let list = self.listed(session).await?;
        for (object, what) in &list.damaged {
            session.context.warn(object, format!("this snapshot cannot be read: {what}"));
        }
        Ok(list)
    }

    /// What unfinished backups had stored: incomplete snapshots.
    pub(crate) async fn checkpoints(&self, session: &Session) -> Result<SnapshotList, Failed> {
        let listing = session.unless_cancelled(self.repository.checkpoints()).await?;
        listing.map_err(|error| self.failed(error))
    }

    /// Says of an error of a transfer where the repository is, if it is the repository's.
    pub(crate) fn of_store(&self, error: Error) -> Failed {
        if is_of_store(&error) { self.failed(error) } else { error.into() }
    }

    /// Says of an error where the repository is.
    pub(crate) fn failed(&self, error: impl Into<Error>) -> Failed {
        in_repository(error, &self.location).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_store_has_variables_of_its_own() {
        let counts = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let mut found = variables_of_other(pairs);
            found.sort();
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let plain = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SESSION_TOKEN", "t"), ("HOME", "/")];
        assert_eq!(counts(&plain), ["AWS_ACCESS_KEY_ID=a", "AWS_SESSION_TOKEN=t", "HOME=/"]);
        let mut all = plain.to_vec();
        all.push(("LIFEBOAT_OTHER_AWS_ACCESS_KEY_ID", "b"));
        assert_eq!(counts(&all), ["AWS_ACCESS_KEY_ID=b", "HOME=/"]);
    }
}
