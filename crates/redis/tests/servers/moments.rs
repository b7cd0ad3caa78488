//! Any moment comes back: recorded ones exactly, and the last one before a server is killed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_core::journal::{JournalLog, Need, Position, Span, Timeline, Trim};
use lifeboat_core::{Failure, Timestamp};
use lifeboat_redis::{Following, Moment, NewServer, RecoveryError, Windows};
use lifeboat_testbed::proxy::{Direction, Proxy, Toxics};
use lifeboat_testbed::redis::{Server, all, newest};

use super::common::{back_up_to, fill, run, source};
use super::everything::builder;
use super::following::{AtWork, Kept, eventually, place};

/// Some of every kind of change, different ones for each round.
fn change(server: &Server, round: u32) {
    let mut commands = format!(
        "SET s:{round} {round}\nINCR n\nAPPEND grows {round}\nSET gone {round} EX 100000\n\
         MULTI\nINCR n\nRPUSH l {round}\nSELECT 3\nSADD set {round}\nEXEC\n\
         EVAL \"for i=1,50 do redis.call('ZADD','z',i,'m'..i..ARGV[1]) end\" 0 {round}\n\
         SELECT 0\nXADD x * round {round}\nHSET h f{round} v\nPEXPIRE s:{round} 5000000\n"
    );
    if round % 3 == 1 {
        commands += "DEL l\nSELECT 7\nSET seven 7\nMULTI\nSWAPDB 0 7\nSWAPDB 7 0\nEXEC\n";
    }
    server.run(&commands).unwrap();
}

#[test]
fn recorded_moments_come_back_exactly() {
    for installation in all().unwrap() {
        println!("Redis {}", installation.version);
        run(async {
            let server = builder(installation).start().unwrap();
            fill(&server);
            let kept = Kept::new();
            let follower = AtWork::start(&kept, &server.url());
            follower.has_base().await;
            let mut moments = Vec::new();
            for round in 0..6 {
                change(&server, round);
                if round == 3 {
                    // Larger than what is held until its end has come.
                    let large = "EVAL \"redis.call('SET','large',string.rep('x',20000000))\" 0\n";
                    server.run(large).unwrap();
                }
                follower.catches_up(&server).await;
                moments.push((Timestamp::now(), server.digest().unwrap()));
            }
            change(&server, 6);
            follower.catches_up(&server).await;
            let events = follower.stop().await;
            let bases = events.iter().filter(|it| matches!(it, Following::Base { .. }));
            assert_eq!(bases.count(), 1);
            kept.is_without_gaps().await;
            for (at, digest) in &moments {
                let restored = kept.server_at(Moment::Time(*at), installation).await;
                assert_eq!(restored.digest().unwrap(), *digest, "{at}");
            }
            let restored = kept.server_at(Moment::Latest, installation).await;
            assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
            // The server's own tool, where it is of this version, finds nothing wrong, and there
            // are times in it.
            if installation.number() == (7, 0) {
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("data");
                kept.restore(Moment::Latest, &target).await.unwrap();
                let manifest = target.join("appendonlydir/appendonly.aof.manifest");
                let checked = Command::new("redis-check-aof").arg(&manifest).output().unwrap();
                let said = String::from_utf8_lossy(&checked.stdout);
                assert!(checked.status.success(), "{said}");
                assert!(said.contains("All AOF files and manifest are valid"), "{said}");
                let incr = target.join("appendonlydir/appendonly.aof.1.incr.aof");
                let bytes = std::fs::read(incr).unwrap();
                let marks = bytes.windows(7).filter(|it| it == b"\r\n#TS:1").count();
                assert!(marks >= 2, "{marks} times in it");
            }
        });
    }
}

/// Counts up for as long as it is let, and gives what was acknowledged, and when.
fn counter(port: u16, go_on: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Timestamp>> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut counted = Vec::new();
        let mut line = String::new();
        while go_on.load(Ordering::Relaxed) {
            line.clear();
            let asked = stream.write_all(b"INCR counter\r\n");
            if asked.is_err() || answers.read_line(&mut line).unwrap_or(0) == 0 {
                break;
            }
            counted.push(Timestamp::now());
            assert_eq!(line.trim(), format!(":{}", counted.len()));
            std::thread::sleep(Duration::from_micros(300));
        }
        counted
    })
}

fn count(server: &Server) -> usize {
    server.ask(&["GET", "counter"]).unwrap().parse().unwrap()
}

