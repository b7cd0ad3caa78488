//! One program is held after each number of its requests in turn.

use super::scene::{Backup, HOUR, Held, Scene, fair, given, sweep};
use crate::staged::Odds;

/// While a backup is held at each of its requests, others mark, wait, and sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_held_anywhere_loses_nothing() {
    for held in [Held::Alive, Held::Silent] {
        let (mut requests, mut refused) = (0, 0);
        loop {
            let mut scene = Scene::new().await;
            let what = format!("a backup is held after {requests} requests, {held:?}");
            let backup = Backup::begin(&scene).await;
            let done = backup.program.go_on(requests).await;
            scene.prune().await.unwrap();
            scene.assert_whole(&what).await;
            for _ in 0..2 {
                scene.wait(2 * HOUR, held).await;
                scene.prune().await.unwrap();
            }
            let result = backup.end(&mut scene).await;
            match (held, &result) {
                (Held::Alive, Err(error)) => panic!("{what}: {}", error.one_line()),
                (Held::Silent, Err(_)) => refused += 1,
                (_, Ok(_)) => {}
            }
            scene.assert_stays_whole(&what).await;
            if done {
                break;
            }
            requests += 1;
        }
        println!("{held:?}: {requests} places, {refused} times it failed and said so");
        assert!(requests > 15, "only {requests} requests were made");
        assert!(held == Held::Silent || refused == 0);
    }
}

/// While a sweeper is held at each of its requests, a backup runs; and each is held once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_that_is_held_anywhere_takes_nothing_that_is_needed() {
    let mut requests = 0;
    loop {
        let mut step = 0;
        let mut done = false;
        while step < 40 {
            let mut scene = Scene::new().await;
            // What nothing needs has been marked for long.
            scene.prune().await.unwrap();
            scene.world.age(2 * HOUR);
            let what =
                format!("a sweeper is held after {requests} requests, a backup after {step}");
            let sweeper = sweep(&scene, fair()).await;
            done = sweeper.go_on(requests).await;
            // Half of the backup runs within the sweep; all of it, when it is not held in time.
            let backup = Backup::begin(&scene).await;
            let ended = backup.program.go_on(step).await;
            sweeper.end().await.unwrap();
            backup.end(&mut scene).await.unwrap();
            scene.assert_whole(&what).await;
            if ended || done {
                break;
            }
            // All places of one, and every third of the other, meet.
            step += 3;
        }
        if done {
            break;
        }
        requests += 1;
    }
    println!("a sweeper makes {requests} requests");
    assert!(requests > 15);
}

/// While a backup is held at each of its requests, packs on which it relies are marked, and that
/// for longer than marks wait. It goes on and ends; and then a sweeper comes whose listings are
/// behind, so that it may see neither the session that has just ended nor the snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_whose_listings_are_behind_takes_nothing_that_is_needed() {
    let tries = given("LIFEBOAT_RACES").unwrap_or(12);
    let (mut requests, mut swept) = (0, 0);
    loop {
        let mut done = false;
        for seed in 0..tries {
            let mut scene = Scene::new().await;
            let what = format!("a backup is held after {requests} requests, seed {seed}");
            let backup = Backup::begin(&scene).await;
            done = backup.program.go_on(requests).await;
            scene.prune().await.unwrap();
            scene.wait(2 * HOUR, Held::Alive).await;
            backup.end(&mut scene).await.unwrap();
            let odds = Odds { behind: 0.5, ..Odds::default() };
            let sweeper = sweep(&scene, (odds, seed)).await;
            swept += u64::from(sweeper.end().await.is_ok());
            scene.assert_stays_whole(&what).await;
        }
        if done {
            break;
        }
        requests += 1;
    }
    println!("{requests} places, {swept} sweeps came to their ends");
    assert!(requests > 15 && swept > requests, "{requests}, {swept}");
}
