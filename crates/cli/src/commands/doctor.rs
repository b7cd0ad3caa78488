//! `lifeboat doctor`: says what stands in the way of a backup, and the remedy.

use lifeboat_core::{Error, Finding, Inspection, Severity, Source, StoreRef};
use lifeboat_files::FilesSource;
use lifeboat_objstore::conformance::honours_put_if_absent;
use lifeboat_postgres::{BaseBackupSource, ClusterSource, DatabaseSource};
use lifeboat_redis::{RedisClusterSource, RedisSource, nodes_of};
use lifeboat_repository::Access;
use object_store::path::Path;
use serde::Serialize;

use super::backup::{base_backup_options, cluster_options, source_options};
use super::recovery::{archive, bases};
use super::{database, redis};
use crate::args::Doctor;
use crate::exit::Exit;
use crate::failure::{Failed, about_tree, of_store};
use crate::output::{facts_to_json, number, size};
use crate::session::Session;

/// The event `summary` of a doctor.
#[derive(Serialize)]
struct Summary {
    subject: String,
    version: String,
    identity: String,
    size: Option<u64>,
    facts: serde_json::Value,
    blockers: usize,
    warnings: usize,
    notes: usize,
    exit: u8,
}

pub(super) async fn run(subject: Option<Doctor>, session: &Session) -> Result<Exit, Failed> {
    let (subject, inspection) = match subject {
        Some(Doctor::Postgres { name, server }) => {
            let source: Box<dyn Source> = if server.remote {
                Box::new(BaseBackupSource::new("server", base_backup_options(&server)?))
            } else {
                Box::new(ClusterSource::new("server", cluster_options(&server)?))
            };
            let mut inspection = look_at(&*source, session, |error| error).await?;
            if let Some(name) = name {
                kept_as(&name, &mut inspection, session).await?;
            }
            ("postgres", inspection)
        }
        Some(Doctor::Database(what)) => {
            let source = DatabaseSource::new("database", database::options(&what)?);
            ("database", look_at(&source, session, |error| error).await?)
        }
        Some(Doctor::Files { path, tree }) => {
            let source = FilesSource::new("tree", &path, &source_options(&tree));
            let source = source.map_err(Failed::argument)?;
            ("files", look_at(&source, session, |error| about_tree(error, &path)).await?)
        }
        Some(Doctor::Redis(server)) => {
            let connection = redis::connection(&server)?;
            let alone = session.unless_cancelled(nodes_of(&connection)).await?;
            let source: Box<dyn Source> = match alone {
                Ok(None) => Box::new(RedisSource::new("server", connection)),
                // What is in the way is found once more, and told with the rest.
                Ok(Some(_)) | Err(_) => Box::new(RedisClusterSource::new("server", connection)),
            };
            ("redis", look_at(&*source, session, |error| error).await?)
        }
        None | Some(Doctor::Repo) => ("repository", repository(session).await?),
    };
    Ok(report(subject, &inspection, session))
}

async fn look_at(
    source: &dyn Source,
    session: &Session,
    advised: impl FnOnce(Error) -> Error,
) -> Result<Inspection, Failed> {
    let looking = session.unless_cancelled(source.inspect()).await?;
    // A store that cannot be asked stands in the way as well, and its error says why.
    Ok(looking.unwrap_or_else(|error| blocked("unreachable", advised(error))))
}

/// Whether what the repository has under a name is of the cluster that was looked at.
async fn kept_as(name: &str, inspection: &mut Inspection, session: &Session) -> Result<(), Failed> {
    let store = StoreRef::new("postgres", name);
    let Some(system) = inspection.facts.text(SYSTEM_ID).and_then(|id| id.parse().ok()) else {
        return Ok(());
    };
    let opened = session.repository().await?;
    let mut find = |severity, code: &str, what: String, remedy: &str| {
        inspection.findings.push(Finding::new(severity, code, what, remedy));
    };
    if opened.repository.access() == Access::WriteOnly {
        let what = format!("this key may write and not read: nobody looked at {store}");
        find(Severity::Note, "write_only", what, "run it with a key with full access as well");
        return Ok(());
    }
    let bases = bases(&opened.listed(session).await?, &store);
    let archive = archive(&opened, &store)?;
    let knows = session.unless_cancelled(archive.knows(system)).await?;
    let knows = knows.map_err(|error| opened.of_store(error))?;
    if let Some(other) = bases.iter().find(|base| base.line.system_id != system) {
        let what = format!(
            "{store} has snapshots of another cluster: {} is of the system {}, this server is {system}",
            other.snapshot.short(),
            other.line.system_id
        );
        let remedy = "give this cluster a name of its own, unless it takes the place of that one";
        find(Severity::Warning, "other_system", what, remedy);
    }
    if !bases.iter().any(|base| base.line.system_id == system) {
        let what = format!("{store} has no snapshot of this cluster yet");
        find(Severity::Note, "no_snapshots", what, "take one with `lifeboat backup postgres`");
    }
    if !knows {
        let what = format!(
            "{store} has no WAL of this cluster: its snapshots bring back their own moment only"
        );
        let remedy = "run `lifeboat follow postgres` as a service, or set archive_command to \
                      `lifeboat wal push`";
        find(Severity::Note, "no_wal", what, remedy);
    }
    inspection.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(())
}

/// The fact of an inspection that says which cluster it is.
const SYSTEM_ID: &str = "postgres.system_id";

