//! One snapshot on its way.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt, stream};
use lifeboat_core::{
    Attributes, ByteBudget, Completion, Content, Context, Entry, EntryKind, EntryPath, Extent,
    Layout, Reading,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::handshake::Started;
use super::payload::Payload;
use super::{DUMP, facts};
use crate::checker::Checker;
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::rdb::Outcome;

/// A snapshot on its way: one entry, whose content is the RDB.
pub(crate) struct Snapshot {
    /// Until it is given away.
    payload: Option<Payload>,
    /// Who wants the connection when all of it has come.
    after: Option<oneshot::Sender<Connection>>,
    origin: facts::Origin,
    /// Said by the content when it has come to its end.
    outcome: Arc<Mutex<Option<Outcome>>>,
    context: Context,
}

impl Snapshot {
    pub(crate) fn new(started: Started, context: &Context) -> Self {
        let Started { payload, origin } = started;
        context.phase("receive the data");
        context.expect(payload.length().unwrap_or(0));
        Self {
            payload: Some(payload),
            after: None,
            origin,
            outcome: Arc::default(),
            context: context.clone(),
        }
    }

    /// Gives the connection away when all of it has come.
    pub(crate) fn with_after(mut self, after: oneshot::Sender<Connection>) -> Self {
        self.after = Some(after);
        self
    }
}

#[async_trait]
impl Reading for Snapshot {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        let Some(payload) = self.payload.take() else {
            return Ok(None);
        };
        let length = payload.length().unwrap_or(0);
        let started = Started { payload, origin: self.origin.clone() };
        let started = std::future::ready(Ok(started)).boxed();
        let outcome = Arc::clone(&self.outcome);
        let content = content(started, self.after.take(), outcome, &self.context);
        let path = EntryPath::new(DUMP)?;
        let entry = Entry::new(path, EntryKind::File, Attributes::new());
        let entry = entry.with_layout(Layout::Records);
        Ok(Some(entry.with_content(length, content)))
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let outcome = self.outcome.lock().take().ok_or(Error::Unfinished)?;
        if let Some(why) = &outcome.not_understood {
            let message = format!(
                "it is stored as the server sent it and its checksum is right, but what it holds \
                 is not fully known: {why}; use a newer version of this program to list it"
            );
            self.context.warn(DUMP, message);
        }
        let mut completion = Completion::at(facts::taken(self.origin.reached, &outcome.census));
        completion.position = format!("{}:{}", self.origin.replication_id, self.origin.offset);
        completion.facts = facts::of(&self.origin, &outcome);
        Ok(completion)
    }
}

/// The RDB that is about to come, checked while it passes. `outcome` is set when it ended whole, and
/// `after` gets the connection when all of it has come.
pub(crate) fn content(
    started: BoxFuture<'static, Result<Started>>,
    after: Option<oneshot::Sender<Connection>>,
    outcome: Arc<Mutex<Option<Outcome>>>,
    context: &Context,
) -> Content {
    let context = context.clone();
    let flow = async move {
        let payload = started.await?.payload;
        Ok::<_, Error>(Flow {
            target: payload.target().to_owned(),
            payload: Some(payload),
            after,
            checker: Some(Checker::start()),
            outcome,
            budget: context.budget().clone(),
            context,
        })
    };
    let stream = flow.map_ok(|flow| {
        stream::try_unfold(flow, |mut flow| async move {
            let extent = flow.next().await?;
            Ok::<_, lifeboat_core::Error>(extent.map(|extent| (extent, flow)))
        })
    });
    Content::stream(stream.map_err(lifeboat_core::Error::from).try_flatten_stream())
}

/// What turns the payload into content, and has it checked meanwhile.
struct Flow {
    target: String,
    /// Until all of it has come.
    payload: Option<Payload>,
    after: Option<oneshot::Sender<Connection>>,
    checker: Option<Checker>,
    outcome: Arc<Mutex<Option<Outcome>>>,
    budget: ByteBudget,
    context: Context,
}

impl Flow {
    async fn next(&mut self) -> Result<Option<Extent>> {
        let Some(checker) = &self.checker else {
            return Ok(None);
        };
        if let Some(payload) = &mut self.payload {
            if let Some(bytes) = payload.next(&self.budget).await? {
                checker.feed(bytes.clone()).await;
                self.context.count_read(bytes.len() as u64);
                return Ok(Some(Extent::Data(bytes)));
            }
            // What follows is taken while this is still being looked at.
            let payload = self.payload.take();
            if let (Some(payload), Some(after)) = (payload, self.after.take()) {
                let _ = after.send(payload.into_connection());
            }
        }
        let Some(checker) = self.checker.take() else {
            return Ok(None);
        };
        let target = self.target.clone();
        let outcome = checker.finish().await?;
        let outcome = outcome.map_err(|source| Error::Received { target, source })?;
        *self.outcome.lock() = Some(outcome);
        Ok(None)
    }
}
