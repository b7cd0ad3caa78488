//! What can go wrong with a store, and what to do then.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use lifeboat_core::{ErrorKind, Failure};
use object_store::Error as Raw;

use crate::location::{Location, Provider};
use crate::trouble::Trouble;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong while a store was named, opened or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL cannot be understood.
    #[error("\"{url}\" is no location of a store: {why}")]
    Url {
        /// The URL without what may be secret.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A URL holds something that looks like a secret.
    #[error("the location \"{url}\" is refused: {what}")]
    SecretInUrl {
        /// The URL without what may be secret.
        url: String,
        /// What it holds.
        what: &'static str,
    },
    /// Requests would go over a network in the clear.
    #[error("open {location}: the endpoint {endpoint} is not encrypted")]
    PlainHttp {
        /// The store.
        location: Location,
        /// Scheme, host and port of the endpoint.
        endpoint: String,
    },
    /// A directory or a store in memory does not exist.
    #[error("open {location}: it does not exist")]
    Missing {
        /// The store.
        location: Location,
    },
    /// Something that is not a directory stands at the path.
    #[error("open {}: it is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A directory cannot be found, made or read.
    #[error("{action} {}", path.display())]
    Directory {
        /// What was being done.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The settings for a provider are wrong or incomplete.
    #[error("open {location}")]
    Settings {
        /// The store.
        location: Location,
        /// What is wrong with them.
        source: Raw,
    },
    /// A store did not do what was asked of it.
    #[error("{action} in {location}")]
    Store {
        /// What was being done, with the object's name.
        action: String,
        /// The store.
        location: Location,
        /// What it answered.
        source: Raw,
    },
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::SecretInUrl { .. } => ErrorKind::InvalidInput,
            Self::PlainHttp { .. } | Self::NotADirectory { .. } => ErrorKind::Refused,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Directory { source, .. } => ErrorKind::of_io(source),
            Self::Settings { source, .. } => match classify(source) {
                ErrorKind::Other => ErrorKind::InvalidInput,
                kind => kind,
            },
            Self::Store { source, .. } => classify(source),
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Url { .. } => Some(
                "locations are written s3://bucket/prefix, gs://bucket/prefix, \
                 az://container/prefix, or as the path of a directory"
                    .into(),
            ),
            Self::SecretInUrl { .. } => Some(
                "leave it out, and give credentials in the environment: AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY"
                    .into(),
            ),
            Self::PlainHttp { .. } => {
                Some("use https, or add ?allow_http=true to the location".into())
            }
            Self::Missing { location } if location.provider() == Provider::Memory => None,
            Self::Missing { .. } => {
                Some("check the path, or make a repository there with `lifeboat init`".into())
            }
            Self::NotADirectory { .. } => Some("give the path of a directory".into()),
            Self::Directory { source, .. } => io_hint(source),
            Self::Settings { location, source } => Some(
                hint(location.provider(), source)
                    .unwrap_or_else(|| variables(location.provider()).into()),
            ),
            Self::Store { location, source, .. } => hint(location.provider(), source),
        }
    }
}

/// What an error of `object_store` means to callers.
///
/// It looks beneath `Generic`, where `object_store` puts a full disk, an unreachable server and
/// most statuses: those are found out by operating-system error and by HTTP status.
pub fn classify(error: &Raw) -> ErrorKind {
    match error {
        Raw::NotFound { .. } => ErrorKind::NotFound,
        Raw::AlreadyExists { .. } | Raw::Precondition { .. } | Raw::NotModified { .. } => {
            ErrorKind::AlreadyExists
        }
        Raw::PermissionDenied { .. } | Raw::Unauthenticated { .. } => {
            // Some stores answer 403 when a quota is used up.
            match Trouble::of(error).map(|trouble| trouble.kind()) {
                Some(ErrorKind::Exhausted) => ErrorKind::Exhausted,
                _ => ErrorKind::Refused,
            }
        }
        Raw::NotSupported { .. } | Raw::NotImplemented { .. } => ErrorKind::Unsupported,
        Raw::InvalidPath { .. } | Raw::UnknownConfigurationKey { .. } => ErrorKind::InvalidInput,
        _ => match Trouble::of(error) {
            Some(trouble) => trouble.kind(),
            None => io_cause(error).map_or(ErrorKind::Other, ErrorKind::of_io),
        },
    }
}

