//! Where a server is.

use std::fmt;
use std::path::PathBuf;

use url::{Host, Url};

use crate::error::{Error, Result};

/// The port where nothing else is said.
const PORT: u16 = 6379;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A port of a host.
    Network { host: String, port: u16, tls: bool },
    /// A socket of this machine.
    Socket(PathBuf),
}

impl Place {
    /// The place, and the user that the address names.
    pub(super) fn parse(address: &str) -> Result<(Self, Option<String>)> {
        let bad = |what: &str| Error::BadAddress { what: what.to_owned() };
        let url = Url::parse(address).map_err(|error| bad(&error.to_string()))?;
        if url.password().is_some() {
            return Err(Error::PasswordInAddress);
        }
        let user = match url.username() {
            "" => None,
            user => Some(unescape(user).ok_or_else(|| bad("the user is not UTF-8"))?),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it holds a query or a fragment, and none is known"));
        }
        let tls = match url.scheme() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" => {
                if url.host().is_some() {
                    return Err(bad("a socket has no host: write three slashes"));
                }
                let path = unescape(url.path()).ok_or_else(|| bad("the path is not UTF-8"))?;
                if path.len() < 2 {
                    return Err(bad("it names no socket"));
                }
                return Ok((Self::Socket(path.into()), user));
            }
            other => return Err(bad(&format!("\"{other}\" is not one of redis, rediss, unix"))),
        };
        let host = match url.host() {
            Some(Host::Domain(name)) => {
                unescape(name).ok_or_else(|| bad("the host is not UTF-8"))?
            }
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(bad("it names no host")),
        };
        // All databases are saved, so a number would say something that does not happen.
        if !matches!(url.path(), "" | "/") {
            return Err(bad("it names a database, and a snapshot holds all of them"));
        }
        Ok((Self::Network { host, port: url.port().unwrap_or(PORT), tls }, user))
    }
}

/// Text in which bytes may be written as `%` and two digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Network { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(host: &str, port: u16, tls: bool) -> Place {
        Place::Network { host: host.into(), port, tls }
    }

    #[test]
    fn addresses_are_read_as_they_are_usually_written() {
        let cases = [
            ("redis://cache", network("cache", 6379, false), None),
            ("rediss://10.0.0.1:6380/", network("10.0.0.1", 6380, true), None),
            ("redis://[::1]:7000", network("::1", 7000, false), None),
            ("redis://back%40up@cache", network("cache", 6379, false), Some("back@up")),
            ("unix:///run/redis/redis.sock", Place::Socket("/run/redis/redis.sock".into()), None),
        ];
        for (address, place, user) in cases {
            let parsed = Place::parse(address).unwrap();
            assert_eq!(parsed, (place, user.map(ToOwned::to_owned)), "{address}");
        }
        assert_eq!(network("::1", 7, false).to_string(), "[::1]:7");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in
            ["cache", "http://cache", "redis://", "redis://cache/3", "unix://host/x", "unix:///"]
        {
            assert!(matches!(Place::parse(bad), Err(Error::BadAddress { .. })), "{bad}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for address in ["redis://:hunter2@cache", "redis://me:hunter2@cache"] {
            let error = Place::parse(address).unwrap_err();
            assert!(matches!(error, Error::PasswordInAddress), "{error}");
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
    }
}
