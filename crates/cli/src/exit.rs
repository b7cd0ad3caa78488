//! How the command ends.
//!
//! PostgreSQL gives exit codes a meaning of their own, and data hangs on it: a recovering server
//! takes 1 to 125 from its `restore_command` for the end of the archive, and begins to take writes.
//! So the commands that it runs have tables of their own. Which one counts is known from the
//! arguments alone, before anything else can go wrong.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::CommandFactory;

/// The exit code, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All of it worked.
    Complete,
    /// It failed, or damage was found.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It worked, and something in it needs attention.
    Attention,
    /// A signal stopped it.
    Interrupted,
    /// What was asked for does not exist, and that is proved.
    Absent,
}

/// Who makes something of the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// People and scripts.
    Usual,
    /// PostgreSQL, which runs `wal push` as its `archive_command`: it keeps the file and asks again
    /// at 1 to 125, and would restart its archiver above.
    Archive,
    /// PostgreSQL, which recovers and runs `wal get` as its `restore_command`: it stops above 125.
    Recovery,
    /// A standby, which asks again, and must not stop.
    Standby,
}

static TABLE: OnceLock<Table> = OnceLock::new();

impl Table {
    /// The one that counts for a command line, right or wrong.
    pub(crate) fn of(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
        let words = verbs(&arguments).unwrap_or_else(|| {
            // A line that cannot be understood is one of a server rather than none.
            arguments.iter().filter_map(|argument| argument.to_str()).collect()
        });
        let mut words = words.into_iter().skip_while(|word| *word != "wal").skip(1);
        match words.find(|word| ["push", "get"].contains(word)) {
            Some("push") => Self::Archive,
            Some(_) if arguments.iter().any(|argument| argument == "--standby") => Self::Standby,
            Some(_) => Self::Recovery,
            None => Self::Usual,
        }
    }

    /// Makes it the one that counts. Once: later calls do nothing.
    pub(crate) fn choose(self) {
        let _ = TABLE.set(self);
        if matches!(self, Self::Recovery | Self::Standby) {
            // A panic would end with 101, and a server that recovers would take that for the end
            // of the archive.
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                tell(panic);
                std::process::exit(self.code(Exit::Failed).into());
            }));
        }
    }

    fn code(self, exit: Exit) -> u8 {
        match (self, exit) {
            (_, Exit::Complete)
            | (Self::Archive | Self::Recovery | Self::Standby, Exit::Attention) => 0,
            (Self::Recovery, Exit::Failed | Exit::Usage) | (Self::Standby, Exit::Usage) => 126,
            // As the shell says it of a process that SIGTERM ended; the server knows that.
            (Self::Recovery | Self::Standby, Exit::Interrupted) => 143,
            (Self::Archive, Exit::Interrupted) | (_, Exit::Failed | Exit::Absent) => 1,
            (_, Exit::Usage) => 2,
            (_, Exit::Attention) => 3,
            (_, Exit::Interrupted) => 130,
        }
    }
}

/// The first two words of a command line that are neither options nor their values; `None` where
/// that cannot be told, since there is an option that nobody knows.
fn verbs(arguments: &[OsString]) -> Option<Vec<&str>> {
    let command = crate::args::Arguments::command();
    let mut known: Vec<&clap::Arg> = command.get_arguments().collect();
    let mut verbs = Vec::new();
    let mut arguments = arguments.iter().map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        let takes_next = if let Some(long) = argument.strip_prefix("--") {
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            let option = known.iter().find(|option| option.get_long() == Some(name))?;
            option.get_action().takes_values() && name == long
        } else if let Some(short) = argument.strip_prefix('-').filter(|short| !short.is_empty()) {
            let mut letters = short.chars();
            let mut takes_next = false;
            while let Some(letter) = letters.next() {
                let option = known.iter().find(|option| option.get_short() == Some(letter))?;
                if option.get_action().takes_values() {
                    takes_next = letters.as_str().is_empty();
                    break;
                }
            }
            takes_next
        } else {
            if let Some(below) = command.find_subcommand(argument) {
                known.extend(below.get_arguments());
            }
            verbs.push(argument);
            if verbs.len() == 2 {
                break;
            }
            false
        };
        if takes_next {
            arguments.next();
        }
    }
    Some(verbs)
}

impl Exit {
    /// How a command ends that worked, with so many warnings.
    pub(crate) fn with_warnings(warnings: u64) -> Self {
        if warnings == 0 { Self::Complete } else { Self::Attention }
    }

    /// The number.
    pub(crate) fn code(self) -> u8 {
        TABLE.get().unwrap_or(&Table::Usual).code(self)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Exit; 6] = [
        Exit::Complete,
        Exit::Failed,
        Exit::Usage,
        Exit::Attention,
        Exit::Interrupted,
        Exit::Absent,
    ];

    fn table(line: &str) -> Table {
        Table::of(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_table_is_known_from_any_command_line() {
        for (line, expected) in [
            ("lifeboat", Table::Usual),
            ("lifeboat backup files wal --name get", Table::Usual),
            ("lifeboat wal push %p --name x", Table::Archive),
            ("lifeboat wal push get --name x", Table::Archive),
            ("lifeboat wal get", Table::Recovery),
            ("lifeboat --repo x wal --json get --nonsense", Table::Recovery),
            ("lifeboat -qr wal wal get a b", Table::Recovery),
            ("lifeboat --repo=x -qq wal get a b", Table::Recovery),
            ("lifeboat --repo wal snapshots get", Table::Usual),
            ("lifeboat --nonsense x wal get a b", Table::Recovery),
            ("lifeboat wal --nonsense get a b", Table::Recovery),
            ("lifeboat wal get a b --standby", Table::Standby),
            ("lifeboat wal adopt --name x", Table::Usual),
        ] {
            assert_eq!(table(line), expected, "{line}");
        }
    }

    #[test]
    fn nothing_but_proof_ends_a_recovery() {
        for exit in ALL {
            let code = Table::Recovery.code(exit);
            assert_eq!(code == 1, exit == Exit::Absent, "{exit:?}");
            assert!([0, 1].contains(&code) || code >= 126, "{exit:?}");
            assert!(Table::Archive.code(exit) <= 125, "{exit:?}");
            assert_eq!(Table::Archive.code(exit) == 0, Table::Recovery.code(exit) == 0);
        }
        assert_eq!(Table::Standby.code(Exit::Failed), 1);
    }
}
