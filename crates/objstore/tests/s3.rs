//! A real client against a real protocol: moto on loopback, and a network before it that fails.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::ErrorKind;
use lifeboat_objstore::conformance::store_suite;
use lifeboat_objstore::{Integrity, Provider, StoreOptions, Variables, classify, hint, open};
use lifeboat_testbed::proxy::{Direction, Proxy, Toxics};
use lifeboat_testbed::s3::Server;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// One server for all tests, each of which has a bucket of its own; it goes with the process.
fn server() -> &'static Server {
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start().unwrap());
    &SERVER
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    // The server believes every key.
    let given = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    options.patience.first_pause = Duration::from_millis(10);
    options.patience.longest_pause = Duration::from_millis(100);
    options
}

fn at(endpoint: &str, bucket: &str, options: &StoreOptions) -> Arc<dyn ObjectStore> {
    let url = format!("s3://{bucket}/some/prefix?endpoint={endpoint}&region=us-east-1");
    open(&url.parse().unwrap(), options).unwrap()
}

/// A new bucket, the network before it, and a store behind that network.
fn networked(bucket: &str, options: &StoreOptions) -> (Proxy, Arc<dyn ObjectStore>) {
    server().create_bucket(bucket).unwrap();
    let proxy = Proxy::start(server().address(), 7).unwrap();
    let store = at(&format!("http://{}", proxy.address()), bucket, options);
    (proxy, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_suite() {
    for (bucket, integrity) in [
        ("suite-signed", Integrity::Signed),
        ("suite-sha256", Integrity::SignedSha256),
        ("suite-crc64", Integrity::Crc64),
    ] {
        server().create_bucket(bucket).unwrap();
        let mut options = options();
        options.integrity = integrity;
        store_suite(&at(&server().endpoint(), bucket, &options)).await;
        assert_eq!(options.retries.count(), 0, "something had to be tried again");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named_as_such() {
    let store = at(&server().endpoint(), "nowhere", &options());
    let error = store.put(&"x".into(), "y".into()).await.unwrap_err();
    assert_eq!(classify(&error), ErrorKind::NotFound);
    assert!(error.to_string().contains("404 (NoSuchBucket: "), "{error}");
    assert!(!error.to_string().contains('<'), "{error}");
    assert!(hint(Provider::S3, &error).unwrap().contains("bucket"));
}

#[tokio::test]
async fn a_store_that_is_not_there_is_reported_soon() {
    let mut options = options();
    options.patience.first_contact = Duration::from_millis(300);
    let (proxy, store) = networked("not-there", &options);
    proxy.refuse(true);
    let began = Instant::now();
    let error = store.head(&"x".into()).await.unwrap_err();
    assert!(began.elapsed() < options.patience.give_up);
    assert_eq!(classify(&error), ErrorKind::Unavailable);
    assert!(options.retries.count() > 0, "one refusal is not yet an outage");
    let listed: Result<Vec<_>, _> = store.list(None).try_collect().await;
    assert_eq!(classify(&listed.unwrap_err()), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_waited_for() {
    let options = options();
    let (proxy, store) = networked("outage", &options);
    store.put(&"before".into(), "x".into()).await.unwrap();
    proxy.refuse(true);
    let during = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let put = store.put(&"during".into(), "x".into()).await;
            let listed = store.list(None).try_collect::<Vec<_>>().await;
            let deleted = store.delete(&"before".into()).await;
            (put.is_ok(), listed.map(|all| all.len()), deleted.is_ok())
        }
    });
    while options.retries.count() < 3 {
        tokio::task::yield_now().await;
    }
    proxy.heal();
    let (put, listed, deleted) = during.await.unwrap();
    assert!(put && deleted);
    assert_eq!(listed.unwrap(), 2);
    assert!(options.retries.waited() >= Duration::from_millis(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_where_it_broke() {
    let options = options();
    let (proxy, store) = networked("broken-read", &options);
    let content: Bytes = (0..3 << 20_u32).map(|n| (n % 251) as u8).collect();
    store.put(&"object".into(), content.clone().into()).await.unwrap();
    // Every connection lives for about a megabyte: the whole never comes in one piece.
    for toxics in [
        Toxics { reset_after: Some(1 << 20), ..Toxics::default() },
        Toxics { truncate_after: Some(1 << 20), ..Toxics::default() },
    ] {
        proxy.set(Direction::ToClient, toxics);
        let before = options.retries.count();
        let got = store.get(&"object".into()).await.unwrap().bytes().await.unwrap();
        assert!(got == content, "the pieces do not fit");
        assert!(options.retries.count() >= before + 2, "nothing broke");
        let range = 100..(2 << 20) + 100;
        let got = store.get_range(&"object".into(), range).await.unwrap();
        assert!(got == content[100..(2 << 20) + 100], "the pieces of a range do not fit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_go_on_in_another_object() {
    let options = options();
    let (proxy, store) = networked("changed-read", &options);
    let old = vec![1_u8; 3 << 20];
    store.put(&"object".into(), old.into()).await.unwrap();
    proxy.set(Direction::ToClient, Toxics { reset_after: Some(1 << 20), ..Toxics::default() });
    let mut stream = store.get(&"object".into()).await.unwrap().into_stream();
    assert!(stream.next().await.unwrap().is_ok());
    store.put(&"object".into(), vec![2_u8; 3 << 20].into()).await.unwrap();
    let rest: Result<Vec<_>, _> = stream.try_collect().await;
    assert!(rest.is_err(), "half of one object and half of another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_after_the_last_name() {
    let options = options();
    let (proxy, store) = networked("broken-list", &options);
    let direct = at(&server().endpoint(), "broken-list", &options);
    let puts = (0..1200).map(|n| {
        let direct = &direct;
        async move { direct.put(&format!("packs/{n:05}").into(), "x".into()).await.map(drop) }
    });
    stream::iter(puts).buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
    let mut names = store.list(None).map_ok(|meta| meta.location.to_string());
    // The first page has a thousand names; the connection for the second breaks within it.
    let mut got = Vec::new();
    while got.len() < 1000 {
        got.push(names.try_next().await.unwrap().unwrap());
    }
    let toxics = Toxics { reset_after: Some(1000), ..Toxics::default() };
    proxy.set(Direction::ToClient, toxics);
    let rest = tokio::spawn(names.try_collect::<Vec<_>>());
    while options.retries.count() < 2 {
        tokio::task::yield_now().await;
    }
    proxy.heal();
    got.extend(rest.await.unwrap().unwrap());
    let expected: Vec<_> = (0..1200).map(|n| format!("packs/{n:05}")).collect();
    assert!(got == expected, "{} names", got.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_leaves_the_outcome_to_the_caller() {
    let options = options();
    let (proxy, store) = networked("lost-answer", &options);
    // The request arrives, its answer does not.
    proxy.set(Direction::ToClient, Toxics { reset_after: Some(1), ..Toxics::default() });
    let put = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let options = PutOptions::from(PutMode::Create);
            store.put_opts(&"snapshots/one".into(), "mine".into(), options).await
        }
    });
    while options.retries.count() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.heal();
    let outcome = put.await.unwrap();
    assert!(matches!(outcome, Err(Error::AlreadyExists { .. })), "{outcome:?}");
    let there = store.get(&"snapshots/one".into()).await.unwrap().bytes().await.unwrap();
    assert_eq!(there, "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_is_not_dead() {
    let mut options = options();
    options.patience.base = Duration::from_millis(500);
    options.patience.minimum_rate = 128 << 10;
    let (proxy, store) = networked("slow", &options);
    store.put(&"first".into(), "x".into()).await.unwrap();
    // 1 MiB at 512 KiB/s takes four times the base, and half of the limit.
    proxy.set(Direction::ToServer, Toxics { rate: Some(512 << 10), ..Toxics::default() });
    let began = Instant::now();
    store.put(&"slow".into(), vec![1; 1 << 20].into()).await.unwrap();
    assert!(began.elapsed() > options.patience.base);
    assert_eq!(options.retries.count(), 0, "a slow upload was given up");

    // Nothing at all is another matter.
    options.patience.give_up = Duration::from_millis(600);
    let store = at(&format!("http://{}", proxy.address()), "slow", &options);
    store.head(&"slow".into()).await.unwrap();
    proxy.set(Direction::ToServer, Toxics { blackhole: true, ..Toxics::default() });
    let error = store.put(&"dead".into(), "x".into()).await.unwrap_err();
    assert_eq!(classify(&error), ErrorKind::Unavailable);
    assert!(error.to_string().contains("did not finish within 0.5 s"), "{error}");
}
