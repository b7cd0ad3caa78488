//! The plan of a point-in-time recovery, and what the restored server is told.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use lifeboat_core::{Bytes, SnapshotInfo, StoreRef};
use lifeboat_postgres::{
    BaseBackup, RecoveryOptions, RecoveryPlan, RecoverySettings, TargetAction, WalArchive,
    WalSupply,
};
use lifeboat_repository::{JournalOptions, SnapshotList};
use serde::Serialize;

use super::which::{LATEST, choose, resolve};
use crate::args::{Restore, Supply, Target, Which};
use crate::failure::Failed;
use crate::output::{moment_at, one_line, time};
use crate::session::{Opened, Session};

/// A recovery that can be done, and the snapshot from which it begins.
pub(super) struct Planned {
    pub(super) base: SnapshotInfo,
    pub(super) plan: RecoveryPlan,
    pub(super) archive: WalArchive,
}

/// The event `plan`.
#[derive(Serialize)]
struct Plan<'a> {
    snapshot: String,
    store: String,
    target: String,
    timeline: u32,
    base_end: String,
    wal_to: String,
    to_time: Option<String>,
    notes: &'a [String],
}

/// Plans what the command line asks for; `None` when it asks for no target.
pub(super) async fn planned(
    which: &Which,
    aim: &Target,
    action: TargetAction,
    opened: &Opened,
    session: &Session,
) -> Result<Option<Planned>, Failed> {
    let Some(target) = aim.get() else {
        return Ok(None);
    };
    let list = opened.listed(session).await?;
    let store = store_of(which, &list, opened, session)?;
    if store.kind() != "postgres" {
        let message = format!("{store} is no PostgreSQL cluster");
        return Err(Failed::usage(message, "name a cluster with --store"));
    }
    let bases = bases(&list, &store);
    let mut options = RecoveryOptions::new(target.clone())
        .with_bound(aim.bound())
        .with_action(action)
        .with_timeline(aim.timeline());
    if which.snapshot != LATEST {
        let named = choose(&which.snapshot, which.store.as_ref(), &list, opened, session)?;
        options = options.with_base(named.id);
    }
    let archive = archive(opened, &store)?;
    let making = Box::pin(RecoveryPlan::make(&archive, &bases, &options));
    let plan = session.unless_cancelled(making).await?.map_err(|error| opened.of_store(error))?;
    let Some(base) = list.snapshots.iter().find(|info| info.id == plan.base.snapshot).cloned()
    else {
        return Err(Failed::usage("the snapshot of the plan is gone", "try again"));
    };
    session.output.event(
        "plan",
        &Plan {
            snapshot: base.id.to_string(),
            store: store.to_string(),
            target: target.to_string(),
            timeline: plan.line.timeline,
            base_end: plan.base.stop.to_string(),
            wal_to: plan.to.to_string(),
            to_time: plan.to_time.map(|at| at.to_string()),
            notes: &plan.notes,
        },
    );
    session.output.say(&format!(
        "recover {store} to {}: from snapshot {} as of {} ({}), along timeline {}, with WAL up to {}",
        one_line(&target.to_string()),
        base.id.short(),
        time(base.taken),
        plan.base.stop,
        plan.line.timeline,
        plan.to
    ));
    if let Some(last) = plan.to_time {
        session.output.say(&format!("  the last change in it was made before {}", moment_at(last)));
    }
    for note in &plan.notes {
        session.output.note(&one_line(note));
    }
    Ok(Some(Planned { base, plan, archive }))
}

/// The store of which a moment is wanted: one of those that have moments.
pub(super) fn store_of(
    which: &Which,
    list: &SnapshotList,
    opened: &Opened,
    session: &Session,
) -> Result<StoreRef, Failed> {
    let store = match &which.store {
        Some(name) => resolve(name, list)?,
        None => choose(&which.snapshot, None, list, opened, session)?.store,
    };
    if matches!(store.kind(), "postgres" | "redis") {
        return Ok(store);
    }
    let message =
        format!("{store} has no recovery targets: they are for PostgreSQL clusters and for Redis");
    Err(Failed::usage(message, "leave the target out, or name one of those with --store"))
}

/// The snapshots of a store from which a recovery can begin.
pub(super) fn bases(list: &SnapshotList, store: &StoreRef) -> Vec<BaseBackup> {
    list.snapshots.iter().filter(|info| info.store == *store).filter_map(BaseBackup::of).collect()
}

/// The journals of a cluster.
pub(super) fn archive(opened: &Opened, store: &StoreRef) -> Result<WalArchive, Failed> {
    let options = JournalOptions::default();
    let journal = |name: &_| Arc::new(opened.repository.journal(name, &options)) as Arc<_>;
    Ok(WalArchive::open(store, journal)?)
}

