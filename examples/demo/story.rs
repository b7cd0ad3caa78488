//! What happens, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lifeboat_testbed::data;
use lifeboat_testbed::postgres::{Cluster, newest};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::command::{Lifeboat, Log};
use crate::page;
use crate::tables::{self, Tables};

/// How long a restored server may take until it takes writes.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);

/// What the user asked for.
pub(crate) struct Wish {
    /// The `lifeboat` command.
    pub(crate) lifeboat: PathBuf,
    /// About how large the cluster is to be.
    pub(crate) megabytes: u32,
    /// Whether one row is changed after the restore, to see that it is noticed.
    pub(crate) tamper: bool,
}

/// Tells the story, and returns what it proved. Dropping the future stops and removes everything.
pub(crate) async fn tell(wish: &Wish, log: &Log) -> Result<String> {
    let mut cluster = None;
    let told = chapters(wish, log, &mut cluster).await;
    if let (Err(_), Some(cluster)) = (&told, &cluster) {
        log.write(&format!("The server says:\n{}\n", cluster.log()));
    }
    // Stopping the server and removing its files takes a moment.
    block_in_place(|| drop(cluster));
    told
}

async fn chapters(wish: &Wish, log: &Log, place: &mut Option<Cluster>) -> Result<String> {
    let began = Instant::now();
    page::step(1, "A PostgreSQL cluster, with a shop in it");
    let cluster = place.insert(block_in_place(|| Cluster::start(newest()?))?);
    fill(cluster, wish.megabytes).await?;

    page::step(2, "A repository in a local directory, encrypted with a passphrase");
    let folder = cluster.socket_dir().to_owned();
    let lifeboat = Lifeboat::new(&wish.lifeboat, folder.join("repository"), log);
    lifeboat.run(&["init"]).await?;

    page::step(3, "The first backup: everything is read and stored");
    let first = back_up(cluster, &lifeboat).await?;

    page::step(4, "A day of business: new orders, updates all over the tables, some deletions");
    work(cluster).await?;

    page::step(5, "The second backup: a complete snapshot again, at the cost of what changed");
    let second = back_up(cluster, &lifeboat).await?;
    compare_costs(&first, &second);
    lifeboat.list(&["snapshots"]).await?;

    page::step(6, "A fingerprint of every row of every table, to compare with later");
    let before = fingerprints(cluster).await?;

    page::step(7, "The disaster: the server is killed, and its data directory deleted");
    lose(cluster)?;

    page::step(8, "The restore");
    let target = cluster.data_dir().display().to_string();
    let restored =
        lifeboat.run(&["restore", "latest", "--store", "postgres/shop", "--to", &target]).await?;

    page::step(9, "The server is started on the restored directory");
    page::command(&format!("pg_ctl -D {target} start"));
    block_in_place(|| cluster.start_again())?;
    cluster.wait_until_writable(RECOVERY_LIMIT).await?;
    page::remark("It recovered with the WAL that is in the snapshot, and takes reads and writes.");
    if wish.tamper {
        tamper(cluster).await?;
    }

    page::step(10, "Every table is compared, row for row");
    let after = fingerprints(cluster).await?;
    tables::compare(&before, &after)?;
    Ok(format!(
        "the cluster was lost, and came back in {}, with all {} rows of {} tables as they were.\n\
         The whole demo took {}. Nothing is left behind.",
        page::seconds(time(&restored)),
        page::count(tables::rows(&before)),
        before.len(),
        page::seconds(began.elapsed())
    ))
}

async fn fill(cluster: &Cluster, megabytes: u32) -> Result<()> {
    let version = &cluster.installation().version;
    page::remark(&format!("PostgreSQL {version} in {}", cluster.data_dir().display()));
    let began = Instant::now();
    let client = cluster.connect("postgres").await?;
    data::seed(&client, data::Size::megabytes(megabytes)).await?;
    // What a server does by itself while it runs; then the cluster is as one that ran for long.
    client.batch_execute("vacuum").await.context("clean up the tables")?;
    client.batch_execute("checkpoint").await.context("make a checkpoint")?;
    let tables = data::digests(&client).await?;
    page::remark(&format!(
        "{} tables with {} rows, {} without the WAL, made in {}",
        tables.len(),
        page::count(tables::rows(&tables)),
        page::size(size_of(cluster.data_dir())?),
        page::seconds(began.elapsed())
    ));
    Ok(())
}

