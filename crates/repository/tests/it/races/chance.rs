//! Any number of programs, any turns, and a store that loses, delays and doubles requests, and
//! whose listings are behind. The seeds are printed; `LIFEBOAT_RACES_SEED` repeats one, and
//! `LIFEBOAT_RACES` sets how many there are.

use std::time::Duration;

use lifeboat_repository::{CheckReport, PruneReport, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::scene::{Backup, Held, Program, Scene, check, given, sweep};
use crate::staged::Odds;

/// The programs that are under way.
#[derive(Default)]
struct Programs {
    backups: Vec<Backup>,
    sweepers: Vec<Program<Result<PruneReport>>>,
    checks: Vec<Program<Result<CheckReport>>>,
}

/// How it went.
#[derive(Debug, Default)]
struct Told {
    done: u32,
    failed: u32,
    pruned: u32,
    not_pruned: u32,
    checked: u32,
    forgotten: u32,
}

fn taken<T>(programs: &mut Vec<T>, random: &mut SmallRng) -> Option<T> {
    let number = (!programs.is_empty()).then(|| random.random_range(0..programs.len()));
    number.map(|number| programs.swap_remove(number))
}

impl Programs {
    async fn begin(&mut self, scene: &Scene, odds: Odds, random: &mut SmallRng) {
        let (odds, requests) = ((odds, random.random()), random.random_range(0..60));
        match random.random_range(0..7) {
            0..=2 => {
                let backup = Backup::begin_with(scene, odds).await;
                backup.program.go_on(requests).await;
                self.backups.push(backup);
            }
            3..=5 => {
                let sweeper = sweep(scene, odds).await;
                sweeper.go_on(requests).await;
                self.sweepers.push(sweeper);
            }
            _ => {
                let checking = check(scene, odds).await;
                checking.go_on(requests).await;
                self.checks.push(checking);
            }
        }
    }

    /// Another turn for one of them.
    async fn go_on(&mut self, random: &mut SmallRng) {
        let requests = random.random_range(1..20);
        let number = |programs: usize, random: &mut SmallRng| random.random_range(0..programs);
        match random.random_range(0..3) {
            0 if !self.backups.is_empty() => {
                let backup = &self.backups[number(self.backups.len(), random)];
                backup.program.go_on(requests).await;
            }
            1 if !self.sweepers.is_empty() => {
                self.sweepers[number(self.sweepers.len(), random)].go_on(requests).await;
            }
            _ if !self.checks.is_empty() => {
                self.checks[number(self.checks.len(), random)].go_on(requests).await;
            }
            _ => {}
        }
    }

    /// One of them comes to its end; false when there is none any more.
    async fn end_one(&mut self, scene: &mut Scene, random: &mut SmallRng, told: &mut Told) -> bool {
        let all = self.backups.len() + self.sweepers.len() + self.checks.len();
        if all == 0 {
            return false;
        }
        let kind = random.random_range(0..all);
        if kind < self.backups.len() {
            if let Some(backup) = taken(&mut self.backups, random) {
                match backup.end(scene).await {
                    Ok(_) => told.done += 1,
                    Err(_) => told.failed += 1,
                }
            }
        } else if kind < self.backups.len() + self.sweepers.len() {
            if let Some(sweeper) = taken(&mut self.sweepers, random) {
                match sweeper.end().await {
                    Ok(_) => told.pruned += 1,
                    Err(_) => told.not_pruned += 1,
                }
            }
        } else if let Some(checking) = taken(&mut self.checks, random) {
            // What it tells of a snapshot that is being made, or from a listing that is behind, may
            // be wrong; that it ends is what counts.
            told.checked += u32::from(checking.end().await.is_ok());
        }
        true
    }
}

async fn run(seed: u64, odds: Odds) -> Told {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut scene = Scene::new().await;
    let mut programs = Programs::default();
    let mut told = Told::default();
    for _ in 0..random.random_range(6..24) {
        match random.random_range(0..12) {
            0..=4 => programs.begin(&scene, odds, &mut random).await,
            5 | 6 => programs.go_on(&mut random).await,
            7 | 8 => drop(programs.end_one(&mut scene, &mut random, &mut told).await),
            9 | 10 => {
                // Now and then minutes, now and then hours.
                let most = if random.random() { 30 } else { 240 };
                let minutes = random.random_range(0..most);
                let held = if random.random() { Held::Alive } else { Held::Silent };
                scene.wait(Duration::from_mins(minutes), held).await;
            }
            _ => {
                let number = random.random_range(0..3);
                told.forgotten += u32::from(number < scene.committed.len());
                scene.forget(number).await;
            }
        }
    }
    while programs.end_one(&mut scene, &mut random, &mut told).await {}
    scene.assert_whole(&format!("seed {seed}")).await;
    scene.assert_stays_whole(&format!("seed {seed}")).await;
    told
}

async fn run_all(odds: Odds) {
    let runs = given("LIFEBOAT_RACES").unwrap_or(40);
    let first = given("LIFEBOAT_RACES_SEED").unwrap_or_else(rand::random);
    let (mut done, mut pruned) = (0, 0);
    for seed in (0..runs).map(|number| first.wrapping_add(number)) {
        println!("seed: LIFEBOAT_RACES_SEED={seed}");
        let told = run(seed, odds).await;
        println!("  {told:?}");
        (done, pruned) = (done + told.done, pruned + told.pruned);
    }
    println!("{runs} seeds from {first}: {done} backups and {pruned} prunes came to their ends");
    if runs >= 20 {
        assert!(u64::from(done) * 2 > runs && u64::from(pruned) * 2 > runs, "{done}, {pruned}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_on_a_bad_network_lose_nothing() {
    let odds = Odds { lost: 0.01, unanswered: 0.02, late: 0.01, doubled: 0.05, behind: 0.0 };
    run_all(odds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_lose_nothing_where_listings_are_behind() {
    let odds = Odds { lost: 0.005, unanswered: 0.01, late: 0.005, doubled: 0.02, behind: 0.5 };
    run_all(odds).await;
}
