//! The content of an object, which may break off on its way.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, Result};

use super::effort::{Effort, Policy, Repeat};
use crate::trouble::{self, Trouble};

/// Makes the content of `result` go on where it breaks off.
pub(super) fn patient(
    mut result: GetResult,
    options: &GetOptions,
    inner: Arc<dyn ObjectStore>,
    policy: Arc<Policy>,
) -> GetResult {
    let stream = match result.payload {
        GetResultPayload::Stream(stream) if !options.head => stream,
        other => {
            result.payload = other;
            return result;
        }
    };
    let body = Body {
        inner,
        policy,
        location: result.meta.location.clone(),
        tag: result.meta.e_tag.clone(),
        options: GetOptions {
            version: options.version.clone(),
            extensions: options.extensions.clone(),
            ..GetOptions::default()
        },
        left: result.range.clone(),
        stream,
    };
    let stream =
        try_unfold(body, async |mut body: Body| Ok(body.next().await?.map(|bytes| (bytes, body))));
    result.payload = GetResultPayload::Stream(stream.boxed());
    result
}

struct Body {
    inner: Arc<dyn ObjectStore>,
    policy: Arc<Policy>,
    location: Path,
    /// Without it nobody knows whether the rest is of the same object.
    tag: Option<String>,
    options: GetOptions,
    left: Range<u64>,
    stream: BoxStream<'static, Result<Bytes>>,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let policy = Arc::clone(&self.policy);
        let mut effort = policy.begin("read on in", &self.location, Repeat::Always);
        loop {
            match self.piece(&policy).await {
                Ok(bytes) => {
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(error) if self.tag.is_none() => return Err(error),
                Err(error) => self.resume(error, &policy, &mut effort).await?,
            }
        }
    }

    /// The next bytes, or an error when there are none though there should be.
    async fn piece(&mut self, policy: &Policy) -> Result<Bytes> {
        let (got, expected) = (self.left.start, self.left.end);
        let next = async { self.stream.next().await.transpose() };
        match policy.within(policy.limit(0), next).await? {
            Some(bytes) if bytes.len() as u64 <= expected - got => Ok(bytes),
            _ => Err(trouble::generic(Trouble::Short { expected, got })),
        }
    }

    async fn resume(
        &mut self,
        mut error: object_store::Error,
        policy: &Policy,
        effort: &mut Effort<'_>,
    ) -> Result<()> {
        loop {
            effort.after(error).await?;
            let options = GetOptions {
                if_match: self.tag.clone(),
                range: Some(GetRange::Bounded(self.left.clone())),
                ..self.options.clone()
            };
            let get = self.inner.get_opts(&self.location, options);
            match policy.within(policy.limit(0), get).await {
                Ok(result) => {
                    self.stream = result.into_stream();
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }
}
