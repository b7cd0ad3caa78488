//! `lifeboat mount`: shows the snapshots as files.

use lifeboat_mount::{Access, MountOptions, mount};
use serde::Serialize;

use super::which::resolve;
use crate::args::Mount;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::number;
use crate::session::Session;

/// The event `mounted`.
#[derive(Serialize)]
struct Mounted {
    target: String,
    snapshots: usize,
}

#[derive(Serialize)]
struct Summary {
    target: String,
    snapshots: usize,
    warnings: u64,
    exit: u8,
}

pub(super) async fn run(arguments: &Mount, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let mut options = MountOptions::default();
    if let Some(name) = &arguments.store {
        options.store = Some(resolve(name, &opened.listed(session).await?)?);
    }
    if arguments.allow_others {
        options.access = Access::Everybody;
    }
    let place = &arguments.directory;
    let mounting = Box::pin(mount(&opened.repository, place, &options, &session.context));
    let mounted = session.unless_cancelled(mounting).await?;
    let mut mounted = mounted.map_err(|error| opened.of_store(error.into()))?;
    let (target, snapshots) = (place.display().to_string(), mounted.snapshots());
    session.output.event("mounted", &Mounted { target: target.clone(), snapshots });
    let shown = number(snapshots as u64, "snapshot is", "snapshots are");
    session.output.say(&format!("{shown} mounted on {target}; Ctrl-C unmounts"));
    tokio::select! {
        // To be stopped is how it is meant to end.
        () = session.context.cancelled() => mounted.unmount().await?,
        ended = mounted.ended() => ended?,
    }
    let warnings = session.context.warnings();
    let exit = Exit::with_warnings(warnings);
    let summary = Summary { target, snapshots, warnings, exit: exit.code() };
    session.output.event("summary", &summary);
    Ok(exit)
}