async fn back_up(cluster: &Cluster, lifeboat: &Lifeboat<'_>) -> Result<Value> {
    let conninfo = cluster.conninfo();
    lifeboat.run(&["backup", "postgres", "--name", "shop", "--conninfo", &conninfo]).await
}

async fn work(cluster: &Cluster) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    data::mutate(&client, 1).await?;
    page::remark(
        "About one row in a hundred was written, scattered over the tables; each stands in a page",
    );
    page::remark("of 8 KiB with many others, and PostgreSQL writes whole pages.");
    Ok(())
}

fn compare_costs(first: &Value, second: &Value) {
    page::remark(&format!("{:<22} {:>12} {:>12} {:>8}", "", "first", "second", "ratio"));
    let row = |what: &str, of: &dyn Fn(&Value) -> f64, shown: &dyn Fn(&Value) -> String| {
        let ratio = match of(first) {
            0.0 => String::new(),
            base => format!("{:.0} %", 100.0 * of(second) / base),
        };
        page::remark(&format!("{what:<22} {:>12} {:>12} {ratio:>8}", shown(first), shown(second)));
    };
    for (what, field) in [
        ("read from the disk", "read"),
        ("new to the repository", "new"),
        ("stored, compressed", "stored"),
    ] {
        let bytes = |summary: &Value| summary[field].as_u64().unwrap_or_default();
        row(what, &|summary| bytes(summary) as f64, &|summary| page::size(bytes(summary)));
    }
    row("time", &|summary| time(summary).as_secs_f64(), &|summary| page::seconds(time(summary)));
}

fn time(summary: &Value) -> Duration {
    let seconds = summary["seconds"].as_f64().unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

async fn fingerprints(cluster: &Cluster) -> Result<Tables> {
    let began = Instant::now();
    let client = cluster.connect("postgres").await?;
    let tables = data::digests(&client).await?;
    let (count, rows) = (tables.len(), page::count(tables::rows(&tables)));
    let took = page::seconds(began.elapsed());
    page::remark(&format!("{rows} rows of {count} tables were read and hashed in {took}."));
    Ok(tables)
}

fn lose(cluster: &mut Cluster) -> Result<()> {
    let dir = cluster.data_dir().to_owned();
    block_in_place(|| cluster.kill())?;
    page::command(&format!("rm -r {}", dir.display()));
    block_in_place(|| fs::remove_dir_all(&dir))
        .with_context(|| format!("delete {}", dir.display()))?;
    ensure!(!dir.exists(), "{} is still there", dir.display());
    page::remark("It is gone. What is left is the repository.");
    Ok(())
}

async fn tamper(cluster: &Cluster) -> Result<()> {
    let client = cluster.connect("postgres").await?;
    let one = "update customers set name = name || '!' where id = 1";
    client.batch_execute(one).await.context("change a row")?;
    page::remark("As you wished, one row was changed behind its back: the comparison must notice.");
    Ok(())
}

/// What a cluster has on disk besides its WAL, which it recycles.
fn size_of(path: &Path) -> Result<u64> {
    let looking = || format!("look at {}", path.display());
    let mut total = 0;
    for entry in fs::read_dir(path).with_context(looking)? {
        let entry = entry.with_context(looking)?;
        total += match entry.metadata() {
            Ok(found) if found.is_dir() && entry.file_name() == "pg_wal" => 0,
            Ok(found) if found.is_dir() => size_of(&entry.path())?,
            Ok(found) => found.len(),
            // The server removes files meanwhile.
            Err(_) => 0,
        };
    }
    Ok(total)
}
