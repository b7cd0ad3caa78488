//! `lifeboat backup`: takes a snapshot of a store.

use jiff::Timestamp;
use lifeboat_core::{
    Comparison, Progress, SnapshotInfo, Source, Summary, TransferOptions, transfer,
};
use lifeboat_files::{FileSystems, FilesSource, SourceOptions};
use lifeboat_postgres::{
    BaseBackupOptions, BaseBackupSource, Checkpoint as ServerCheckpoint, ClusterOptions,
    ClusterSource, ConnectOptions, ServerLogs, Unchanged,
};
use lifeboat_redis::{AppendOnlySource, RedisClusterSource, RedisSource, Way, nodes_of};
use lifeboat_repository::{Access, WriteOptions};
use serde::Serialize;

use super::{database, redis};
use crate::args::{
    Backup, BackupFiles, BackupPostgres, BackupRedis, Checkpoint, Server, Taking, Tree,
};
use crate::exit::Exit;
use crate::failure::{Failed, about_tree};
use crate::output::{duration, facts_to_json, number, size, time};
use crate::session::Session;

pub(super) async fn run(store: Backup, session: &Session) -> Result<Exit, Failed> {
    match store {
        Backup::Postgres(arguments) if arguments.server.remote => {
            let source = base_backup(&arguments)?;
            let preparing = async { Ok(source.prepare().await?) };
            take(&source, preparing, &arguments.taking, session).await
        }
        Backup::Postgres(arguments) => {
            let source = postgres(&arguments)?;
            let preparing = async { Ok(source.prepare().await?) };
            take(&source, preparing, &arguments.taking, session).await
        }
        Backup::Database(arguments) => {
            let source = database::source(&arguments)?;
            let nothing = std::future::ready(Ok(()));
            take(&source, nothing, &arguments.taking, session).await
        }
        Backup::Redis(BackupRedis { aof: Some(path), taking, .. }) => {
            let source = AppendOnlySource::new(&taking.name, path);
            take(&source, std::future::ready(Ok(())), &taking, session).await
        }
        Backup::Redis(arguments) => {
            let connection = redis::connection(&arguments.server)?;
            let nothing = std::future::ready(Ok(()));
            let name = &arguments.taking.name;
            let asking = async {
                match arguments.alone {
                    true => Ok(None),
                    false => nodes_of(&connection).await.map_err(about_cluster),
                }
            };
            let Some(nodes) = session.unless_cancelled(asking).await?? else {
                let source = RedisSource::new(name, connection).with_way(arguments.way());
                return take(&source, nothing, &arguments.taking, session).await;
            };
            if arguments.way() == Way::Scan {
                let hint = "read each of its nodes with --alone, under a name of its own";
                return Err(Failed::usage("a cluster is not read key by key", hint));
            }
            session.output.say(&format!(
                "it is a node of a cluster, which is backed up whole: {}, {}",
                number(nodes.shards as u64, "shard", "shards"),
                number(nodes.replicas as u64, "replica", "replicas"),
            ));
            // Shards that wait to be read make their servers wait.
            let mut options = TransferOptions::default();
            options.concurrency = options.concurrency.max(nodes.shards + 1);
            let source = RedisClusterSource::new(name, connection);
            take_with(&source, nothing, &arguments.taking, options, session).await
        }
        Backup::Files(arguments) => {
            let source = files(&arguments)?;
            let nothing = std::future::ready(Ok(()));
            let taken = take(&source, nothing, &arguments.taking, session).await;
            taken.map_err(|failed| match failed {
                Failed::Error(error) => about_tree(error, &arguments.path).into(),
                usage @ Failed::Usage { .. } => usage,
            })
        }
    }
}

fn files(arguments: &BackupFiles) -> Result<FilesSource, Failed> {
    let options = source_options(&arguments.tree);
    FilesSource::new(&arguments.taking.name, &arguments.path, &options).map_err(Failed::argument)
}

/// What of a tree is read, from the command line.
pub(super) fn source_options(tree: &Tree) -> SourceOptions {
    let mut options = SourceOptions::default();
    options.exclude.clone_from(&tree.exclude);
    if tree.one_file_system {
        options.file_systems = FileSystems::One;
    }
    options
}

fn postgres(arguments: &BackupPostgres) -> Result<ClusterSource, Failed> {
    let mut options = cluster_options(&arguments.server)?;
    options.checkpoint = checkpoint(arguments.checkpoint);
    if arguments.without_logs {
        options.server_logs = ServerLogs::LeaveOut;
    }
    if arguments.taking.full {
        options.unchanged = Unchanged::ReadAll;
    }
    Ok(ClusterSource::new(&arguments.taking.name, options))
}

