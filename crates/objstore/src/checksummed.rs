//! A bucket with object lock wants a checksum with every put; many gateways refuse one.
//!
//! Which of the two a server is, its answer to a put says: so puts go without a checksum until one
//! is asked for, and from then on with one. The put that was refused is made again.

use std::fmt;
use std::sync::OnceLock;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::trouble::Trouble;

/// The same bucket twice; the second time only when it is needed.
pub(crate) struct Checksummed {
    plain: AmazonS3,
    builder: AmazonS3Builder,
    summed: OnceLock<AmazonS3>,
}

impl Checksummed {
    /// `builder` makes the one with checksums.
    pub(crate) fn new(plain: AmazonS3, builder: AmazonS3Builder) -> Self {
        Self { plain, builder, summed: OnceLock::new() }
    }

    fn summed(&self) -> Result<&AmazonS3> {
        if let Some(summed) = self.summed.get() {
            return Ok(summed);
        }
        let built = self.builder.clone().build()?;
        Ok(self.summed.get_or_init(|| built))
    }
}

impl fmt::Debug for Checksummed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.plain, f)
    }
}

impl fmt::Display for Checksummed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.plain, f)
    }
}

#[async_trait]
impl ObjectStore for Checksummed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if let Some(summed) = self.summed.get() {
            return summed.put_opts(location, payload, options).await;
        }
        match self.plain.put_opts(location, payload.clone(), options.clone()).await {
            Err(error) if Trouble::of(&error).is_some_and(|it| it.wants_checksum()) => {
                self.summed()?.put_opts(location, payload, options).await
            }
            other => other,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.summed.get().unwrap_or(&self.plain).put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.plain.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.plain.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.plain.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.plain.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plain.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plain.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.plain.rename_opts(from, to, options).await
    }
}
