//! `lifeboat data-class`: says where packs of data are put, and changes it.

use lifeboat_core::StorageClass;
use serde::Serialize;

use crate::args::DataClass;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::session::Session;

#[derive(Serialize)]
struct Summary<'a> {
    data_class: Option<&'a str>,
    changed: bool,
    exit: u8,
}

pub(super) async fn run(arguments: &DataClass, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let before = opened.repository.data_class();
    let wanted = arguments.name.as_deref();
    let mut class = None;
    if wanted.is_some() || arguments.usual {
        session.context.phase("change the class");
        let changing = opened.repository.set_data_class(wanted);
        let changed = session.unless_cancelled(changing).await?;
        class = changed.map_err(|error| opened.failed(error))?;
    }
    session.output.finish();
    let after = opened.repository.data_class();
    let exit = Exit::Complete;
    let changed = before != after;
    let summary = Summary { data_class: after.as_deref(), changed, exit: exit.code() };
    session.output.event("summary", &summary);
    let now = if changed { "from now on, packs" } else { "packs" };
    session.output.say(&match &after {
        Some(name) => format!("{now} of data are put into the class {name}"),
        None => format!("{now} of data are put into the store's usual class"),
    });
    if let Some(class) = class {
        let small = opened.repository.parameters().pack < 64 << 20;
        for note in notes(&class, small) {
            session.output.say(&note);
        }
    }
    Ok(exit)
}

/// What to know of a class before data is put there.
pub(super) fn notes(class: &StorageClass, small_packs: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let days = class.least.as_secs() / 86_400;
    if days > 0 {
        notes.push(format!(
            "it is billed for {days} days at least: `lifeboat prune` deletes no pack before"
        ));
    }
    if class.is_archive() {
        notes.push(
            "it is an archive: restores and checks of every byte must have it thawed first, with \
             --thaw; lists, searches, comparisons and `lifeboat verify` work at once"
                .to_owned(),
        );
        if small_packs {
            notes.push(
                "the packs of this repository are smaller than 64 MiB, and each is thawed and \
                 billed by itself: a new repository would have larger ones"
                    .to_owned(),
            );
        }
    }
    notes
}
