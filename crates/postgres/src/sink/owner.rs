//! To whom restored files belong.

use lifeboat_core::{Attributes, names};

use crate::accounts::Accounts;
use crate::error::{Error, Result};

/// To whom restored files belong. Only root can decide it: run by any other account, a restore
/// makes files of that account, and never tries to give them away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Ownership {
    /// To the account of the same name as in the snapshot; to the same number where this host has
    /// no such name.
    #[default]
    AsInSnapshot,
    /// To this account and group.
    Account {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Decides who owns what.
#[derive(Debug)]
pub(super) struct Owners {
    ownership: Ownership,
    root: bool,
    accounts: Accounts,
}

impl Owners {
    /// Blocks.
    pub(super) fn new(ownership: Ownership) -> Result<Self> {
        let own = rustix::process::geteuid();
        let root = own.is_root();
        if let Ownership::Account { uid, .. } = ownership
            && !root
            && uid != own.as_raw()
        {
            return Err(Error::NotRoot { uid });
        }
        Ok(Self { ownership, root, accounts: Accounts::read() })
    }

    /// User and group, or `None` when the files stay this process's own.
    pub(super) fn of(&self, attributes: &Attributes) -> Option<(u32, u32)> {
        if !self.root {
            return None;
        }
        if let Ownership::Account { uid, gid } = self.ownership {
            return Some((uid, gid));
        }
        let number = |name| attributes.unsigned(name).and_then(|id| u32::try_from(id).ok());
        let user = attributes.text(names::USER).and_then(|name| self.accounts.uid(name));
        let group = attributes.text(names::GROUP).and_then(|name| self.accounts.gid(name));
        let uid = user.or_else(|| number(names::UID))?;
        let gid = group.or_else(|| number(names::GID))?;
        // All ones means "leave as it is" to the kernel.
        (uid != u32::MAX && gid != u32::MAX).then_some((uid, gid))
    }

    pub(super) fn account_name(&self, uid: u32) -> Option<&str> {
        self.accounts.user_name(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(ownership: Ownership, root: bool) -> Owners {
        Owners { ownership, root, accounts: Accounts::read() }
    }

    #[test]
    fn only_root_gives_files_away() {
        let files = Attributes::new().with(names::UID, 26_u32).with(names::GID, 27_u32);
        assert_eq!(owners(Ownership::AsInSnapshot, false).of(&files), None);
        assert_eq!(owners(Ownership::AsInSnapshot, true).of(&files), Some((26, 27)));
        let account = Ownership::Account { uid: 5, gid: 6 };
        assert_eq!(owners(account, true).of(&files), Some((5, 6)));
        assert_eq!(owners(account, false).of(&files), None);
    }

    #[test]
    fn a_name_goes_before_a_number() {
        let files = Attributes::new()
            .with(names::UID, 4711_u32)
            .with(names::GID, 4711_u32)
            .with(names::USER, "root")
            .with(names::GROUP, "no such group here");
        assert_eq!(owners(Ownership::AsInSnapshot, true).of(&files), Some((0, 4711)));
    }
}
