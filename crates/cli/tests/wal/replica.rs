//! A standby that was restored from the repository, watched, and promoted when that is safe.

use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, installations};
use serde_json::Value;

use crate::scene::{LIMIT, Scene, Shop, block_on};

fn event(text: &str, name: &str) -> Vec<Value> {
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

#[test]
fn a_standby_takes_the_primary_s_place_when_that_is_safe() {
    for installation in &installations() {
        let scene = Scene::new();
        let mut primary = Cluster::start(installation).unwrap();
        let (at, data) = (primary.conninfo(), scene.path("standby"));
        block_on(async {
            let shop = Shop::open(&primary).await;
            shop.sell(100).await;
            scene.run(&["backup", "postgres", "--name", "shop", "--conninfo", &at], 0);
            let to = data.to_str().unwrap();
            let restore = ["restore", "latest", "--store", "shop", "--to", to, "--as-standby"];
            scene.run(&[&restore[..], &["--primary", &at]].concat(), 0);
            let standby = Cluster::builder().installation(installation).patience(LIMIT);
            let standby = standby.adopt(&data).unwrap();
            let follower = standby.conninfo();
            let rows = shop.sell(1000).await;

            let look = ["replica", "status", "--json", "--conninfo"];
            let begun = Instant::now();
            loop {
                let out = scene.run(&[&look[..], &[&follower]].concat(), 0).stdout;
                let server = &event(&out, "server")[0];
                assert_eq!(server["role"], "standby", "{out}");
                if server["streaming"] == true && Shop::of(&standby).await.count().await == rows {
                    break;
                }
                assert!(begun.elapsed() < LIMIT, "{out}\n{}", standby.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // In a directory that the program, which runs as the servers' account, may write to.
            let metrics = scene.repo().join("lifeboat.prom");
            let figures = metrics.to_str().unwrap();
            let limited = [&look[..], &[&at, "--max-lag", "1h", "--metrics", figures]].concat();
            let out = scene.run(&limited, 0).stdout;
            let figures = std::fs::read_to_string(&metrics).unwrap();
            for name in ["pg_is_standby{", "pg_replica_streams{", "pg_replication_lag_bytes{"] {
                assert!(figures.lines().any(|line| line.starts_with(name)), "{figures}");
            }
            std::fs::remove_file(metrics).unwrap();
            assert_eq!(event(&out, "server")[0]["role"], "primary");
            assert_eq!(event(&out, "replica").len(), 1, "{out}");

            let promote = |more: &[&str], code: i32| {
                let words = ["replica", "promote", "--wait", "20s", "--conninfo"];
                scene.run(&[&words[..], more].concat(), code)
            };
            let told = |more: &[&str]| promote(more, 1).stderr;
            assert!(told(&[&at]).contains("it is no standby"));
            assert!(told(&[&follower]).contains("nobody says that the primary takes no writes"));
            assert!(told(&[&follower, "--primary", &at]).contains("still takes writes"));
            primary.kill().unwrap();
            let said = told(&[&follower, "--primary", &at]);
            assert!(said.contains("could not be asked"), "{said}");
            let done = promote(&[&follower, "--fenced", "--json"], 0).stdout;
            assert_eq!(event(&done, "summary")[0]["timeline"], 2, "{done}");
            let shop = Shop::of(&standby).await;
            assert_eq!(shop.count().await, rows);
            assert_eq!(shop.sell(1).await, rows + 1);
            assert!(told(&[&follower, "--fenced"]).contains("it is no standby"));
        });
    }
}
