//! Calls that a service answers, and calls that find none.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lifeboat_testbed::postgres::{Cluster, installations};

use crate::scene::{LIMIT, Scene, Shop, block_on};

/// `lifeboat wal serve`. Dropping it kills it.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sockets(scene: &Scene) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.path("cache/wal")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect()
}

fn start(scene: &Scene) -> Service {
    let mut command = scene.command(&["wal", "serve", "--name", "shop"]);
    let log = fs::File::create(scene.path("service.log")).unwrap();
    let service = Service(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let begun = Instant::now();
    while !fs::read_to_string(scene.path("service.log")).unwrap().contains("answering") {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    service
}

#[test]
fn a_call_is_answered_by_the_service_and_does_without_it() {
    let installation = installations().pop().unwrap();
    let scene = Scene::new();
    let cluster = Cluster::builder()
        .installation(&installation)
        .setting("archive_mode", "on")
        .setting("archive_command", "false")
        .start()
        .unwrap();
    let data = cluster.data_dir();
    let (passphrase, away) = (scene.path("passphrase"), scene.path("away"));
    let push = |name: &str, more: &[&str], code: i32| {
        let path = format!("pg_wal/{name}");
        let arguments = [&["wal", "push", &path, "--name", "shop", "--json"], more].concat();
        scene.run_in(data, &arguments, code).stdout
    };
    let get = |name: &str, code: i32| {
        scene.run_in(data, &["wal", "get", name, "pg_wal/GIVEN", "--name", "shop", "--json"], code)
    };
    block_on(async {
        let shop = Shop::open(&cluster).await;
        let mut names = Vec::new();
        for _ in 0..4 {
            shop.sell(100).await;
            names.push(shop.switch().await);
        }
        let service = start(&scene);
        // Nobody but the service can open the repository now.
        fs::rename(&passphrase, &away).unwrap();
        let out = push(&names[0], &[], 0);
        assert!(out.contains("\"result\":\"archived\""), "{out}");
        // The others waited behind it, and were taken along.
        let out = push(&names[1], &[], 0);
        assert!(out.contains("\"result\":\"noted\""), "{out}");
        assert!(get(&names[0], 0).stdout.contains("\"result\":\"given\""));
        let whole = |name: &str| fs::read(data.join("pg_wal").join(name)).unwrap();
        assert!(whole("GIVEN") == whole(&names[0]));
        // Proof that there is none comes from the service as well; anything else does not.
        assert!(get("0000000100000000000000F0", 1).stdout.contains("\"result\":\"absent\""));
        get("no name", 126);
        // Another content under the name is refused.
        let path = data.join("pg_wal").join(&names[2]);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[9000] ^= 1;
        fs::write(&path, &bad).unwrap();
        push(&names[2], &[], 1);
        fs::write(&path, &good).unwrap();
        // A second service does not take its place.
        fs::rename(&away, &passphrase).unwrap();
        let second = scene.run(&["wal", "serve", "--name", "shop"], 1).stderr;
        assert!(second.contains("listen at"), "{second}");
        assert_eq!(sockets(&scene).len(), 1);
        fs::rename(&passphrase, &away).unwrap();
        push(&names[2], &[], 0);

        // Killed, it leaves its socket, at which nobody answers: the call is alone.
        drop(service);
        assert_eq!(sockets(&scene).len(), 1);
        shop.sell(10).await;
        let next = shop.switch().await;
        push(&next, &[], 1);
        get(&names[0], 126);
        fs::rename(&away, &passphrase).unwrap();
        push(&next, &[], 0);
        // The next one takes the socket over.
        let _service = start(&scene);
        fs::rename(&passphrase, &away).unwrap();
        push(&next, &[], 0);
        // Not asked, it does not answer.
        let elsewhere = scene.path("nobody.sock");
        shop.sell(10).await;
        let last = shop.switch().await;
        push(&last, &["--socket", elsewhere.to_str().unwrap()], 1);
        push(&last, &["--socket", sockets(&scene)[0].to_str().unwrap()], 0);
    });
}