#[test]
fn a_killed_server_loses_less_than_a_second() {
    for installation in all().unwrap() {
        run(async {
            let server = Server::start(installation).unwrap();
            let kept = Kept::new();
            let follower = AtWork::start(&kept, &server.url());
            follower.has_base().await;
            let go_on = Arc::new(AtomicBool::new(true));
            let counting = counter(server.port(), Arc::clone(&go_on));
            // Enough for several pieces of the journal.
            eventually("enough is counted", async || {
                let counted = server.ask(&["GET", "counter"]).ok()?.parse::<usize>().ok()?;
                (counted >= 6000).then_some(())
            })
            .await;
            // SIGKILL
            drop(server);
            let killed = Timestamp::now();
            let counted = counting.join().unwrap();
            eventually("it notices", async || (!follower.warnings().is_empty()).then_some(()))
                .await;
            follower.stop().await;
            kept.is_without_gaps().await;
            let restored = kept.server_at(Moment::Latest, installation).await;
            let back = count(&restored);
            // One more than was acknowledged may have been done.
            assert!(back <= counted.len() + 1, "{back} of {}", counted.len());
            let lost = counted
                .get(back)
                .map_or(Duration::ZERO, |first| killed.duration_since(*first).unsigned_abs());
            println!("Redis {}: {back} of {}, {lost:?} lost", installation.version, counted.len());
            assert!(lost < Duration::from_secs(1), "{lost:?} lost");
            // And a moment amidst the load: what was acknowledged by then, but for what was on
            // its way; and nothing that was done after it.
            let middle = counted[counted.len() / 2];
            let back = count(&kept.server_at(Moment::Time(middle), installation).await);
            let near = Duration::from_millis(500);
            let first_missing = counted[back];
            assert!(middle.duration_since(first_missing).unsigned_abs() < near, "{back}");
            assert!(back <= counted.len() / 2 + 2, "{back} of {}", counted.len() / 2);
        });
    }
}

#[test]
fn a_network_that_is_cut_all_the_time_loses_nothing_and_repeats_nothing() {
    run(async {
        let installation = newest().unwrap();
        let server = Server::builder(installation).setting("repl-backlog-size", "64mb");
        let server = server.start().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
        let proxy = Proxy::start(address, 3).unwrap();
        let kept = Kept::new();
        let url = format!("redis://127.0.0.1:{}", proxy.address().port());
        let follower = AtWork::start(&kept, &url);
        follower.has_base().await;
        let go_on = Arc::new(AtomicBool::new(true));
        let counting = counter(server.port(), Arc::clone(&go_on));
        let mut cuts = 0;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(700)).await;
            // In the midst of whatever is on its way, also of what is sent anew.
            let before = proxy.connections();
            let after = Some(200 + u64::from(cuts) * 397 % 3000);
            proxy.set(
                Direction::ToClient,
                match cuts % 2 {
                    0 => Toxics { reset_after: after, ..Toxics::default() },
                    _ => Toxics { truncate_after: after, ..Toxics::default() },
                },
            );
            change(&server, cuts);
            cuts += 1;
            eventually("it connects again", async || {
                follower.is_at_work();
                (proxy.connections() > before + 1).then_some(())
            })
            .await;
            proxy.heal();
        }
        go_on.store(false, Ordering::Relaxed);
        let counted = counting.join().unwrap().len();
        follower.catches_up(&server).await;
        let warnings = follower.warnings();
        let events = follower.stop().await;
        assert!(warnings.len() >= 10, "{warnings:?}");
        let bases = events.iter().filter(|it| matches!(it, Following::Base { .. })).count();
        assert_eq!((bases, kept.log_timelines().await), (1, 1), "{warnings:?}");
        kept.is_without_gaps().await;
        let restored = kept.server_at(Moment::Latest, installation).await;
        println!("{cuts} cuts, {counted} counted");
        assert_eq!(count(&restored), counted);
        assert_eq!(restored.ask(&["GET", "n"]).unwrap(), (2 * cuts).to_string());
        assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
    });
}

