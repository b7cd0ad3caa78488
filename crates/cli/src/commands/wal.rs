//! `lifeboat wal`: PostgreSQL's WAL, by command.
//!
//! What PostgreSQL makes of exit codes has its own table: see [`crate::exit`].

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::journal::Appended;
use lifeboat_core::{Collecting, Context, Error, ErrorKind, StoreRef};
use lifeboat_objstore::{Intent, Location};
use lifeboat_postgres::{
    AtGap, GetOptions, Got, Notes, PushOptions, Pushed, Spool, Tail, WalArchive,
};
use lifeboat_repository::{Repository, id_without_key};
use object_store::ObjectStore;
use serde::Serialize;

use super::elsewhere;
use crate::args::{Gap, Wal, WalAdopt, WalGet, WalPush, WalServe};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::Output;
use crate::secret::Purpose;
use crate::service::{Answer, Listener, Outcome, Request, socket};
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
        Wal::Serve(arguments) => serve(&arguments, session).await,
    }
}

fn end(output: &Output, file: Option<&str>, result: &str, ahead: usize, exit: Exit) -> Exit {
    output.event("summary", &Ended { file, result, ahead, exit: exit.code() });
    exit
}

/// Tells what came of a call, and how it ends.
pub(crate) fn told(output: &Output, file: Option<&str>, outcome: Outcome) -> Result<Exit, Failed> {
    match outcome {
        Outcome::Done { result, ahead } => Ok(end(output, file, &result, ahead, Exit::Complete)),
        Outcome::Absent => {
            output.note(&format!("{} is not in the archive", file.unwrap_or_default()));
            Ok(end(output, file, "absent", 0, Exit::Absent))
        }
        Outcome::Failed { message, hint } => {
            let error = Error::new(ErrorKind::Other, message);
            Err(hint.into_iter().fold(error, Error::with_hint).into())
        }
    }
}

/// A store's journals, in an open repository.
fn archive(opened: &Opened, name: &str) -> Result<WalArchive, Failed> {
    super::recovery::archive(opened, &StoreRef::new("postgres", name))
}

/// Where one cluster may keep what runs ahead, on its way to or from one repository; and the name of
/// that repository and journal.
fn beside(
    session: &Session,
    location: &Location,
    name: &str,
    data_directory: &Path,
) -> Option<(PathBuf, String)> {
    let place = format!("{location} postgres/{name}");
    let directory = session.cache_directory()?.join("wal");
    let data = data_directory.canonicalize().ok()?;
    // Only to keep two clusters apart that share a cache: what is in there says whose it is.
    let mut hasher = DefaultHasher::new();
    (&place, data).hash(&mut hasher);
    Some((directory.join(format!("{:016x}", hasher.finish())), place))
}

/// Notes of what was archived ahead. Another repository may be at that place by now, which has
/// nothing of what was noted: its id is asked for.
async fn notes(
    beside: Option<(PathBuf, String)>,
    store: Arc<dyn ObjectStore>,
) -> lifeboat_core::Result<Option<Notes>> {
    let Some((directory, place)) = beside else {
        return Ok(None);
    };
    let id = id_without_key(store).await?;
    Ok(Some(Notes::new(directory, &format!("{id} {place}"))))
}

async fn push(arguments: &WalPush, session: &Session) -> Result<Exit, Failed> {
    let cluster = &arguments.cluster;
    let location = session.location()?;
    let path = cluster.data_directory.join(&arguments.path);
    let file = arguments.path.file_name().and_then(|name| name.to_str());
    let beside = beside(session, &location, &cluster.name, &cluster.data_directory);
    let mut noting = None;
    if beside.is_some() {
        let store = session.store(&location, Intent::Existing)?;
        noting = session.unless_cancelled(notes(beside, store)).await??;
        if noting.as_ref().is_some_and(|notes| notes.has(&path)) {
            return Ok(end(&session.output, file, "noted", 0, Exit::Complete));
        }
    }
    let mut options = PushOptions::new(&cluster.data_directory).with_ahead(arguments.ahead);
    options.notes = noting;
    let opened = session.repository().await?;
    let archive = archive(&opened, &cluster.name)?;
    let pushing = Box::pin(archive.push(&arguments.path, &options, &session.context));
    let pushed = session.unless_cancelled(pushing).await?;
    let pushed = pushed.map_err(|error| opened.of_store(error))?;
    mind_name(&pushed, &opened.repository, &cluster.name, &session.context).await;
    if let Some(words) = filled(pushed.filled, file) {
        session.output.note(&words);
    }
    Ok(end(&session.output, file, word(pushed.appended), pushed.ahead, Exit::Complete))
}

