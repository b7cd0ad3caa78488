//! What stands in the way of a snapshot, and how to mend it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::{Attributes, Failure, Finding, Inspection, Severity};

use super::{facts, handshake, is_refusal, scan};
use crate::connect::{Answer, ConnectOptions, Connection, printable};
use crate::error::{Error, Result};

const ASKING: &str = "ask the server about itself";
/// The oldest server whose snapshots were tested.
const OLDEST_MAJOR: u64 = 6;
/// A backlog of no more than this is the one that nobody chose: 1 MiB.
const DEFAULT_BACKLOG: u64 = 1 << 20;
/// A backlog should hold so many seconds of changes.
const BACKLOG_LASTS: u64 = 60;
/// Over so long is looked at how much is changed.
const RATE_OVER: Duration = Duration::from_secs(1);
/// From so many seconds on, a delay before each snapshot is worth a note.
const LONG_DELAY: u64 = 1;

pub(super) async fn inspect(options: &ConnectOptions) -> Result<Inspection> {
    let mut connection = options.connect().await?;
    let mut findings = Vec::new();
    match handshake::may(&mut connection).await? {
        // A wrong password is no finding: then nothing can be asked.
        Some(error @ Error::Login { .. }) => return Err(error),
        Some(error) => findings.push(not_replicated(options, &error).await?),
        None => {}
    }
    let info = match connection.ask(ASKING, &[b"INFO"]).await? {
        Answer::Text(text) => Info::parse(&text),
        _ => {
            findings.push(Finding::new(
                Severity::Note,
                "info_hidden",
                "the user may not ask for INFO, so nothing is known of the server's state",
                "it is not needed for snapshots; to have it looked at: ACL SETUSER … +info",
            ));
            Info::default()
        }
    };
    let settings = Settings::ask(&mut connection).await?;
    info.judge(&mut findings);
    let rate = info.rate(&mut connection).await?;
    findings.extend(backlog(info.number("repl_backlog_size"), rate));
    settings.judge(&info, &mut findings);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut known = Attributes::new();
    if let Some(keys) = info.keys() {
        known.set(facts::KEYS, keys);
    }
    if let Some(id) = info.text("master_replid") {
        known.set(facts::REPLICATION_ID, id);
    }
    Ok(Inspection {
        version: info.version().unwrap_or_default(),
        identity: info.text("run_id").unwrap_or_default().to_owned(),
        size: info.number("used_memory_dataset"),
        facts: known,
        findings,
    })
}

/// What a follower that is cut off can count on. `rate` is in bytes a second.
fn backlog(size: Option<u64>, rate: u64) -> Option<Finding> {
    let size = size?;
    let lasts = size.checked_div(rate);
    let (severity, what) = match lasts {
        Some(seconds) if seconds < BACKLOG_LASTS => (
            Severity::Warning,
            format!(
                "the server's backlog of {} KiB holds its present changes for {seconds} s: a \
                 follower that is cut off for longer loses some",
                size >> 10
            ),
        ),
        _ if size <= DEFAULT_BACKLOG => (
            Severity::Note,
            format!(
                "the server's backlog has {} KiB: a follower that is cut off while more is changed \
                 loses some",
                size >> 10
            ),
        ),
        _ => return None,
    };
    let remedy = "for `lifeboat follow redis`, CONFIG SET repl-backlog-size to what is changed in ten \
                  minutes";
    Some(Finding::new(severity, "small_backlog", what, remedy))
}

/// What it means that the server does not let itself be replicated: whether its keys can be read one
/// by one.
async fn not_replicated(options: &ConnectOptions, refusal: &Error) -> Result<Finding> {
    let remedy = refusal.hint().unwrap_or_default();
    let finding =
        |severity, what, remedy| Finding::new(severity, "may_not_replicate", what, remedy);
    if !is_refusal(refusal) {
        return Ok(finding(Severity::Blocker, refusal.to_string(), remedy.into_owned()));
    }
    // What was begun there ends with it.
    let mut connection = options.connect().await?;
    Ok(match scan::may(&mut connection).await? {
        None => {
            let what = format!("{refusal}: snapshots are read key by key, and not of one moment");
            finding(Severity::Warning, what, remedy.into_owned())
        }
        Some(error) => {
            let other = error.hint().unwrap_or_default();
            let remedy =
                format!("{remedy}; to read it key by key, which is not of one moment: {other}");
            finding(Severity::Blocker, format!("{refusal}; {error}"), remedy)
        }
    })
}

