//! What a restored cluster is told about its recovery.

use crate::lsn::Lsn;

use super::RecoveryPlan;

/// The file of settings that the server itself writes, and reads last.
pub(crate) const AUTO_CONF: &str = "postgresql.auto.conf";

/// Settings of an earlier recovery, which must not meddle with this one. A setting counts when its
/// name is one of these.
const EARLIER: [&str; 14] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    TIMELINE,
    "recovery_target_xid",
    "restore_command",
];
const TIMELINE: &str = "recovery_target_timeline";

/// The server insists on a command. This one says of every file that it does not exist, so that the
/// server looks into `pg_wal`, where all of them are.
const NOWHERE: &str = "false";

/// Whence the server takes its WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalSupply {
    /// All that is needed is beside the data when the restore has ended: the repository is not
    /// asked again.
    Fetched,
    /// The server asks for it with this `restore_command`, in which `%f` and `%p` stand for the
    /// file and its place. It must end with 1 only for what is proved not to exist; see
    /// [`WalArchive::get`](crate::WalArchive::get).
    Command(String),
}

/// Which file tells the server what to do when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Recovery,
    Standby,
}

impl Signal {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Recovery => "recovery.signal",
            Self::Standby => "standby.signal",
        }
    }
}

/// What a restored cluster is told about its recovery: the settings, and whether it is to become
/// a standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverySettings {
    pub(crate) signal: Signal,
    pub(crate) lines: Vec<(String, String)>,
    /// In words, for the receipt.
    pub(crate) told: String,
}

impl Default for RecoverySettings {
    /// The WAL beside the data, to its end, and then a new timeline.
    fn default() -> Self {
        let lines = [("restore_command", NOWHERE), (TIMELINE, "current")];
        Self {
            signal: Signal::Recovery,
            lines: lines.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            told: "when it starts, it recovers the WAL of the snapshot and begins a new timeline; \
                   it takes writes when that is done"
                .to_owned(),
        }
    }
}

impl RecoverySettings {
    /// As planned, with WAL from `supply`.
    pub fn of(plan: &RecoveryPlan, supply: &WalSupply) -> Self {
        let command = match supply {
            WalSupply::Fetched => NOWHERE,
            WalSupply::Command(command) => command,
        };
        let mut lines = vec![("restore_command".to_owned(), command.to_owned())];
        lines.extend(plan.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Self { signal: Signal::Recovery, lines, told: told(plan.to) }
    }

    /// To become a standby, which goes on for ever: from a primary, by its connection string, from
    /// an archive, by a command for a standby (one that may end with 1 when nothing can be told), or
    /// from both.
    pub fn standby(primary: Option<&str>, slot: Option<&str>, command: Option<&str>) -> Self {
        let mut lines = Vec::new();
        for (name, value) in [
            ("primary_conninfo", primary),
            ("primary_slot_name", slot),
            ("restore_command", command),
        ] {
            lines.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        }
        lines.push((TIMELINE.to_owned(), "latest".to_owned()));
        let told = "it comes up as a standby".to_owned();
        Self { signal: Signal::Standby, lines, told }
    }

    /// A setting besides.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.lines.push((name.into(), value.into()));
        self
    }

    /// The settings, as they will be in `postgresql.auto.conf`.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What the file of settings becomes that had been `former`.
pub(crate) fn rewrite(former: &[u8], settings: &[(String, String)]) -> Vec<u8> {
    let mut text = Vec::with_capacity(former.len() + 512);
    for line in former.split_inclusive(|byte| *byte == b'\n') {
        let name = line.trim_ascii_start();
        let end = name.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        let name = name[..end.unwrap_or(name.len())].to_ascii_lowercase();
        let ours = settings.iter().any(|(ours, _)| ours.as_bytes() == name);
        if ours || EARLIER.iter().any(|one| one.as_bytes() == name) {
            text.extend_from_slice(b"# before the restore: ");
        }
        text.extend_from_slice(line);
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(b"# Set by a restore of Lifeboat:\n");
    for (name, value) in settings {
        text.extend_from_slice(format!("{name} = {}\n", quoted(value)).as_bytes());
    }
    text
}

fn told(to: Lsn) -> String {
    format!("when it starts, it recovers WAL up to {to}")
}

/// A value as the file has it: the server takes backslashes for escapes there.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for letter in value.chars() {
        match letter {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_earlier_recovery_do_not_stay() {
        let settings = RecoverySettings::standby(Some("host=a password='x\\y'"), None, None);
        let former = "# Do not edit\nwork_mem = '4MB'\nrecovery_target_time = 'x'\n  Restore_Command='y'\nrecovery_target_timeline = '3'\nrecovery_targets = 1";
        let text = String::from_utf8(rewrite(former.as_bytes(), &settings.lines)).unwrap();
        assert_eq!(
            text,
            "# Do not edit\nwork_mem = '4MB'\n# before the restore: recovery_target_time = 'x'\n\
             # before the restore:   Restore_Command='y'\n\
             # before the restore: recovery_target_timeline = '3'\nrecovery_targets = 1\n\
             # Set by a restore of Lifeboat:\nprimary_conninfo = 'host=a password=''x\\\\y'''\n\
             recovery_target_timeline = 'latest'\n"
        );
        let text = String::from_utf8(rewrite(b"", &settings.lines)).unwrap();
        assert!(text.starts_with("# Set by"), "{text}");
    }
}