fn blocked(code: &str, error: Error) -> Inspection {
    let failed = Failed::Error(error);
    let remedy = failed.hint().unwrap_or_default();
    let finding = Finding::new(Severity::Blocker, code, failed.message(), remedy);
    let mut inspection = Inspection::default();
    inspection.findings.push(finding);
    inspection
}

/// Whether the repository can be opened, read and written.
async fn repository(session: &Session) -> Result<Inspection, Failed> {
    let mut inspection = Inspection::default();
    let opened = match session.repository().await {
        Ok(opened) => opened,
        Err(Failed::Error(error)) if error.kind() != lifeboat_core::ErrorKind::Cancelled => {
            return Ok(blocked("repository", error));
        }
        Err(other) => return Err(other),
    };
    inspection.identity = opened.repository.id().to_string();
    let mut find = |severity, code: &str, what: String, remedy: &str| {
        inspection.findings.push(Finding::new(severity, code, what, remedy));
    };
    let store = session.store(&opened.location, lifeboat_objstore::Intent::Existing)?;
    let nanoseconds = jiff::Timestamp::now().as_nanosecond();
    let probe = Path::from(format!("probe-{}-{nanoseconds}", std::process::id()));
    let probing = session.unless_cancelled(honours_put_if_absent(&*store, &probe)).await?;
    match probing {
        Ok(true) => {}
        Ok(false) => find(
            Severity::Blocker,
            "overwrites",
            "the store overwrites objects that it was told to make only when they are new"
                .to_owned(),
            "copy the repository to a store that honours \"If-None-Match: *\"",
        ),
        Err(source) => {
            let hint = lifeboat_objstore::hint(opened.location.provider(), &source);
            let what = format!("the repository cannot be written: {}", of_store(&source));
            find(Severity::Blocker, "not_writable", what, &hint.unwrap_or_default());
        }
    }
    if opened.repository.access() == Access::WriteOnly {
        let what = "this key may write and not read: nobody looked at the snapshots".to_owned();
        find(Severity::Note, "write_only", what, "run it with a key with full access as well");
        return Ok(inspection);
    }
    let list = session.unless_cancelled(opened.repository.snapshots()).await?;
    match list.map_err(|error| opened.failed(error)) {
        Ok(list) => {
            for (object, what) in &list.damaged {
                let what = format!("{object} is damaged: {what}");
                let remedy = "run `lifeboat verify --every-byte` to see what is hurt";
                find(Severity::Warning, "damaged_snapshot", what, remedy);
            }
            if list.snapshots.is_empty() && list.damaged.is_empty() {
                let what = "there is no snapshot yet".to_owned();
                find(Severity::Note, "no_snapshots", what, "take one with `lifeboat backup`");
            }
            let newest = list.snapshots.last().filter(|info| info.warnings > 0);
            if let Some(info) = newest {
                let what = format!(
                    "the newest snapshot, {} of {}, has {}",
                    info.id.short(),
                    info.store,
                    number(info.warnings, "warning", "warnings")
                );
                find(Severity::Note, "warnings", what, "take a new one, and read its warnings");
            }
        }
        Err(failed) => find(
            Severity::Blocker,
            "unreadable",
            failed.message(),
            &failed.hint().unwrap_or_default(),
        ),
    }
    inspection.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(inspection)
}

fn report(subject: &str, inspection: &Inspection, session: &Session) -> Exit {
    session.output.finish();
    let count = |severity| {
        let same = |finding: &&Finding| finding.severity == severity;
        inspection.findings.iter().filter(same).count()
    };
    let blockers = count(Severity::Blocker);
    let exit = if blockers == 0 { Exit::Complete } else { Exit::Failed };
    for finding in &inspection.findings {
        session.output.event("finding", finding);
        tell(finding, session);
    }
    session.output.event(
        "summary",
        &Summary {
            subject: subject.to_owned(),
            version: inspection.version.clone(),
            identity: inspection.identity.clone(),
            size: inspection.size,
            facts: facts_to_json(&inspection.facts),
            blockers,
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            exit: exit.code(),
        },
    );
    let about = [
        ("version", Some(inspection.version.clone())),
        (identity_of(subject), Some(inspection.identity.clone())),
        ("size", inspection.size.map(|bytes| format!("about {}", size(bytes)))),
    ];
    let known = about.into_iter().filter_map(|(label, value)| Some((label, value?)));
    let known = known.filter(|(_, value)| !value.is_empty());
    let known: Vec<_> = known.map(|(label, value)| format!("{label} {value}")).collect();
    if !known.is_empty() {
        session.output.say(&format!("{subject}: {}", known.join(", ")));
    }
    match blockers {
        0 => session.output.say("nothing stands in the way of a backup"),
        _ => {
            let things = number(blockers as u64, "thing stands", "things stand");
            session.output.warn(&format!("{things} in the way of a backup"));
        }
    }
    exit
}

/// What the identity of a subject is called there.
fn identity_of(subject: &str) -> &'static str {
    match subject {
        "postgres" => "system identifier",
        "redis" => "run id",
        "repository" => "id",
        _ => "identity",
    }
}

fn tell(finding: &Finding, session: &Session) {
    let word = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Blocker => "blocker",
    };
    let line = format!("{word}: {}", finding.what);
    let remedy = format!("  remedy: {}", finding.remedy);
    let lines = [Some(line), Some(remedy).filter(|_| !finding.remedy.is_empty())];
    for line in lines.into_iter().flatten() {
        match finding.severity {
            Severity::Blocker | Severity::Warning => session.output.warn(&line),
            Severity::Note => session.output.say(&line),
        }
    }
}