/// What `INFO` says: lines of `name:value`.
#[derive(Default)]
pub(crate) struct Info(BTreeMap<String, String>);

impl Info {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == Some(value)
    }

    /// How many bytes its stream of changes grows by in a second; 0 where that cannot be told.
    async fn rate(&self, connection: &mut Connection) -> Result<u64> {
        let Some(before) = self.number("master_repl_offset") else {
            return Ok(0);
        };
        tokio::time::sleep(RATE_OVER).await;
        let Answer::Text(text) = connection.ask(ASKING, &[b"INFO", b"replication"]).await? else {
            return Ok(0);
        };
        let after = Self::parse(&text).number("master_repl_offset").unwrap_or(before);
        Ok(after.saturating_sub(before))
    }

    fn version(&self) -> Option<String> {
        let valkey = self.text("valkey_version").map(|version| format!("Valkey {version}"));
        valkey.or_else(|| self.text("redis_version").map(ToOwned::to_owned))
    }

    /// All keys: `db0:keys=3,expires=1,…`, a line for each database.
    pub(crate) fn keys(&self) -> Option<u64> {
        self.text("redis_version")?;
        let databases = self.0.iter().filter(|(name, _)| {
            name.strip_prefix("db").is_some_and(|number| number.parse::<u64>().is_ok())
        });
        let keys = databases.filter_map(|(_, value)| {
            value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok()
        });
        Some(keys.sum())
    }

    fn judge(&self, findings: &mut Vec<Finding>) {
        let mut find = |severity, code: &str, what: String, remedy: &str| {
            findings.push(Finding::new(severity, code, what, remedy));
        };
        let major = self.text("redis_version").and_then(|version| version.split('.').next());
        if let Some(major) = major.and_then(|major| major.parse::<u64>().ok())
            && major < OLDEST_MAJOR
        {
            find(
                Severity::Warning,
                "old_version",
                format!("the server is of version {major}, and 6 is the oldest that is tested"),
                "rehearse a restore, or upgrade the server",
            );
        }
        if self.is("loading", "1") {
            find(
                Severity::Blocker,
                "loading",
                "the server is still loading its data, and hands out none".to_owned(),
                "wait for loading:0 in INFO persistence",
            );
        }
        if self.is("role", "slave") && !self.is("master_link_status", "up") {
            find(
                Severity::Blocker,
                "replica_cut_off",
                "the server is a replica without a connection to its primary".to_owned(),
                "mend the replication (INFO replication), or name the primary",
            );
        }
        if self.is("role", "master") && self.number("connected_slaves").unwrap_or(0) > 0 {
            find(
                Severity::Note,
                "has_replica",
                "the server is a primary with replicas, and a snapshot makes it fork".to_owned(),
                "name a replica, so that the primary has no work with backups",
            );
        }
        if self.is("cluster_enabled", "1") {
            find(
                Severity::Note,
                "cluster",
                "the server is a node of a cluster, of which a snapshot holds all shards"
                    .to_owned(),
                "all nodes need the same user, with +info and +cluster|nodes besides",
            );
        }
        let (used, total) = (self.number("used_memory_rss"), self.number("total_system_memory"));
        if let (Some(used), Some(total)) = (used, total)
            && used > total / 2
        {
            find(
                Severity::Warning,
                "memory",
                format!(
                    "the server takes {} MiB of {} MiB: what changes while a snapshot is \
                         taken is held twice",
                    used >> 20,
                    total >> 20
                ),
                "back up from a replica, or at a quiet hour; vm.overcommit_memory=1 lets it fork",
            );
        }
        if self.is("rdb_last_bgsave_status", "err") {
            find(
                Severity::Warning,
                "bgsave_failed",
                "the server's last own snapshot failed".to_owned(),
                "look into its log: disk full, no right to write, or no memory to fork",
            );
        }
        if self.is("aof_enabled", "1") && self.is("aof_last_write_status", "err") {
            find(
                Severity::Warning,
                "aof_failed",
                "the server cannot write its append-only file".to_owned(),
                "look into its log: the disk may be full",
            );
        }
    }
}

