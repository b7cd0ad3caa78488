//! How a server is reached.
//!
//! A server is named by an address: `redis://host:port`, `rediss://…` for TLS, or
//! `unix:///path/of/socket`, with the user of an access control list before the host. The password
//! is never part of it, since addresses are shown and stored. [`ConnectOptions::connect`] opens a
//! connection, logs in, and gives a [`Connection`] that sends commands and reads answers, each
//! within a limit of time and of size.
//!
//! `redis+sentinel://host:port,host:port/service` names a service that Sentinels watch. They are asked
//! each time a connection is opened, so that after a failover the next one goes to where the service
//! is then.

mod address;
mod connection;
mod hello;
mod sentinel;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub(crate) use self::address::Place;
pub(crate) use self::connection::{Answer, Connection, printable};
pub(crate) use self::hello::{Mode, Role};
use crate::error::{Error, Result};

/// The environment variable that holds the password, as for `redis-cli`.
const PASSWORD_VARIABLE: &str = "REDISCLI_AUTH";

/// How a server is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    pub(crate) place: Place,
    /// The user of an access control list; without one the password is that of the default user.
    pub user: Option<String>,
    /// The password. Does not print.
    pub password: Option<SecretString>,
    /// The password of the Sentinels, where they want one of their own. Does not print.
    pub sentinel_password: Option<SecretString>,
    /// Of a service that Sentinels watch: which of its servers is meant.
    pub(crate) wanted: Role,
    /// Certificates of the authorities that may vouch for the server, as PEM. Without them those of
    /// the operating system do.
    pub tls_ca: Option<PathBuf>,
    /// The client's own certificate and private key, as PEM. Servers ask for it unless they were
    /// told not to (`tls-auth-clients`).
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// How long a connection may take, and how long a server may say nothing. While it prepares a
    /// snapshot it says something every ten seconds (`repl-ping-replica-period`).
    pub patience: Duration,
}

impl ConnectOptions {
    /// A server at an address: `redis://[user@]host[:port]`, `rediss://…`, `unix:///path`; or a service
    /// that Sentinels watch: `redis+sentinel://[user@]host[:port][,host[:port]…]/service`,
    /// `rediss+sentinel://…`.
    ///
    /// # Errors
    /// When it cannot be understood, or holds a password.
    pub fn parse(address: &str) -> Result<Self> {
        let (place, user) = Place::parse(address)?;
        Ok(Self {
            place,
            user,
            password: None,
            sentinel_password: None,
            wanted: Role::Primary,
            tls_ca: None,
            tls_identity: None,
            patience: Duration::from_secs(60),
        })
    }

    /// Takes the password from `REDISCLI_AUTH`, as `redis-cli` does, where none is set yet.
    ///
    /// # Errors
    /// When the variable is not text.
    pub fn with_environment(mut self) -> Result<Self> {
        if self.password.is_none() {
            match std::env::var(PASSWORD_VARIABLE) {
                Ok(password) if !password.is_empty() => self.password = Some(password.into()),
                Ok(_) | Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    let what = format!("{PASSWORD_VARIABLE} is not UTF-8");
                    return Err(Error::BadAddress { what });
                }
            }
        }
        Ok(self)
    }

    /// Takes the first line of a file as the password.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn with_password_file(mut self, path: impl Into<PathBuf>) -> Result<Self> {
        self.password = Some(first_line(path.into())?);
        Ok(self)
    }

    /// Takes the first line of a file as the password of the Sentinels.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn with_sentinel_password_file(mut self, path: impl Into<PathBuf>) -> Result<Self> {
        self.sentinel_password = Some(first_line(path.into())?);
        Ok(self)
    }

    /// Of a service that Sentinels watch: a replica, where one is fit; else the primary.
    pub(crate) fn preferring_replicas(mut self) -> Self {
        self.wanted = Role::Replica;
        self
    }

    /// Whether Sentinels say where the server is.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self.place, Place::Sentinels { .. })
    }

    /// The server, for people: without user and password.
    pub fn target(&self) -> String {
        self.place.to_string()
    }

    /// Another server, reached in the same way: the same user, password and TLS.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let tls = match &self.place {
            Place::Network { tls, .. } | Place::Sentinels { tls, .. } => *tls,
            Place::Socket(_) => false,
        };
        let place = Place::Network { host: host.to_owned(), port, tls };
        Self { place, ..self.clone() }
    }

    /// Opens a connection and logs in.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        match &self.place {
            Place::Sentinels { sentinels, service, .. } => {
                Box::pin(sentinel::connect(self, sentinels, service)).await
            }
            Place::Network { .. } | Place::Socket(_) => Connection::open(self).await,
        }
    }
}

/// 40 hexadecimal digits that nobody can guess, as servers name themselves and their histories.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 20];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn first_line(path: PathBuf) -> Result<SecretString> {
    zeroizing_read(&path).map_err(|source| Error::ConnectionFile { path, source })
}

fn zeroizing_read(path: &std::path::Path) -> std::io::Result<SecretString> {
    let text = SecretString::from(std::fs::read_to_string(path)?);
    let line = secrecy::ExposeSecret::expose_secret(&text).lines().next().unwrap_or_default();
    Ok(SecretString::from(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_password_does_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2\nnot this\n").unwrap();
        let options = ConnectOptions::parse("redis://backup@cache").unwrap();
        let options = options.with_password_file(&path).unwrap();
        assert_eq!(options.password.as_ref().unwrap().expose_secret(), "hunter2");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
