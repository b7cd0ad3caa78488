//! One error for everything that crosses the traits of this crate.
//!
//! Every crate has its own `thiserror` enum, made of situations. At the seam between crates it
//! becomes an [`Error`]: what was being done and to what, a kind that callers can match, the
//! cause, and the next step for the person who reads it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means to the code that receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist, and that is certain.
    NotFound,
    /// Something stands where something new was to be put.
    AlreadyExists,
    /// A person or a setting forbids it: rights, a non-empty target, a running server.
    Refused,
    /// Stored or received bytes are not what they must be.
    Corrupt,
    /// The other side did not answer, or answered that it cannot now. Trying again can help.
    Unavailable,
    /// A disk, a quota or a configured limit is used up.
    Exhausted,
    /// What was asked for cannot be understood or makes no sense.
    InvalidInput,
    /// Understood, but this version or this server cannot do it.
    Unsupported,
    /// The caller cancelled the operation.
    Cancelled,
    /// None of the above.
    Other,
}

impl ErrorKind {
    /// Whether the same call, made again, can succeed without anyone changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// A stable lower-case word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Exhausted => "exhausted",
            Self::InvalidInput => "invalid_input",
            Self::Unsupported => "unsupported",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }

    /// The kind that fits an operating-system error.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::NotFound,
            Io::AlreadyExists | Io::DirectoryNotEmpty => Self::AlreadyExists,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::Refused,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::OutOfMemory => {
                Self::Exhausted
            }
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::TimedOut
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::NotConnected => Self::Unavailable,
            Io::InvalidInput | Io::InvalidFilename => Self::InvalidInput,
            Io::InvalidData | Io::UnexpectedEof => Self::Corrupt,
            Io::Unsupported => Self::Unsupported,
            _ => Self::Other,
        }
    }
}

/// What the error enum of a crate tells about itself, so that it can become an [`Error`].
///
/// Implementing it gives `From<YourError> for Error`, so `?` works at the seam.
pub trait Failure: StdError + Send + Sync + 'static {
    /// What the failure means to callers.
    fn kind(&self) -> ErrorKind;

    /// What the reader can do about it: one sentence, or nothing when there is nothing to say.
    fn hint(&self) -> Option<Cow<'static, str>> {
        None
    }

    /// Whether the same call can succeed when made again.
    fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }
}

/// An error at the seam between two crates.
///
/// Its `Display` says what was being done to what, without the causes; [`Error::one_line`] joins
/// the causes and the hint for a person.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retryable: bool,
    message: String,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what was being done, and to what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retryable: kind.is_retryable(),
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// An operating-system error that happened while doing `message`.
    pub fn io(message: impl Into<String>, error: std::io::Error) -> Self {
        Self::new(ErrorKind::of_io(&error), message).with_source(error)
    }

    /// The operation was cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the next step for the reader.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Wraps this error in what the caller was doing; kind, hint and retryability stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            retryable: self.0.retryable,
            message: message.into(),
            hint: self.0.hint.clone(),
            source: Some(Box::new(self)),
        }))
    }

    /// What the error means to callers.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed when made again.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The message, its causes and the hint, on one line.
    pub fn one_line(&self) -> String {
        let mut line = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many libraries repeat their cause in their own message.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            line.push_str("; ");
            line.push_str(hint);
        }
        line.replace('\n', " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.one_line(), self.0.kind.as_str())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl<F: Failure> From<F> for Error {
    fn from(failure: F) -> Self {
        // The enum's own text becomes the message; its cause stays the cause, so that the text is
        // not said twice.
        let mut error = Self::new(failure.kind(), failure.to_string());
        error.0.retryable = failure.is_retryable();
        error.0.hint = failure.hint();
        error.0.source = Some(Box::new(failure));
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read {path}")]
    struct Sample {
        path: &'static str,
        source: std::io::Error,
    }

    impl Failure for Sample {
        fn kind(&self) -> ErrorKind {
            ErrorKind::of_io(&self.source)
        }
        fn hint(&self) -> Option<Cow<'static, str>> {
            Some("look at the disk".into())
        }
    }

    #[test]
    fn a_line_says_what_why_and_what_next() {
        let io = std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left");
        let error = Error::from(Sample { path: "a/b", source: io }).context("back up files");
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(!error.is_retryable());
        assert_eq!(error.one_line(), "back up files: read a/b: no space left; look at the disk");
    }

    #[test]
    fn an_unreachable_server_is_worth_a_retry() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(Error::io("connect", io).is_retryable());
        assert!(!Error::cancelled().is_retryable());
    }
}
