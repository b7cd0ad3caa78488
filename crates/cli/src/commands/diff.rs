//! `lifeboat diff`: lists what changed from one snapshot to another.

use lifeboat_core::EntryKind;
use lifeboat_repository::{Change, ChangeKind, DiffOptions};
use serde::Serialize;

use super::shown::Shown;
use super::which::choose;
use crate::args::Diff;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line};
use crate::session::Session;

/// The event `change`.
#[derive(Serialize)]
struct Changed<'a> {
    change: &'static str,
    /// The names of the attributes that changed.
    changed: Vec<&'a str>,
    before: Option<Shown<'a>>,
    after: Option<Shown<'a>>,
}

#[derive(Default, Serialize)]
struct Summary {
    before: String,
    after: String,
    added: u64,
    removed: u64,
    replaced: u64,
    content: u64,
    attributes: u64,
    exit: u8,
}

impl Summary {
    fn count(&mut self, kind: ChangeKind) {
        let count = match kind {
            ChangeKind::Added => &mut self.added,
            ChangeKind::Removed => &mut self.removed,
            ChangeKind::Replaced => &mut self.replaced,
            ChangeKind::Attributes => &mut self.attributes,
            _ => &mut self.content,
        };
        *count += 1;
    }

    fn told(&self) -> String {
        let changed = self.content + self.replaced;
        let mut told = format!(
            "{} added, {} removed, {} changed",
            number(self.added, "entry", "entries"),
            self.removed,
            changed
        );
        if self.attributes > 0 {
            told += &format!(", {} in attributes only", self.attributes);
        }
        told
    }
}

pub(super) async fn run(arguments: &Diff, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let list = opened.listed(session).await?;
    let named = |name| choose(name, arguments.store.as_ref(), &list, &opened, session);
    let (before, after) = (named(&arguments.before)?, named(&arguments.after)?);
    let mut options = DiffOptions::default();
    options.beneath.clone_from(&arguments.path);
    let comparing = opened.repository.diff(&before.id, &after.id, &options);
    let comparing = session.unless_cancelled(comparing).await?;
    let mut diff = comparing.map_err(|error| opened.failed(error))?;
    let mut summary = Summary {
        before: before.id.to_string(),
        after: after.id.to_string(),
        ..Summary::default()
    };
    while !session.output.is_unread() {
        let next = session.unless_cancelled(diff.next()).await?;
        let Some(change) = next.map_err(|error| opened.failed(error))? else { break };
        if arguments.content_only && change.kind == ChangeKind::Attributes {
            continue;
        }
        summary.count(change.kind);
        show(&change, session);
    }
    let exit = Exit::with_warnings(session.context.warnings());
    summary.exit = exit.code();
    session.output.event("summary", &summary);
    session.output.say(&summary.told());
    Ok(exit)
}

fn show(change: &Change, session: &Session) {
    let attributes = change.attributes();
    session.output.event(
        "change",
        &Changed {
            change: change.kind.as_str(),
            changed: attributes.clone(),
            before: change.before.as_ref().map(Shown::from),
            after: change.after.as_ref().map(Shown::from),
        },
    );
    if session.output.is_json() {
        return;
    }
    let Some(entry) = change.entry() else { return };
    let kind = |kind: Option<EntryKind>| kind.map_or("nothing", EntryKind::as_str);
    let (letter, note) = match change.kind {
        ChangeKind::Added => ('+', None),
        ChangeKind::Removed => ('-', None),
        ChangeKind::Attributes => ('U', Some(one_line(&attributes.join(", ")))),
        ChangeKind::Replaced => {
            let was = kind(change.before.as_ref().map(|entry| entry.kind));
            let is = kind(change.after.as_ref().map(|entry| entry.kind));
            ('T', Some(format!("{was}, now {is}")))
        }
        _ => ('M', None),
    };
    let note = note.map_or(String::new(), |note| format!("  ({note})"));
    session.output.listed(&format!("{letter}  {}{note}", entry.path));
}
