//! How the server is reached.

mod conninfo;
mod passfile;
mod session;
mod tls;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};

use self::conninfo::ConnInfo;
use crate::error::{Error, Result};

pub(crate) use self::session::{CancelOnDrop, Session, failed, parsed};
pub use self::tls::TlsMode;

/// Where sockets are looked for when no host is named: Debian's place, and PostgreSQL's own.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// How long a connection may take to come about when nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How the server is reached: address, user, secret, TLS.
///
/// Made from libpq's words or a URL. Hosts may be names, addresses, or directories of Unix sockets;
/// several may be given. `sslmode` may be `disable`, `prefer` (the default), `require`, `verify-ca`
/// or `verify-full`; `sslrootcert` and `passfile` name files. Client certificates and GSS are not
/// supported.
///
/// The password is best given by [`with_password`](Self::with_password), or found by
/// [`with_environment`](Self::with_environment). `Debug` shows where the connection goes, never the
/// password.
///
/// ```
/// use lifeboat_postgres::ConnectOptions;
/// let options = ConnectOptions::parse("host=/var/run/postgresql user=backup dbname=postgres")?
///     .with_password("secret".to_owned());
/// assert!(!format!("{options:?}").contains("secret"));
/// # Ok::<(), lifeboat_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConnectOptions {
    config: tokio_postgres::Config,
    /// Set from words or by the caller; `None` leaves it to the environment.
    mode: Option<TlsMode>,
    root: Option<PathBuf>,
    passfile: Option<PathBuf>,
    password: Option<SecretString>,
}

impl ConnectOptions {
    /// Reads a connection string: `host=… user=…`, or a `postgresql://` URL. Nothing is taken from
    /// the environment.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](lifeboat_core::ErrorKind::InvalidInput) when it cannot be
    /// understood.
    pub fn parse(conninfo: &str) -> Result<Self> {
        let ConnInfo { rest, sslmode, sslrootcert, passfile } = ConnInfo::parse(conninfo)?;
        let config = rest.parse().map_err(|error: tokio_postgres::Error| {
            // Its own text names the parameter, and never a value.
            let mut what = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                what = format!("{what}: {cause}");
            }
            Error::BadConnection { what }
        })?;
        Ok(Self {
            config,
            mode: sslmode.as_deref().map(TlsMode::parse).transpose()?,
            root: sslrootcert.map(PathBuf::from),
            passfile: passfile.map(PathBuf::from),
            password: None,
        })
    }

    /// Fills in what was not said from libpq's environment variables: `PGHOST`, `PGPORT`,
    /// `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGPASSFILE`, `PGSSLMODE`, `PGSSLROOTCERT`,
    /// `PGCONNECT_TIMEOUT`. The password file is `~/.pgpass` when none is named.
    ///
    /// # Errors
    /// When a variable cannot be understood.
    pub fn with_environment(self) -> Result<Self> {
        self.with_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn with_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let bad = |name: &str| Error::BadConnection { what: format!("{name} is not a number") };
        if self.config.get_hosts().is_empty() && self.config.get_hostaddrs().is_empty() {
            for host in variable("PGHOST").iter().flat_map(|hosts| hosts.split(',')) {
                self.config.host(host);
            }
        }
        if self.config.get_ports().is_empty() {
            for port in variable("PGPORT").iter().flat_map(|ports| ports.split(',')) {
                self.config.port(port.parse().map_err(|_| bad("PGPORT"))?);
            }
        }
        if self.config.get_user().is_none()
            && let Some(user) = variable("PGUSER")
        {
            self.config.user(user);
        }
        if self.config.get_dbname().is_none()
            && let Some(database) = variable("PGDATABASE")
        {
            self.config.dbname(database);
        }
        if self.config.get_connect_timeout().is_none()
            && let Some(seconds) = variable("PGCONNECT_TIMEOUT")
        {
            let seconds = seconds.parse().map_err(|_| bad("PGCONNECT_TIMEOUT"))?;
            self.config.connect_timeout(Duration::from_secs(seconds));
        }
        if self.password.is_none() && self.config.get_password().is_none() {
            self.password = variable("PGPASSWORD").map(SecretString::from);
        }
        if self.mode.is_none() {
            self.mode = variable("PGSSLMODE").as_deref().map(TlsMode::parse).transpose()?;
        }
        self.root = self.root.or_else(|| variable("PGSSLROOTCERT").map(PathBuf::from));
        self.passfile = self
            .passfile
            .or_else(|| variable("PGPASSFILE").map(PathBuf::from))
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".pgpass")));
        Ok(self)
    }

    /// Sets the password, which then goes before every other one.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<SecretString>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets how a connection over the network is protected.
    #[must_use]
    pub fn with_tls(mut self, mode: TlsMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the file with the certificates (PEM) of the authorities that are trusted, in place of
    /// those of the operating system.
    #[must_use]
    pub fn with_root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    /// The same server, another database.
    pub(crate) fn with_database(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(database);
        other
    }

    /// The same server, another user.
    pub(crate) fn with_user(mut self, user: &str) -> Self {
        self.config.user(user);
        self
    }

    /// The database that is connected to.
    pub(crate) fn database(&self) -> String {
        self.resolved().get_dbname().unwrap_or_default().to_owned()
    }

    /// The role as which the server is used.
    pub(crate) fn user(&self) -> String {
        self.resolved().get_user().unwrap_or_default().to_owned()
    }

    /// The same connection for a program that uses libpq: its environment variables. One of them
    /// is the password, which therefore stands in no list of arguments.
    pub(crate) fn libpq_environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let config = self.complete()?;
        let mut variables: Vec<(&'static str, OsString)> = Vec::new();
        let hosts: Vec<_> = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let addresses: Vec<_> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
        let ports: Vec<_> = config.get_ports().iter().map(ToString::to_string).collect();
        for (name, list) in [("PGHOST", hosts), ("PGHOSTADDR", addresses), ("PGPORT", ports)] {
            if !list.is_empty() {
                variables.push((name, list.join(",").into()));
            }
        }
        variables.push(("PGDATABASE", self.database().into()));
        variables.push(("PGUSER", self.user().into()));
        variables.push(("PGAPPNAME", "lifeboat".into()));
        if let Some(options) = config.get_options() {
            variables.push(("PGOPTIONS", options.into()));
        }
        if let Some(password) = config.get_password() {
            variables.push(("PGPASSWORD", OsString::from_vec(password.to_vec())));
        }
        if let Some(limit) = config.get_connect_timeout() {
            variables.push(("PGCONNECT_TIMEOUT", limit.as_secs().max(2).to_string().into()));
        }
        let mode = self.mode.unwrap_or_default();
        variables.push(("PGSSLMODE", mode.as_str().into()));
        if let Some(root) = &self.root {
            variables.push(("PGSSLROOTCERT", root.clone().into_os_string()));
        }
        Ok(variables)
    }

    /// What TLS streams are made with.
    pub(crate) fn tls(&self) -> Result<tokio_postgres_rustls::MakeRustlsConnect> {
        tls::connector(self.mode.unwrap_or_default(), self.root.as_deref())
    }

    /// Host, port, user and database, for messages.
    pub(crate) fn target(&self) -> String {
        let config = self.resolved();
        let host = config.get_hosts().first().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let address = || config.get_hostaddrs().first().map(ToString::to_string);
        let host = host.or_else(address).unwrap_or_default();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or_default();
        format!("{host} port {port} as {user}")
    }

    /// With libpq's defaults for what nobody said.
    fn resolved(&self) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            let port = config.get_ports().first().copied().unwrap_or(5432);
            let socket = |dir: &&&str| PathBuf::from(dir).join(format!(".s.PGSQL.{port}")).exists();
            let dir = SOCKET_DIRECTORIES.iter().find(socket).unwrap_or(&SOCKET_DIRECTORIES[0]);
            config.host_path(dir);
        }
        if config.get_user().is_none()
            && let Some(user) = account_name()
        {
            config.user(user);
        }
        if config.get_dbname().is_none() {
            config.dbname("postgres");
        }
        if config.get_application_name().is_none() {
            config.application_name("lifeboat");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(6);
        config.ssl_mode(match self.mode.unwrap_or_default() {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        config
    }

    /// Everything that a connection needs, the password included.
    pub(crate) fn complete(&self) -> Result<tokio_postgres::Config> {
        let mut config = self.resolved();
        // libpq ignores sslmode for sockets.
        if config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
            && config.get_hostaddrs().is_empty()
        {
            config.ssl_mode(SslMode::Disable);
        }
        let own = self.password.clone();
        let password = match own {
            Some(password) => Some(password),
            None if config.get_password().is_some() => None,
            None => self.password_from_file(&config)?,
        };
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        Ok(config)
    }

    fn password_from_file(&self, config: &tokio_postgres::Config) -> Result<Option<SecretString>> {
        let Some(path) = &self.passfile else {
            return Ok(None);
        };
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(_)) => "localhost".to_owned(),
            None => config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
        };
        let wanted = passfile::Wanted {
            host: &host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            database: config.get_dbname().unwrap_or_default(),
            user: config.get_user().unwrap_or_default(),
        };
        passfile::lookup(path, &wanted)
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectOptions({})", self.target())
    }
}

