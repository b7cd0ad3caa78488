//! `lifeboat init`: makes a repository.

use lifeboat_core::{Error, ErrorKind};
use lifeboat_objstore::conformance::honours_put_if_absent;
use lifeboat_objstore::{Intent, Location, Provider};
use lifeboat_repository::{Holder, InitOptions, Repository};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;

use crate::args::Init;
use crate::exit::Exit;
use crate::failure::{Failed, in_repository, place};
use crate::secret::Purpose;
use crate::session::Session;

#[derive(Serialize)]
struct Summary<'a> {
    repository: String,
    location: &'a str,
    exit: u8,
}

pub(super) async fn run(arguments: &Init, session: &Session) -> Result<Exit, Failed> {
    let location = session.location()?;
    let holder = match &arguments.recipient {
        Some(text) => Holder::recipient(text).map_err(Failed::argument)?,
        None => Holder::of(&session.secret(Purpose::Choose).await?)?,
    };
    let store = session.store(&location, Intent::Create)?;
    let failed = |error: Error| Failed::from(in_repository(error, &location));
    session.context.phase("make the repository");
    session.unless_cancelled(probe(&*store, &location)).await?.map_err(failed)?;
    let mut options = InitOptions::default();
    options.label.clone_from(&arguments.label);
    let making = Repository::init_for(store, &holder, &options);
    let made = session.unless_cancelled(making).await?;
    let repository = made.map_err(|error| failed(error.into()))?;

    let exit = Exit::Complete;
    let (id, place) = (repository.id().to_string(), place(&location));
    session.output.finish();
    session
        .output
        .event("summary", &Summary { repository: id.clone(), location: &place, exit: exit.code() });
    session.output.say(&format!("made repository {id} at {place}"));
    let what = match (&arguments.recipient, &session.global) {
        (Some(_), _) => "the identity of the recipient",
        (None, global) if global.identity_file.is_some() => "the identity",
        (None, global) if global.key_command.is_some() => "what the key command needs",
        _ => "the passphrase",
    };
    session.output.say(&format!("keep {what} apart from it: without it, nothing can be read"));
    Ok(exit)
}

/// Makes sure that two writers can never both make one object. Directories and memory are known to
/// see to that; some gateways that speak S3 ignore the condition.
async fn probe(store: &dyn ObjectStore, location: &Location) -> Result<(), Error> {
    if matches!(location.provider(), Provider::Local | Provider::Memory) {
        return Ok(());
    }
    let raw = |source| {
        let kind = lifeboat_objstore::classify(&source);
        Error::new(kind, "try the store out").with_source(source)
    };
    if store.head(&Path::from("lifeboat.json")).await.is_ok() {
        // It is a repository already, and what comes next says so.
        return Ok(());
    }
    let nanoseconds = jiff::Timestamp::now().as_nanosecond();
    let name = Path::from(format!("probe-{}-{nanoseconds}", std::process::id()));
    if honours_put_if_absent(store, &name).await.map_err(raw)? {
        return Ok(());
    }
    let message = format!(
        "make a repository at {}: the store overwrites an object although it was told to make a \
         new one only",
        place(location)
    );
    let hint = "use a store that honours \"If-None-Match: *\", such as Amazon S3, Ceph or MinIO";
    Err(Error::new(ErrorKind::Unsupported, message).with_hint(hint))
}