/// The histories of a cluster's timelines that are in the archive, so that what is restored takes
/// a number of its own. A restore does not fail for want of them.
pub(super) async fn histories(
    info: &SnapshotInfo,
    opened: &Opened,
    session: &Session,
) -> Vec<(u32, Bytes)> {
    let Some(base) = BaseBackup::of(info) else {
        return Vec::new();
    };
    let known = async {
        let archive = archive(opened, &info.store)?;
        let histories = archive.histories(base.line.system_id);
        session.unless_cancelled(histories).await?.map_err(|error| opened.of_store(error))
    };
    known.await.unwrap_or_else(|failed| {
        let why = one_line(&failed.to_string());
        session.output.note(&format!(
            "the timelines of {} could not be read ({why}): the restored server may take a number that is taken, and then its WAL will be refused",
            info.store
        ));
        Vec::new()
    })
}

/// What the restored server is told; `None` when it is told nothing.
pub(super) fn settings(
    arguments: &Restore,
    planned: Option<&Planned>,
    store: &StoreRef,
    session: &Session,
) -> Result<Option<RecoverySettings>, Failed> {
    let recovery = &arguments.recovery;
    if recovery.as_standby {
        let command = restore_command(store, &["--standby"], session);
        // With a primary to follow, the repository is a help and no need.
        let command = match (&recovery.primary, command) {
            (_, Ok(command)) => Some(command),
            (Some(_), Err(_)) => None,
            (None, Err(failed)) => return Err(failed),
        };
        let (primary, slot) = (recovery.primary.as_deref(), recovery.primary_slot.as_deref());
        return Ok(Some(RecoverySettings::standby(primary, slot, command.as_deref())));
    }
    let Some(planned) = planned else {
        return Ok(None);
    };
    let supply = match recovery.wal {
        Supply::Fetch => WalSupply::Fetched,
        Supply::Command => WalSupply::Command(restore_command(store, &[], session)?),
    };
    Ok(Some(RecoverySettings::of(&planned.plan, &supply)))
}

/// `lifeboat wal get` as this run was called: with its repository, and with what opens it.
fn restore_command(store: &StoreRef, more: &[&str], session: &Session) -> Result<String, Failed> {
    let unnamed = |what: &str| {
        let message = format!("the server's restore_command cannot be written: {what}");
        let hint = "name a file that the server's account can read with --passphrase-file; or \
                    leave --wal command out";
        Failed::usage(message, hint)
    };
    let program = std::env::current_exe().map_err(|_| unnamed("this program has no path"))?;
    let mut words = vec![quoted(program.as_os_str(), &unnamed)?];
    words.extend(["wal", "get", "%f", "%p"].map(str::to_owned));
    let mut option = |name: &str, value: &std::ffi::OsStr| -> Result<(), Failed> {
        words.push(name.to_owned());
        words.push(quoted(value, &unnamed)?);
        Ok(())
    };
    option("--name", store.name().as_ref())?;
    option("--repo", session.location()?.to_string().as_ref())?;
    let global = &session.global;
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = |path: &Path| std::path::absolute(path).map(OsString::from).ok();
    let secret = [
        ("--passphrase-file", global.passphrase_file.as_deref().and_then(file)),
        ("--passphrase-command", global.passphrase_command.clone().map(OsString::from)),
        ("--identity-file", global.identity_file.as_deref().and_then(file)),
        ("--key-command", global.key_command.clone().map(OsString::from)),
        ("--passphrase-file", variable("LIFEBOAT_PASSPHRASE_FILE")),
        ("--passphrase-command", variable("LIFEBOAT_PASSPHRASE_COMMAND")),
        ("--identity-file", variable("LIFEBOAT_IDENTITY_FILE")),
        ("--key-command", variable("LIFEBOAT_KEY_COMMAND")),
    ];
    let Some((name, value)) = secret.into_iter().find_map(|(name, value)| Some((name, value?)))
    else {
        return Err(unnamed("the passphrase comes from nowhere that the server could ask, too"));
    };
    option(name, &value)?;
    words.extend(more.iter().map(|word| (*word).to_owned()));
    Ok(words.join(" "))
}

/// A word as a shell takes it, in a command in which the server fills in what stands after `%`.
fn quoted(word: &std::ffi::OsStr, unnamed: &impl Fn(&str) -> Failed) -> Result<String, Failed> {
    let word = word.to_str().ok_or_else(|| unnamed("a path in it is not UTF-8"))?;
    let word = word.replace('%', "%%");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:,+@%=".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return Ok(word);
    }
    Ok(format!("'{}'", word.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let plain = |word: &str| {
            let quoted = quoted(word.as_ref(), &|what| Failed::usage(what.to_owned(), ""));
            quoted.unwrap_or_default()
        };
        assert_eq!(plain("/srv/backups"), "/srv/backups");
        assert_eq!(plain("it's 100%"), r"'it'\''s 100%%'");
        assert_eq!(plain(""), "''");
        assert_eq!(plain("a;b"), "'a;b'");
    }
}
