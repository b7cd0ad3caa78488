//! A repository that servers archive into, under the account that they run under.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::home;
use lifeboat_testbed::postgres::{Builder, Cluster, Installation};
use lifeboat_testbed::process::{self, Finished};
use lifeboat_testbed::scratch::{Scratch, hand_over};

/// Long: the machine may be busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A repository in a directory that servers can get at, and a script that servers call.
pub(crate) struct Scene {
    scratch: Scratch,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self { scratch: Scratch::new().unwrap() };
        fs::write(scene.path("passphrase"), "correct horse\n").unwrap();
        // As a server would call it: with nothing in the environment but what is said here.
        let script = format!(
            "#!/bin/sh\nexec env -i PATH=\"$PATH\" LIFEBOAT_REPO={} LIFEBOAT_PASSPHRASE_FILE={} LIFEBOAT_CACHE_DIR={} {} \"$@\"\n",
            scene.path("repo").display(),
            scene.path("passphrase").display(),
            scene.path("cache").display(),
            env!("CARGO_BIN_EXE_lifeboat"),
        );
        fs::write(scene.path("lifeboat"), script).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.path("lifeboat"), executable).unwrap();
        hand_over(&scene.path("passphrase")).unwrap();
        scene.run(&["init"], 0);
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// The program as the servers' account runs it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("lifeboat"));
        command.args(arguments).stdin(Stdio::null()).current_dir(self.scratch.path());
        if let Some(account) = home::server_account() {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> Finished {
        expect(&mut self.command(arguments), code)
    }

    /// As [`Scene::run`], in a data directory.
    #[track_caller]
    pub(crate) fn run_in(&self, data: &Path, arguments: &[&str], code: i32) -> Finished {
        expect(self.command(arguments).current_dir(data), code)
    }

    /// A cluster that archives here.
    pub(crate) fn cluster(&self, installation: &Installation) -> Builder {
        let command = format!("{} wal push %p --name shop", self.path("lifeboat").display());
        Cluster::builder()
            .installation(installation)
            .setting("archive_mode", "on")
            .setting("archive_command", &command)
    }

    /// Restores the latest snapshot into a new directory, to be recovered from the archive.
    pub(crate) fn restored(&self, name: &str) -> PathBuf {
        let target = self.path(name);
        let to = target.to_str().unwrap();
        self.run(&["restore", "latest", "--store", "postgres/shop", "--to", to], 0);
        self.recovers(&target, "wal get %f %p --name shop");
        target
    }

    /// Makes a data directory recover with a command of the program.
    pub(crate) fn recovers(&self, data: &Path, command: &str) {
        let settings = format!(
            "restore_command = '{} {command}'\nrecovery_target_timeline = 'latest'\n",
            self.path("lifeboat").display()
        );
        fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        fs::write(data.join("recovery.signal"), "").unwrap();
        hand_over(data).unwrap();
    }

    /// Copies a stopped data directory.
    pub(crate) fn copied(&self, data: &Path, name: &str) -> PathBuf {
        let target = self.path(name);
        expect(Command::new("cp").arg("-a").arg(data).arg(&target), 0);
        target
    }

    /// The objects of the repository that are whole segments of 16 MiB, in order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut queue = vec![self.repo().join("journals")];
        while let Some(dir) = queue.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    queue.push(path);
                } else if path.file_name().unwrap().to_str().unwrap().contains("000000-0") {
                    found.push(path);
                }
            }
        }
        found.sort_by_key(|path| path.file_name().unwrap().to_owned());
        found
    }
}

#[track_caller]
fn expect(command: &mut Command, code: i32) -> Finished {
    let ran = process::run(command, LIMIT).unwrap();
    let (out, err) = (&ran.stdout, &ran.stderr);
    assert_eq!(ran.status.code(), Some(code), "{}: {}\n{out}\n{err}", ran.command, ran.status);
    ran
}

/// A shop whose rows are counted.
pub(crate) struct Shop(pub(crate) tokio_postgres::Client);

impl Shop {
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        Self(cluster.connect("postgres").await.unwrap())
    }

    pub(crate) async fn open(cluster: &Cluster) -> Self {
        let shop = Self::of(cluster).await;
        let table = "CREATE TABLE orders (id bigserial PRIMARY KEY, what text)";
        shop.0.batch_execute(table).await.unwrap();
        shop
    }

    /// Adds this many rows, and returns how many there are.
    pub(crate) async fn sell(&self, rows: i32) -> i64 {
        let insert = format!(
            "INSERT INTO orders (what) SELECT repeat(md5(n::text), 3) FROM generate_series(1, {rows}) n"
        );
        self.0.batch_execute(&insert).await.unwrap();
        self.count().await
    }

    pub(crate) async fn count(&self) -> i64 {
        self.0.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0)
    }

    /// The segment that is being written.
    pub(crate) async fn writes_to(&self) -> String {
        let name = "SELECT pg_walfile_name(pg_current_wal_lsn())";
        self.0.query_one(name, &[]).await.unwrap().get(0)
    }

    /// Ends the segment that is being written, and returns its name.
    pub(crate) async fn switch(&self) -> String {
        let name = self.writes_to().await;
        self.0.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        name
    }

    /// As [`Shop::switch`], and waits until it is archived.
    pub(crate) async fn archive(&self, cluster: &Cluster) -> String {
        let name = self.switch().await;
        let done = cluster.data_dir().join(format!("pg_wal/archive_status/{name}.ready"));
        let begun = Instant::now();
        let last = "SELECT coalesce(last_archived_wal, '') >= $1 FROM pg_stat_archiver";
        while done.exists() || !self.0.query_one(last, &[&name]).await.unwrap().get::<_, bool>(0) {
            assert!(begun.elapsed() < LIMIT, "{name} is not archived:\n{}", cluster.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        name
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
