//! `lifeboat init`: makes a repository.

use lifeboat_core::Error;
use lifeboat_objstore::Intent;
use lifeboat_repository::{Holder, InitOptions, Promise, Repository};
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
    let mut options = InitOptions::default();
    if arguments.weak_store {
        options.promise = Promise::Weaker;
    }
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