fn base_backup(arguments: &BackupPostgres) -> Result<BaseBackupSource, Failed> {
    let mut options = base_backup_options(&arguments.server)?;
    options.checkpoint = checkpoint(arguments.checkpoint);
    if arguments.without_logs {
        options.server_logs = ServerLogs::LeaveOut;
    }
    Ok(BaseBackupSource::new(&arguments.taking.name, options))
}

fn checkpoint(word: Checkpoint) -> ServerCheckpoint {
    match word {
        Checkpoint::Fast => ServerCheckpoint::Fast,
        Checkpoint::Spread => ServerCheckpoint::Spread,
    }
}

/// How the server is reached, from the command line and from the variables of libpq.
fn connection(server: &Server) -> Result<ConnectOptions, Failed> {
    refuse_password(&server.conninfo)?;
    ConnectOptions::parse(&server.conninfo)
        .and_then(ConnectOptions::with_environment)
        .map_err(Failed::argument)
}

/// A server that sends its files, from the command line.
pub(super) fn base_backup_options(server: &Server) -> Result<BaseBackupOptions, Failed> {
    Ok(BaseBackupOptions::new(connection(server)?))
}

/// A server beside its files, from the command line.
pub(super) fn cluster_options(server: &Server) -> Result<ClusterOptions, Failed> {
    let mut options = ClusterOptions::new(connection(server)?);
    options.data_directory.clone_from(&server.data_directory);
    Ok(options)
}

/// Refuses a connection string that every user of the host could read a password from.
pub(super) fn refuse_password(conninfo: &str) -> Result<(), Failed> {
    if holds_password(conninfo) {
        let hint = "leave it out, and set PGPASSWORD or write it into ~/.pgpass";
        return Err(Failed::usage("--conninfo holds a password, which every user can read", hint));
    }
    Ok(())
}

fn holds_password(conninfo: &str) -> bool {
    let lower = conninfo.to_ascii_lowercase();
    let in_words = lower.split("password").skip(1).any(|rest| rest.trim_start().starts_with('='));
    let in_url = conninfo.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    in_words || in_url
}

/// Only what has to do with a cluster is mended by leaving it alone.
fn about_cluster(error: lifeboat_redis::Error) -> Failed {
    use lifeboat_redis::Error;
    if !matches!(error, Error::MayNot { .. } | Error::NoCluster { .. } | Error::Moving { .. }) {
        return lifeboat_core::Error::from(error).into();
    }
    let error = lifeboat_core::Error::from(error);
    let hint = format!(
        "{}; --alone backs up this server, and none of the others",
        error.hint().unwrap_or_default()
    );
    error.with_hint(hint).into()
}

/// Takes the snapshot. The source prepares itself while the passphrase is stretched.
async fn take(
    source: &dyn Source,
    preparing: impl Future<Output = Result<(), Failed>>,
    taking: &Taking,
    session: &Session,
) -> Result<Exit, Failed> {
    take_with(source, preparing, taking, TransferOptions::default(), session).await
}

async fn take_with(
    source: &dyn Source,
    preparing: impl Future<Output = Result<(), Failed>>,
    taking: &Taking,
    mut options: TransferOptions,
    session: &Session,
) -> Result<Exit, Failed> {
    let preparing = session.unless_cancelled(preparing);
    let (opened, prepared) = tokio::join!(Box::pin(session.repository()), Box::pin(preparing));
    let opened = opened?;
    prepared??;
    options.tags.clone_from(&taking.tags);
    if taking.full {
        options.comparison = Comparison::Nothing;
    }
    if opened.repository.access() == Access::WriteOnly {
        let line = "this key may write and not read: everything is read, and what the repository \
                    has is not stored again";
        session.output.say(line);
    }
    session.context.phase("back up");
    let sink = opened.repository.sink(&WriteOptions::default());
    let moving = transfer(source, &sink, &options, &session.context);
    let summary = Box::pin(moving).await.map_err(|error| opened.of_store(error))?;
    session.output.finish();

    let exit = Exit::with_warnings(summary.warnings);
    // The snapshot is there, whatever can be said of it now.
    let info = match summary.receipt.snapshot {
        Some(id) => opened.repository.snapshot(&id).await.ok().map(|it| it.info().clone()),
        None => None,
    };
    session.output.event("summary", &Taken::of(source, &summary, info.as_ref(), exit));
    tell(source, &summary, info.as_ref(), session);
    Ok(exit)
}

