//! What the client makes of answers that a healthy server does not give: a scripted one does.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{ErrorKind, Failure};
use lifeboat_objstore::{Error, Location, Provider, StoreOptions, Variables, classify, hint, open};
use object_store::{Error as Raw, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Gives its answers one after the other, and then 200 to everything.
struct Script {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn of(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        let mut answers: VecDeque<_> = answers.collect();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_request(&mut stream).await;
                heard.lock().push(head);
                let (status, body) = answers.pop_front().unwrap_or((200, String::new()));
                let answer = format!(
                    "HTTP/1.1 {status} Said\r\nETag: \"e\"\r\nContent-Length: {}\r\n\
                     Last-Modified: Fri, 20 Nov 2026 15:00:00 GMT\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { endpoint, requests }
    }

    fn open(&self, options: &StoreOptions) -> Arc<dyn ObjectStore> {
        let url = format!("s3://bucket?endpoint={}", self.endpoint);
        open(&url.parse().unwrap(), options).unwrap()
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head_end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return head;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    let given = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    options.patience.first_pause = Duration::from_millis(1);
    options.patience.longest_pause = Duration::from_millis(5);
    options
}

fn code(code: &str) -> String {
    format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>So.</Message></Error>")
}

async fn create(store: &dyn ObjectStore) -> Result<(), Raw> {
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(&"snapshots/one".into(), "x".into(), options).await.map(drop)
}

#[tokio::test]
async fn what_can_pass_is_tried_again() {
    for (status, body) in [
        (500, code("InternalError")),
        (503, code("SlowDown")),
        (429, String::new()),
        (408, String::new()),
        (400, code("RequestTimeout")),
        (409, code("ConditionalRequestConflict")),
    ] {
        let script = Script::of(&[(status, &body), (status, &body)]).await;
        let options = options();
        let outcome = create(&*script.open(&options)).await;
        assert!(outcome.is_ok(), "{status}: {outcome:?}");
        assert_eq!((script.count(), options.retries.count()), (3, 2), "{status}");
        let conditional =
            script.requests.lock().iter().all(|head| head.contains("if-none-match: *"));
        assert!(conditional, "a new try forgot the condition");
    }
}

#[tokio::test]
async fn what_cannot_pass_is_said_at_once() {
    for (status, body, kind, advice) in [
        (403, code("AccessDenied"), ErrorKind::Refused, "docs/objstore.md"),
        (403, code("InvalidAccessKeyId"), ErrorKind::Refused, "check the credentials"),
        (403, code("RequestTimeTooSkewed"), ErrorKind::Refused, "clock"),
        (401, String::new(), ErrorKind::Refused, "AWS_ACCESS_KEY_ID"),
        (400, code("ExpiredToken"), ErrorKind::Refused, ""),
        (301, code("PermanentRedirect"), ErrorKind::InvalidInput, "region"),
        (404, code("NoSuchBucket"), ErrorKind::NotFound, "bucket"),
        (412, code("PreconditionFailed"), ErrorKind::AlreadyExists, ""),
        (409, code("BlobAlreadyExists"), ErrorKind::AlreadyExists, ""),
        (507, code("XMinioStorageFull"), ErrorKind::Exhausted, ""),
        (501, code("NotImplemented"), ErrorKind::Unsupported, ""),
    ] {
        let script = Script::of(&[(status, &body)]).await;
        let error = create(&*script.open(&options())).await.unwrap_err();
        assert_eq!((classify(&error), script.count()), (kind, 1), "{status} {body}: {error}");
        let said = error.to_string();
        assert!(said.contains(&status.to_string()) && !said.contains(['<', '\n']), "{said}");
        let advised = hint(Provider::S3, &error).unwrap_or_default();
        assert!(advised.contains(advice), "{status} {body}: {advised}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_update_is_repeated_only_when_it_was_not_done() {
    let update = async |status, body: &str| {
        let script = Script::of(&[(status, body)]).await;
        let store = script.open(&options());
        let version = UpdateVersion { e_tag: Some("\"e\"".into()), version: None };
        let options = PutOptions::from(PutMode::Update(version));
        let done = store.put_opts(&"lease".into(), "x".into(), options).await.is_ok();
        (done, script.count())
    };
    assert_eq!(update(503, &code("SlowDown")).await, (true, 2));
    assert_eq!(update(500, &code("InternalError")).await, (false, 1));
    assert_eq!(update(412, "").await, (false, 1));
}

#[tokio::test]
async fn a_deletion_goes_on_until_it_is_done() {
    let failed = "<DeleteResult><Error><Key>x</Key><Code>InternalError</Code>\
                  <Message>So.</Message></Error></DeleteResult>";
    let done = "<DeleteResult><Deleted><Key>x</Key></Deleted></DeleteResult>";
    let script = Script::of(&[(503, &code("SlowDown")), (200, failed), (200, done)]).await;
    let outcome = script.open(&options()).delete(&"x".into()).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(script.count(), 3);
}

#[tokio::test]
async fn missing_credentials_are_explained() {
    let script = Script::of(&[]).await;
    let mut options = options();
    // Nobody listens there, as on most machines.
    let given = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.variables = Variables::Given(given.into());
    let source = create(&*script.open(&options)).await.unwrap_err();
    let location: Location = "s3://bucket".parse().unwrap();
    let error = Error::Store { action: "write lifeboat.json".into(), location, source };
    assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"), "{error:?}");
    let line = lifeboat_core::Error::from(error).one_line();
    assert!(line.contains("no credentials are set"), "{line}");
    assert_eq!(script.count(), 0);
}

/// What Amazon answers and moto does not: see its manual of `RestoreObject`.
#[tokio::test]
async fn a_thaw_that_is_under_way_is_no_error_and_one_that_is_refused_says_why() {
    let error = |code: &str| format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    let script = Script::of(&[
        (409, &error("RestoreAlreadyInProgress")),
        (503, &error("GlacierExpeditedRetrievalNotAvailable")),
        (403, &error("AccessDenied")),
    ])
    .await;
    let url = format!("s3://bucket/prefix?endpoint={}", script.endpoint);
    let opened = lifeboat_objstore::open_whole(&url.parse().unwrap(), &options()).unwrap();
    let warehouse = opened.warehouse.unwrap();
    let tier = lifeboat_core::ThawTier::Expedited;
    warehouse.thaw("packs/x", tier, 3).await.unwrap();
    let refused = warehouse.thaw("packs/x", tier, 3).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Exhausted);
    assert!(refused.hint().unwrap().contains("--thaw=standard"), "{refused:?}");
    let denied = warehouse.thaw("packs/x", tier, 3).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Refused);
    assert_eq!(script.count(), 3, "something was asked again");
    let requests = script.requests.lock();
    assert!(requests[0].starts_with("post /bucket/prefix/packs/x?"), "{}", requests[0]);
    assert!(requests[0].contains("restore=") && requests[0].contains("x-amz-signature="));
}
