//! Content whose first extent was looked at.

use lifeboat_core::{Content, Extent};

use crate::error::Result;

/// Content, with the first extent taken out to see what it is.
pub(crate) struct Peeked {
    first: Option<Extent>,
    rest: Content,
}

impl Peeked {
    pub(crate) async fn new(mut content: Content) -> Result<Self> {
        let first = content.next().await?;
        Ok(Self { first, rest: content })
    }

    /// The only extent, when it is known that there is one only.
    pub(crate) fn only(&self) -> Option<&Extent> {
        self.first.as_ref().filter(|_| self.rest.is_exhausted())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Extent>> {
        match self.first.take() {
            Some(extent) => Ok(Some(extent)),
            None => Ok(self.rest.next().await?),
        }
    }

    /// Whether it is known, without reading, that nothing follows.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.first.is_none() && self.rest.is_exhausted()
    }
}
