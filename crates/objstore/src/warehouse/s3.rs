//! What S3 tells of objects and buckets, by requests that `object_store` does not make.
//!
//! It signs their addresses, with the credentials and the settings of the bucket; they are sent
//! with its client, and under the same limits and new tries as all others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lifeboat_core::{
    Access, ClassVisitor, Error, ErrorKind, Keeping, Result, Retention, RetentionMode, Standing,
    StorageClass, Telling, ThawTier, Timestamp, Warehouse,
};
use object_store::aws::AmazonS3;
use object_store::client::{
    HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector,
};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{ClientOptions, Error as Raw, HeaderMap};

use super::xml;
use crate::classes;
use crate::error::{Error as StoreError, classify};
use crate::location::{Location, Provider};
use crate::patient::{Policy, Repeat};
use crate::trouble::{self, Trouble};

/// An address is good for so long: a request is signed just before it is sent.
const SIGNED_FOR: Duration = Duration::from_mins(5);
/// No answer is longer: a page of a listing has a thousand names.
const ANSWER: usize = 4 << 20;

/// A bucket, asked for what `object_store` does not ask.
#[derive(Debug)]
pub(crate) struct S3Warehouse {
    s3: AmazonS3,
    options: ClientOptions,
    client: OnceLock<HttpClient>,
    prefix: Path,
    policy: Arc<Policy>,
    location: Location,
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request.
struct Question<'a> {
    action: &'static str,
    method: &'static str,
    object: &'a Path,
    query: Vec<(&'static str, String)>,
    body: String,
}

impl S3Warehouse {
    pub(crate) fn new(
        s3: AmazonS3,
        options: ClientOptions,
        prefix: Path,
        policy: Arc<Policy>,
        location: Location,
    ) -> Self {
        Self { s3, options, client: OnceLock::new(), prefix, policy, location }
    }

    /// Made only when something is asked: most commands ask nothing.
    fn client(&self) -> object_store::Result<&HttpClient> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = ReqwestConnector::default().connect(&self.options)?;
        Ok(self.client.get_or_init(|| made))
    }

    fn path(&self, object: &str) -> Path {
        self.prefix.parts().chain(Path::from(object).parts()).collect()
    }

    async fn ask(&self, question: &Question<'_>) -> object_store::Result<Answer> {
        let limit = self.policy.limit(0);
        let asking = || self.ask_once(question);
        self.policy.run(question.action, question.object, limit, Repeat::Always, asking).await
    }

    async fn ask_once(&self, question: &Question<'_>) -> object_store::Result<Answer> {
        let other = |what: &str| Raw::Generic { store: "S3", source: what.to_owned().into() };
        let method = question.method.parse().map_err(|_| other("no such method"))?;
        let options = SignedUrlOptions::default().with_query(question.query.iter().cloned());
        let signing = self.s3.signed_url_opts(method, question.object, SIGNED_FOR, &options);
        let url = signing.await?;
        let body = match question.body.as_str() {
            "" => HttpRequestBody::empty(),
            text => HttpRequestBody::from(text.to_owned()),
        };
        let mut request = HttpRequest::new(body);
        *request.method_mut() = question.method.parse().map_err(|_| other("no such method"))?;
        *request.uri_mut() = url.as_str().parse().map_err(|_| other("no such address"))?;
        let failed = |error| Raw::Generic { store: "S3", source: Box::new(error) };
        let response = self.client()?.execute(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut stream = body.bytes_stream();
        while let Some(part) = stream.next().await {
            bytes.extend_from_slice(&part.map_err(failed)?);
            if bytes.len() > ANSWER {
                return Err(other("the answer is longer than it may be"));
            }
        }
        if !head.status.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            let path = question.object.to_string();
            return Err(trouble::answered(head.status.as_u16(), &text, path));
        }
        Ok(Answer { headers: head.headers, body: bytes.into() })
    }

    fn failed(&self, action: String, source: Raw) -> Error {
        StoreError::Store { action, location: self.location.clone(), source }.into()
    }

    async fn about_bucket(&self, what: &'static str) -> object_store::Result<String> {
        let object = Path::default();
        let query = vec![(what, String::new())];
        let (action, method, body) = ("ask the settings of", "GET", String::new());
        let question = Question { action, method, object: &object, query, body };
        Ok(self.ask(&question).await?.text())
    }
}

#[async_trait]
impl Warehouse for S3Warehouse {
    fn class(&self, name: &str) -> StorageClass {
        classes::class(Provider::S3, name)
    }

    fn choose(&self, name: &str) -> Result<StorageClass> {
        classes::choose(Provider::S3, name)
    }

    async fn standing(&self, object: &str) -> Result<Option<Standing>> {
        let path = self.path(object);
        let (action, method, body) = ("head", "HEAD", String::new());
        let question = Question { action, method, object: &path, query: Vec::new(), body };
        let answer = match self.ask(&question).await {
            Ok(answer) => answer,
            Err(Raw::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(format!("look at {object}"), error)),
        };
        let class = answer.header("x-amz-storage-class");
        let class = class.unwrap_or_else(|| classes::usual(Provider::S3));
        let archived = self.class(class).is_archive()
            // Of what tiers itself, only this header says that it went down that far.
            || answer.header("x-amz-archive-status").is_some();
        let mut standing = Standing::new(class, access(archived, answer.header("x-amz-restore")));
        let until = answer.header("x-amz-object-lock-retain-until-date");
        standing.locked_until = until.and_then(|text| text.parse().ok());
        Ok(Some(standing))
    }

