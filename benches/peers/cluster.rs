//! The programs that back up a PostgreSQL cluster.

use std::path::Path;

use anyhow::{Context, Result};
use lifeboat_testbed::data::{self, Size};
use lifeboat_testbed::postgres::{Cluster, Installation, Mode, all, of_major};
use lifeboat_testbed::{Scratch, home};
use tokio::runtime::Runtime;

use crate::files;
use crate::go_on;
use crate::rounds::{Outcome, measure_all, without_wal};
use crate::tool::{Scene, Tool};

/// The size that published figures are for.
pub(crate) const USUAL_MEGABYTES: u32 = 1400;

/// The major that published figures are for.
const USUAL_MAJOR: u32 = 15;

const LIFEBOAT: Tool = Tool {
    name: "lifeboat",
    version: "exec \"$LIFEBOAT\" --version",
    init: "exec \"$LIFEBOAT\" -q -r \"$REPO\" init",
    first: "exec \"$LIFEBOAT\" -q -r \"$REPO\" backup postgres --name bench --conninfo \"$CONNINFO\"",
    unchanged: "exec \"$LIFEBOAT\" -q -r \"$REPO\" backup postgres --name bench --conninfo \"$CONNINFO\"",
    restore: "exec \"$LIFEBOAT\" -q -r \"$REPO\" restore latest --to \"$OUT\"",
    check: "exec \"$LIFEBOAT\" -q -r \"$REPO\" verify",
    verify: "exec \"$LIFEBOAT\" -q -r \"$REPO\" verify --every-byte",
    prune: "\"$LIFEBOAT\" -q -r \"$REPO\" forget --keep-last 1 \
            && exec \"$LIFEBOAT\" -q -r \"$REPO\" prune",
    before: "",
    after: "",
};

const BASEBACKUP_CLIENT: Tool = Tool {
    name: "pg_basebackup, client zstd 3, 2 workers",
    version: "exec \"$PGBIN/pg_basebackup\" --version",
    init: "",
    first: "exec \"$PGBIN/pg_basebackup\" -d \"$CONNINFO\" -c fast -X fetch -Ft -D \"$REPO\" \
            --compress=client-zstd:level=3,workers=2",
    unchanged: "",
    restore: "",
    check: "",
    verify: "",
    prune: "",
    before: "",
    after: "",
};

const BASEBACKUP_SERVER: Tool = Tool {
    name: "pg_basebackup, server zstd 3",
    first: "exec \"$PGBIN/pg_basebackup\" -d \"$CONNINFO\" -c fast -X fetch -Ft -D \"$REPO\" \
            --compress=server-zstd:3",
    ..BASEBACKUP_CLIENT
};

/// The server archives for it only while it is at work: else its part of the load would be on the
/// others' time.
const PGBACKREST: Tool = Tool {
    name: "pgBackRest, zst 3, 2 processes",
    version: "exec pgbackrest version",
    init: "mkdir lock spool log
           printf '%s\\n' '[global]' \"repo1-path=$REPO\" \"lock-path=$DIR/lock\" \
               \"spool-path=$DIR/spool\" \"log-path=$DIR/log\" log-level-console=warn \
               log-level-file=off compress-type=zst compress-level=3 process-max=2 start-fast=y \
               repo1-retention-full=9 '[bench]' \"pg1-path=$SOURCE\" \"pg1-port=$PGPORT\" \
               \"pg1-socket-path=$SOCKETS\" pg1-user=postgres > pgbackrest.conf
           exec pgbackrest --config=\"$DIR/pgbackrest.conf\" --stanza=bench stanza-create",
    first: "exec pgbackrest --config=\"$DIR/pgbackrest.conf\" --stanza=bench backup --type=full",
    unchanged: "exec pgbackrest --config=\"$DIR/pgbackrest.conf\" --stanza=bench backup --type=incr",
    restore: "exec pgbackrest --config=\"$DIR/pgbackrest.conf\" --stanza=bench \
              --pg1-path=\"$OUT\" restore",
    check: "",
    verify: "",
    prune: "",
    before: "touch archiving",
    after: "rm archiving",
};

/// PostgreSQL's `archive_command` for that.
fn archive_command(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "test ! -e {dir}/archiving \
         || pgbackrest --config={dir}/pgbackrest.conf --stanza=bench archive-push %p"
    )
}

/// Makes a cluster and lets the programs back it up; and then, when its server is down, those that
/// back up files.
pub(crate) fn compare(
    runtime: &Runtime,
    scratch: &Scratch,
    lifeboat: &Path,
    megabytes: u32,
    runs: usize,
) -> Result<[Outcome; 2]> {
    let installation = installation()?;
    eprintln!("making a cluster of PostgreSQL {}, about {megabytes} MB", installation.version);
    let mut cluster = Cluster::builder()
        .installation(installation)
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "512MB")
        // What changes by itself between two runs would be measured with the second.
        .setting("autovacuum", "off")
        .setting("archive_mode", "on")
        .setting("archive_command", &archive_command(&scratch.path().join(PGBACKREST.directory())))
        .start()?;
    runtime.block_on(fill(&cluster, megabytes))?;
    go_on()?;
    let (_, bytes) = without_wal(cluster.data_dir())?;
    let version = &installation.version;
    let title = format!("A cluster of PostgreSQL {version}, {} MB without WAL", bytes / 1_000_000);
    let variables = vec![
        ("LIFEBOAT", lifeboat.to_string_lossy().into_owned()),
        ("LIFEBOAT_PASSPHRASE", "measured".to_owned()),
        ("CONNINFO", cluster.conninfo()),
        ("PGPORT", cluster.port().to_string()),
        ("SOCKETS", cluster.socket_dir().to_string_lossy().into_owned()),
        ("PGBIN", installation.bin_dir.to_string_lossy().into_owned()),
    ];
    let scene = Scene {
        source: cluster.data_dir().to_owned(),
        variables,
        account: home::server_account(),
        server: cluster.pid(),
    };
    let tools = [LIFEBOAT, BASEBACKUP_CLIENT, BASEBACKUP_SERVER, PGBACKREST];
    let served = measure_all(title, scratch, &scene, &tools, runs)?;
    cluster.stop(Mode::Fast)?;
    let title = format!("The files of that cluster, its server down, {} MB", bytes / 1_000_000);
    let files = files::compare_at(title, scratch, lifeboat, cluster.data_dir(), runs)?;
    Ok([served, files])
}

/// A PostgreSQL that pg_basebackup comes with.
fn installation() -> Result<&'static Installation> {
    if let Ok(usual) = of_major(USUAL_MAJOR)
        && usual.has("pg_basebackup")
    {
        return Ok(usual);
    }
    let mut found = all()?.iter().rev();
    found.find(|each| each.has("pg_basebackup")).context("no PostgreSQL here has pg_basebackup")
}

async fn fill(cluster: &Cluster, megabytes: u32) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    data::seed(&client, Size::megabytes(megabytes)).await?;
    // Else the first reader would write hint bits, and so change what it reads.
    client.batch_execute("vacuum (freeze, analyze)").await.context("vacuum")?;
    client.batch_execute("checkpoint").await.context("checkpoint")
}