#[test]
fn pieces_are_joined_and_moments_within_are_kept() {
    run(async {
        let installation = newest().unwrap();
        let server = Server::start(installation).unwrap();
        let kept = Kept::new();
        let follower = AtWork::start(&kept, &server.url());
        follower.has_base().await;
        let large = |round: u32| {
            change(&server, round);
            let write = format!(
                "EVAL \"redis.call('SET','large{round}',string.rep('{round}',1500000))\" 0\n"
            );
            server.run(&write).unwrap();
        };
        let mut moments = Vec::new();
        for round in 0..14 {
            large(round);
            follower.catches_up(&server).await;
            moments.push((Timestamp::now(), server.digest().unwrap()));
        }
        let (id, last) = place(&server);
        let timeline = Timeline::new(&*id).unwrap();
        let listed = async || kept.log.list(&timeline, Span::ALL).await.unwrap();
        let joined = eventually("a joined segment", async || {
            let all = listed().await;
            all.into_iter().find(|one| one.place.span.length() >= 16 << 20)
        })
        .await;
        follower.stop().await;
        let pieces = listed().await.len();
        // What it holds is not needed any more besides.
        let from = kept.shelf.bases()[0].offset;
        let need = Need { timeline: timeline.clone(), from: Position(from) };
        let gone = kept.log.trim(&[need], Trim::Delete).await.unwrap();
        assert!(gone.len() >= 10 && pieces - gone.len() < 10, "{} of {pieces}", gone.len());
        assert!(gone.iter().all(|one| joined.place.span.contains(&one.place.span)));
        kept.is_without_gaps().await;
        for (at, digest) in moments.iter().step_by(3) {
            let restored = kept.server_at(Moment::Time(*at), installation).await;
            assert_eq!(restored.digest().unwrap(), *digest, "{at}");
        }
        let restored = kept.server_at(Moment::Latest, installation).await;
        assert_eq!(restored.digest().unwrap(), moments.last().unwrap().1);
        // A follower goes on behind it.
        let follower = AtWork::start(&kept, &server.url());
        large(14);
        follower.catches_up(&server).await;
        let events = follower.stop().await;
        assert!(!events.iter().any(|it| matches!(it, Following::Base { .. })), "{events:?}");
        assert!(place(&server).1 > last);
        let restored = kept.server_at(Moment::Latest, installation).await;
        assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
    });
}

#[test]
fn what_the_backlog_lost_is_a_gap_and_a_new_base_is_taken() {
    run(async {
        let installation = newest().unwrap();
        let server = Server::builder(installation).setting("repl-backlog-size", "16kb");
        let server = server.start().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
        let proxy = Proxy::start(address, 3).unwrap();
        let kept = Kept::new();
        let url = format!("redis://127.0.0.1:{}", proxy.address().port());
        let before_all = Timestamp::now();
        let follower = AtWork::start(&kept, &url);
        follower.has_base().await;
        change(&server, 0);
        follower.catches_up(&server).await;
        let (first, digest) = (Timestamp::now(), server.digest().unwrap());
        // What keeps the connection alive says that the moment has passed.
        server.ask(&["SET", "after", "1"]).unwrap();
        follower.catches_up(&server).await;
        proxy.refuse(true);
        // For a replica that it still takes to be there, the server keeps more than its backlog.
        eventually("the cut is seen", async || {
            let info = server.ask(&["INFO", "replication"]).unwrap();
            info.contains("connected_slaves:0").then_some(())
        })
        .await;
        let amidst = Timestamp::now();
        server
            .run("EVAL \"for i=1,100 do redis.call('SET','k'..i,string.rep('x',1000)) end\" 0\n")
            .unwrap();
        proxy.refuse(false);
        follower.has_bases(2).await;
        change(&server, 1);
        follower.catches_up(&server).await;
        let events = follower.stop().await;
        let lost = events.iter().find(|it| matches!(it, Following::Gap { .. })).unwrap();
        let Following::Gap { from, to: Some(to), .. } = lost else { panic!("{lost:?}") };
        assert!(to - from > 100_000);
        let windows = Windows::of(&kept.journal(), &kept.shelf.bases()).await.unwrap();
        assert_eq!((windows.windows.len(), windows.gaps.len()), (2, 1), "{windows:?}");
        let gap = &windows.gaps[0];
        assert_eq!((gap.span.from().0, gap.span.to().0), (*from, *to));
        assert!(gap.record.as_ref().unwrap().reason.contains("did not have"));
        let why = async |at| {
            let error = kept.plan(Moment::Time(at)).await.unwrap_err();
            std::error::Error::source(&error)
                .and_then(|it| it.downcast_ref::<RecoveryError>())
                .map_or_else(
                    || panic!("{error:?}"),
                    |it| (it.to_string(), it.hint().unwrap().into_owned()),
                )
        };
        assert!(why(before_all).await.0.contains("the first moment that can is"));
        let (gap, hint) = why(amidst).await;
        assert!(gap.contains("has nothing from") && hint.contains("from"), "{gap} {hint}");
        assert!(why(Timestamp::now()).await.0.contains("the journal ends at"));
        let restored = kept.server_at(Moment::Time(first), installation).await;
        assert_eq!(restored.digest().unwrap(), digest);
        let restored = kept.server_at(Moment::Latest, installation).await;
        assert_eq!(restored.digest().unwrap(), server.digest().unwrap());
    });
}

