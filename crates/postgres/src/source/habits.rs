//! What a server's settings mean for its WAL, for its clock, and for what a backup costs.

use lifeboat_core::{Finding, Severity, Timestamp};

use crate::connect::Session;
use crate::error::{Error, Result};

const WHAT: &str = "ask the server about its archiver and its clock";

/// Clocks that are further apart than this make moments of a recovery hard to name. Seconds.
const APART: f64 = 5.0;

/// What was asked.
#[derive(Debug, Clone)]
struct Habits {
    major: u32,
    archiving: bool,
    /// `archive_command`; empty when the role may not see it, or a library does it.
    command: String,
    library: String,
    /// Seconds by which the server's clock is ahead of this host's.
    ahead: f64,
    summarises: bool,
}

/// What is to be said of them.
pub(super) async fn findings(session: &Session) -> Result<Vec<Finding>> {
    Ok(Habits::ask(session).await?.judge())
}

impl Habits {
    async fn ask(session: &Session) -> Result<Self> {
        let bad =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let setting = |name: &'static str| async move {
            Ok::<_, Error>(session.setting(name).await?.unwrap_or_default())
        };
        let before = Timestamp::now();
        let statement = "SELECT extract(epoch FROM clock_timestamp())::float8";
        let row = session.one(WHAT, statement, &[]).await?;
        let after = Timestamp::now();
        let theirs: f64 = row.try_get(0).map_err(bad)?;
        let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
        // Within the time that the answer took, nobody can tell.
        let ahead = (theirs - seconds(after)).max(0.0) + (theirs - seconds(before)).min(0.0);
        let mode = setting("archive_mode").await?;
        Ok(Self {
            major: session.major(),
            archiving: mode == "on" || mode == "always",
            command: setting("archive_command").await?,
            library: setting("archive_library").await?,
            ahead,
            summarises: setting("summarize_wal").await? == "on",
        })
    }

    fn judge(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut find = |severity, code: &str, what: String, remedy: &str| {
            found.push(Finding::new(severity, code, what, remedy.to_owned()));
        };
        // What stands in a command may be secret; its program is not.
        let program = self.command.split_whitespace().next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        if !self.archiving {
            // That it is off is told by others.
        } else if !self.library.is_empty() {
            find(
                Severity::Note,
                "archiver_elsewhere",
                format!("WAL is archived by the library {}, not by Lifeboat", self.library),
                "follow the server as well (lifeboat follow postgres): both may run side by side",
            );
        } else if self.command.is_empty() {
            // Those that may not see it get no value at all, and no finding.
        } else if ["true", ":", "exit"].contains(&program) {
            find(
                Severity::Warning,
                "archive_discarded",
                format!(
                    "archive_command is `{program}`: WAL counts as archived, and is thrown away"
                ),
                "ALTER SYSTEM SET archive_command = 'lifeboat wal push %p --name …'; SELECT pg_reload_conf();",
            );
        } else if self.command == "(disabled)" {
            find(
                Severity::Warning,
                "archive_command_missing",
                "archive_mode is on, and there is no archive_command: WAL piles up for ever".into(),
                "ALTER SYSTEM SET archive_command = 'lifeboat wal push %p --name …'; SELECT pg_reload_conf();",
            );
        } else if !self.command.contains("lifeboat") {
            find(
                Severity::Note,
                "archiver_elsewhere",
                format!("WAL is archived by `{program}`, not by Lifeboat"),
                "follow the server as well (lifeboat follow postgres): both may run side by side; or make `lifeboat wal push %p` the archive_command",
            );
        }
        if self.ahead.abs() > APART {
            let way = if self.ahead > 0.0 { "ahead of" } else { "behind" };
            let apart = self.ahead.abs();
            find(
                Severity::Warning,
                "clock_differs",
                format!(
                    "the server's clock is {apart:.0} seconds {way} this host's: moments of a recovery are by the server's"
                ),
                "set both by NTP",
            );
        }
        if self.major >= 17 && !self.summarises {
            find(
                Severity::Note,
                "summaries_off",
                "summarize_wal is off: files that changed are read whole".into(),
                "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();",
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(change: impl FnOnce(&mut Habits)) -> Vec<String> {
        let mut habits = Habits {
            major: 18,
            archiving: true,
            command: "lifeboat wal push %p --name a".into(),
            library: String::new(),
            ahead: 0.2,
            summarises: true,
        };
        change(&mut habits);
        habits.judge().into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn each_habit_has_its_finding() {
        assert!(codes(|_| {}).is_empty());
        assert!(codes(|h| h.command.clear()).is_empty());
        assert!(codes(|h| (h.major, h.summarises) = (16, false)).is_empty());
        assert_eq!(codes(|h| h.command = "/bin/true".into()), ["archive_discarded"]);
        assert_eq!(codes(|h| h.command = "exit 0".into()), ["archive_discarded"]);
        assert_eq!(codes(|h| h.command = "(disabled)".into()), ["archive_command_missing"]);
        assert_eq!(codes(|h| h.library = "basic_archive".into()), ["archiver_elsewhere"]);
        assert_eq!(codes(|h| h.ahead = -60.0), ["clock_differs"]);
        assert_eq!(codes(|h| h.summarises = false), ["summaries_off"]);
        let other = "/opt/x/pgbackrest --pass=hush archive-push %p";
        assert_eq!(codes(|h| h.command = other.into()), ["archiver_elsewhere"]);
    }
}
