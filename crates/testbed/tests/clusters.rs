//! Real servers of every major installed, and what becomes of them.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lifeboat_testbed::{
    Scratch,
    data::{self, Size},
    postgres::{Cluster, Installation, Mode, all, newest, oldest},
    process,
};

const LIMIT: Duration = Duration::from_secs(120);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn on_every_major<F: Future<Output = Result<()>> + Send + 'static>(
    test: impl Fn(&'static Installation) -> F,
) -> Result<()> {
    let majors = all()?.iter().map(|i| (i.major, tokio::spawn(test(i)))).collect::<Vec<_>>();
    for (major, outcome) in majors {
        outcome.await?.with_context(|| format!("on PostgreSQL {major}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_every_major_survives_a_crash() -> Result<()> {
    on_every_major(|installation| async move {
        let mut cluster = Cluster::start(installation)?;
        let client = cluster.connect("postgres").await?;
        let number: String = client.query_one("show server_version_num", &[]).await?.get(0);
        ensure!(number.starts_with(&installation.major.to_string()), "{number}");
        let checksums: String = client.query_one("show data_checksums", &[]).await?.get(0);
        ensure!(checksums == "on");
        client.batch_execute("create table t as select generate_series(1, 1000) as n").await?;
        let before = data::digests(&client).await?;

        cluster.kill()?;
        cluster.start_again()?;
        ensure!(cluster.log().contains("not properly shut down"), "{}", cluster.log());
        let client = cluster.connect("postgres").await?;
        ensure!(data::digests(&client).await? == before);

        cluster.stop(Mode::Fast)?;
        ensure!(cluster.connect("postgres").await.is_err());
        cluster.start_again()?;
        cluster.stop(Mode::Immediate)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workload_is_the_same_on_every_major_and_every_change_shows() -> Result<()> {
    on_every_major(|installation| async move {
        let cluster = Cluster::start(installation)?;
        let client = cluster.connect("postgres").await?;
        let start = Instant::now();
        data::seed(&client, Size::TINY).await?;
        println!("{}: seeded in {:?}", installation.version, start.elapsed());
        let seeded = data::digests(&client).await?;
        ensure!(seeded["public.orders"].rows == 2000 && seeded["public.events_2025_01"].rows > 100);
        ensure!(seeded.contains_key("public.revenue") && !seeded.contains_key("public.sessions"));
        ensure!(data::digests(&client).await? == seeded);

        data::mutate(&client, 1).await?;
        let mutated = data::digests(&client).await?;
        for table in ["customers", "orders", "order_items", "payments", "documents", "revenue"] {
            let name = format!("public.{table}");
            ensure!(mutated[&name] != seeded[&name], "{table} is as before");
        }
        data::mutate(&client, 2).await?;
        let twice = data::digests(&client).await?;
        ensure!(twice != mutated);

        client.batch_execute("update documents set body = body || ' ' where id = 7").await?;
        let changed = data::digests(&client).await?;
        let differing: Vec<_> = changed.keys().filter(|t| changed[*t] != twice[*t]).collect();
        ensure!(differing == ["public.documents"], "{differing:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_server() -> Result<()> {
    let cluster = Cluster::builder()
        .installation(oldest()?)
        .setting("archive_mode", "on")
        .setting("archive_command", "test 'a' = a")
        .initdb_arg("--wal-segsize=1")
        .checksums(false)
        .durable(true)
        .password("not a 'simple' one")
        .start()?;
    let client = cluster.connect("postgres").await?;
    for (name, expected) in [
        ("archive_command", "test 'a' = a"),
        ("wal_segment_size", "1MB"),
        ("data_checksums", "off"),
        ("fsync", "on"),
    ] {
        let value: String = client.query_one(&format!("show {name}"), &[]).await?.get(0);
        assert_eq!(value, expected, "{name}");
    }
    let mut wrong = cluster.config("postgres");
    wrong.password("wrong");
    assert!(cluster.connect_with(&wrong).await.is_err());
    assert!(!cluster.conninfo().contains("simple"));

    let tablespace = cluster.create_tablespace_dir()?;
    let sql = format!("create tablespace extra location '{}'", tablespace.display());
    client.batch_execute(&sql).await?;
    client.batch_execute("create table elsewhere (n int) tablespace extra").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_is_adopted_and_stays() -> Result<()> {
    let mut cluster = Cluster::start(newest()?)?;
    let client = cluster.connect("postgres").await?;
    client.batch_execute("create table t as select 42 as n").await?;
    cluster.stop(Mode::Fast)?;

    // As root, closed to the account of the server: adopting must open the way.
    let target = tempfile::tempdir()?;
    let copy = target.path().join("copy");
    let mut cp = Command::new("cp");
    process::run(cp.arg("-r").arg(cluster.data_dir()).arg(&copy), LIMIT)?.success()?;
    fs::set_permissions(&copy, fs::metadata(cluster.data_dir())?.permissions())?;
    cluster.start_again()?;
    let adopted = Cluster::builder().setting("work_mem", "7MB").adopt(&copy)?;
    adopted.wait_until_writable(LIMIT).await?;
    let client = adopted.connect("postgres").await?;
    let n: i32 = client.query_one("select n from t", &[]).await?.get(0);
    let work_mem: String = client.query_one("show work_mem", &[]).await?.get(0);
    assert_eq!((n, work_mem.as_str()), (42, "7MB"));
    assert_ne!(adopted.port(), cluster.port());
    drop(adopted);
    assert!(copy.join("PG_VERSION").exists() && !copy.join("postmaster.pid").exists());
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Cluster::builder().setting("shared_buffers", "much").start().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("shared_buffers"), "{text}");
    let scratch = Scratch::new().unwrap();
    let empty = scratch.subdir("empty").unwrap();
    let text = format!("{:#}", Cluster::adopt(&empty, newest().unwrap()).unwrap_err());
    assert!(text.contains("postgresql.conf"), "{text}");
}

#[test]
fn a_panic_stops_the_server_and_removes_its_directory() {
    let (send, receive) = std::sync::mpsc::channel();
    let test = thread::spawn(move || {
        let cluster = Cluster::start(newest().unwrap()).unwrap();
        send.send((cluster.pid().unwrap(), cluster.socket_dir().to_owned())).unwrap();
        panic!("as a failing test does");
    });
    let (pid, dir) = receive.recv().unwrap();
    assert!(test.join().is_err());
    assert!(!is_alive(pid) && !dir.exists());
}

const VICTIM: &str = "LIFEBOAT_TESTBED_VICTIM";

/// Not a test of its own: the process that the next test kills.
#[test]
fn victim() {
    if env::var_os(VICTIM).is_none() {
        return;
    }
    let cluster = Cluster::start(newest().unwrap()).unwrap();
    println!("\nstarted {} {}", cluster.pid().unwrap(), cluster.socket_dir().display());
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_test_leaves_no_server() {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let line = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("started ").map(ToOwned::to_owned));
    let line = line.expect("the victim has started a server");
    let (pid, dir) = line.split_once(' ').unwrap();
    let (pid, dir): (u32, PathBuf) = (pid.parse().unwrap(), PathBuf::from(dir));
    assert!(is_alive(pid) && dir.exists());

    victim.kill().unwrap();
    victim.wait().unwrap();
    until("the server is gone", || !is_alive(pid));
    until("its directory is gone", || !dir.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists() || !is_alive(pid));
}
