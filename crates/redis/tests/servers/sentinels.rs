//! A service that Sentinels watch.

use lifeboat_core::{Context, ErrorKind, Failure, Sink, Source, TransferOptions, transfer};
use lifeboat_redis::{
    ConnectOptions, Following, Holding, LiveOptions, LiveSink, MasterOptions, MasterSink, Moment,
    facts,
};
use lifeboat_testbed::redis::{Installation, Server, newest, of_version};

use super::common::{back_up, key_count, run, source};
use super::following::{AtWork, Kept, eventually};

/// A primary, two replicas, and three Sentinels that know them all.
struct Service {
    primary: Option<Server>,
    replicas: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Service {
    fn start(installation: &Installation) -> Self {
        let primary = Server::start(installation).unwrap();
        let replicas = (0..2).map(|_| {
            let port = primary.port().to_string();
            let replica = Server::start(installation).unwrap();
            replica.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
            replica
        });
        let replicas = replicas.collect();
        let sentinels = (0..3).map(|_| primary.sentinel("shop", 2).start().unwrap());
        let sentinels = sentinels.collect();
        let service = Self { primary: Some(primary), replicas, sentinels };
        run(eventually("the Sentinels know all", async || {
            let knows = |sentinel: &Server| {
                let told = sentinel.ask(&["SENTINEL", "MASTER", "shop"]).unwrap();
                let replicas = sentinel.ask(&["SENTINEL", "REPLICAS", "shop"]).unwrap();
                let value = |name: &str| told.lines().skip_while(|line| *line != name).nth(1);
                let linked = replicas.lines().filter(|line| *line == "ok").count();
                value("num-other-sentinels") == Some("2") && linked == 2
            };
            service.sentinels.iter().all(knows).then_some(())
        }));
        service
    }

    fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port()));
        format!("redis+sentinel://{}/shop", hosts.collect::<Vec<_>>().join(","))
    }

    fn primary(&self) -> &Server {
        self.primary.as_ref().unwrap()
    }

    /// Kills the primary, and waits until the Sentinels have another one.
    fn fail_over(&mut self) -> &Server {
        let gone = self.primary.take().unwrap().port().to_string();
        let port = run(eventually("a failover", async || {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"];
            let told = self.sentinels[0].ask(&words).ok()?;
            let port = told.lines().nth(1)?.to_owned();
            let new = self.replicas.iter().find(|it| it.port().to_string() == port)?;
            let info = new.ask(&["INFO", "replication"]).ok()?;
            (port != gone && info.contains("role:master")).then_some(port)
        }));
        self.replicas.iter().find(|it| it.port().to_string() == port).unwrap()
    }
}