fn tell(source: &dyn Source, summary: &Summary, info: Option<&SnapshotInfo>, session: &Session) {
    let say = |line: String| session.output.say(&line);
    let name = summary.receipt.snapshot.map(|id| id.short()).unwrap_or_default();
    let progress = &summary.progress;
    say(format!("snapshot {name} of {}", source.store()));
    say(format!("  as of      {}", time(summary.completion.taken)));
    if !summary.completion.position.is_empty() {
        say(format!("  position   {}", summary.completion.position));
    }
    if let Some(info) = info {
        let entries = number(info.entries, "entry", "entries");
        say(format!("  holds      {entries}, {}", size(info.bytes)));
    }
    let facts = &summary.completion.facts;
    if let Some(Ok(ended)) = facts.text(lifeboat_redis::facts::SCAN_ENDED).map(str::parse) {
        let ended = time(ended);
        say(format!("  but        not of one moment: its keys were read one by one until {ended}"));
    }
    if let Some(keys) = summary.completion.facts.unsigned(lifeboat_redis::facts::KEYS) {
        say(format!("  keys       {}", number(keys, "key", "keys")));
    }
    let facts = &summary.completion.facts;
    if let Some(shards) = facts.unsigned(lifeboat_redis::facts::SHARDS) {
        let apart = facts.unsigned(lifeboat_redis::facts::SPREAD).unwrap_or(0);
        let shards = number(shards, "shard", "shards");
        say(format!("  shards     {shards}, each as of a moment of its own, {apart} ms apart"));
    }
    for (server, why) in
        facts.pairs(lifeboat_redis::facts::PASSED_OVER).unwrap_or_default().iter().take(20)
    {
        let (server, why) = (String::from_utf8_lossy(server), String::from_utf8_lossy(why));
        say(format!("  not used   replica {server}: {why}"));
    }
    let unchanged = match progress.unchanged {
        0 => String::new(),
        bytes => format!("; {} known to be the same as before", size(bytes)),
    };
    say(format!("  read       {}{unchanged}", size(progress.read)));
    say(format!("  stored     {}", added(stored(progress, info), progress.new)));
    say(format!("  took       {}", duration(summary.elapsed)));
    if summary.warnings > 0 {
        say(format!(
            "  warnings   {}: the snapshot exists, see above what it lacks",
            summary.warnings
        ));
    }
}

/// What a backup added, in words: so many bytes were stored, for so much content that is new.
fn added(stored: u64, new: u64) -> String {
    match (stored, new) {
        (0, _) => "nothing: the repository had all of it already".to_owned(),
        (_, 0) => format!("{}, which describe the snapshot: no content is new", size(stored)),
        _ => format!("{}, for {} of new content and what describes it", size(stored), size(new)),
    }
}

/// How many bytes were added, as the snapshot itself says it: what it could not count is the object
/// that says so.
fn stored(progress: &Progress, info: Option<&SnapshotInfo>) -> u64 {
    info.map_or(progress.stored, |info| info.stored)
}

/// The event `summary` of a backup.
#[derive(Serialize)]
struct Taken {
    snapshot: Option<String>,
    store: String,
    taken: Timestamp,
    position: String,
    parent: Option<String>,
    entries: u64,
    bytes: Option<u64>,
    read: u64,
    unchanged: u64,
    new: u64,
    stored: u64,
    seconds: f64,
    warnings: u64,
    facts: serde_json::Value,
    exit: u8,
}

impl Taken {
    fn of(source: &dyn Source, summary: &Summary, info: Option<&SnapshotInfo>, exit: Exit) -> Self {
        let progress = &summary.progress;
        Self {
            snapshot: summary.receipt.snapshot.map(|id| id.to_string()),
            store: source.store().to_string(),
            taken: summary.completion.taken,
            position: summary.completion.position.clone(),
            parent: info.and_then(|info| info.parent).map(|id| id.to_string()),
            entries: progress.entries,
            bytes: info.map(|info| info.bytes),
            read: progress.read,
            unchanged: progress.unchanged,
            new: progress.new,
            stored: stored(progress, info),
            seconds: summary.elapsed.as_secs_f64(),
            warnings: summary.warnings,
            facts: facts_to_json(&summary.completion.facts),
            exit: exit.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_told_in_words() {
        assert!(added(0, 0).starts_with("nothing"));
        assert_eq!(added(100, 0), "100 B, which describe the snapshot: no content is new");
        assert_eq!(added(867, 3), "867 B, for 3 B of new content and what describes it");
    }

    #[test]
    fn passwords_are_seen_wherever_they_stand() {
        for secret in [
            "host=x password=y",
            "PASSWORD = 'y'",
            "password=y",
            "sslpassword=y",
            "postgresql://u:y@host/db",
            "postgres://host/db?password=y",
        ] {
            assert!(holds_password(secret), "{secret}");
        }
        for plain in ["", "host=x passfile=/p", "postgresql://u@host:5432/db?a=b:c@d"] {
            assert!(!holds_password(plain), "{plain}");
        }
    }
}
