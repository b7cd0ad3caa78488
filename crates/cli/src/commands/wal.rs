//! `lifeboat wal`: PostgreSQL's WAL, by command.
//!
//! What PostgreSQL makes of exit codes has its own table: see [`crate::exit`].

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::StoreRef;
use lifeboat_core::journal::Appended;
use lifeboat_objstore::{Intent, Location};
use lifeboat_postgres::{AtGap, GetOptions, Got, Notes, PushOptions, Spool, Tail, WalArchive};
use lifeboat_repository::{JournalOptions, id_without_key};
use serde::Serialize;

use crate::args::{Gap, Wal, WalAdopt, WalCluster, WalGet, WalPush};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::secret::Purpose;
use crate::session::{Opened, Session};

/// How long a standby waits for a repository that does not answer. It asks again anyway, and may
/// get the WAL from its primary meanwhile.
const STANDBY: Duration = Duration::from_secs(20);

/// The end of all of them.
#[derive(Serialize)]
struct Ended<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    result: &'a str,
    ahead: usize,
    exit: u8,
}

pub(super) async fn run(command: Wal, session: &Session) -> Result<Exit, Failed> {
    match command {
        Wal::Push(arguments) => push(&arguments, session).await,
        Wal::Get(arguments) => get(&arguments, session).await,
        Wal::Adopt(arguments) => adopt(&arguments, session).await,
    }
}

fn end(session: &Session, file: Option<&str>, result: &str, ahead: usize, exit: Exit) -> Exit {
    session.output.event("summary", &Ended { file, result, ahead, exit: exit.code() });
    exit
}

/// A store's journals, in an open repository.
fn archive(opened: &Opened, cluster: &WalCluster) -> Result<WalArchive, Failed> {
    let store = StoreRef::new("postgres", cluster.name.clone());
    let options = JournalOptions::default();
    let archive =
        WalArchive::open(&store, |name| Arc::new(opened.repository.journal(name, &options)));
    Ok(archive?)
}

/// Where one cluster may keep what runs ahead, on its way to or from one repository; and the name of
/// that repository and journal.
fn beside(
    session: &Session,
    location: &Location,
    cluster: &WalCluster,
) -> Option<(PathBuf, String)> {
    let place = format!("{location} postgres/{}", cluster.name);
    let directory = session.cache_directory()?.join("wal");
    let data = cluster.data_directory.canonicalize().ok()?;
    // Only to keep two clusters apart that share a cache: what is in there says whose it is.
    let mut hasher = DefaultHasher::new();
    (&place, data).hash(&mut hasher);
    Some((directory.join(format!("{:016x}", hasher.finish())), place))
}

async fn push(arguments: &WalPush, session: &Session) -> Result<Exit, Failed> {
    let cluster = &arguments.cluster;
    let location = session.location()?;
    let path = cluster.data_directory.join(&arguments.path);
    let file = arguments.path.file_name().and_then(|name| name.to_str());
    let mut options = PushOptions::new(&cluster.data_directory).with_ahead(arguments.ahead);
    if let Some((directory, place)) = beside(session, &location, cluster) {
        // Another repository may be at that place by now, which has nothing of what was noted.
        let store = session.store(&location, Intent::Existing)?;
        let id = session.unless_cancelled(id_without_key(store)).await??;
        let notes = Notes::new(directory, &format!("{id} {place}"));
        if notes.has(&path) {
            return Ok(end(session, file, "noted", 0, Exit::Complete));
        }
        options = options.with_notes(notes);
    }
    let opened = session.repository().await?;
    let archive = archive(&opened, cluster)?;
    let pushing = Box::pin(archive.push(&arguments.path, &options, &session.context));
    let pushed = session.unless_cancelled(pushing).await?;
    let pushed = pushed.map_err(|error| opened.of_store(error))?;
    if pushed.filled > 0 {
        let (count, file) = (pushed.filled, file.unwrap_or_default());
        let words = format!("{count} segments before {file} were missing, and are archived now");
        session.output.note(&words);
    }
    let result = match pushed.appended {
        Appended::New => "archived",
        Appended::Same => "same",
    };
    Ok(end(session, file, result, pushed.ahead, Exit::Complete))
}

async fn get(arguments: &WalGet, session: &Session) -> Result<Exit, Failed> {
    let cluster = &arguments.cluster;
    let file = Some(arguments.file.as_str());
    let location = session.location()?;
    let spool = beside(session, &location, cluster)
        .map(|(directory, _)| Spool::new(directory, arguments.ahead));
    if let Some(spool) = &spool {
        let giving = spool.give(&arguments.file, &arguments.path, &cluster.data_directory);
        if session.unless_cancelled(giving).await?? {
            return Ok(end(session, file, "fetched", 0, Exit::Complete));
        }
    }
    let store = match arguments.standby {
        true => session.hasty_store(&location, STANDBY)?,
        false => session.whole(&location, Intent::Existing)?,
    };
    let secret = session.secret(Purpose::Open).await?;
    let opened = session.open(location, store, &secret).await?;
    let archive = archive(&opened, cluster)?;
    let mut options = GetOptions::new(&cluster.data_directory);
    if arguments.standby {
        options.tail = Tail::Withhold;
    }
    if arguments.at_gap == Gap::End {
        options.at_gap = AtGap::End;
    }
    options.spool = spool;
    let getting = Box::pin(archive.get(&arguments.file, &arguments.path, &options));
    let got = session.unless_cancelled(getting).await?;
    match got.map_err(|error| opened.of_store(error))? {
        Got::Given => Ok(end(session, file, "given", 0, Exit::Complete)),
        Got::Absent => {
            session.output.note(&format!("{} is not in the archive", arguments.file));
            Ok(end(session, file, "absent", 0, Exit::Absent))
        }
    }
}

async fn adopt(arguments: &WalAdopt, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let archive = archive(&opened, &arguments.cluster)?;
    let adopting = Box::pin(archive.adopt(&arguments.cluster.data_directory));
    let adopted = session.unless_cancelled(adopting).await?;
    let line = adopted.map_err(|error| opened.of_store(error))?;
    session.output.say(&format!(
        "the WAL of the system {} is let into {} from timeline {} on; take a backup now",
        line.system_id,
        archive.name(),
        line.timeline
    ));
    Ok(end(session, None, "adopted", 0, Exit::Complete))
}
