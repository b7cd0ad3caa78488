//! Deleting, which goes to the store in batches where it can.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, Result};

use super::effort::{Policy, Repeat};

/// What S3 takes in one request.
const BATCH: usize = 1000;
/// How many batches are under way at once.
const SIDE_BY_SIDE: usize = 4;

/// Deletes all of `locations`, and says of each, in the same order, what became of it.
pub(super) fn patient(
    locations: BoxStream<'static, Result<Path>>,
    inner: Arc<dyn ObjectStore>,
    policy: Arc<Policy>,
) -> BoxStream<'static, Result<Path>> {
    locations
        .ready_chunks(BATCH)
        .map(move |batch| {
            let (inner, policy) = (inner.clone(), policy.clone());
            async move { stream::iter(delete(batch, inner, &policy).await) }
        })
        .buffered(SIDE_BY_SIDE)
        .flatten()
        .boxed()
}

async fn delete(
    batch: Vec<Result<Path>>,
    inner: Arc<dyn ObjectStore>,
    policy: &Policy,
) -> Vec<Result<Path>> {
    let mut outcomes: Vec<Option<Result<Path>>> = Vec::with_capacity(batch.len());
    let mut left: Vec<(usize, Path)> = Vec::with_capacity(batch.len());
    for (at, location) in batch.into_iter().enumerate() {
        match location {
            Ok(path) => {
                left.push((at, path));
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(Err(error))),
        }
    }
    let Some((_, first)) = left.first() else {
        return outcomes.into_iter().flatten().collect();
    };
    let mut effort = policy.begin("delete", &first.clone(), Repeat::Always);
    let mut first_try = true;
    while !left.is_empty() {
        let results = once(&left, &inner, policy).await;
        let mut failed: Option<Error> = None;
        let mut again = Vec::new();
        for ((at, path), result) in std::mem::take(&mut left).into_iter().zip(results) {
            match result {
                Ok(_) => outcomes[at] = Some(Ok(path)),
                // An earlier try of ours may have done it.
                Err(Error::NotFound { .. }) if !first_try => outcomes[at] = Some(Ok(path)),
                Err(error) if crate::error::classify(&error).is_retryable() => {
                    failed = Some(error);
                    again.push((at, path));
                }
                Err(error) => outcomes[at] = Some(Err(error)),
            }
        }
        left = again;
        if let Some(error) = failed
            && let Err(error) = effort.after(error).await
        {
            let text = error.to_string();
            let mut error = Some(error);
            for (at, path) in std::mem::take(&mut left) {
                // Errors cannot be copied: the first object has it, the others its text.
                let error = error.take().unwrap_or_else(|| Error::Generic {
                    store: "store",
                    source: format!("delete {path}: {text}").into(),
                });
                outcomes[at] = Some(Err(error));
            }
        }
        first_try = false;
    }
    outcomes.into_iter().flatten().collect()
}

/// One try; as many results as paths.
async fn once(
    left: &[(usize, Path)],
    inner: &Arc<dyn ObjectStore>,
    policy: &Policy,
) -> Vec<Result<Path>> {
    let paths: Vec<_> = left.iter().map(|(_, path)| Ok(path.clone())).collect();
    // Stores without batches are asked one by one: 64 KiB/s stands for 60 objects per second.
    let limit = policy.limit(left.len() as u64 * 1024);
    let all = async { Ok(inner.delete_stream(stream::iter(paths).boxed()).collect().await) };
    let results: Vec<Result<Path>> = match policy.within(limit, all).await {
        Ok(results) => results,
        Err(error) => vec![Err(error)],
    };
    if results.len() == left.len() {
        return results.into_iter().map(|result| result.map_err(crate::trouble::tidy)).collect();
    }
    // The request as a whole failed: that is the result of each.
    let error = results.into_iter().find_map(Result::err).map(crate::trouble::tidy);
    let text = error.as_ref().map_or_else(|| "no answer".to_owned(), ToString::to_string);
    let trouble = error.as_ref().and_then(crate::trouble::Trouble::of);
    left.iter()
        .map(|_| {
            Err(match &trouble {
                Some(trouble) => crate::trouble::generic(trouble.clone()),
                None => Error::Generic { store: "store", source: text.clone().into() },
            })
        })
        .collect()
}
