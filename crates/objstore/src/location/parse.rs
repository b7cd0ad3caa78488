//! From text to a [`Location`].
//!
//! What is refused is shown without anything that may be a secret: a mistyped URL with a password
//! in it must not end up in a log by way of the error about it.

use object_store::path::Path;
use url::Url;

use super::{Cloud, Location, Place, Style, Vendor};
use crate::error::{Error, Result};

const SCHEMES: [&str; 12] =
    ["s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "https", "http", "file", "memory"];

pub(super) fn location(text: &str) -> Result<Location> {
    if text.is_empty() {
        return Err(bad("", "it is empty"));
    }
    let Some((scheme, _)) = text.split_once("://") else {
        let mistyped = text.split_once(':').is_some_and(|(scheme, _)| SCHEMES.contains(&scheme));
        if mistyped {
            return Err(bad(text, "a scheme is followed by ://"));
        }
        return Location::directory(text);
    };
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        return Err(bad(text, "its scheme is not known"));
    }
    let url = Url::parse(text).map_err(|error| bad(text, &error.to_string()))?;
    no_secrets(&url, text)?;
    match scheme.as_str() {
        "s3" | "s3a" => bucket(&url, text, Vendor::S3),
        "gs" | "gcs" => bucket(&url, text, Vendor::Google),
        "az" | "azure" => bucket(&url, text, Vendor::Azure),
        "abfs" | "abfss" if url.username().is_empty() => bucket(&url, text, Vendor::Azure),
        "abfs" | "abfss" => {
            let account = azure_account(&url, text)?;
            let place = cloud(Vendor::Azure, url.username(), url.path(), text)?;
            finish(with_account(place, account), &url, text)
        }
        "https" => {
            let account = azure_account(&url, text)?;
            let (container, prefix) = split_first(url.path());
            let place = cloud(Vendor::Azure, container, prefix, text)?;
            finish(with_account(place, account), &url, text)
        }
        "file" => file(&url, text),
        "memory" => memory(&url, text),
        _ => Err(bad(text, "a repository is not reached by plain http")),
    }
}

/// Userinfo is where secrets hide; only Azure's own form has a name there that is none.
fn no_secrets(url: &Url, text: &str) -> Result<()> {
    let azure = matches!(url.scheme(), "abfs" | "abfss");
    if url.password().is_some() || (!url.username().is_empty() && !azure) {
        return Err(secret(text, "it holds a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(bad(text, "it holds a #; write it as %23"));
    }
    Ok(())
}

fn bucket(url: &Url, text: &str, vendor: Vendor) -> Result<Location> {
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(bad(text, "it names no bucket"));
    };
    if url.port().is_some() {
        let why = "a bucket has no port; a server of your own is given as ?endpoint=URL";
        return Err(bad(text, why));
    }
    if vendor == Vendor::Azure && host.contains('.') {
        let why = "az:// is followed by the container; give the account as ?account=NAME";
        return Err(bad(text, why));
    }
    finish(cloud(vendor, host, url.path(), text)?, url, text)
}

fn cloud(vendor: Vendor, bucket: &str, prefix: &str, text: &str) -> Result<Cloud> {
    if bucket.is_empty() {
        return Err(bad(text, "it names no bucket or container"));
    }
    Ok(Cloud {
        vendor,
        bucket: bucket.to_owned(),
        prefix: parse_prefix(prefix, text)?,
        endpoint: None,
        allow_http: false,
        region: None,
        style: None,
        account: None,
    })
}

fn with_account(mut cloud: Cloud, account: String) -> Cloud {
    cloud.account = Some(account);
    cloud
}

/// The account in `account.blob.core.windows.net`.
fn azure_account(url: &Url, text: &str) -> Result<String> {
    let host = url.host_str().unwrap_or_default();
    let account = [".blob.core.windows.net", ".dfs.core.windows.net"]
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))
        .filter(|account| !account.is_empty() && !account.contains('.'));
    match account {
        Some(account) => Ok(account.to_owned()),
        None if host.ends_with(".amazonaws.com") => {
            Err(bad(text, "write S3 as s3://bucket/prefix?region=REGION"))
        }
        None => {
            let why = "only Azure's own hosts are understood; write s3://bucket/prefix?endpoint=URL \
                       for a server that speaks S3";
            Err(bad(text, why))
        }
    }
}

fn finish(mut cloud: Cloud, url: &Url, text: &str) -> Result<Location> {
    for (key, value) in url.query_pairs() {
        match (key.as_ref(), cloud.vendor) {
            ("endpoint", _) => cloud.endpoint = Some(endpoint(&value, text)?),
            ("allow_http", _) => cloud.allow_http = switch(&value, text)?,
            ("region", Vendor::S3) => cloud.region = Some(word("region", &value, text)?),
            ("style", Vendor::S3) => {
                cloud.style = Some(match value.as_ref() {
                    "path" => Style::Path,
                    "virtual" => Style::Virtual,
                    _ => return Err(bad(text, "style is path or virtual")),
                });
            }
            ("account", Vendor::Azure) => cloud.account = Some(word("account", &value, text)?),
            (key, _) => return Err(parameter(key, text)),
        }
    }
    Ok(Location::from(Place::Cloud(cloud)))
}

fn endpoint(value: &str, text: &str) -> Result<Url> {
    let why = "endpoint is http://host:port or https://host:port";
    let url = Url::parse(value).map_err(|_| bad(text, why))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(secret(text, "its endpoint holds a user name or password"));
    }
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err(bad(text, why)) }
}

fn switch(value: &str, text: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(text, "allow_http is true or false")),
    }
}

fn word(name: &str, value: &str, text: &str) -> Result<String> {
    let fits = (1..=64).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        Ok(value.to_owned())
    } else {
        Err(bad(text, &format!("{name} is a name of letters, digits and -")))
    }
}