/// The name of the account that this process runs under, libpq's default for the user.
fn account_name() -> Option<String> {
    let uid = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    crate::accounts::name_of(&accounts, uid).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let found = pairs.iter().find(|(have, _)| *have == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn what_is_said_goes_before_the_environment() {
        let options = ConnectOptions::parse("host=a user=me sslmode=require").unwrap();
        let options = options
            .with_variables(environment(&[
                ("PGHOST", "b"),
                ("PGUSER", "you"),
                ("PGPORT", "6000"),
                ("PGSSLMODE", "disable"),
                ("PGPASSWORD", "hidden"),
            ]))
            .unwrap();
        assert_eq!(options.target(), "a port 6000 as me");
        assert_eq!(options.mode, Some(TlsMode::Require));
        let config = options.complete().unwrap();
        assert_eq!(config.get_password(), Some(&b"hidden"[..]));
        assert!(!format!("{options:?}").contains("hidden"));
    }

    #[test]
    fn nothing_said_means_the_local_socket() {
        let config = ConnectOptions::parse("port=1").unwrap().complete().unwrap();
        let expected = Host::Unix(PathBuf::from("/var/run/postgresql"));
        assert_eq!(config.get_hosts(), [expected]);
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
        assert_eq!(config.get_dbname(), Some("postgres"));
    }

    #[test]
    fn nonsense_is_refused_without_repeating_secrets() {
        for bad in ["password=geheim nonsense=1", "postgres://u:geheim@h/db?nonsense=1"] {
            let error = lifeboat_core::Error::from(ConnectOptions::parse(bad).unwrap_err());
            assert!(!error.one_line().contains("geheim"), "{}", error.one_line());
        }
        let options = ConnectOptions::parse("host=a").unwrap();
        assert!(options.with_variables(environment(&[("PGPORT", "x")])).is_err());
    }
}
