//! The cloud stores, set up from the location and from the environment.
//!
//! The environment is read under the names that every tool of a provider uses; the location comes
//! second and wins. The limits and retries of `object_store` are switched off here:
//! [`Patient`](crate::Patient) has its own.

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{
    ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig,
};
use url::{Host, Url};

use crate::checksummed::Checksummed;
use crate::error::{Error, Result};
use crate::location::{Cloud, Location, Style, Vendor};
use crate::options::{Integrity, PlainHttp, StoreOptions};
use crate::patient::Order;

const USER_AGENT: &str = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));

/// The builder of a provider cannot switch the limit of a request off by name, and the limit of
/// `object_store` knows nothing of sizes: this one is never the first to end a request.
const NO_LIMIT: &str = "30days";

/// Said with the checksum itself, since not every server that wants one sees it by its own header.
const ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";

/// A store, and for S3 what it takes to ask it more than `object_store` does.
pub(crate) struct Built {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) asked: Option<(AmazonS3, ClientOptions)>,
}

pub(crate) fn build(cloud: &Cloud, location: &Location, options: &StoreOptions) -> Result<Built> {
    let alone = |store| Built { store, asked: None };
    match cloud.vendor {
        Vendor::S3 => s3(cloud, location, options),
        Vendor::Google => google(cloud, location, options).map(alone),
        Vendor::Azure => azure(cloud, location, options).map(alone),
    }
}

/// S3's directory buckets (`--x-s3`) are the only ones that do not list by name.
pub(crate) fn order(cloud: &Cloud) -> Order {
    if cloud.vendor == Vendor::S3 && cloud.bucket.ends_with("--x-s3") {
        Order::Unspecified
    } else {
        Order::ByName
    }
}

fn s3(cloud: &Cloud, location: &Location, options: &StoreOptions) -> Result<Built> {
    use AmazonS3ConfigKey as Key;
    let mut builder = AmazonS3Builder::new();
    let mut client = ClientOptions::new();
    let mut asked = None;
    for (name, value) in options.variables.pairs() {
        if name == "aws_allow_http" {
            asked = Some(value.clone());
        }
        if name.starts_with("aws_")
            && let Ok(key) = name.parse::<Key>()
        {
            match key {
                Key::Client(key) => client = client.with_config(key, value),
                key => builder = builder.with_config(key, value),
            }
        }
    }
    builder = builder.with_bucket_name(&cloud.bucket);
    if cloud.bucket.ends_with("--x-s3") {
        builder = builder.with_s3_express(true);
    }
    if let Some(region) = &cloud.region {
        builder = builder.with_region(region);
    }
    if let Some(style) = cloud.style {
        builder = builder.with_virtual_hosted_style_request(style == Style::Virtual);
    }
    if let Some(endpoint) = &cloud.endpoint {
        // This key wins over the variables, whichever of them is set.
        let endpoint = s3_endpoint(endpoint, cloud);
        builder = builder.with_config(Key::S3Endpoint, endpoint);
    }
    let endpoint = builder
        .get_config_value(&Key::S3Endpoint)
        .or_else(|| builder.get_config_value(&Key::Endpoint));
    let transport = Transport::of(endpoint.as_deref(), asked.as_deref(), cloud, location, options)?;
    for (key, value) in client_settings(transport, options) {
        client = client.with_config(key, value);
    }
    let settings = |source| Error::Settings { location: location.clone(), source };
    builder = builder.with_retry(no_retries()).with_client_options(client.clone());
    // Requests without a checksum, and signed as usual: what everybody understands.
    let asked = builder.clone().build().map_err(settings)?;
    let store: Arc<dyn ObjectStore> = match (options.integrity, transport) {
        (Integrity::Signed, _) | (Integrity::Crc64, Transport::Clear) => {
            let mut algorithm = HeaderMap::new();
            algorithm.insert(ALGORITHM, HeaderValue::from_static("SHA256"));
            let client = client.clone().with_default_headers(algorithm);
            let summed = builder.with_client_options(client);
            let summed = summed.with_checksum_algorithm(Checksum::SHA256);
            Arc::new(Checksummed::new(asked.clone(), summed))
        }
        (Integrity::SignedSha256, _) => {
            let summed = builder.with_checksum_algorithm(Checksum::SHA256).build();
            Arc::new(summed.map_err(settings)?)
        }
        (Integrity::Crc64, Transport::Encrypted) => {
            let summed = builder.with_unsigned_payload(true);
            let summed = summed.with_checksum_algorithm(Checksum::CRC64NVME).build();
            Arc::new(summed.map_err(settings)?)
        }
    };
    Ok(Built { store, asked: Some((asked, client)) })
}

/// With the bucket in the host name, `object_store` wants it in the endpoint.
fn s3_endpoint(endpoint: &Url, cloud: &Cloud) -> String {
    let mut endpoint = endpoint.clone();
    if cloud.style == Some(Style::Virtual) {
        let host = format!("{}.{}", cloud.bucket, endpoint.host_str().unwrap_or_default());
        // An address has no subdomains: the endpoint stays as it is, and the store will say so.
        let _ = endpoint.set_host(Some(&host));
    }
    endpoint.as_str().trim_end_matches('/').to_owned()
}