#[test]
fn a_follower_goes_on_where_it_was_also_behind_a_promoted_replica() {
    for installation in all().unwrap() {
        run(async {
            let first = Server::start(installation).unwrap();
            let second = Server::start(installation).unwrap();
            let port = first.port().to_string();
            second.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
            let kept = Kept::new();
            let follower = AtWork::start(&kept, &first.url());
            follower.has_base().await;
            change(&first, 0);
            follower.catches_up(&first).await;
            follower.stop().await;
            // Nobody follows; the server keeps it for us.
            change(&first, 1);
            let follower = AtWork::start(&kept, &first.url());
            follower.catches_up(&first).await;
            follower.stop().await;
            let (old, at) = place(&first);
            eventually("the replica has it all", async || (place(&second).1 >= at).then_some(()))
                .await;
            drop(first);
            second.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
            change(&second, 2);
            let follower = AtWork::start(&kept, &second.url());
            follower.catches_up(&second).await;
            let events = follower.stop().await;
            let (new, _) = place(&second);
            let switched = events.iter().find(|it| matches!(it, Following::Switched { .. }));
            let Some(Following::Switched { replication_id, next, .. }) = switched else {
                panic!("{events:?}")
            };
            assert_eq!((replication_id, next), (&old, &new));
            assert_eq!(kept.shelf.bases().len(), 1);
            kept.is_without_gaps().await;
            // A promotion leaves nothing.
            assert_eq!(kept.plan(Moment::Latest).await.unwrap().left, None);
            let restored = kept.server_at(Moment::Latest, installation).await;
            assert_eq!(restored.digest().unwrap(), second.digest().unwrap());
        });
    }
}

/// The end of the journal is then not what was lost.
#[test]
fn the_history_that_was_left_is_named_when_a_server_came_back_empty() {
    run(async {
        let installation = newest().unwrap();
        let kept = Kept::new();
        let full = Server::start(installation).unwrap();
        let follower = AtWork::start(&kept, &full.url());
        follower.has_base().await;
        change(&full, 0);
        follower.catches_up(&full).await;
        follower.stop().await;
        let digest = full.digest().unwrap();
        drop(full);
        assert_eq!(kept.plan(Moment::Latest).await.unwrap().left, None);

        let empty = Server::start(installation).unwrap();
        let follower = AtWork::start_with(&kept, &empty.url(), NewServer::Adopt);
        follower.has_bases(2).await;
        empty.ask(&["SET", "new", "1"]).unwrap();
        follower.catches_up(&empty).await;
        follower.stop().await;
        let restored = kept.server_at(Moment::Latest, installation).await;
        assert_eq!(restored.digest().unwrap(), empty.digest().unwrap());
        let plan = kept.plan(Moment::Latest).await.unwrap();
        let left = plan.left.expect("the first server's history");
        assert!(left < plan.base.reached);
        // As a person would type it.
        let left = left.to_string().parse().unwrap();
        assert_eq!(kept.plan(Moment::Time(left)).await.unwrap().left, None);
        let restored = kept.server_at(Moment::Time(left), installation).await;
        assert_eq!(restored.digest().unwrap(), digest);
    });
}

/// A replica's stream is its primary's, in which the database was chosen before.
#[test]
fn a_snapshot_of_a_replica_and_the_changes_of_its_primary_belong_together() {
    for installation in all().unwrap() {
        run(async {
            let primary = Server::start(installation).unwrap();
            let replica = Server::start(installation).unwrap();
            let port = primary.port().to_string();
            replica.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
            eventually("the replica is up", async || {
                let info = replica.ask(&["INFO", "replication"]).unwrap();
                info.contains("master_link_status:up").then_some(())
            })
            .await;
            let kept = Kept::new();
            let follower = AtWork::start(&kept, &primary.url());
            follower.has_base().await;
            primary.run("SELECT 5\nSET a 1\n").unwrap();
            let (_, at) = place(&primary);
            eventually("the replica has it", async || (place(&replica).1 >= at).then_some(()))
                .await;
            let other = Kept { log: kept.log.clone(), ..Kept::new() };
            back_up_to(&source(&replica.url()), &other.shelf).await.unwrap();
            primary.run("SELECT 5\nSET b 2\n").unwrap();
            follower.catches_up(&primary).await;
            follower.stop().await;
            let bases = other.shelf.bases();
            assert_eq!((bases.len(), bases[0].database), (1, 5));
            let restored = other.server_at(Moment::Latest, installation).await;
            assert_eq!(restored.ask(&["-n", "5", "GET", "b"]).unwrap(), "2");
            assert_eq!(restored.digest().unwrap(), primary.digest().unwrap());
        });
    }
}
