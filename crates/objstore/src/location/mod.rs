//! Where a store is: a URL that was understood, and can be shown.

mod parse;

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::error::{Error, Result};

/// Where a store is.
///
/// It never holds a secret: a URL with a password, a key or an unknown parameter is refused when
/// it is parsed, so that a location may be printed, logged and stored. Its `Display` is a URL that
/// parses to the same location.
///
/// | URL | store |
/// |---|---|
/// | `s3://bucket/prefix` | S3, or what speaks its protocol |
/// | `gs://bucket/prefix` | Google Cloud Storage |
/// | `az://container/prefix` | Azure Blob Storage; the account comes from the environment |
/// | `az://container/prefix?account=name` | the same, with the account |
/// | `abfss://container@account.dfs.core.windows.net/prefix` | the same |
/// | `https://account.blob.core.windows.net/container/prefix` | the same |
/// | `file:///path`, or a plain path | a directory |
/// | `memory://name/prefix` | the memory of this process, for tests |
///
/// Parameters: `endpoint` (a URL without userinfo) and `allow_http=true` for the cloud stores;
/// `region` and `style=path` or `style=virtual` for S3; `account` for Azure.
///
/// ```
/// use lifeboat_objstore::Location;
/// let location: Location = "s3://backups/prod?region=eu-central-1".parse()?;
/// assert_eq!(location.to_string(), "s3://backups/prod?region=eu-central-1");
/// assert!("s3://key:secret@backups/prod".parse::<Location>().is_err());
/// # Ok::<(), lifeboat_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Location(Arc<Place>);

/// The kinds of stores, for what differs between them: variables, rights, hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// S3, or what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
    /// A directory.
    Local,
    /// The memory of this process.
    Memory,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Cloud(Cloud),
    Local(PathBuf),
    Memory { name: String, prefix: Path },
}

/// A bucket or container, and how to reach it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cloud {
    pub(crate) vendor: Vendor,
    pub(crate) bucket: String,
    pub(crate) prefix: Path,
    pub(crate) endpoint: Option<Url>,
    pub(crate) allow_http: bool,
    pub(crate) region: Option<String>,
    pub(crate) style: Option<Style>,
    pub(crate) account: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Vendor {
    S3,
    Google,
    Azure,
}

/// Where a request to S3 names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Style {
    /// In the path.
    Path,
    /// In the host name.
    Virtual,
}

impl Location {
    /// A directory on this machine. A relative path is taken from the current directory.
    ///
    /// # Errors
    /// When the path is empty, or the current directory is gone.
    pub fn directory(path: impl AsRef<FilePath>) -> Result<Self> {
        let path = path.as_ref();
        let absolute = std::path::absolute(path).map_err(|source| Error::Directory {
            action: "find",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::from(Place::Local(absolute)))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0
    }

    /// What kind of store it is.
    pub fn provider(&self) -> Provider {
        match self.place() {
            Place::Local(_) => Provider::Local,
            Place::Memory { .. } => Provider::Memory,
            Place::Cloud(cloud) => match cloud.vendor {
                Vendor::S3 => Provider::S3,
                Vendor::Google => Provider::Google,
                Vendor::Azure => Provider::Azure,
            },
        }
    }

    /// The directory, when the store is one.
    pub fn as_directory(&self) -> Option<&FilePath> {
        match self.place() {
            Place::Local(path) => Some(path),
            Place::Cloud(_) | Place::Memory { .. } => None,
        }
    }
}

impl From<Place> for Location {
    fn from(place: Place) -> Self {
        Self(Arc::new(place))
    }
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        parse::location(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Place::Local(path) => write!(f, "{}", path.display()),
            Place::Memory { name, prefix } => {
                write!(f, "memory://{name}")?;
                show_prefix(prefix, f)
            }
            Place::Cloud(cloud) => cloud.fmt(f),
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.vendor {
            Vendor::S3 => "s3",
            Vendor::Google => "gs",
            Vendor::Azure => "az",
        };
        write!(f, "{scheme}://{}", self.bucket)?;
        show_prefix(&self.prefix, f)?;
        let mut query = Serializer::new(String::new());
        let style = self.style.map(|style| match style {
            Style::Path => "path",
            Style::Virtual => "virtual",
        });
        let pairs = [
            ("account", self.account.as_deref()),
            ("endpoint", self.endpoint.as_ref().map(Url::as_str)),
            ("region", self.region.as_deref()),
            ("style", style),
            ("allow_http", self.allow_http.then_some("true")),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        match query.finish() {
            query if query.is_empty() => Ok(()),
            query => write!(f, "?{query}"),
        }
    }
}

/// Percent-encodes what a URL's path may not hold, so that what is shown can be parsed again.
fn show_prefix(prefix: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for part in prefix.parts() {
        f.write_str("/")?;
        for byte in part.as_ref().bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
    }
    Ok(())
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}
