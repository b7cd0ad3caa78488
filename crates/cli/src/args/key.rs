//! The words about keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Show who holds a key
    #[command(after_help = LIST)]
    List,
    /// Give somebody a key
    #[command(after_help = ADD)]
    Add(KeyAdd),
    /// Take a key away
    #[command(after_help = REMOVE)]
    Remove(KeyRemove),
    /// Change the key that the repository is encrypted with, for all that hold one
    #[command(after_help = ROTATE)]
    Rotate(KeyRotate),
}

const LIST: &str = "\
A key that somebody made who does not hold the repository's key is shown as forged: it opens
nothing and is given nothing. Remove it, and see who can write to the store.

Examples:
  lifeboat key list
  lifeboat key list --json | jq -r 'select(.event == \"key\") | .label'";

#[derive(Debug, Args)]
pub(crate) struct KeyAdd {
    /// What the key is called
    #[arg(long)]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) holder: NewHolder,
    /// The key can back up, and can read nothing of what was backed up
    #[arg(long)]
    pub(crate) write_only: bool,
}

/// For whom a key is made. Without any of these, for a passphrase that is asked for.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct NewHolder {
    /// For the owner of this recipient of age: age1…, as `age-keygen` prints it
    #[arg(long, value_name = "AGE1…")]
    pub(crate) recipient: Option<String>,
    /// For the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// For whoever can run this command, which keeps the key: as --key-command
    #[arg(long, value_name = "COMMAND")]
    pub(crate) new_key_command: Option<String>,
}

const ADD: &str = "\
Any key opens the repository. With --write-only, a server can take backups and cannot read them: who
steals it reads nothing of what it saved. Without the last snapshot to compare with, such a backup
reads everything; what is there is not stored again. Programs that do not know such keys cannot read
the repository any more.

Examples:
  lifeboat key add --label ops --recipient age1…
  lifeboat key add --label shop-server --write-only --recipient age1…
  lifeboat key add --label second --new-passphrase-file /etc/lifeboat/second
  lifeboat key add --label vault --new-key-command '/usr/local/bin/lifeboat-vault backups'";

#[derive(Debug, Args)]
pub(crate) struct KeyRemove {
    /// The key's label, its recipient, or the first digits of its id
    pub(crate) name: String,
    /// Also if it is the key that this command uses
    #[arg(long)]
    pub(crate) even_in_use: bool,
}

const REMOVE: &str = "\
Who held the key may have kept what it opened. To keep from him what is written from now on, take
away his access to the store, and run `lifeboat key rotate`. The last key with full access stays.

Examples:
  lifeboat key remove shop-server
  lifeboat key remove 3f2a91bc";

#[derive(Debug, Args)]
pub(crate) struct KeyRotate {
    /// A key that was made by an early version needs its passphrase: it is in the first line of this
    /// file; can be repeated
    #[arg(long = "also-passphrase-file", value_name = "FILE")]
    pub(crate) passphrase_files: Vec<PathBuf>,
}

const ROTATE: &str = "\
What is written from now on is encrypted with a new key, which all holders get; nobody's passphrase
or identity is needed for that. What was written before stays as it is until it is packed anew. A
run that was stopped is finished by the next.

Examples:
  lifeboat key remove stolen-laptop && lifeboat key rotate";
