//! `lifeboat key`: who can open the repository.

use comfy_table::{Table, presets};
use lifeboat_repository::{
    Access, AddKeyOptions, KeyInfo, RemoveKeyOptions, RotateOptions, Standing,
};
use serde::Serialize;

use crate::args::{Key, KeyAdd, KeyRemove, KeyRotate};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, time};
use crate::secret::{self, Purpose};
use crate::session::Session;

/// The event `key`.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    label: &'a str,
    kind: &'a str,
    access: Option<&'a str>,
    created: Option<jiff::Timestamp>,
    epoch: Option<u32>,
    recipient: Option<&'a str>,
    standing: &'a str,
    in_use: bool,
}

impl<'a> From<&'a KeyInfo> for Shown<'a> {
    fn from(key: &'a KeyInfo) -> Self {
        Self {
            id: key.id.to_string(),
            label: &key.label,
            kind: key.kind.as_str(),
            access: key.access.map(Access::as_str),
            created: key.created,
            epoch: key.epoch,
            recipient: key.recipient.as_deref(),
            standing: key.standing.as_str(),
            in_use: key.in_use,
        }
    }
}

#[derive(Serialize)]
struct Summary {
    keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    exit: u8,
}

pub(super) async fn run(key: Key, session: &Session) -> Result<Exit, Failed> {
    match key {
        Key::List => list(session).await,
        Key::Add(arguments) => add(&arguments, session).await,
        Key::Remove(arguments) => remove(&arguments, session).await,
        Key::Rotate(arguments) => rotate(&arguments, session).await,
    }
}

async fn list(session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let listing = session.unless_cancelled(opened.repository.keys()).await?;
    let keys = listing.map_err(|error| opened.failed(error))?;
    for key in &keys {
        warn(key, session);
    }
    show(&keys, session);
    session.output.listed(&table(&keys));
    let exit = Exit::with_warnings(session.context.warnings());
    finish(&keys, None, None, exit, session);
    session.output.say(&number(keys.len() as u64, "key", "keys"));
    Ok(exit)
}

async fn add(arguments: &KeyAdd, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let holder = session.unless_cancelled(Box::pin(secret::holder(&arguments.holder))).await??;
    let mut options = AddKeyOptions::new(&arguments.label);
    if arguments.write_only {
        options.access = Access::WriteOnly;
    }
    let adding = opened.repository.add_key(&holder, &options);
    let added = session.unless_cancelled(Box::pin(adding)).await?;
    let key = added.map_err(|error| opened.failed(error))?;
    let keys = [key];
    show(&keys, session);
    finish(&keys, None, None, Exit::Complete, session);
    let label = one_line(&arguments.label);
    session.output.say(&match options.access {
        Access::WriteOnly => format!("added key \"{label}\", which can back up and not read"),
        _ => format!("added key \"{label}\""),
    });
    Ok(Exit::Complete)
}

async fn remove(arguments: &KeyRemove, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let options = match arguments.even_in_use {
        true => RemoveKeyOptions::AlsoInUse,
        false => RemoveKeyOptions::NotInUse,
    };
    let removed = opened.repository.remove_key(&arguments.name, options).await;
    let keys = removed.map_err(|error| opened.failed(error))?;
    show(&keys, session);
    finish(&keys, None, None, Exit::Complete, session);
    for key in &keys {
        session.output.say(&format!("removed key {}", named(key)));
    }
    session.output.say(
        "its holder may have kept what it opened: run `lifeboat key rotate` to keep from him what \
         is written from now on",
    );
    Ok(Exit::Complete)
}

async fn rotate(arguments: &KeyRotate, session: &Session) -> Result<Exit, Failed> {
    let location = session.location()?;
    let store = session.whole(&location, lifeboat_objstore::Intent::Existing)?;
    // It is needed once more: for a key of the first form.
    let secret = session.secret(Purpose::Open).await?;
    let opened = session.open(location, store, &secret).await?;
    let mut options = RotateOptions::default();
    options.passphrases.push(secret);
    for path in &arguments.passphrase_files {
        options.passphrases.push(secret::passphrase_in(path).await?);
    }
    session.context.phase("rotate the key");
    let rotated = opened.repository.rotate_key(&options).await;
    let rotation = rotated.map_err(|error| opened.failed(error))?;
    for key in &rotation.refused {
        warn(key, session);
    }
    show(&rotation.renewed, session);
    let exit = Exit::with_warnings(session.context.warnings());
    let (epoch, resumed) = (Some(rotation.epoch), Some(rotation.resumed));
    finish(&rotation.renewed, epoch, resumed, exit, session);
    let say = |line: String| session.output.say(&line);
    if rotation.resumed {
        say("finished what an earlier run had begun".to_owned());
    }
    let holders = number(rotation.renewed.len() as u64, "key holds", "keys hold");
    say(format!("epoch {} seals what is new; {holders} it:", rotation.epoch));
    for key in &rotation.renewed {
        say(format!("  {}", named(key)));
    }
    Ok(exit)
}

fn named(key: &KeyInfo) -> String {
    let label = one_line(&key.label);
    let id = key.id.to_string();
    if label.is_empty() { id[..8].to_owned() } else { format!("\"{label}\" ({})", &id[..8]) }
}

/// Tells of a key that cannot be relied on.
fn warn(key: &KeyInfo, session: &Session) {
    let what = match &key.standing {
        Standing::Forged => {
            "somebody made or changed this key who does not hold the repository's: remove it with \
             `lifeboat key remove`, and see who can write to the store"
                .to_owned()
        }
        Standing::Damaged(what) => format!("this key cannot be read: {what}"),
        _ => return,
    };
    session.context.warn(&format!("keys/{}", key.id), what);
}

fn show(keys: &[KeyInfo], session: &Session) {
    session.output.finish();
    for key in keys {
        session.output.event("key", &Shown::from(key));
    }
}

fn finish(
    keys: &[KeyInfo],
    epoch: Option<u32>,
    resumed: Option<bool>,
    exit: Exit,
    session: &Session,
) {
    let summary = Summary { keys: keys.len(), epoch, resumed, exit: exit.code() };
    session.output.event("summary", &summary);
}

fn table(keys: &[KeyInfo]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "label", "opened by", "access", "created", "epoch", "remarks"]);
    for key in keys {
        let mut remarks = Vec::new();
        if key.in_use {
            remarks.push("in use");
        }
        match &key.standing {
            Standing::Authentic => {}
            // Who may only write cannot know, which is no remark on the key.
            Standing::Unproven if key.epoch.is_some() => {}
            Standing::Unproven => remarks.push("of the first form: rotating takes its passphrase"),
            Standing::Later => remarks.push("made by a later version"),
            Standing::Damaged(_) => remarks.push("damaged"),
            _ => remarks.push("FORGED"),
        }
        table.add_row([
            key.id.to_string()[..8].to_owned(),
            one_line(&key.label),
            key.kind.as_str().to_owned(),
            key.access.map(Access::as_str).unwrap_or_default().to_owned(),
            key.created.map(time).unwrap_or_default(),
            key.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            remarks.join(", "),
        ]);
    }
    table.trim_fmt()
}
