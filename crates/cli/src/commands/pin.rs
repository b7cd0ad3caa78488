//! `lifeboat pin`, `lifeboat unpin` and `lifeboat pins`: holds snapshots against everything that
//! forgets.

use std::collections::HashMap;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use lifeboat_repository::PinOptions;
use serde::Serialize;

use super::which;
use crate::args::{Pin, Unpin};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{number, one_line, time};
use crate::session::Session;

/// The end of `pin`.
#[derive(Serialize)]
struct Pinned<'a> {
    pin: String,
    snapshot: String,
    store: String,
    reason: &'a str,
    until: Option<Timestamp>,
    exit: u8,
}

pub(super) async fn pin(arguments: &Pin, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let info = which::find(&arguments.which, &opened, session).await?;
    let mut options = PinOptions::new(arguments.reason.clone());
    options.by = who();
    options.until = arguments.until;
    // Not dropped in the middle: a pin that was made must be reported.
    let pin = Box::pin(opened.repository.pin(&info.id, &options)).await;
    let pin = pin.map_err(|error| opened.failed(error))?;
    let exit = Exit::with_warnings(session.context.warnings());
    session.output.event(
        "summary",
        &Pinned {
            pin: pin.id.to_string(),
            snapshot: info.id.to_string(),
            store: info.store.to_string(),
            reason: &pin.reason,
            until: pin.until,
            exit: exit.code(),
        },
    );
    let (snapshot, store) = (info.id.short(), one_line(&info.store.to_string()));
    let until = pin.until.map_or("it is released".to_owned(), time);
    session.output.say(&format!(
        "pin {} holds snapshot {snapshot} of {store} ({}) until {until}",
        pin.id.short(),
        time(info.taken)
    ));
    Ok(exit)
}

/// Who pins, as far as this host knows.
fn who() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty() && user.len() < 256);
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", lifeboat_core::host())
}

/// The end of `unpin`.
#[derive(Serialize)]
struct Unpinned {
    pins: Vec<String>,
    exit: u8,
}

pub(super) async fn unpin(arguments: &Unpin, session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let listing = session.unless_cancelled(opened.repository.pins()).await?;
    let list = listing.map_err(|error| opened.failed(error))?;
    let found: Result<Vec<_>, _> = arguments.pins.iter().map(|name| list.find(name)).collect();
    let found = found.map_err(|error| opened.failed(error))?;
    for pin in &found {
        opened.repository.unpin(pin).await.map_err(|error| opened.failed(error))?;
        session.output.say(&format!("pin {} is released", pin.short()));
    }
    let pins = found.iter().map(ToString::to_string).collect();
    session.output.event("summary", &Unpinned { pins, exit: Exit::Complete.code() });
    Ok(Exit::Complete)
}

/// The event `pin`.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    snapshot: String,
    store: Option<String>,
    reason: &'a str,
    by: &'a str,
    made: Timestamp,
    until: Option<Timestamp>,
    live: bool,
}

/// The end of `pins`.
#[derive(Serialize)]
struct Listed {
    pins: usize,
    damaged: usize,
    exit: u8,
}

pub(super) async fn list(session: &Session) -> Result<Exit, Failed> {
    let opened = session.repository().await?;
    let snapshots = opened.listed(session).await?;
    let listing = session.unless_cancelled(opened.repository.pins()).await?;
    let list = listing.map_err(|error| opened.failed(error))?;
    let known: HashMap<_, _> = snapshots.snapshots.iter().map(|info| (info.id, info)).collect();
    let now = Timestamp::now();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["pin", "snapshot", "store", "as of", "until", "by", "reason"]);
    for pin in &list.pins {
        let info = known.get(&pin.snapshot);
        let shown = Shown {
            id: pin.id.to_string(),
            snapshot: pin.snapshot.to_string(),
            store: info.map(|info| info.store.to_string()),
            reason: &pin.reason,
            by: &pin.by,
            made: pin.made,
            until: pin.until,
            live: pin.is_live(now),
        };
        session.output.event("pin", &shown);
        let until = match pin.until {
            None => "released".to_owned(),
            Some(until) if pin.is_live(now) => time(until),
            Some(_) => "run out".to_owned(),
        };
        table.add_row([
            pin.id.short(),
            pin.snapshot.short(),
            info.map_or("(gone)".to_owned(), |info| one_line(&info.store.to_string())),
            info.map_or(String::new(), |info| time(info.taken)),
            until,
            one_line(&pin.by),
            one_line(&pin.reason),
        ]);
    }
    if !list.pins.is_empty() {
        session.output.listed(&table.trim_fmt());
    }
    for (pin, what) in &list.damaged {
        let told = "it cannot be read, and while it is there nothing is forgotten";
        session.context.warn(&format!("pin {pin}"), format!("{told}: {what}"));
    }
    let exit = Exit::with_warnings(session.context.warnings());
    let (pins, damaged) = (list.pins.len(), list.damaged.len());
    session.output.event("summary", &Listed { pins, damaged, exit: exit.code() });
    session.output.say(&number(pins as u64, "pin", "pins"));
    Ok(exit)
}
