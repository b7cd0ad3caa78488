//! Who holds a repository's key: the objects beneath `keys/`.
//!
//! - **[`ring`]** reads them. One that is damaged, planted or of a later version does not hide the
//!   others.
//! - **[`unlock`]** finds the one that a secret opens, without stretching a passphrase for keys
//!   that no passphrase opens.
//! - **[`change`]** adds and removes holders.
//! - **[`rotate`]** gives all that are left a new epoch of the key.
//!
//! A slot is never changed: what replaces it is written first, under another name, and the old one
//! is deleted then. So at every instant each holder has a slot that opens, and where there are two
//! the newest epoch counts.

mod change;
mod ring;
mod rotate;
mod unlock;

use lifeboat_core::Timestamp;

pub use change::AddKeyOptions;
pub use change::RemoveKeyOptions;
pub use rotate::{RotateOptions, Rotation};
pub(crate) use unlock::{OwnKey, unlock};

use crate::crypto::{Access, Description, Holder, HolderKey, KdfCost, Keeper, Owner, RootKey};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::pool::Pool;

/// No label is longer, in bytes.
const MAX_LABEL: usize = 128;

/// What is known of a key: of one holder's slot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The name of its object beneath `keys/`. It changes when the key is rotated.
    pub id: ObjectId,
    /// What it is called; empty when it cannot be read.
    pub label: String,
    /// What opens it.
    pub kind: KeyKind,
    /// What its holder may do; not known when it cannot be read.
    pub access: Option<Access>,
    /// When it was made, by the clock of the host that did.
    pub created: Option<Timestamp>,
    /// The newest epoch of the repository's key that it holds; not known of keys of the first
    /// form, until they are opened.
    pub epoch: Option<u32>,
    /// Its public half, `age1…`. Keys of the first form have none.
    pub recipient: Option<String>,
    /// Whether it can be relied on.
    pub standing: Standing,
    /// Whether the repository was opened with it.
    pub in_use: bool,
}

/// What opens a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// A passphrase.
    Passphrase,
    /// An identity of age that its owner keeps.
    Identity,
    /// A command.
    Command,
    /// Something of a later version, or nobody can tell any more.
    Unknown,
}

impl KeyKind {
    /// The word for it: `passphrase`, `identity`, `command`, `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Identity => "identity",
            Self::Command => "command",
            Self::Unknown => "unknown",
        }
    }

    fn of(keeper: &Keeper) -> Self {
        match keeper {
            Keeper::Owner => Self::Identity,
            Keeper::Passphrase(_) => Self::Passphrase,
            Keeper::Command(_) => Self::Command,
        }
    }
}

/// Whether a key can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Somebody made it who has full access.
    Authentic,
    /// That cannot be told: keys of the first form do not show it, and who may only write cannot
    /// see it.
    Unproven,
    /// Somebody made it, or changed it, who does not hold the repository's key.
    Forged,
    /// A later version made it.
    Later,
    /// It is damaged: this is wrong with it.
    Damaged(String),
}

impl Standing {
    /// The word for it: `authentic`, `unproven`, `forged`, `later`, `damaged`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Authentic => "authentic",
            Self::Unproven => "unproven",
            Self::Forged => "forged",
            Self::Later => "later",
            Self::Damaged(_) => "damaged",
        }
    }
}

fn check_label(label: &str) -> Result<()> {
    let fits = (1..=MAX_LABEL).contains(&label.len());
    if fits && label.trim() == label && !label.chars().any(char::is_control) {
        return Ok(());
    }
    let what = "a label has 1 to 128 bytes, no control characters, and no space at its ends";
    Err(Error::KeyChange { what: what.into() })
}

/// Makes a key pair for a holder, and has its private half kept as he wants it.
pub(crate) async fn describe(
    pool: &Pool,
    repository: RepositoryId,
    root: &RootKey,
    holder: &Holder,
    options: &AddKeyOptions,
) -> Result<Description> {
    check_label(&options.label)?;
    let (public, keeper) = match &holder.0 {
        Owner::Recipient(public) => (*public, Keeper::Owner),
        Owner::Passphrase(passphrase) => {
            let key = HolderKey::generate(root, options.access)?;
            let public = key.public()?;
            let (passphrase, cost) = (passphrase.clone(), options.cost);
            let wrap = move || key.wrap(repository, &passphrase, cost);
            (public, pool.run("wrap the key", wrap).await??)
        }
        Owner::Command(command) => {
            let key = HolderKey::generate(root, options.access)?;
            (key.public()?, key.entrust(repository, command).await?)
        }
    };
    Ok(Description {
        label: options.label.clone(),
        access: options.access,
        created: Timestamp::now().to_string(),
        public,
        keeper,
    })
}

/// What the first key of a repository is like.
pub(crate) fn first(label: &str, cost: KdfCost) -> AddKeyOptions {
    AddKeyOptions { label: label.to_owned(), access: Access::Full, cost }
}
