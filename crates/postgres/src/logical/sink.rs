//! A database as a sink.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Completion, Context, Entry, Header, Receipt, Sink, Writing};

use super::name::identifier;
use super::restore::DatabaseRestoreOptions;
use super::target;
use super::writing::Restoring;

/// A database that a snapshot of a database is restored into.
///
/// It refuses, before anything is touched: a database that exists (unless it shall be filled and is
/// empty, or shall be replaced and nobody uses it), and (when the facts of the snapshot are given) a
/// server that is older than the one that was backed up.
///
/// A new database has a name of its own until everything is in it and was checked against what was
/// counted at the backup. Facts of the receipt: `database.name`, `.tables`, `.rows`, `.note.*`, and
/// `.next`.
#[derive(Debug)]
pub struct DatabaseSink {
    options: DatabaseRestoreOptions,
}

impl DatabaseSink {
    /// Nothing is connected to yet.
    pub fn new(options: DatabaseRestoreOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl Sink for DatabaseSink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        Ok(target::prepare(&self.options).await.map(drop)?)
    }

    async fn write(
        &self,
        _: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        context.check()?;
        let admin = target::prepare(&self.options).await?;
        for left in target::left_behind(&admin, &self.options.into).await? {
            let told = format!(
                "an earlier restore did not finish, and left it; when none runs: DROP DATABASE {}",
                identifier(&left)
            );
            context.note(&format!("database {left}"), told);
        }
        let restoring = Restoring::new(admin, self.options.clone(), context.clone());
        Ok(Box::new(DatabaseWriting(Arc::new(restoring))))
    }
}

/// One restore.
struct DatabaseWriting(Arc<Restoring>);

#[async_trait]
impl Writing for DatabaseWriting {
    async fn put(&self, ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Ok(self.0.put(ordinal, entry).await?)
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        match self.0.commit().await {
            Ok(receipt) => Ok(receipt),
            Err(error) => {
                self.0.abort().await;
                Err(error.into())
            }
        }
    }

    async fn abort(self: Arc<Self>) {
        self.0.abort().await;
    }
}

impl Drop for DatabaseWriting {
    fn drop(&mut self) {
        // After a commit or an abort there is nothing left to remove.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let restoring = Arc::clone(&self.0);
            runtime.spawn(async move { restoring.abort().await });
        }
    }
}
