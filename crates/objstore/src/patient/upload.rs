//! An upload in parts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::effort::{Policy, Repeat};

pub(super) fn patient(
    inner: Box<dyn MultipartUpload>,
    location: Path,
    policy: Arc<Policy>,
) -> Box<dyn MultipartUpload> {
    Box::new(Upload { inner, location, policy, bytes: 0 })
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    policy: Arc<Policy>,
    bytes: u64,
}

impl Upload {
    /// A store puts the parts together when the upload ends, and that takes its time.
    fn limit_to_complete(&self) -> Duration {
        self.policy.limit(self.bytes / 16)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let size = data.content_length() as u64;
        self.bytes += size;
        let part = self.inner.put_part(data);
        let policy = Arc::clone(&self.policy);
        Box::pin(async move { policy.within(policy.limit_with_retries(size), part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        // Asked twice, a store answers that there is no such upload, although all is well.
        let limit = self.limit_to_complete();
        self.policy.within(limit, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let mut effort = self.policy.begin("abort the upload of", &self.location, Repeat::Always);
        loop {
            match self.policy.within(self.policy.limit(0), self.inner.abort()).await {
                Ok(()) => return Ok(()),
                Err(error) => effort.after(error).await?,
            }
        }
    }
}
