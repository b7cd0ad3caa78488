//! Making the server a primary again, whatever happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_core::Context;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::MasterOptions;
use crate::connect::{Answer, Connection};
use crate::error::Result;
use crate::source::Info;

const PROMOTING: &str = "make the server a primary again";
/// So often it is tried, with pauses between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Sees to it that a server that was told to replicate is told to stop.
pub(super) struct Promotion {
    options: Arc<MasterOptions>,
    context: Context,
    /// How many keys it held before.
    before: u64,
    owed: AtomicBool,
}

impl Promotion {
    pub(super) fn new(options: Arc<MasterOptions>, before: u64, context: &Context) -> Self {
        Self { options, context: context.clone(), before, owed: AtomicBool::new(false) }
    }

    /// From now on the server may be a replica.
    pub(super) fn owe(&self) {
        self.owed.store(true, Ordering::Relaxed);
    }

    /// Makes it a primary, and says how many keys it holds.
    pub(super) async fn promote(&self, connection: &mut Connection) -> Result<u64> {
        connection.demand(PROMOTING, &[b"REPLICAOF", b"NO", b"ONE"]).await?;
        let info = info(connection).await?;
        if info.text("role") != Some("master") {
            let role = format!("the role \"{}\"", info.text("role").unwrap_or_default());
            return Err(connection.nonsense(PROMOTING, role));
        }
        self.owed.store(false, Ordering::Relaxed);
        Ok(info.keys().unwrap_or(0))
    }

    /// After a failure: makes it a primary if it may be a replica, and tells what it holds.
    pub(super) async fn undo(&self) {
        if !self.owed.swap(false, Ordering::Relaxed) {
            return;
        }
        undo(&self.options, self.before, &self.context).await;
    }
}

impl Drop for Promotion {
    fn drop(&mut self) {
        if !self.owed.load(Ordering::Relaxed) {
            return;
        }
        let (options, before, context) =
            (Arc::clone(&self.options), self.before, self.context.clone());
        match Handle::try_current() {
            Ok(handle) => {
                handle.spawn(async move { undo(&options, before, &context).await });
            }
            Err(_) => context.warn(&options.connection.target(), STILL),
        }
    }
}

const STILL: &str = "the server could not be made a primary again, and takes no writes: as an \
                     administrator, redis-cli REPLICAOF NO ONE";

async fn undo(options: &MasterOptions, before: u64, context: &Context) {
    let target = options.connection.target();
    for attempt in 1..=ATTEMPTS {
        let promoting = async {
            let mut connection = options.connection.connect().await?;
            connection.demand(PROMOTING, &[b"REPLICAOF", b"NO", b"ONE"]).await?;
            info(&mut connection).await
        };
        match promoting.await {
            Ok(info) => {
                let keys = info.keys().unwrap_or(0);
                let told = format!(
                    "the server was not replaced as a whole; it is a primary again, and holds \
                     {keys} keys ({before} before): run the restore again, or look before clients \
                     use it"
                );
                return context.warn(&target, told);
            }
            Err(error) => tracing::warn!(attempt, %error, "the server stays a replica"),
        }
        if attempt < ATTEMPTS {
            sleep(PAUSE).await;
        }
    }
    context.warn(&target, STILL);
}

/// All that the server says of itself.
pub(super) async fn info(connection: &mut Connection) -> Result<Info> {
    const ASKING: &str = "ask the server about itself";
    match connection.demand(ASKING, &[b"INFO"]).await? {
        Answer::Text(text) => Ok(Info::parse(&text)),
        other => Err(connection.nonsense(ASKING, format!("{other:?}"))),
    }
}
