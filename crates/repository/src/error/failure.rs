//! What kind of failure each error is, and what helps.

use std::borrow::Cow;

use lifeboat_core::{Archived, ErrorKind, Failure};

use super::Error;

/// The kind of an object store's error.
fn store_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as E;
    if Archived::is_cause_of(error) {
        return ErrorKind::Refused;
    }
    match error {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Refused,
        E::NotSupported { .. } | E::NotImplemented { .. } => ErrorKind::Unsupported,
        E::InvalidPath { .. } => ErrorKind::InvalidInput,
        other => {
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                if let Some(io) = error.downcast_ref::<std::io::Error>() {
                    return ErrorKind::of_io(io);
                }
                cause = error.source();
            }
            ErrorKind::Unavailable
        }
    }
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotARepository
            | Self::NoSuchTimeline { .. }
            | Self::NoSuchSnapshot { .. }
            | Self::NoSuchPin { .. }
            | Self::NoSuchEntry { .. }
            | Self::NoKeys => ErrorKind::NotFound,
            Self::AlreadyARepository
            | Self::PlaceNotEmpty { .. }
            | Self::Conflict { .. }
            | Self::SegmentConflict { .. } => ErrorKind::AlreadyExists,
            Self::NewerVersion { .. } | Self::UnknownFeature { .. } | Self::NotExclusive { .. } => {
                ErrorKind::Unsupported
            }
            Self::WrongSecret { .. }
            | Self::WriteOnly
            | Self::Rotated { .. }
            | Self::KeyCommand { .. } => ErrorKind::Refused,
            Self::Store { source, .. } => store_kind(source),
            Self::Damaged { .. }
            | Self::MissingChunk { .. }
            | Self::NotKnown { .. }
            | Self::DamagedPin { .. } => ErrorKind::Corrupt,
            Self::Local { source, .. } => ErrorKind::of_io(source),
            Self::Pinned { .. } | Self::LastSnapshot { .. } => ErrorKind::Refused,
            Self::AmbiguousSnapshot { .. }
            | Self::AmbiguousPin { .. }
            | Self::BadPin { .. }
            | Self::AmbiguousLatest { .. }
            | Self::NotAFile { .. }
            | Self::NothingUnchanged { .. }
            | Self::TooLarge { .. }
            | Self::ObjectTooLarge { .. }
            | Self::SameRepository
            | Self::NotACopy { .. }
            | Self::BadParameter { .. }
            | Self::BadIdentity { .. }
            | Self::BadRecipient { .. }
            | Self::KeyInUse { .. }
            | Self::KeyChange { .. } => ErrorKind::InvalidInput,
            Self::ClockSkew { .. } | Self::NotAlone => ErrorKind::Refused,
            Self::NoConditionalPut | Self::NoClasses { .. } | Self::NoWarehouse { .. } => {
                ErrorKind::Unsupported
            }
            Self::NoSuchTier { .. } => ErrorKind::InvalidInput,
            Self::StillThawing { .. } => ErrorKind::Unavailable,
            Self::NotThawed { .. } => ErrorKind::Refused,
            Self::LeaseHeld { .. }
            | Self::LeaseLost
            | Self::Overtaken { .. }
            | Self::FoundDamaged { .. } => ErrorKind::Unavailable,
            Self::Crypto { .. } | Self::Worker { .. } | Self::Twice { .. } => ErrorKind::Other,
            Self::Earlier(earlier) => earlier.kind(),
            Self::Source(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::NotARepository => "check the address, or make one with `lifeboat init`",
            Self::AlreadyARepository => "use it as it is, or choose another place",
            Self::PlaceNotEmpty { .. } => "choose an empty directory or prefix",
            Self::NewerVersion { .. } | Self::UnknownFeature { .. } => {
                "use a newer version of this program"
            }
            Self::WrongSecret { .. } => {
                "check which passphrase, identity or command belongs to this repository"
            }
            Self::WriteOnly => "use a key with full access",
            Self::Rotated { .. } => {
                "run it again; if it says the same, run `lifeboat key rotate` once more with the \
                 key that began it"
            }
            Self::BadIdentity { .. } => "make one with `age-keygen`",
            Self::BadRecipient { .. } => "`age-keygen -y` prints it for an identity",
            Self::KeyInUse { .. } => {
                "open the repository with another one, or say that it is meant: on the command \
                 line with --even-in-use"
            }
            Self::KeyCommand { .. } => "docs/keys.md says what the command is asked and answers",
            Self::NoKeys => {
                "restore the objects under keys/ from a copy; without a key nothing can be read"
            }
            Self::Local { .. } => "make room in the directory for temporary files (TMPDIR)",
            Self::NotKnown { .. } => {
                "nothing was deleted; run `lifeboat verify` to see the damage, and mend it first"
            }
            Self::Damaged { .. } | Self::MissingChunk { .. } => {
                "run `lifeboat verify --every-byte` to see which snapshots are hurt"
            }
            Self::NoSuchSnapshot { .. } => "list them with `lifeboat snapshots`",
            Self::Pinned { pin, .. } => {
                return Some(format!("release it first, with `lifeboat unpin {pin}`").into());
            }
            Self::LastSnapshot { store } => {
                let text = "take a new one first; or, if nothing is to be left, say its name";
                return Some(format!("{text}: --allow-remove-last {store}").into());
            }
            Self::DamagedPin { pin, .. } => {
                let text = "bring it back from a copy of the repository, or release it";
                return Some(format!("{text} with `lifeboat unpin {pin}`").into());
            }
            Self::NoSuchPin { .. } => "list them with `lifeboat pins`",
            Self::AmbiguousSnapshot { .. } | Self::AmbiguousPin { .. } => {
                "give more digits of its name"
            }
            Self::AmbiguousLatest { .. } => {
                "say which one is meant, on the command line with --store"
            }
            Self::NotAFile { .. } => "`lifeboat ls -l` shows what it is",
            Self::SegmentConflict { .. } => {
                "two servers may be writing to one journal: give each store a name of its own"
            }
            Self::NoSuchTimeline { .. } => "begin it first, with the timeline that it comes from",
            Self::NotExclusive { .. } => {
                "keep journals where conditional writes work, or where there is one writer say so"
            }
            Self::NoSuchEntry { .. } => "list the entries with `lifeboat ls`",
            Self::ClockSkew { .. } => "set the clock of this host, then run it again",
            Self::LeaseHeld { until, .. } => {
                let text = "wait until it is done; if it has died, run this again after";
                return Some(format!("{text} {until:.0}").into());
            }
            Self::NoConditionalPut => {
                "use another store; or say --weak-store: snapshots are as safe, but you have to \
                 see to it that only one host prunes, and journals cannot be kept"
            }
            Self::NoClasses { .. } => "leave the class out",
            Self::NoWarehouse { .. } => {
                "give the repository the store's warehouse when it is opened \
                 (OpenOptions::with_warehouse)"
            }
            Self::NoSuchTier { tiers, .. } => return Some(format!("it has {tiers}").into()),
            Self::StillThawing { .. } => "run it again later: it goes on where it was",
            Self::NotThawed { .. } => "say --thaw to have them thawed, which the provider bills",
            Self::NotAlone => "see to it that nobody else prunes or repairs, then say --alone",
            Self::LeaseLost | Self::Overtaken { .. } => "run it again",
            Self::SameRepository => "name another place, or make a repository there first",
            Self::FoundDamaged { .. } => "run it again: it does not rely on that pack any more",
            Self::NothingUnchanged { .. } => "run the backup again with everything read",
            Self::Twice { .. } => "this is a defect of the source; please report it",
            Self::Store { source, .. } => return store_hint(source),
            Self::Earlier(earlier) => return earlier.hint(),
            Self::Source(error) => return error.hint().map(|hint| hint.to_owned().into()),
            _ => return None,
        };
        Some(text.into())
    }
}

fn store_hint(error: &object_store::Error) -> Option<Cow<'static, str>> {
    if Archived::is_cause_of(error) {
        return Some("thaw it first, on the command line with --thaw".into());
    }
    let text = match store_kind(error) {
        ErrorKind::Exhausted => "make room where the repository is, then run it again",
        ErrorKind::Refused => "give this user the right to read and write there",
        ErrorKind::Unavailable => "check that the object store can be reached, then run it again",
        _ => return None,
    };
    Some(text.into())
}
