//! Saying what a cluster shall be like.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cluster, Installation, newest,
    postmaster::{CLEAN_UP, as_server},
};
use crate::{
    process,
    scratch::{Scratch, hand_over},
    watchdog::Watchdog,
};

/// How long an initdb may take on a busy machine.
const INITDB_LIMIT: Duration = Duration::from_secs(180);

/// What a [`Cluster`] shall be like, and how it is begun.
#[derive(Clone, Debug)]
pub struct Builder {
    installation: Option<Installation>,
    settings: Vec<(String, String)>,
    initdb_args: Vec<String>,
    password: Option<String>,
    checksums: bool,
    durable: bool,
    patience: Duration,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            installation: None,
            settings: Vec::new(),
            initdb_args: Vec::new(),
            password: None,
            checksums: true,
            durable: false,
            patience: Duration::from_secs(60),
        }
    }

    /// Which PostgreSQL to run; the newest one unless said.
    #[must_use]
    pub fn installation(mut self, installation: &Installation) -> Self {
        self.installation = Some(installation.clone());
        self
    }

    /// A server setting. A new cluster gets it in its postgresql.conf, and so passes it on to what
    /// is restored from its backup; an adopted one on the server's command line.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more argument of initdb, such as `--wal-segsize=1`.
    #[must_use]
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb_args.push(argument.to_owned());
        self
    }

    /// Lets nobody in without this password of the superuser `postgres` (SCRAM). Without it,
    /// everybody on this machine is let in.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Whether data pages carry checksums; they do unless said.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Whether the server flushes what it writes to the disk, which only a power cut makes matter
    /// and which costs time; it does not unless said.
    #[must_use]
    pub fn durable(mut self, on: bool) -> Self {
        self.durable = on;
        self
    }

    /// How long the server may take until it accepts connections; a minute unless said.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Makes a new cluster in a temporary directory and starts it. Blocks for about two seconds.
    pub fn start(self) -> Result<Cluster> {
        let installation = self.chosen()?;
        let scratch = Scratch::new()?;
        let data_dir = scratch.path().join("data");
        let watchdog = watch(&data_dir, &scratch)?;
        self.initdb(&installation, &scratch, &data_dir)?;
        self.configure(&data_dir)?;
        let command_line = self.speed();
        Cluster::new(
            installation,
            scratch,
            watchdog,
            data_dir,
            self.password,
            command_line,
            self.patience,
        )
    }

    /// Starts a server on a data directory that is there already, such as a restored one: on a port
    /// of its own, whatever its configuration says. The directory is handed over to the account
    /// that servers run under ([`hand_over`]), and stays when the cluster goes.
    pub fn adopt(self, data_dir: impl AsRef<Path>) -> Result<Cluster> {
        let data_dir = data_dir.as_ref();
        let installation = self.chosen()?;
        let data_dir: PathBuf = data_dir
            .canonicalize()
            .with_context(|| format!("find the data directory {}", data_dir.display()))?;
        hand_over(&data_dir)?;
        let scratch = Scratch::new()?;
        let watchdog = watch(&data_dir, &scratch)?;
        let mut command_line = self.speed();
        command_line.extend(self.settings);
        Cluster::new(
            installation,
            scratch,
            watchdog,
            data_dir,
            self.password,
            command_line,
            self.patience,
        )
    }

    /// Takes over a restored data directory as a disk that was set back would be: the server goes on in
    /// the timeline in which the backup was taken.
    pub fn adopt_in_old_timeline(self, data_dir: impl AsRef<Path>) -> Result<Cluster> {
        let signal = data_dir.as_ref().join("recovery.signal");
        std::fs::remove_file(&signal).with_context(|| format!("remove {}", signal.display()))?;
        self.adopt(data_dir)
    }

    fn chosen(&self) -> Result<Installation> {
        self.installation.clone().map_or_else(|| newest().cloned(), Ok)
    }

    fn speed(&self) -> Vec<(String, String)> {
        let fsync = if self.durable { "on" } else { "off" };
        vec![("fsync".to_owned(), fsync.to_owned())]
    }

    fn initdb(
        &self,
        installation: &Installation,
        scratch: &Scratch,
        data_dir: &Path,
    ) -> Result<()> {
        let mut command = installation.unchecked("initdb");
        command.arg("-D").arg(data_dir);
        command.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]);
        if self.checksums {
            command.arg("--data-checksums");
        } else if installation.major >= 18 {
            // Before, there were none unless asked for, and no such option.
            command.arg("--no-data-checksums");
        }
        let password_file;
        if let Some(password) = &self.password {
            password_file = self.password_file(scratch, password)?;
            command.args(["-A", "scram-sha-256", "--pwfile"]).arg(password_file);
        } else {
            command.args(["-A", "trust"]);
        }
        command.args(&self.initdb_args).stdin(Stdio::null());
        as_server(&mut command, scratch.account(), scratch.path());
        process::run(&mut command, INITDB_LIMIT)
            .and_then(process::Finished::success)
            .with_context(|| format!("make a cluster of PostgreSQL {}", installation.version))?;
        Ok(())
    }

    fn password_file(&self, scratch: &Scratch, password: &str) -> Result<PathBuf> {
        let path = scratch.subdir("secrets")?.join("password");
        fs::write(&path, password).context("write the password for initdb")?;
        hand_over(scratch.path())?;
        Ok(path)
    }

    fn configure(&self, data_dir: &Path) -> Result<()> {
        let path = data_dir.join("postgresql.conf");
        let mut text = String::from(concat!(
            "\n# Made by the testbed.\n",
            "wal_level = replica\n",
            "max_wal_senders = 10\n",
            "max_replication_slots = 10\n",
            // Several servers run at a time.
            "shared_buffers = 32MB\n",
            "max_connections = 50\n",
            "log_line_prefix = '%m [%p] '\n",
        ));
        for (name, value) in &self.settings {
            text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("configure {}", path.display()))
    }
}

fn watch(data_dir: &Path, scratch: &Scratch) -> Result<Watchdog> {
    Watchdog::new(CLEAN_UP, &[data_dir.as_os_str(), scratch.path().as_os_str()])
}