/// The next step for a person whose store answered `error`, when there is something to say.
pub fn hint(provider: Provider, error: &Raw) -> Option<Cow<'static, str>> {
    if let Some(source) = io_cause(error) {
        return io_hint(source);
    }
    let trouble = Trouble::of(error)?;
    let hint = match &trouble {
        Trouble::Certificate(_) => {
            "install the authority of that certificate, or name its file in SSL_CERT_FILE"
        }
        Trouble::NoCredentials(_) => variables(provider),
        Trouble::NoConnection(_) => "check the endpoint, the network, and that the store runs",
        Trouble::Answer { code, .. } if code == "RequestTimeTooSkewed" => {
            "set the clock of this host"
        }
        Trouble::Answer { code, .. } if code == "NoSuchBucket" => {
            "check the name of the bucket, or make it: lifeboat makes none"
        }
        Trouble::Answer { status: 301 | 307, .. } => {
            "name the region of the bucket: AWS_REGION, or ?region= in the location"
        }
        Trouble::Answer { code, .. }
            if code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch" =>
        {
            "the store does not know the key, or the secret does not fit it: check the credentials"
        }
        _ if trouble.is_archived() => {
            "thaw it first: `lifeboat restore`, `verify` and `copy` do with --thaw; see \
             docs/storage-classes.md"
        }
        Trouble::Answer { code, .. } if code == "GlacierExpeditedRetrievalNotAvailable" => {
            "the provider has no room for haste now: use --thaw=standard"
        }
        Trouble::Answer { code, .. } if code == "InvalidStorageClass" => {
            "this store has no such class: use another name"
        }
        Trouble::Answer { status: 401, .. } => variables(provider),
        Trouble::Answer { status: 403, .. } => {
            "give the credentials the rights that docs/objstore.md lists"
        }
        _ => return None,
    };
    Some(hint.into())
}

fn variables(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or run where the machine \
             or the pod has a role"
        }
        Provider::Google => {
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to the path of a key \
             file, or run where the machine has a service account"
        }
        Provider::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or \
             AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with AZURE_CLIENT_SECRET and \
             AZURE_TENANT_ID), or run where the machine has an identity"
        }
        Provider::Local | Provider::Memory => "check the location",
    }
}

fn io_hint(error: &io::Error) -> Option<Cow<'static, str>> {
    use io::ErrorKind as Io;
    let hint = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => "make room on that disk, and run it again",
        Io::PermissionDenied => "run as the user who owns the directory, or give this one access",
        Io::ReadOnlyFilesystem => "mount that file system for writing",
        Io::NotADirectory => "a part of the path is a file: give another path",
        _ => return None,
    };
    Some(hint.into())
}

/// The operating-system error beneath, unless the error is about a request.
fn io_cause(error: &Raw) -> Option<&io::Error> {
    if Trouble::of(error).is_some() {
        return None;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_seen_beneath_the_layers() {
        let io = io::Error::from(io::ErrorKind::StorageFull);
        let raw = Raw::Generic { store: "LocalFileSystem", source: Box::new(io) };
        assert_eq!(classify(&raw), ErrorKind::Exhausted);
        assert!(hint(Provider::Local, &raw).unwrap().contains("room"));
    }

    #[test]
    fn a_quota_behind_a_403_is_no_question_of_rights() {
        let text = "Server returned non-2xx status code: 403 Forbidden: \
                    <Error><Code>QuotaExceeded</Code></Error>";
        let raw = Raw::PermissionDenied { path: "x".into(), source: text.into() };
        assert_eq!(classify(&raw), ErrorKind::Exhausted);
    }

    #[test]
    fn a_line_says_what_to_do() {
        let text = "Server returned non-2xx status code: 404 Not Found: \
                    <Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        let error = Error::Store {
            action: "read lifeboat.json".into(),
            location: "s3://nowhere/x".parse().unwrap(),
            source: crate::trouble::tidy(Raw::NotFound { path: "x".into(), source: text.into() }),
        };
        let line = lifeboat_core::Error::from(error).one_line();
        assert_eq!(
            line,
            "read lifeboat.json in s3://nowhere/x: Object at location x not found: the store \
             answered 404 (NoSuchBucket: no); check the name of the bucket, or make it: lifeboat \
             makes none"
        );
    }
}
