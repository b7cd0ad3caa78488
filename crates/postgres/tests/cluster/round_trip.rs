//! A cluster is backed up, restored, started, and compared row for row.

use crate::common::{Backup, amcheck, checksums, run, source, target};
use lifeboat_testbed::postgres::{Cluster, Mode, all};
use lifeboat_testbed::{Scratch, data};

#[test]
fn a_restored_cluster_is_the_one_that_was_backed_up() {
    run(async {
        for installation in all().unwrap() {
            let mut cluster = Cluster::start(installation).unwrap();
            let client = cluster.connect("postgres").await.unwrap();
            data::seed(&client, data::Size::TINY).await.unwrap();
            let before = data::digests(&client).await.unwrap();

            let backup = Backup::take(&source(&cluster)).await;
            assert_eq!(backup.warnings, []);
            drop(client);
            cluster.stop(Mode::Fast).unwrap();

            let scratch = Scratch::new().unwrap();
            let target = target(&scratch);
            let summary = backup.restore(&target).await;
            assert!(summary.receipt.facts.text("postgres.next").unwrap().contains("pg_ctl"));
            let mut restored = Cluster::adopt(&target, installation).unwrap();
            let client = restored.connect("postgres").await.unwrap();
            assert_eq!(data::digests(&client).await.unwrap(), before, "{}", installation.version);
            amcheck(&client).await;
            drop(client);
            restored.stop(Mode::Fast).unwrap();
            checksums(installation, &target);
        }
    });
}
