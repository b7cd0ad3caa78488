//! How a failure is told: one line, with the next step, and an exit code.

mod advice;
mod words;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use lifeboat_core::{Error, ErrorKind};
use lifeboat_objstore::Location;

use crate::exit::Exit;
pub(crate) use advice::about_tree;
pub(crate) use words::{of_store, place};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The command line makes no sense.
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// What was asked for did not work.
    Error(Error),
}

impl Failed {
    /// The command line makes no sense: `message` says why, `hint` what to write instead.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// An argument that a library refused.
    pub(crate) fn argument(error: impl Into<Error>) -> Self {
        let failed = Self::Error(error.into());
        Self::Usage { message: failed.message(), hint: failed.hint().map(Cow::into_owned) }
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Error(error) if error.kind() == ErrorKind::Cancelled => Exit::Interrupted,
            Self::Error(_) => Exit::Failed,
        }
    }

    /// A stable word for what it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Error(error) => error.kind().as_str(),
        }
    }

    /// Whether the same command can succeed when it is run again.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_retryable())
    }

    /// What to do.
    pub(crate) fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Usage { hint, .. } => hint.as_deref().map(Cow::Borrowed),
            Self::Error(error) => advice::of(error),
        }
    }

    /// What happened, without the hint.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Usage { message, .. } => message.replace('\n', " "),
            Self::Error(error) => words::line(error),
        }
    }
}

impl fmt::Display for Failed {
    /// All of it on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.hint() {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Adds to an error where the repository is, and what an operator can do about its store.
///
/// The repository knows neither: it was given a store that was open already.
pub(crate) fn in_repository(error: impl Into<Error>, location: &Location) -> Error {
    let error = error.into();
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    let advice = store_error(&error)
        .and_then(|source| lifeboat_objstore::hint(location.provider(), source))
        .map(std::borrow::Cow::into_owned);
    let told = words::with_place(&error.to_string(), location);
    let error = error.context(told);
    match advice {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// What went wrong with one of several things, on one line and without the hint.
pub(crate) fn words_of(error: &(dyn StdError + 'static)) -> String {
    words::of_any(error)
}

/// Whether it was the repository's store that failed.
pub(crate) fn is_of_store(error: &Error) -> bool {
    store_error(error).is_some()
}

/// The store's answer beneath an error.
fn store_error(error: &Error) -> Option<&object_store::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// What led to an error, one cause after the other.
fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    error.source().into_iter().flat_map(words::layers)
}

#[cfg(test)]
mod tests {
    use lifeboat_repository::Error as Repeated;

    use super::*;

    #[test]
    fn the_hint_is_said_once() {
        let error = Error::new(ErrorKind::Refused, "open the door").with_hint("take the key");
        let failed = Failed::from(error);
        assert_eq!(failed.message(), "open the door");
        assert_eq!(failed.to_string(), "open the door; take the key");
        assert_eq!(failed.exit(), Exit::Failed);
        assert_eq!(Failed::from(Error::cancelled()).exit(), Exit::Interrupted);
    }

    #[test]
    fn the_place_and_the_store_s_advice_are_added() {
        let location: Location = "s3://bucket/x".parse().unwrap();
        let raw = object_store::Error::PermissionDenied {
            path: "lifeboat.json".into(),
            source: "Server returned non-2xx status code: 403 Forbidden: ".into(),
        };
        let error = Error::new(ErrorKind::Refused, "read lifeboat.json").with_source(raw);
        let error = in_repository(error, &location);
        let line = Failed::from(error).to_string();
        assert!(line.starts_with("repository s3://bucket/x: read lifeboat.json: "), "{line}");
        assert!(line.contains("docs/objstore.md"), "{line}");
    }

    #[test]
    fn an_error_that_repeats_another_hides_nothing() {
        let io = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let source = object_store::Error::Generic { store: "local", source: Box::new(io) };
        let first = Repeated::Store { doing: "write", object: "packs/x".into(), source };
        let error = Error::from(Repeated::Earlier(std::sync::Arc::new(first)));
        assert!(is_of_store(&error));
        let line = Failed::from(error).to_string();
        assert!(line.starts_with("write packs/x: ") && line.contains("no storage space"), "{line}");
    }
}
