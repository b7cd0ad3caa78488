//! Where a service is, by the Sentinels that watch it.
//!
//! The first Sentinel that answers and knows the service tells its primary
//! (`SENTINEL GET-MASTER-ADDR-BY-NAME`) and, where a replica is wanted, its replicas
//! (`SENTINEL REPLICAS`): those that it takes for up, and whose connection to the primary is. They are
//! tried in the order of their addresses, and then the primary. A Sentinel may not have noticed yet
//! what happened, so every server is asked what it is (`HELLO`): a primary that became a replica
//! is not written to.

use std::time::Duration;

use super::{Answer, ConnectOptions, Connection, Role};
use crate::error::{Error, Result};

const ASKING: &str = "ask a Sentinel where the service is";
/// A Sentinel that says nothing for so long is not waited for: there are others.
const PATIENCE: Duration = Duration::from_secs(5);
/// No more replicas than this are tried.
const MOST_REPLICAS: usize = 16;

/// A connection to the server that is wanted.
pub(super) async fn connect(
    options: &ConnectOptions,
    sentinels: &[(String, u16)],
    service: &str,
) -> Result<Connection> {
    let mut last = None;
    for (host, port) in sentinels {
        match ask(options, host, *port, service).await {
            Ok(servers) => return reach(options, servers).await,
            Err(error) => {
                let error = match error {
                    Error::Login { target, answer } => Error::SentinelLogin { target, answer },
                    other => other,
                };
                tracing::info!(host, port, %error, "the Sentinel does not say");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::BadAddress { what: "it names no Sentinel".to_owned() }))
}

/// The servers of the service, those that are wanted first, and what each is said to be.
async fn ask(
    options: &ConnectOptions,
    host: &str,
    port: u16,
    service: &str,
) -> Result<Vec<(String, u16, Role)>> {
    let mut sentinel = options.at(host, port);
    // Users and passwords of the servers mean nothing to a Sentinel, and are none of its business.
    (sentinel.user, sentinel.password) = (None, options.sentinel_password.clone());
    sentinel.patience = options.patience.min(PATIENCE);
    let mut sentinel = Connection::open(&sentinel).await?;
    let words: [&[u8]; 3] = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()];
    let primary = match sentinel.demand(ASKING, &words).await? {
        Answer::Nil => None,
        Answer::List(parts) => match &parts[..] {
            [Answer::Text(host), Answer::Text(port)] => place(host, port),
            _ => None,
        },
        other => return Err(sentinel.nonsense(ASKING, format!("{other:?}"))),
    };
    let Some((primary_host, primary_port)) = primary else {
        let (sentinel, service) = (sentinel.target().to_owned(), service.to_owned());
        return Err(Error::UnknownService { sentinel, service });
    };
    let mut servers = Vec::new();
    if options.wanted == Role::Replica {
        let words: [&[u8]; 3] = [b"SENTINEL", b"REPLICAS", service.as_bytes()];
        if let Answer::List(replicas) = sentinel.ask(ASKING, &words).await? {
            servers.extend(replicas.iter().filter_map(replica));
        }
        servers.sort();
        servers.truncate(MOST_REPLICAS);
    }
    let mut servers: Vec<_> =
        servers.into_iter().map(|(host, port)| (host, port, Role::Replica)).collect();
    servers.push((primary_host, primary_port, Role::Primary));
    Ok(servers)
}

/// A replica that is fit, of the pairs that a Sentinel says of it.
fn replica(answer: &Answer) -> Option<(String, u16)> {
    let Answer::List(parts) = answer else { return None };
    let said = |name: &[u8]| {
        parts.chunks_exact(2).find_map(|pair| match pair {
            [Answer::Text(key), Answer::Text(value)] if key == name => Some(&value[..]),
            _ => None,
        })
    };
    let flags = String::from_utf8_lossy(said(b"flags")?).into_owned();
    let unfit = ["s_down", "o_down", "disconnected", "master"];
    if flags.split(',').any(|flag| unfit.contains(&flag)) {
        return None;
    }
    (said(b"master-link-status")? == b"ok").then(|| place(said(b"ip")?, said(b"port")?))?
}

fn place(host: &[u8], port: &[u8]) -> Option<(String, u16)> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(ToOwned::to_owned);
    let host = text(host).filter(|host| !host.is_empty())?;
    Some((host, text(port)?.parse().ok()?))
}

/// Connects to the first that is what it is said to be.
async fn reach(options: &ConnectOptions, servers: Vec<(String, u16, Role)>) -> Result<Connection> {
    let mut last = None;
    for (host, port, role) in servers {
        let trying = async {
            let mut connection = Connection::open(&options.at(&host, port)).await?;
            let is = connection.hello().await?.role;
            if is != role && is != Role::Unknown {
                let target = connection.target().to_owned();
                return Err(Error::OtherRole { target });
            }
            Ok(connection)
        };
        match trying.await {
            Ok(connection) => return Ok(connection.found_as(options.target())),
            Err(error) => {
                tracing::info!(host, port, %error, "the server is passed over");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::BadAddress { what: "it names no Sentinel".to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Answer {
        let text = |text: &str| Answer::Text(text.as_bytes().to_vec());
        let parts = pairs.iter().flat_map(|(name, value)| [text(name), text(value)]);
        Answer::List(parts.collect())
    }

    #[test]
    fn only_replicas_that_are_fit_are_taken() {
        let of = |flags, link| {
            let port = ("port", "6380");
            let pairs = [("ip", "10.0.0.2"), port, ("flags", flags), ("master-link-status", link)];
            replica(&said(&pairs))
        };
        assert_eq!(of("slave", "ok"), Some(("10.0.0.2".to_owned(), 6380)));
        for (flags, link) in
            [("slave,s_down", "ok"), ("s_down,slave,disconnected", "ok"), ("slave", "err")]
        {
            assert_eq!(of(flags, link), None, "{flags} {link}");
        }
        assert_eq!(replica(&said(&[("ip", "10.0.0.2")])), None);
        assert_eq!(replica(&Answer::Nil), None);
    }
}