#[test]
fn a_backup_takes_a_replica_and_a_restore_the_primary() {
    for installation in [of_version(6, 2).unwrap(), newest().unwrap()] {
        println!("Redis {}", installation.version);
        let mut service = Service::start(installation);
        service.primary().run("SET a 1\nSET b 2\n").unwrap();
        service.primary().ask(&["WAIT", "2", "0"]).unwrap();
        let syncs = |server: &Server| -> u32 {
            let stats = server.ask(&["INFO", "stats"]).unwrap();
            let line = stats.lines().find_map(|it| it.trim().strip_prefix("sync_full:")).unwrap();
            line.parse().unwrap()
        };
        let before = syncs(service.primary());
        let (snapshot, completion) = run(back_up(&source(&service.url()))).unwrap();
        assert_eq!(key_count(&completion), 2);
        assert_eq!(syncs(service.primary()), before);
        assert_eq!(service.replicas.iter().map(syncs).sum::<u32>(), 1);
        // It is known by the service, wherever that is.
        let named = completion.facts.text(facts::SERVER).unwrap();
        assert!(named.starts_with("shop (Sentinels 127.0.0.1:"), "{named}");

        service.primary().run("FLUSHALL\n").unwrap();
        let connection = || ConnectOptions::parse(&service.url()).unwrap();
        let move_to = |sink: &dyn Sink| {
            let (how, context) = (TransferOptions::default(), Context::silent());
            run(transfer(&snapshot, sink, &how, &context))
        };
        move_to(&LiveSink::new(LiveOptions::new(connection()))).unwrap();
        assert_eq!(service.primary().ask(&["GET", "b"]).unwrap(), "2");
        // What becomes a replica of ours would be taken for down.
        let mut options = MasterOptions::new(connection());
        options.holding = Holding::Replace;
        let error = move_to(&MasterSink::new(options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");

        // A Sentinel that is gone does not matter, and neither does a primary.
        service.primary().ask(&["WAIT", "2", "0"]).unwrap();
        drop(service.sentinels.remove(0));
        let new = service.fail_over();
        let new = new.port();
        let (_, completion) = run(back_up(&source(&service.url()))).unwrap();
        assert_eq!(key_count(&completion), 2);
        // When no replica is left, the primary is taken.
        service.replicas.retain(|it| it.port() == new);
        let (_, completion) = run(back_up(&source(&service.url()))).unwrap();
        assert_eq!(key_count(&completion), 2);
    }
}

#[test]
fn following_goes_on_after_a_failover() {
    let installation = newest().unwrap();
    let mut service = Service::start(installation);
    let kept = Kept::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let follower = runtime.block_on(async {
        let follower = AtWork::start(&kept, &service.url());
        follower.has_base().await;
        service.primary().run("SET before 1\n").unwrap();
        service.primary().ask(&["WAIT", "2", "0"]).unwrap();
        follower.catches_up(service.primary()).await;
        follower
    });
    let new = service.fail_over();
    let digest = runtime.block_on(async {
        new.run("SET after 1\nINCR n\n").unwrap();
        follower.catches_up(new).await;
        let digest = new.digest().unwrap();
        let events = follower.stop().await;
        let bases = events.iter().filter(|it| matches!(it, Following::Base { .. }));
        assert_eq!(bases.count(), 1, "{events:?}");
        assert!(events.iter().any(|it| matches!(it, Following::Switched { .. })), "{events:?}");
        kept.is_without_gaps().await;
        digest
    });
    let restored = runtime.block_on(kept.server_at(Moment::Latest, installation));
    assert_eq!(restored.digest().unwrap(), digest);
    runtime.block_on(async {
        // A second follower goes on with the same service: it is not taken for another one.
        let follower = AtWork::start(&kept, &service.url());
        eventually("it streams", async || {
            follower.is_at_work();
            let events = follower.events.lock().unwrap();
            events.iter().any(|it| matches!(it, Following::Streaming { .. })).then_some(())
        })
        .await;
        follower.stop().await;
    });
}

#[test]
fn what_sentinels_do_not_know_or_do_not_tell_is_said() {
    let installation = newest().unwrap();
    let primary = Server::start(installation).unwrap();
    let sentinel =
        primary.sentinel("shop", 1).setting("requirepass", "hunter2-9f").start().unwrap();
    let at = |service: &str| format!("redis+sentinel://127.0.0.1:{}/{service}", sentinel.port());
    let inspect = |options: ConnectOptions| {
        let source = lifeboat_redis::RedisSource::new("cache", options);
        run(source.inspect())
    };
    let error = inspect(ConnectOptions::parse(&at("shop")).unwrap()).unwrap_err();
    assert!(error.one_line().contains("--sentinel-password-file"), "{}", error.one_line());
    let with_password = |service: &str| {
        let mut options = ConnectOptions::parse(&at(service)).unwrap();
        options.sentinel_password = Some("hunter2-9f".into());
        options
    };
    inspect(with_password("shop")).unwrap();
    let error = inspect(with_password("other")).unwrap_err();
    assert!(error.one_line().contains("SENTINEL MASTERS"), "{}", error.one_line());
    drop(primary);
    let error = inspect(with_password("shop")).unwrap_err();
    assert!(error.is_retryable(), "{}", error.one_line());
    drop(sentinel);
    let gone = ConnectOptions::parse("redis+sentinel://127.0.0.1:1/shop").unwrap();
    assert!(inspect(gone).unwrap_err().one_line().contains("127.0.0.1:1"));
    assert!(ConnectOptions::parse("redis+sentinel://x").unwrap_err().hint().is_some());
}
