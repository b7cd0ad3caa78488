//! The words of `init`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Make the first key for the owner of this recipient of age, age1…, and ask for nothing: who
    /// makes the repository need not be able to open it
    #[arg(long, value_name = "AGE1…")]
    pub(crate) recipient: Option<String>,
    /// What the first key is called
    #[arg(long, default_value = "first")]
    pub(crate) label: String,
    /// Use a store that takes no notice of "make it only if there is none". Snapshots are as safe; but
    /// you have to see to it that only one host prunes, and journals cannot be kept
    #[arg(long)]
    pub(crate) weak_store: bool,
    /// Put packs of data into this class of storage, as the store calls it: STANDARD_IA,
    /// GLACIER_IR, GLACIER, DEEP_ARCHIVE, NEARLINE, Cool. Everything else has the usual one.
    /// `lifeboat data-class` changes it; docs/storage-classes.md says what it means
    #[arg(long, value_name = "CLASS")]
    pub(crate) data_class: Option<String>,
}

pub(super) const INIT: &str = "\
The place must be empty; a directory is made when it is missing, a bucket is not. What is stored is
encrypted with a random key, and the key with your passphrase. In a directory, run this as the
account that will take the backups: what is made there is for this account only. Keep the passphrase apart from the
repository and from the machine that is backed up: without it nobody can read a byte, and nobody
can replace it.

Examples:
  lifeboat --repo /srv/backups init
  lifeboat --repo 's3://backups/prod?region=eu-central-1' --passphrase-command 'pass lifeboat' init
  lifeboat --repo /srv/backups init --label ops --recipient age1…
  lifeboat --repo s3://backups/prod init --data-class GLACIER_IR";