/// An unknown parameter may be a credential, whatever its name; so is its name if it is odd.
fn parameter(key: &str, text: &str) -> Error {
    let lower = key.to_ascii_lowercase();
    let secretive = ["key", "secret", "token", "pass", "sig", "cred", "sas", "auth"];
    if secretive.iter().any(|word| lower.contains(word)) {
        return secret(text, "a parameter of it looks like a credential");
    }
    let why = if key.len() <= 32 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        format!("it has no parameter \"{key}\"")
    } else {
        "it has a parameter that is not known".to_owned()
    };
    bad(text, &why)
}

fn file(url: &Url, text: &str) -> Result<Location> {
    if url.query().is_some() {
        return Err(bad(text, "a directory takes no parameters"));
    }
    match url.to_file_path() {
        Ok(path) => Location::directory(path),
        Err(()) => Err(bad(text, "write file:///absolute/path, or the path alone")),
    }
}

fn memory(url: &Url, text: &str) -> Result<Location> {
    if url.query().is_some() {
        return Err(bad(text, "a store in memory takes no parameters"));
    }
    match url.host_str().filter(|name| !name.is_empty()) {
        Some(name) => Ok(Location::from(Place::Memory {
            name: name.to_owned(),
            prefix: parse_prefix(url.path(), text)?,
        })),
        None => Err(bad(text, "give the store a name: memory://name")),
    }
}

fn parse_prefix(path: &str, text: &str) -> Result<Path> {
    // One slash at the end is how people write directories.
    let path = path.strip_suffix('/').unwrap_or(path);
    Path::from_url_path(path).map_err(|_| bad(text, "its path has an empty or odd component"))
}

fn split_first(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

fn bad(text: &str, why: &str) -> Error {
    Error::Url { url: redact(text), why: why.to_owned() }
}

fn secret(text: &str, what: &'static str) -> Error {
    Error::SecretInUrl { url: redact(text), what }
}

/// The text without userinfo, parameters and fragment.
fn redact(text: &str) -> String {
    let cut = text.find(['?', '#']).unwrap_or(text.len());
    let shown = &text[..cut];
    let (scheme, rest) = match shown.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => match shown.split_once(':') {
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => (format!("{scheme}:"), rest),
            _ => (String::new(), shown),
        },
    };
    // A password may itself hold a slash that was not encoded: everything up to the last @ goes.
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}…@{rest}"),
        None => format!("{scheme}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Provider;
    use super::*;

    fn parse(text: &str) -> Location {
        location(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_shown_parses_to_the_same() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3a://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://bucket/with%20space", "s3://bucket/with%20space"),
            (
                "s3://b/p?region=eu-1&endpoint=http://127.0.0.1:9000&style=path",
                "s3://b/p?endpoint=http%3A%2F%2F127.0.0.1%3A9000%2F&region=eu-1&style=path",
            ),
            ("gs://bucket/p?allow_http=true", "gs://bucket/p?allow_http=true"),
            ("az://container/p?account=me", "az://container/p?account=me"),
            ("abfss://c@me.dfs.core.windows.net/p", "az://c/p?account=me"),
            ("https://me.blob.core.windows.net/c/p/q", "az://c/p/q?account=me"),
            ("file:///var/lib/x", "/var/lib/x"),
            ("/var/lib/x y", "/var/lib/x y"),
            ("memory://test/p", "memory://test/p"),
        ] {
            let location = parse(text);
            assert_eq!(location.to_string(), shown);
            assert_eq!(parse(shown), location);
        }
    }

    #[test]
    fn a_plain_path_is_made_absolute() {
        let location = parse("some/where");
        let expected = std::env::current_dir().unwrap().join("some/where");
        assert_eq!(location.as_directory(), Some(expected.as_path()));
        assert_eq!(location.provider(), Provider::Local);
        // A colon does not make a URL.
        assert_eq!(parse("/a:b?c#d").as_directory().unwrap().to_str(), Some("/a:b?c#d"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            "s3:/bucket",
            "file:x",
            "s3://",
            "s3:///prefix",
            "s3://bucket/a//b",
            "s3://bucket:9000/x",
            "s3://bucket?endpoint=localhost",
            "s3://bucket?endpoint=ftp://x",
            "s3://bucket?region=",
            "s3://bucket?style=odd",
            "s3://bucket?account=x",
            "gs://bucket?region=x",
            "s3://bucket/x#y",
            "file://host/x",
            "file:///x?y=z",
            "memory://",
            "memory://x?y=z",
            "http://host/x",
            "https://example.org/x",
            "https://bucket.s3.eu-west-1.amazonaws.com/x",
            "az://me.blob.core.windows.net/c",
            "ftp://host/x",
        ] {
            assert!(location(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn no_secret_is_taken_or_repeated() {
        for text in [
            "s3://AKIA:hunter2@bucket/p",
            "s3://hunter2@bucket/p",
            "s3://AKIA:hun/hunter2@bucket/p",
            "ftp://AKIA:hunter2@bucket/p",
            "s3:AKIA:hunter2@bucket/p",
            "abfss://c:hunter2@me.dfs.core.windows.net/p",
            "s3://bucket?secret_access_key=hunter2",
            "s3://bucket?hunter2",
            "s3://bucket?x=hunter2",
            "s3://bucket#hunter2",
            "az://c/p?sig=hunter2",
            "s3://bucket?endpoint=http://u:hunter2@host",
            "s3://bucket?endpoint=hunter2",
            "s3://bucket?region=hunter2hunter2%2F",
        ] {
            let error = location(text).unwrap_err();
            let shown = format!("{error} {error:?} {:?}", lifeboat_core::Failure::hint(&error));
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
    }
}