    async fn classes(&self, area: &str, each: &mut ClassVisitor<'_>) -> Result<Telling> {
        let bucket = Path::default();
        let beneath = format!("{}/", self.path(area));
        let mut token = None;
        loop {
            let mut query = vec![("list-type", "2".to_owned()), ("prefix", beneath.clone())];
            query.extend(token.take().map(|token| ("continuation-token", token)));
            let (action, method, body) = ("list", "GET", String::new());
            let question = Question { action, method, object: &bucket, query, body };
            let listed = self.ask(&question).await;
            let page = listed
                .map_err(|error| self.failed(format!("list the classes of {area}"), error))?
                .text();
            for object in xml::each(&page, "Contents") {
                let name = xml::text(object, "Key");
                let name = name.as_deref().and_then(|key| key.strip_prefix(&beneath));
                let class = xml::text(object, "StorageClass");
                if let Some(name) = name {
                    let class = class.as_deref().unwrap_or(classes::usual(Provider::S3));
                    each(&format!("{area}/{name}"), class);
                }
            }
            token = xml::text(&page, "NextContinuationToken").filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(Telling::All);
            }
        }
    }

    async fn thaw(&self, object: &str, tier: ThawTier, days: u16) -> Result<()> {
        let tier = match tier {
            ThawTier::Bulk => "Bulk",
            ThawTier::Expedited => "Expedited",
            _ => "Standard",
        };
        let body = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Days>{days}</Days><GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters>\
             </RestoreRequest>"
        );
        let path = self.path(object);
        let query = vec![("restore", String::new())];
        let question = Question { action: "thaw", method: "POST", object: &path, query, body };
        match self.ask(&question).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "RestoreAlreadyInProgress" => Ok(()),
            Err(error) => Err(self.failed(format!("thaw {object}"), error)),
        }
    }

    async fn keeping(&self) -> Result<Keeping> {
        let told = |error| self.failed("ask what becomes of deleted objects".to_owned(), error);
        let versions = match self.about_bucket("versioning").await {
            Ok(xml) => xml::text(&xml, "Status").is_some_and(|status| status == "Enabled"),
            // A gateway that does not know the question has no versions.
            Err(error) if classify(&error) == ErrorKind::Unsupported => false,
            Err(error) => return Err(told(error)),
        };
        if !versions {
            // Locks are on versions.
            return Ok(Keeping::default());
        }
        match self.about_bucket("object-lock").await {
            Ok(xml) => {
                let lock = xml::text(&xml, "ObjectLockEnabled").is_some_and(|it| it == "Enabled");
                Ok(Keeping::new(true, lock, retention(&xml).filter(|_| lock)))
            }
            Err(error) if code(&error) == "ObjectLockConfigurationNotFoundError" => {
                Ok(Keeping::new(true, false, None))
            }
            Err(error) if classify(&error) == ErrorKind::Unsupported => {
                Ok(Keeping::new(true, false, None))
            }
            Err(error) => Err(told(error)),
        }
    }
}

fn code(error: &Raw) -> String {
    match Trouble::of(error) {
        Some(Trouble::Answer { code, .. }) => code,
        _ => String::new(),
    }
}

/// What `x-amz-restore` says of an object.
fn access(archived: bool, restore: Option<&str>) -> Access {
    match restore {
        _ if !archived => Access::AtOnce,
        None => Access::Archived,
        Some(text) if text.contains("ongoing-request=\"true\"") => Access::Thawing,
        Some(text) => {
            let date = text.split_once("expiry-date=\"").and_then(|(_, rest)| rest.split_once('"'));
            Access::Thawed { until: date.and_then(|(date, _)| moment(date)) }
        }
    }
}

/// A time as HTTP writes it: `Fri, 21 Dec 2012 00:00:00 GMT`.
fn moment(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

/// The lock that every new version gets.
fn retention(xml: &str) -> Option<Retention> {
    let rule = xml::each(xml, "DefaultRetention").next()?;
    let number = |name| xml::text(rule, name).and_then(|text| text.parse::<u32>().ok());
    let years = number("Years").unwrap_or(0).saturating_mul(365);
    let days = number("Days").unwrap_or(0).saturating_add(years);
    let mode = match xml::text(rule, "Mode")?.as_str() {
        "GOVERNANCE" => RetentionMode::Governance,
        _ => RetentionMode::Compliance,
    };
    (days > 0).then_some(Retention { mode, days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_thaw_is_read() {
        // The example of the manual.
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        let until = "2012-12-21T00:00:00Z".parse().unwrap();
        assert_eq!(access(true, Some(done)), Access::Thawed { until: Some(until) });
        assert_eq!(access(true, Some("ongoing-request=\"true\"")), Access::Thawing);
        assert_eq!(access(true, None), Access::Archived);
        assert_eq!(access(false, None), Access::AtOnce);
    }

    #[test]
    fn a_rule_of_years_is_as_many_days() {
        let rule = |inside: &str| {
            retention(&format!("<R><DefaultRetention>{inside}</DefaultRetention></R>"))
        };
        let (mode, days) = (RetentionMode::Compliance, 730);
        let years = "<Mode>COMPLIANCE</Mode><Years>2</Years>";
        assert_eq!(rule(years), Some(Retention { mode, days }));
        let (mode, days) = (RetentionMode::Governance, 30);
        let both = "<Mode>GOVERNANCE</Mode><Days>30</Days><Years></Years>";
        assert_eq!(rule(both), Some(Retention { mode, days }));
        assert_eq!(retention("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"), None);
    }
}