/// Settings that matter; those that the user may not see are missing.
#[derive(Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    async fn ask(connection: &mut Connection) -> Result<Self> {
        let mut settings = BTreeMap::new();
        // One name at a time: servers before 7.0 take no more.
        for name in ["repl-diskless-sync", "repl-diskless-sync-delay", "rdbchecksum", "save"] {
            let command: [&[u8]; 3] = [b"CONFIG", b"GET", name.as_bytes()];
            match connection.ask(ASKING, &command).await? {
                Answer::List(parts) => {
                    if let [_, Answer::Text(value)] = &parts[..] {
                        settings.insert(name.to_owned(), printable(value));
                    }
                }
                Answer::Error(_) | Answer::Text(_) | Answer::Nil => break,
            }
        }
        Ok(Self(settings))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.0.get(name).is_some_and(|set| set == value)
    }

    fn judge(&self, info: &Info, findings: &mut Vec<Finding>) {
        let mut find = |severity, code: &str, what: &str, remedy: &str| {
            findings.push(Finding::new(severity, code, what, remedy));
        };
        if self.is("rdbchecksum", "no") {
            find(
                Severity::Warning,
                "no_checksum",
                "the server writes no checksum, so damage on the way is found only where it makes \
                 no sense",
                "CONFIG SET rdbchecksum yes where the server allows it, or in redis.conf",
            );
        }
        let diskless = self.is("repl-diskless-sync", "yes");
        if self.is("repl-diskless-sync", "no") {
            find(
                Severity::Note,
                "through_disk",
                "the server writes a file before it sends a snapshot",
                "CONFIG SET repl-diskless-sync yes sends it straight from memory",
            );
        }
        let delay = self.0.get("repl-diskless-sync-delay").and_then(|delay| delay.parse().ok());
        if diskless && delay.is_some_and(|delay: u64| delay >= LONG_DELAY) {
            find(
                Severity::Note,
                "delay",
                "the server waits before each snapshot, for replicas that might want the same",
                "CONFIG SET repl-diskless-sync-delay 0, where replicas seldom come at once",
            );
        }
        if self.is("save", "") && info.is("aof_enabled", "0") {
            find(
                Severity::Warning,
                "no_persistence",
                "the server keeps nothing on disk: a restart leaves what the last backup holds",
                "CONFIG SET appendonly yes, unless it is a cache that may be lost",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(info: &str) -> Vec<String> {
        let mut findings = Vec::new();
        Info::parse(info.as_bytes()).judge(&mut findings);
        findings.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn states_are_judged() {
        assert_eq!(codes("redis_version:5.0.14\r\n"), ["old_version"]);
        assert_eq!(codes("loading:1\r\nrole:master\r\nconnected_slaves:0\r\n"), ["loading"]);
        assert_eq!(codes("role:slave\r\nmaster_link_status:down\r\n"), ["replica_cut_off"]);
        assert!(codes("role:slave\r\nmaster_link_status:up\r\n").is_empty());
        assert_eq!(codes("role:master\r\nconnected_slaves:2\r\n"), ["has_replica"]);
        assert_eq!(codes("cluster_enabled:1\r\n"), ["cluster"]);
        assert_eq!(codes("used_memory_rss:600\r\ntotal_system_memory:1000\r\n"), ["memory"]);
        assert!(codes("").is_empty());
    }

    #[test]
    fn a_backlog_is_held_against_what_is_changed() {
        let found = |size, rate| backlog(Some(size), rate).map(|it| it.severity);
        assert_eq!(found(1 << 20, 0), Some(Severity::Note));
        assert_eq!(found(1 << 20, 1000), Some(Severity::Note));
        assert_eq!(found(64 << 20, 0), None);
        assert_eq!(found(64 << 20, 1 << 20), None);
        assert_eq!(found(64 << 20, 2 << 20), Some(Severity::Warning));
        assert_eq!(backlog(None, 5), None);
    }

    #[test]
    fn keys_are_counted_over_all_databases() {
        let info = "redis_version:7.0.15\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb7:keys=4,expires=0\r\ndbx:keys=9\r\n";
        assert_eq!(Info::parse(info.as_bytes()).keys(), Some(7));
        assert_eq!(Info::default().keys(), None);
    }
}
