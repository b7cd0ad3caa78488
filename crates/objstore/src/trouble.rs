//! Why a request failed, in few words and in a form that code can match.
//!
//! `object_store` wraps what a server answered into several layers of text, with the address and
//! the whole XML body in it, and keeps the type private. This module reads that text once, in one
//! place, and replaces it by a [`Trouble`]: a status, the provider's code, one sentence. A test
//! against a real client and a scripted server fails when a new version words it differently.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use lifeboat_core::{Archived, ErrorKind};
use object_store::Error as Raw;
use object_store::client::{HttpError, HttpErrorKind};

/// What went wrong between us and a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The store answered, and not with success.
    Answer { status: u16, code: String, message: String },
    /// No connection could be made: nothing was sent.
    NoConnection(String),
    /// The connection ended before the answer was there.
    Broken(String),
    /// The time for the request was over.
    Overdue(Duration),
    /// The certificate of the other side is not trusted.
    Certificate(String),
    /// There are no credentials: the service that hands them out on some machines did not.
    NoCredentials(String),
    /// The content ended early.
    Short { expected: u64, got: u64 },
}

/// The services that machines ask for credentials when none are set, by address or by path.
const METADATA: [&str; 6] = [
    "169.254.169.254",
    "169.254.170.2",
    "/latest/api/token",
    "/latest/meta-data/",
    "/computeMetadata/",
    "/metadata/identity/",
];

impl Trouble {
    /// What an error of `object_store` is about, when it is about a request.
    pub(crate) fn of(error: &Raw) -> Option<Self> {
        let found = Self::beneath(error)?;
        let text = error.to_string();
        if METADATA.iter().any(|service| text.contains(service)) {
            return Some(Self::NoCredentials(match found {
                Self::Answer { status, .. } => format!("its metadata service answered {status}"),
                Self::NoConnection(why) | Self::Broken(why) | Self::NoCredentials(why) => why,
                other => other.to_string(),
            }));
        }
        Some(found)
    }

    fn beneath(error: &Raw) -> Option<Self> {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        let mut found = None;
        while let Some(error) = cause {
            if let Some(trouble) = error.downcast_ref::<Self>() {
                return Some(trouble.clone());
            }
            if let Some(http) = error.downcast_ref::<HttpError>() {
                return Some(transport(http));
            }
            found = found.or_else(|| answer(&error.to_string()));
            cause = error.source();
        }
        found
    }

    /// What it means to callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Answer { status, code, .. } => answer_kind(*status, code),
            Self::Certificate(_) | Self::NoCredentials(_) => ErrorKind::Refused,
            Self::NoConnection(_) | Self::Broken(_) | Self::Overdue(_) | Self::Short { .. } => {
                ErrorKind::Unavailable
            }
        }
    }

    /// Whether the other side is known to be there.
    pub(crate) fn is_contact(&self) -> bool {
        matches!(self, Self::Answer { .. } | Self::Short { .. })
    }

    /// Whether the store certainly did not do what was asked.
    pub(crate) fn is_undone(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Certificate(_) | Self::NoCredentials(_) => true,
            Self::Answer { status, .. } => *status < 500 || *status == 503,
            Self::Broken(_) | Self::Overdue(_) | Self::Short { .. } => false,
        }
    }

    /// Whether an object was not given because it lies in an archive.
    pub(crate) fn is_archived(&self) -> bool {
        let Self::Answer { status, code, .. } = self else {
            return false;
        };
        matches!((status, code.as_str()), (403, "InvalidObjectState") | (409, "BlobArchived"))
    }

    /// Whether a put was refused because it had no checksum: S3 demands one of every object that
    /// is to be locked.
    pub(crate) fn wants_checksum(&self) -> bool {
        let Self::Answer { status: 400, code, message } = self else {
            return false;
        };
        let told = format!("{code} {message}").to_ascii_lowercase();
        told.contains("content-md5")
            || told.contains("x-amz-checksum")
            || code == "MissingContentMD5"
    }

    /// Whether S3 says that two conditional writes met, and that neither may have happened.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Answer { status: 409, code, .. } if code == "ConditionalRequestConflict")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { status, code, message } => {
                write!(f, "the store answered {status}")?;
                match (code.as_str(), message.as_str()) {
                    ("", "") => Ok(()),
                    ("", message) => write!(f, " ({message})"),
                    (code, "") => write!(f, " ({code})"),
                    (code, message) => write!(f, " ({code}: {message})"),
                }
            }
            Self::NoConnection(why) => write!(f, "no connection to the store: {why}"),
            Self::Broken(why) => write!(f, "the connection to the store broke: {why}"),
            Self::Overdue(limit) => {
                write!(f, "the store did not finish within {} s", limit.as_secs_f32())
            }
            Self::Certificate(why) => {
                write!(f, "the certificate of the store is not trusted: {why}")
            }
            Self::NoCredentials(why) => {
                write!(f, "no credentials are set, and this machine has none to give: {why}")
            }
            Self::Short { expected, got } => {
                write!(f, "the content ended after {got} of {expected} bytes")
            }
        }
    }
}