fn google(
    cloud: &Cloud,
    location: &Location,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>> {
    use GoogleConfigKey as Key;
    let mut builder = GoogleCloudStorageBuilder::new();
    let mut asked = None;
    for (name, value) in options.variables.pairs() {
        if name == "google_allow_http" {
            asked = Some(value.clone());
        }
        // The one name of Google's that does not say whose it is.
        if name == "service_account" {
            builder = builder.with_service_account_path(&value);
        }
        if name.starts_with("google_")
            && let Ok(key) = name.parse::<Key>()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(&cloud.bucket);
    if let Some(endpoint) = &cloud.endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    let endpoint = builder.get_config_value(&Key::BaseUrl);
    let transport = Transport::of(endpoint.as_deref(), asked.as_deref(), cloud, location, options)?;
    for (key, value) in client_settings(transport, options) {
        builder = builder.with_config(Key::Client(key), value);
    }
    finish(builder.with_retry(no_retries()).build(), location)
}

fn azure(
    cloud: &Cloud,
    location: &Location,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>> {
    use AzureConfigKey as Key;
    let mut builder = MicrosoftAzureBuilder::new();
    let mut asked = None;
    for (name, value) in options.variables.pairs() {
        if name == "azure_allow_http" {
            asked = Some(value.clone());
        }
        if name == "identity_endpoint" {
            builder = builder.with_msi_endpoint(&value);
        }
        if name.starts_with("azure_")
            && let Ok(key) = name.parse::<Key>()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_container_name(&cloud.bucket);
    if let Some(account) = &cloud.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &cloud.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    let endpoint = builder.get_config_value(&Key::Endpoint);
    let transport = Transport::of(endpoint.as_deref(), asked.as_deref(), cloud, location, options)?;
    for (key, value) in client_settings(transport, options) {
        builder = builder.with_config(Key::Client(key), value);
    }
    finish(builder.with_retry(no_retries()).build(), location)
}

fn finish<S: ObjectStore>(
    built: object_store::Result<S>,
    location: &Location,
) -> Result<Arc<dyn ObjectStore>> {
    match built {
        Ok(store) => Ok(Arc::new(store)),
        Err(source) => Err(Error::Settings { location: location.clone(), source }),
    }
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client_settings(transport: Transport, options: &StoreOptions) -> [(ClientConfigKey, String); 4] {
    let clear = transport == Transport::Clear;
    let connect = format!("{}ms", options.patience.connect.as_millis().max(1));
    [
        (ClientConfigKey::AllowHttp, clear.to_string()),
        (ClientConfigKey::ConnectTimeout, connect),
        (ClientConfigKey::Timeout, NO_LIMIT.to_owned()),
        (ClientConfigKey::UserAgent, USER_AGENT.to_owned()),
    ]
}

/// What lies between us and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Encrypted,
    Clear,
}

impl Transport {
    fn of(
        endpoint: Option<&str>,
        asked: Option<&str>,
        cloud: &Cloud,
        location: &Location,
        options: &StoreOptions,
    ) -> Result<Self> {
        let Some(endpoint) = endpoint.and_then(|endpoint| Url::parse(endpoint).ok()) else {
            return Ok(Self::Encrypted);
        };
        let allowed = cloud.allow_http
            || options.plain_http == PlainHttp::Anywhere
            || asked.is_some_and(|asked| matches!(asked, "true" | "1" | "yes" | "on"))
            || is_loopback(&endpoint);
        match endpoint.scheme() {
            "http" if allowed => Ok(Self::Clear),
            "http" => Err(Error::PlainHttp {
                location: location.clone(),
                endpoint: endpoint.origin().ascii_serialization(),
            }),
            _ => Ok(Self::Encrypted),
        }
    }
}

fn is_loopback(endpoint: &Url) -> bool {
    match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Place;
    use crate::open;
    use crate::options::Variables;
    use lifeboat_core::{ErrorKind, Failure};

    fn try_open(text: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
        let given = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
            ("AZURE_SKIP_SIGNATURE", "true"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables = Variables::Given(given.into());
        open(&text.parse()?, &StoreOptions { variables, ..options.clone() })
    }

    #[test]
    fn only_this_machine_is_reached_in_the_clear() {
        let plain = StoreOptions::default();
        let anywhere = StoreOptions { plain_http: PlainHttp::Anywhere, ..plain.clone() };
        for allowed in [
            "s3://b?endpoint=http://127.0.0.1:9000",
            "s3://b?endpoint=http://[::1]:9000",
            "gs://b?endpoint=http://localhost:9000",
            "az://c?account=a&endpoint=http://localhost:9000",
            "s3://b?endpoint=https://minio.example",
            "s3://b",
            "gs://b",
            "az://c?account=a",
            "s3://b?endpoint=http://minio.example&allow_http=true",
        ] {
            try_open(allowed, &plain).unwrap_or_else(|error| panic!("{allowed}: {error:?}"));
        }
        for refused in [
            "s3://b?endpoint=http://minio.example",
            "gs://b?endpoint=http://10.0.0.1",
            "az://c?account=a&endpoint=http://localhost.example",
        ] {
            let error = try_open(refused, &plain).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{refused}");
            try_open(refused, &anywhere).unwrap();
        }
    }

    #[test]
    fn every_choice_of_integrity_can_be_built() {
        for integrity in [Integrity::Signed, Integrity::SignedSha256, Integrity::Crc64] {
            let options = StoreOptions { integrity, ..StoreOptions::default() };
            try_open("s3://b?region=eu-west-1&style=virtual", &options).unwrap();
            try_open("s3://b?endpoint=https://minio.example&style=virtual", &options).unwrap();
        }
    }

    #[test]
    fn a_missing_account_is_explained() {
        let error = try_open("az://container", &StoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hint().unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }

    #[test]
    fn the_bucket_goes_into_the_host_where_that_is_asked_for() {
        let location: Location =
            "s3://b?endpoint=https://minio.example:9000&style=virtual".parse().unwrap();
        let Place::Cloud(cloud) = location.place() else { panic!() };
        let endpoint = s3_endpoint(cloud.endpoint.as_ref().unwrap(), cloud);
        assert_eq!(endpoint, "https://b.minio.example:9000");
    }
}
