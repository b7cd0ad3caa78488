//! Where a server is.

use std::fmt;
use std::path::PathBuf;

use url::{Host, Url};

use crate::error::{Error, Result};

/// The port where nothing else is said.
const PORT: u16 = 6379;
/// The same of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// No address names more Sentinels than this.
const MOST_SENTINELS: usize = 64;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A port of a host.
    Network { host: String, port: u16, tls: bool },
    /// A socket of this machine.
    Socket(PathBuf),
    /// Wherever these Sentinels, each with its port, say that the service is.
    Sentinels { sentinels: Vec<(String, u16)>, service: String, tls: bool },
}

impl Place {
    /// The place, and the user that the address names.
    pub(super) fn parse(address: &str) -> Result<(Self, Option<String>)> {
        let bad = |what: &str| Error::BadAddress { what: what.to_owned() };
        if let Some((scheme, rest)) = address.split_once("://")
            && let Some(tls) = with_sentinels(scheme)
        {
            return Self::parse_sentinels(rest, tls);
        }
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
        let host = host_of(&url)?;
        // All databases are saved, so a number would say something that does not happen.
        if !matches!(url.path(), "" | "/") {
            return Err(bad("it names a database, and a snapshot holds all of them"));
        }
        Ok((Self::Network { host, port: url.port().unwrap_or(PORT), tls }, user))
    }

    /// `[user@]host[:port][,host[:port]…]/service`
    fn parse_sentinels(rest: &str, tls: bool) -> Result<(Self, Option<String>)> {
        let bad = |what: &str| Error::BadAddress { what: what.to_owned() };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(Error::PasswordInAddress),
            Some((user, rest)) => {
                let user = unescape(user).ok_or_else(|| bad("the user is not UTF-8"))?;
                (Some(user).filter(|user| !user.is_empty()), rest)
            }
            None => (None, rest),
        };
        let named = rest.split_once('/').filter(|(_, service)| !service.is_empty());
        let Some((hosts, service)) = named else {
            return Err(bad("it names no service of the Sentinels: …/mymaster"));
        };
        if service.contains(['/', '?', '#']) {
            return Err(bad("after the service nothing can follow"));
        }
        let service = unescape(service).ok_or_else(|| bad("the service is not UTF-8"))?;
        let sentinels: Result<Vec<_>> = hosts
            .split(',')
            .map(|host| {
                let url = Url::parse(&format!("redis://{host}"))
                    .map_err(|error| bad(&format!("\"{host}\": {error}")))?;
                Ok((host_of(&url)?, url.port().unwrap_or(SENTINEL_PORT)))
            })
            .collect();
        let sentinels = sentinels?;
        if sentinels.len() > MOST_SENTINELS {
            return Err(bad(&format!("it names more than {MOST_SENTINELS} Sentinels")));
        }
        Ok((Self::Sentinels { sentinels, service, tls }, user))
    }
}

/// Whether a scheme is one of Sentinels; then, whether they speak TLS.
fn with_sentinels(scheme: &str) -> Option<bool> {
    let (system, rest) = scheme.split_once(['+', '-'])?;
    match (system, rest) {
        ("redis" | "valkey", "sentinel") => Some(false),
        ("rediss" | "valkeys", "sentinel") => Some(true),
        _ => None,
    }
}

fn host_of(url: &Url) -> Result<String> {
    let bad = |what: &str| Error::BadAddress { what: what.to_owned() };
    match url.host() {
        Some(Host::Domain(name)) => unescape(name).ok_or_else(|| bad("the host is not UTF-8")),
        Some(Host::Ipv4(address)) => Ok(address.to_string()),
        Some(Host::Ipv6(address)) => Ok(address.to_string()),
        None => Err(bad("it names no host")),
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

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { host, port, .. } => write!(f, "{}", shown(host, *port)),
            Self::Sentinels { sentinels, service, .. } => {
                let hosts: Vec<_> =
                    sentinels.iter().map(|(host, port)| shown(host, *port)).collect();
                write!(f, "{service} (Sentinels {})", hosts.join(","))
            }
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
    fn sentinels_are_named_together() {
        let address = "redis+sentinel://backup@s1,s2:5000,[::1]/shop";
        let (place, user) = Place::parse(address).unwrap();
        assert_eq!(user.as_deref(), Some("backup"));
        assert_eq!(place.to_string(), "shop (Sentinels s1:26379,s2:5000,[::1]:26379)");
        let secure = Place::parse("rediss-sentinel://s1/shop").unwrap().0;
        assert!(matches!(secure, Place::Sentinels { tls: true, .. }));
        for bad in ["s1", "s1/", "/shop", "s1,/shop", "s1:x/shop", "s1/shop/0", "s1/shop?x=1"] {
            let bad = format!("redis+sentinel://{bad}");
            assert!(matches!(Place::parse(&bad), Err(Error::BadAddress { .. })), "{bad}");
        }
        let many = vec!["s"; MOST_SENTINELS + 1].join(",");
        assert!(Place::parse(&format!("redis+sentinel://{many}/shop")).is_err());
        let secret = Place::parse("redis+sentinel://me:hunter2@s1/shop").unwrap_err();
        assert!(matches!(secret, Error::PasswordInAddress), "{secret}");
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
