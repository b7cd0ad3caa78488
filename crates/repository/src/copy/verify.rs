//! Whether a copy is what it was made of.

use lifeboat_core::{Bytes, Content, Context, Extent};

use crate::error::{Error, Result};
use crate::snapshot::Snapshot;

/// Compares what the two say of themselves.
pub(super) fn summary(original: &Snapshot, copy: &Snapshot) -> Result<()> {
    let (a, b) = (original.info(), copy.info());
    let same = (a.entries, a.bytes, a.taken) == (b.entries, b.bytes, b.taken)
        && (&a.store, &a.position, &a.facts) == (&b.store, &b.position, &b.facts);
    if same { Ok(()) } else { Err(differs(copy, "it says other things of itself")) }
}

/// Reads both in full and compares every entry and every byte.
pub(super) async fn every_byte(
    original: &Snapshot,
    copy: &Snapshot,
    context: &Context,
) -> Result<()> {
    let (mut these, mut those) = (original.list(None), copy.list(None));
    loop {
        context.check()?;
        let (this, that) = (these.next().await?, those.next().await?);
        let (Some(this), Some(that)) = (&this, &that) else {
            return if this == that { Ok(()) } else { Err(differs(copy, "it has other entries")) };
        };
        if this != that {
            return Err(differs(copy, &format!("{} is not what it was", this.path)));
        }
        let contents = (original.content(&this.path).await?, copy.content(&this.path).await?);
        if let (Some(this_content), Some(that_content)) = contents
            && !same_content(this_content, that_content, context).await?
        {
            return Err(differs(copy, &format!("the content of {} is not what it was", this.path)));
        }
    }
}

/// Compares two contents, of which a few chunks are in memory.
async fn same_content(one: Content, other: Content, context: &Context) -> Result<bool> {
    let (mut one, mut other) = (Run::new(one), Run::new(other));
    loop {
        context.check()?;
        let (Some(a), Some(b)) = (one.fill().await?, other.fill().await?) else {
            return Ok(one.is_over() && other.is_over());
        };
        let length = a.len().min(b.len());
        if !same(a, b, length) {
            return Ok(false);
        }
        one.advance(length);
        other.advance(length);
    }
}

fn same(a: &Extent, b: &Extent, length: u64) -> bool {
    let length = length as usize;
    match (a, b) {
        (Extent::Data(a), Extent::Data(b)) => a[..length] == b[..length],
        (Extent::Hole(_), Extent::Hole(_)) => true,
        (Extent::Data(data), Extent::Hole(_)) | (Extent::Hole(_), Extent::Data(data)) => {
            data[..length].iter().all(|byte| *byte == 0)
        }
        (Extent::Unchanged(_), _) | (_, Extent::Unchanged(_)) => false,
    }
}

/// A content, and the extent of it that is being compared.
struct Run {
    content: Content,
    current: Option<Extent>,
}

impl Run {
    fn new(content: Content) -> Self {
        Self { content, current: None }
    }

    async fn fill(&mut self) -> Result<Option<&Extent>> {
        if self.current.is_none() {
            self.current = self.content.next().await?;
        }
        Ok(self.current.as_ref())
    }

    fn is_over(&self) -> bool {
        self.current.is_none()
    }

    fn advance(&mut self, length: u64) {
        self.current = match self.current.take() {
            Some(Extent::Data(mut data)) => {
                let rest: Bytes = data.split_off(length as usize);
                Some(Extent::Data(rest))
            }
            Some(Extent::Hole(hole)) => Some(Extent::Hole(hole - length)),
            other => other,
        }
        .filter(|extent| !extent.is_empty());
    }
}

fn differs(copy: &Snapshot, what: &str) -> Error {
    Error::damaged(format!("copy {}", copy.info().id), what)
}