impl StdError for Trouble {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.is_archived().then_some(&Archived as &(dyn StdError + 'static))
    }
}

/// The same error, with a [`Trouble`] as its cause when it is about a request.
pub(crate) fn tidy(error: Raw) -> Raw {
    let Some(trouble) = Trouble::of(&error) else {
        return error;
    };
    let source = Box::new(trouble);
    match error {
        Raw::Generic { store, .. } => Raw::Generic { store, source },
        Raw::NotFound { path, .. } => Raw::NotFound { path, source },
        Raw::AlreadyExists { path, .. } => Raw::AlreadyExists { path, source },
        Raw::Precondition { path, .. } => Raw::Precondition { path, source },
        Raw::NotModified { path, .. } => Raw::NotModified { path, source },
        Raw::PermissionDenied { path, .. } => Raw::PermissionDenied { path, source },
        Raw::Unauthenticated { path, .. } => Raw::Unauthenticated { path, source },
        other => other,
    }
}

/// The error for an answer that is no success.
pub(crate) fn answered(status: u16, body: &str, path: String) -> Raw {
    let source = Box::new(read_body(status, body));
    match status {
        404 => Raw::NotFound { path, source },
        401 => Raw::Unauthenticated { path, source },
        403 => Raw::PermissionDenied { path, source },
        _ => Raw::Generic { store: "store", source },
    }
}

/// An error that carries `trouble`.
pub(crate) fn generic(trouble: Trouble) -> Raw {
    Raw::Generic { store: "store", source: Box::new(trouble) }
}

fn answer_kind(status: u16, code: &str) -> ErrorKind {
    match (status, code) {
        (507, _)
        | (
            _,
            "QuotaExceeded"
            | "XMinioStorageFull"
            | "InsufficientCapacity"
            // For hours, not for the minutes in which requests are made again.
            | "GlacierExpeditedRetrievalNotAvailable",
        ) => ErrorKind::Exhausted,
        (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => ErrorKind::Refused,
        // Said of a request that came too slowly, or was damaged on its way.
        (400, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch") => {
            ErrorKind::Unavailable
        }
        (401 | 403, _) => ErrorKind::Refused,
        (404 | 410, _) => ErrorKind::NotFound,
        (409 | 412, _) => ErrorKind::AlreadyExists,
        (405 | 501, _) => ErrorKind::Unsupported,
        (408 | 425 | 429 | 500..=599, _) => ErrorKind::Unavailable,
        (300..=499, _) => ErrorKind::InvalidInput,
        // A failure in the body of a success: S3 does that when a copy breaks off.
        (_, _) => ErrorKind::Unavailable,
    }
}

fn transport(error: &HttpError) -> Trouble {
    let mut deepest: &dyn StdError = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let why = one_line(&deepest.to_string());
    let lower = why.to_ascii_lowercase();
    if lower.contains("certificate") || lower.contains("unknownissuer") {
        return Trouble::Certificate(why);
    }
    match error.kind() {
        HttpErrorKind::Connect => Trouble::NoConnection(why),
        HttpErrorKind::Request
        | HttpErrorKind::Timeout
        | HttpErrorKind::Interrupted
        | HttpErrorKind::Decode
        | HttpErrorKind::Unknown => Trouble::Broken(why),
        _ => Trouble::Broken(why),
    }
}

/// Reads `object_store`'s text about an answer that is no success.
fn answer(text: &str) -> Option<Trouble> {
    const STATUS: &str = "Server returned non-2xx status code: ";
    const BODY: &str = "Server returned error response: ";
    const REDIRECT: &str = "Received redirect without LOCATION";
    if let Some(at) = text.find(STATUS) {
        let rest = &text[at + STATUS.len()..];
        let digits = rest.get(..3)?;
        let status = digits.parse().ok()?;
        let body = rest.split_once(": ").map_or("", |(_, body)| body);
        return Some(read_body(status, body));
    }
    if let Some(at) = text.find(BODY) {
        return Some(read_body(200, &text[at + BODY.len()..]));
    }
    text.contains(REDIRECT).then(|| Trouble::Answer {
        status: 301,
        code: "Redirect".to_owned(),
        message: "the region or the endpoint is another one".to_owned(),
    })
}

/// The code and the sentence of an S3 or Azure error in XML, or of a Google error in JSON.
fn read_body(status: u16, body: &str) -> Trouble {
    let tag = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(one_line(value))
    };
    let field = |name: &str| {
        let (_, rest) = body.split_once(&format!("\"{name}\""))?;
        let (_, rest) = rest.split_once('"')?;
        let (value, _) = rest.split_once('"')?;
        Some(one_line(value))
    };
    let (code, message) = if body.trim_start().starts_with('{') {
        (field("reason").or_else(|| field("error")), field("message"))
    } else {
        (tag("Code"), tag("Message"))
    };
    Trouble::Answer { status, code: code.unwrap_or_default(), message: message.unwrap_or_default() }
}

/// Servers write what they like: no line breaks, no control characters, no novels.
fn one_line(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Raw {
        Raw::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn an_answer_is_read() {
        let text = "Error performing PUT http://h/b/k in 1ms - Server returned non-2xx status code: \
                    403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>InvalidAccessKeyId</Code>\
                    <Message>The key does\nnot exist</Message></Error>";
        let trouble = Trouble::of(&said(text)).unwrap();
        assert_eq!(
            trouble.to_string(),
            "the store answered 403 (InvalidAccessKeyId: The key does not exist)"
        );
        assert_eq!(trouble.kind(), ErrorKind::Refused);
        // Tidying twice changes nothing.
        let tidied = tidy(tidy(said(text)));
        assert_eq!(Trouble::of(&tidied), Some(trouble));
        assert!(!tidied.to_string().contains("xml"));
    }

    #[test]
    fn a_slow_upload_is_no_mistake_of_ours() {
        let text = "Server returned non-2xx status code: 400 Bad Request: \
                    <Error><Code>RequestTimeout</Code></Error>";
        assert_eq!(Trouble::of(&said(text)).unwrap().kind(), ErrorKind::Unavailable);
        let text = "Server returned non-2xx status code: 400 Bad Request: ";
        assert_eq!(Trouble::of(&said(text)).unwrap().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn google_writes_json() {
        let text = "Server returned non-2xx status code: 403 Forbidden: {\"error\": {\"code\": 403, \
                    \"message\": \"No access\", \"errors\": [{\"reason\": \"forbidden\"}]}}";
        let trouble = Trouble::of(&said(text)).unwrap();
        assert_eq!(trouble.to_string(), "the store answered 403 (forbidden: No access)");
    }

    #[test]
    fn what_lies_in_an_archive_is_known_however_it_is_said() {
        let archived = |status: &str, code: &str| {
            let text = format!(
                "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code></Error>"
            );
            Archived::is_cause_of(&tidy(said(&text)))
        };
        assert!(archived("403 Forbidden", "InvalidObjectState"));
        assert!(archived("409 Conflict", "BlobArchived"));
        assert!(!archived("403 Forbidden", "AccessDenied"));
    }

    #[test]
    fn a_missing_checksum_is_told_from_other_mistakes() {
        // As Amazon, moto and MinIO say it.
        for (code, message) in [
            (
                "InvalidRequest",
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests \
                 with Object Lock parameters",
            ),
            ("InvalidRequest", "Content-MD5 or x-amz-sdk-checksum-algorithm header required"),
            ("MissingContentMD5", "Missing required header for this request: Content-Md5."),
        ] {
            let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            assert!(read_body(400, &body).wants_checksum(), "{message}");
        }
        let other = "<Error><Code>InvalidRequest</Code><Message>no</Message></Error>";
        assert!(!read_body(400, other).wants_checksum());
    }

    #[test]
    fn what_is_not_about_a_request_stays() {
        let error = said("something else");
        assert_eq!(Trouble::of(&error), None);
        assert!(tidy(error).to_string().contains("something else"));
    }
}
