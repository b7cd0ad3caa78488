//! Three programs take turns. Every length of every turn, at small size: `LIFEBOAT_TURNS=1` tries
//! them all, and takes many minutes; a larger number tries one of so many lengths each.

use super::scene::{Backup, HOUR, Held, Program, Scene, check, fair, given, sweep};

/// No program here makes more requests.
const MOST: u64 = 60;

fn stride(usually: u64) -> u64 {
    given("LIFEBOAT_TURNS").unwrap_or(usually).max(1)
}

/// What nothing needs has been marked for long.
async fn marked() -> Scene {
    let scene = Scene::new().await;
    scene.prune().await.unwrap();
    scene.world.age(2 * HOUR);
    scene
}

async fn tell<T>(program: Program<lifeboat_repository::Result<T>>, what: &str, held: Held)
where
    T: Send + 'static,
{
    // One that stood still for hours may find that another one has taken over, and say so.
    if let Err(error) = program.end().await {
        assert!(held == Held::Silent, "{what}: {error}");
    }
}

/// A backup, a sweeper, the backup, the sweeper, the backup: four changes of turn. Between them
/// hours pass or nothing, and a snapshot is forgotten or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_and_a_sweeper_that_take_turns_lose_nothing() {
    let stride = stride(11);
    let (mut schedules, mut refused) = (0_u64, 0_u64);
    for held in [Held::Alive, Held::Silent] {
        let mut first = 0;
        'first: loop {
            let mut second = 0;
            'second: loop {
                let mut third = 0;
                loop {
                    let what = format!("{held:?}: {first}, {second}, {third} requests");
                    let mut scene = marked().await;
                    let backup = Backup::begin(&scene).await;
                    let first_ended = backup.program.go_on(first).await;
                    let sweeper = sweep(&scene, fair()).await;
                    let second_ended = sweeper.go_on(second).await;
                    if third % 2 == 1 {
                        scene.forget(0).await;
                    }
                    if held == Held::Silent {
                        scene.wait(2 * HOUR, held).await;
                    }
                    let third_ended = backup.program.go_on(third).await;
                    tell(sweeper, &what, held).await;
                    if held == Held::Silent {
                        scene.wait(2 * HOUR, held).await;
                        scene.prune().await.unwrap();
                    }
                    match backup.end(&mut scene).await {
                        Ok(_) => {}
                        Err(error) if held == Held::Alive => panic!("{what}: {}", error.one_line()),
                        Err(_) => refused += 1,
                    }
                    scene.assert_stays_whole(&what).await;
                    schedules += 1;
                    if first_ended {
                        break 'first;
                    }
                    if second_ended {
                        break 'second;
                    }
                    if third_ended {
                        break;
                    }
                    third += stride;
                    assert!(third < MOST * stride);
                }
                second += stride;
            }
            first += stride;
        }
    }
    println!("{schedules} schedules, {refused} times a backup failed and said so");
    assert!(schedules > 50, "{schedules}");
}

/// With what it compares, a backup can do without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_last_snapshot_is_forgotten_meanwhile_succeeds() {
    for requests in 0..40 {
        let mut scene = marked().await;
        let backup = Backup::begin(&scene).await;
        let ended = backup.program.go_on(requests).await;
        scene.forget(0).await;
        let what = format!("{requests} requests");
        if let Err(error) = backup.end(&mut scene).await {
            panic!("{what}: {}", error.one_line());
        }
        scene.assert_whole(&what).await;
        if ended {
            return;
        }
    }
}

/// A backup, a check, a sweeper, the check, the backup, the sweeper: five changes of turn. What the
/// check tells is no damage, since there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_takes_turns_with_a_backup_and_a_sweeper_finds_no_damage() {
    let stride = stride(11);
    let mut schedules = 0_u64;
    let mut first = 0;
    'first: loop {
        let mut second = 0;
        'second: loop {
            let mut third = 0;
            loop {
                let what = format!("{first}, {second}, {third} requests");
                let mut scene = marked().await;
                let backup = Backup::begin(&scene).await;
                let first_ended = backup.program.go_on(first).await;
                let checking = check(&scene, fair()).await;
                let second_ended = checking.go_on(second).await;
                let sweeper = sweep(&scene, fair()).await;
                let third_ended = sweeper.go_on(third).await;
                let report = checking.end().await.unwrap();
                assert!(report.is_sound(), "{what}: {:?}", report.damage);
                backup.end(&mut scene).await.unwrap();
                sweeper.end().await.unwrap();
                scene.assert_stays_whole(&what).await;
                schedules += 1;
                if first_ended {
                    break 'first;
                }
                if second_ended {
                    break 'second;
                }
                if third_ended {
                    break;
                }
                third += stride;
                assert!(third < MOST * stride);
            }
            second += stride;
        }
        first += stride;
    }
    println!("{schedules} schedules");
    assert!(schedules > 20, "{schedules}");
}