/// Warns when a cluster that is begun under a name has another one already. The file is archived,
/// whatever can be said of that.
async fn mind_name(pushed: &Pushed, repository: &Repository, name: &str, context: &Context) {
    if let Some(line) = pushed.begun
        && let Ok(names) = elsewhere::other_names(repository, name).await
    {
        elsewhere::tell(&names, line.system_id, name, context);
    }
}

fn word(appended: Appended) -> &'static str {
    match appended {
        Appended::New => "archived",
        Appended::Same => "same",
    }
}

fn filled(count: usize, file: Option<&str>) -> Option<String> {
    let file = file.unwrap_or_default();
    let words = || format!("{count} segments before {file} were missing, and are archived now");
    (count > 0).then(words)
}

async fn get(arguments: &WalGet, session: &Session) -> Result<Exit, Failed> {
    let cluster = &arguments.cluster;
    let file = Some(arguments.file.as_str());
    let location = session.location()?;
    let spool = beside(session, &location, &cluster.name, &cluster.data_directory)
        .map(|(directory, _)| Spool::new(directory, arguments.ahead));
    if let Some(spool) = &spool {
        let giving = spool.give(&arguments.file, &arguments.path, &cluster.data_directory);
        if session.unless_cancelled(giving).await?? {
            return Ok(end(&session.output, file, "fetched", 0, Exit::Complete));
        }
    }
    let store = match arguments.standby {
        true => session.hasty_store(&location, STANDBY)?,
        false => session.whole(&location, Intent::Existing)?,
    };
    let secret = session.secret(Purpose::Open).await?;
    let opened = session.open(location, store, &secret).await?;
    let archive = archive(&opened, &cluster.name)?;
    let over_gaps = arguments.at_gap == Gap::End;
    let options = getting(&cluster.data_directory, arguments.standby, over_gaps, spool);
    let getting = Box::pin(archive.get(&arguments.file, &arguments.path, &options));
    let got = session.unless_cancelled(getting).await?;
    let got = got.map_err(|error| opened.of_store(error))?;
    told(&session.output, file, given(got))
}

fn getting(data: &Path, standby: bool, over_gaps: bool, spool: Option<Spool>) -> GetOptions {
    let mut options = GetOptions::new(data);
    if standby {
        options.tail = Tail::Withhold;
    }
    if over_gaps {
        options.at_gap = AtGap::End;
    }
    options.spool = spool;
    options
}

fn given(got: Got) -> Outcome {
    match got {
        Got::Given => Outcome::Done { result: "given".to_owned(), ahead: 0 },
        Got::Absent => Outcome::Absent,
    }
}

/// What answers calls with a repository that stays open.
pub(crate) struct WalService {
    session: Session,
    location: Location,
    store: Arc<dyn ObjectStore>,
    repository: Repository,
    archive: WalArchive,
    name: String,
}

impl WalService {
    pub(super) fn new(session: &Session, opened: &Opened, name: &str) -> Result<Self, Failed> {
        let location = opened.location.clone();
        Ok(Self {
            session: Session::new(session.global.clone(), session.output.clone()),
            store: session.store(&location, Intent::Existing)?,
            location,
            repository: opened.repository.clone(),
            archive: archive(opened, name)?,
            name: name.to_owned(),
        })
    }

