//! Classes, thaws and locks, against moto; and against a script for what moto does not say.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_core::{
    Access, Archived, ErrorKind, Keeping, Retention, RetentionMode, Telling, ThawTier, Timestamp,
    Warehouse,
};
use lifeboat_objstore::{Opened, Provider, StoreOptions, Variables, hint, open_whole};
use lifeboat_testbed::s3::Server;
use object_store::{Attribute, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// A place in a bucket of a server, under a prefix that XML has to escape.
fn at(server: &Server, bucket: &str) -> (Arc<dyn ObjectStore>, Arc<dyn Warehouse>) {
    let url = format!("s3://{bucket}/a&b/prefix?endpoint={}&region=us-east-1", server.endpoint());
    let mut options = StoreOptions::default();
    let given = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    let Opened { store, warehouse, .. } = open_whole(&url.parse().unwrap(), &options).unwrap();
    (store, warehouse.unwrap())
}

async fn put(store: &Arc<dyn ObjectStore>, name: &str, class: Option<&str>) {
    let class = class.map(|class| (Attribute::StorageClass, class.to_owned()));
    let attributes = class.into_iter().collect();
    let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    store.put_opts(&name.into(), "content".into(), options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_is_listed_refused_thawed_and_read() {
    let server = Server::start().unwrap();
    server.create_bucket("cold").unwrap();
    server.slow_thaws(2).unwrap();
    let (store, warehouse) = at(&server, "cold");
    put(&store, "packs/aa/hot", None).await;
    put(&store, "packs/bb/cool", Some("STANDARD_IA")).await;
    put(&store, "packs/bb/deep", Some("DEEP_ARCHIVE")).await;
    put(&store, "packsold/x", Some("GLACIER")).await;

    let mut classes = BTreeMap::new();
    let mut each = |name: &str, class: &str| {
        classes.insert(name.to_owned(), class.to_owned());
    };
    let telling = warehouse.classes("packs", &mut each).await.unwrap();
    assert_eq!(telling, Telling::All);
    let expected = [
        ("packs/aa/hot", "STANDARD"),
        ("packs/bb/cool", "STANDARD_IA"),
        ("packs/bb/deep", "DEEP_ARCHIVE"),
    ];
    let expected = expected.map(|(name, class)| (name.to_owned(), class.to_owned()));
    assert_eq!(classes, BTreeMap::from(expected));

    let access = async |name: &str| warehouse.standing(name).await.unwrap().unwrap().access;
    assert_eq!(access("packs/aa/hot").await, Access::AtOnce);
    assert_eq!(access("packs/bb/cool").await, Access::AtOnce);
    assert_eq!(access("packs/bb/deep").await, Access::Archived);
    assert_eq!(warehouse.standing("packs/none").await.unwrap(), None);

    // The whole and a part of it are refused, in words that help.
    let whole = store.get(&"packs/bb/deep".into()).await.map(drop).unwrap_err();
    let part = store.get_range(&"packs/bb/deep".into(), 1..3).await.map(drop).unwrap_err();
    for error in [whole, part] {
        assert!(Archived::is_cause_of(&error), "{error:?}");
        assert!(hint(Provider::S3, &error).unwrap().contains("--thaw"));
    }

    // What is not archived cannot be thawed; what is can be, more than once.
    assert!(warehouse.thaw("packs/aa/hot", ThawTier::Bulk, 1).await.is_err());
    warehouse.thaw("packs/bb/deep", ThawTier::Bulk, 1).await.unwrap();
    warehouse.thaw("packs/bb/deep", ThawTier::Bulk, 1).await.unwrap();
    let mut seen = Vec::new();
    let until = loop {
        match access("packs/bb/deep").await {
            Access::Thawed { until } => break until.unwrap(),
            other => seen.push(other),
        }
    };
    assert!(seen.iter().all(|access| *access == Access::Thawing), "{seen:?}");
    let hours = until.duration_since(Timestamp::now()).as_hours();
    assert!((23..=48).contains(&hours), "{hours}");
    let got = store.get(&"packs/bb/deep".into()).await.unwrap().bytes().await.unwrap();
    assert_eq!(got, "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_classes_has_pages() {
    let server = Server::start().unwrap();
    server.create_bucket("pages").unwrap();
    let (store, warehouse) = at(&server, "pages");
    let puts = (0..1003).map(|n| {
        let store = &store;
        async move { put(store, &format!("packs/{n:04}"), Some("GLACIER_IR")).await }
    });
    let puts = futures_util::stream::iter(puts);
    futures_util::StreamExt::for_each_concurrent(puts, 16, |put| put).await;
    let mut names = std::collections::BTreeSet::new();
    let mut each = |name: &str, class: &str| {
        assert_eq!(class, "GLACIER_IR");
        assert!(names.insert(name.to_owned()), "{name} came twice");
    };
    warehouse.classes("packs", &mut each).await.unwrap();
    assert_eq!(names.len(), 1003);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_bucket_gets_the_checksum_that_it_wants() {
    let server = Server::start().unwrap();
    server.create_bucket("plain").unwrap();
    server.create_locked_bucket("locked", 30).unwrap();
    let (_, plain) = at(&server, "plain");
    assert_eq!(plain.keeping().await.unwrap(), Keeping::default());

    let (store, warehouse) = at(&server, "locked");
    let retention = Retention { mode: RetentionMode::Compliance, days: 30 };
    let keeping = Keeping::new(true, true, Some(retention));
    assert_eq!(warehouse.keeping().await.unwrap(), keeping);
    for name in ["one", "two"] {
        put(&store, name, Some("STANDARD_IA")).await;
    }
    let options = PutOptions::from(PutMode::Create);
    let again = store.put_opts(&"one".into(), "other".into(), options).await;
    assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })), "{again:?}");
    let standing = warehouse.standing("two").await.unwrap().unwrap();
    assert_eq!((standing.class.as_str(), standing.access), ("STANDARD_IA", Access::AtOnce));
    let days = standing.locked_until.unwrap().duration_since(Timestamp::now()).as_hours() / 24;
    assert!((29..=30).contains(&days), "{days}");

    // Writing over and deleting make versions and markers, and are not refused.
    store.put(&"one".into(), "over".into()).await.unwrap();
    store.delete(&"one".into()).await.unwrap();
    assert_eq!(warehouse.standing("one").await.unwrap(), None);
    put(&store, "one", None).await;
    assert_eq!(store.get(&"one".into()).await.unwrap().bytes().await.unwrap(), "content");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let server = Server::start().unwrap();
    let (_, warehouse) = at(&server, "nowhere");
    let error = warehouse.keeping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.one_line().contains("NoSuchBucket"), "{}", error.one_line());
}

#[test]
fn directories_and_memory_have_no_warehouse_and_the_other_clouds_know_their_classes() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().display().to_string();
    let options = StoreOptions::new(lifeboat_objstore::Intent::Create);
    for place in [directory.as_str(), "memory://no-warehouse"] {
        assert!(open_whole(&place.parse().unwrap(), &options).unwrap().warehouse.is_none());
    }
    let mut options = StoreOptions::default();
    let given = [("GOOGLE_SKIP_SIGNATURE", "true"), ("AZURE_SKIP_SIGNATURE", "true")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    for (place, class, days) in [("gs://b", "coldline", 90), ("az://c?account=a", "cold", 90)] {
        let opened = open_whole(&place.parse().unwrap(), &options).unwrap();
        let class = opened.warehouse.unwrap().choose(class).unwrap();
        assert_eq!(class.least.as_secs() / 86_400, days);
        assert!(!class.is_archive());
    }
}
