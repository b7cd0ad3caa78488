//! `lifeboat init`: makes a repository.

use lifeboat_core::{Error, ErrorKind, Keeping};
use lifeboat_objstore::Intent;
use lifeboat_repository::{Holder, InitOptions, Promise, Repository};
use serde::Serialize;

use super::data_class::notes;
use crate::args::Init;
use crate::exit::Exit;
use crate::failure::{Failed, in_repository, place};
use crate::secret::Purpose;
use crate::session::Session;

#[derive(Serialize)]
struct Summary<'a> {
    repository: String,
    location: &'a str,
    data_class: Option<String>,
    pack: u32,
    versions: Option<bool>,
    lock: Option<bool>,
    retention: Option<Locked>,
    exit: u8,
}

/// The lock that every object gets by itself.
#[derive(Serialize)]
struct Locked {
    mode: &'static str,
    days: u32,
}

pub(super) async fn run(arguments: &Init, session: &Session) -> Result<Exit, Failed> {
    let location = session.location()?;
    let holder = match &arguments.recipient {
        Some(text) => Holder::recipient(text).map_err(Failed::argument)?,
        None => Holder::of(&session.secret(Purpose::Choose).await?)?,
    };
    let opened = session.whole(&location, Intent::Create)?;
    let failed = |error: Error| Failed::from(in_repository(error, &location));
    session.context.phase("make the repository");
    let mut options = InitOptions::default();
    if arguments.weak_store {
        options.promise = Promise::Weaker;
    }
    options.label.clone_from(&arguments.label);
    options.data_class.clone_from(&arguments.data_class);
    options.warehouse.clone_from(&opened.warehouse);
    let making = Repository::init_for(opened.store, &holder, &options);
    let made = session.unless_cancelled(making).await?;
    let repository = made.map_err(|error| failed(error.into()))?;

    let exit = Exit::Complete;
    let (id, place) = (repository.id().to_string(), place(&location));
    session.output.finish();
    let keeping = keeping(&repository, session).await?;
    let data_class = repository.data_class();
    let retention = keeping.and_then(|keeping| keeping.retention);
    session.output.event(
        "summary",
        &Summary {
            repository: id.clone(),
            location: &place,
            data_class: data_class.clone(),
            pack: repository.parameters().pack,
            versions: keeping.map(|keeping| keeping.versions),
            lock: keeping.map(|keeping| keeping.lock),
            retention: retention.map(|lock| Locked { mode: lock.mode.as_str(), days: lock.days }),
            exit: exit.code(),
        },
    );
    session.output.say(&format!("made repository {id} at {place}"));
    if let (Some(name), Some(warehouse)) = (&data_class, &opened.warehouse) {
        let class = warehouse.class(name);
        session.output.say(&format!("packs of data are put into the class {}", class.name));
        for note in notes(&class, repository.parameters().pack < 64 << 20) {
            session.output.say(&note);
        }
    }
    if let Some(told) = keeping.and_then(|keeping| told(&keeping)) {
        session.output.say(&told);
    }
    let what = match (&arguments.recipient, &session.global) {
        (Some(_), _) => "the identity of the recipient",
        (None, global) if global.identity_file.is_some() => "the identity",
        (None, global) if global.key_command.is_some() => "what the key command needs",
        _ => "the passphrase",
    };
    session.output.say(&format!("keep {what} apart from it: without it, nothing can be read"));
    Ok(exit)
}

/// What becomes of deleted objects. A store that does not say so holds nothing up.
async fn keeping(repository: &Repository, session: &Session) -> Result<Option<Keeping>, Failed> {
    match session.unless_cancelled(repository.keeping()).await? {
        Ok(keeping) => Ok(keeping),
        Err(error) => {
            let error = Error::from(error);
            if error.kind() == ErrorKind::Refused {
                session.output.say(
                    "whether the bucket has versions and object lock is not known: these \
                     credentials may not ask (s3:GetBucketVersioning, \
                     s3:GetBucketObjectLockConfiguration)",
                );
            }
            Ok(None)
        }
    }
}

/// What versions and locks mean for a repository.
fn told(keeping: &Keeping) -> Option<String> {
    let rule = "set a lifecycle rule that removes noncurrent versions; see docs/storage-classes.md";
    match (keeping.retention, keeping.versions) {
        (Some(lock), _) => Some(format!(
            "the bucket locks every object for {} days ({} mode): nothing that was stored can be \
             destroyed before, and what is deleted or replaced stays as a version at least as long; \
             {rule}",
            lock.days,
            lock.mode.as_str()
        )),
        (None, true) => Some(format!(
            "the bucket keeps versions: what is deleted or replaced takes room until it is removed; \
             {rule}"
        )),
        (None, false) => None,
    }
}