    /// Does what a call asks for.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        let observer = Arc::new(Collecting::new());
        let context = Context::new(Arc::clone(&observer) as Arc<_>);
        let outcome = self.outcome(request, &context).await.unwrap_or_else(|error| {
            // The call tries alone, and tells what is wrong.
            tracing::warn!(%error, "a call for WAL failed");
            Outcome::Failed { message: error.to_string(), hint: None }
        });
        let (warnings, notices) = (observer.warnings(), observer.notices());
        let notes = warnings.into_iter().chain(notices);
        let notes = notes.map(|(subject, message)| format!("{subject}: {message}")).collect();
        Answer { outcome, notes }
    }

    async fn outcome(&self, request: Request, context: &Context) -> lifeboat_core::Result<Outcome> {
        match request {
            Request::Push { path, data_directory, ahead } => {
                let beside = beside(&self.session, &self.location, &self.name, &data_directory);
                let noting = notes(beside, Arc::clone(&self.store)).await?;
                if noting.as_ref().is_some_and(|notes| notes.has(&data_directory.join(&path))) {
                    return Ok(Outcome::Done { result: "noted".to_owned(), ahead: 0 });
                }
                let mut options = PushOptions::new(&data_directory).with_ahead(ahead);
                options.notes = noting;
                let pushed = Box::pin(self.archive.push(&path, &options, context)).await?;
                mind_name(&pushed, &self.repository, &self.name, context).await;
                let file = path.file_name().and_then(|name| name.to_str());
                if let Some(words) = filled(pushed.filled, file) {
                    context.note("", words);
                }
                let result = word(pushed.appended).to_owned();
                Ok(Outcome::Done { result, ahead: pushed.ahead })
            }
            Request::Get { file, path, data_directory, ahead, standby, over_gaps } => {
                let beside = beside(&self.session, &self.location, &self.name, &data_directory);
                let spool = beside.map(|(directory, _)| Spool::new(directory, ahead));
                if let Some(spool) = &spool
                    && spool.give(&file, &path, &data_directory).await?
                {
                    return Ok(Outcome::Done { result: "fetched".to_owned(), ahead: 0 });
                }
                let options = getting(&data_directory, standby, over_gaps, spool);
                Box::pin(self.archive.get(&file, &path, &options)).await.map(given)
            }
        }
    }
}

/// The socket at which a command listens, where it is to.
pub(super) fn listener(
    named: Option<&Path>,
    session: &Session,
    location: &Location,
    name: &str,
) -> Result<Option<Listener>, Failed> {
    let Some(path) = named.map(Path::to_owned).or_else(|| socket(session, location, name)) else {
        return Ok(None);
    };
    Ok(Some(Listener::at(&path)?))
}

async fn serve(arguments: &WalServe, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let (name, location) = (&arguments.name, &opened.location);
    let Some(listener) = listener(arguments.socket.as_deref(), session, location, name)? else {
        let hint = "name the socket with --socket, here and in the commands of the server";
        return Err(Failed::usage("there is no directory for the socket", hint));
    };
    let service = Arc::new(WalService::new(session, &opened, name)?);
    session.output.say(&format!("answering for the WAL of postgres/{name}"));
    tokio::select! {
        () = listener.serve(service) => {}
        () = session.context.cancelled() => {}
    }
    session.output.say("stopped");
    Ok(end(&session.output, None, "stopped", 0, Exit::Complete))
}

async fn adopt(arguments: &WalAdopt, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let archive = archive(&opened, &arguments.cluster.name)?;
    let adopting = Box::pin(archive.adopt(&arguments.cluster.data_directory));
    let adopted = session.unless_cancelled(adopting).await?;
    let line = adopted.map_err(|error| opened.of_store(error))?;
    session.output.say(&format!(
        "the WAL of the system {} is let into {} from timeline {} on; take a backup now",
        line.system_id,
        archive.name(),
        line.timeline
    ));
    Ok(end(&session.output, None, "adopted", 0, Exit::Complete))
}
