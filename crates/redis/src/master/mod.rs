//! A snapshot in place of what a running server holds: we act as its primary.
//!
//! [`MasterSink`] tells the server to replicate from us (`REPLICAOF`), serves the handshake of a
//! replica and sends the RDB of the snapshot; for a moment of a journal, the changes behind it as
//! well. When the server has acknowledged the last byte it is told to be a primary again
//! (`REPLICAOF NO ONE`). So the server loads everything itself, as from any primary: all types, all
//! databases, functions, and what modules keep, with nothing to be parsed on the way.
//!
//! # What is seen to
//!
//! - It replaces *everything*: a server that holds keys or functions is refused, unless
//!   [`Holding::Replace`] was said. So are a replica, a node of a cluster, a Sentinel, and a server
//!   that replicates over TLS (`tls-replication`), which we could not serve.
//! - Before the server is told anything, it is asked, as for a restore [key by
//!   key](crate::LiveSink), whether it takes the snapshot's version: one that does not would empty
//!   itself first, and then fail.
//! - The RDB is checked while it passes, and the mark that ends it is sent only when it is whole. A
//!   server that never saw the mark keeps what it had (unless `repl-diskless-load` is set), so a
//!   damaged snapshot, a lost connection or an interruption until then costs nothing.
//! - A server that meets a value of a module that it lacks ends itself. So one without any module
//!   never sees the mark of a snapshot that holds what modules keep. Which modules those are is not
//!   known here: one that has others ends all the same.
//! - We listen on a free port of the address from which we reach the server, or where
//!   [`MasterOptions::listen`] says, and only until the server has come. Who comes from another
//!   address than the server's is turned away, unless we were told where to listen: then the way
//!   may be another one. The handshake has no password that we could check: a
//!   process on the server's host could come first, and would be served in the server's place; the
//!   server would then not come, and the restore fail.
//! - Whatever happens after `REPLICAOF`, the server is told to be a primary again: by
//!   [`abort`](lifeboat_core::Writing::abort), or, when the transfer is dropped, by a task that it
//!   leaves behind. Only when this process is killed outright is nobody left to do so; the server then
//!   stays a replica of an address where nobody answers, and the next restore refuses it and says so.
//! - How long it takes to load the RDB only the server knows. It is waited for as long as something
//!   moves: the bytes that it has loaded, or a sign of life on the connection.
//!
//! # Rights
//!
//! `+replicaof +restore +info`, and `+config|get` to be told of `tls-replication` before rather than
//! after. The server comes to us by itself, with its own `masteruser`, which we do not ask for.

mod error;
mod promotion;
mod replica;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Context, Header, Sink, Writing};

pub use self::error::MasterError;
use crate::connect::ConnectOptions;

/// What is done with a server that holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holding {
    /// It is refused.
    #[default]
    Refuse,
    /// All that it holds is replaced.
    Replace,
}

/// How a server is replaced.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MasterOptions {
    /// How the server is reached. Its patience is also how long it may take until the server comes,
    /// and how long nothing may move after that.
    pub connection: ConnectOptions,
    /// What is done when it holds something.
    pub holding: Holding,
    /// Where the server reaches us: an address, or `host:port`. Without it, or where it is all
    /// addresses (`0.0.0.0`), the server is told the one from which we reach it; without a port, a free
    /// one.
    pub listen: Option<String>,
}

impl MasterOptions {
    /// The defaults, for this server.
    pub fn new(connection: ConnectOptions) -> Self {
        Self { connection, holding: Holding::default(), listen: None }
    }
}

/// A running server that a snapshot, or a moment of a journal, takes the place of.
#[derive(Debug, Clone)]
pub struct MasterSink {
    options: Arc<MasterOptions>,
}

impl MasterSink {
    /// A server, and how it is replaced.
    pub fn new(options: MasterOptions) -> Self {
        Self { options: Arc::new(options) }
    }
}

#[async_trait]
impl Sink for MasterSink {
    async fn look(&self, _: &Header, context: &Context) -> lifeboat_core::Result<()> {
        let (control, keys) = writing::look(&self.options).await?;
        if keys > 0 {
            let noun = if keys == 1 { "key, which goes" } else { "keys, which all go" };
            context.note(control.target(), format!("it holds {keys} {noun}"));
        }
        Ok(())
    }

    async fn write(
        &self,
        _header: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        let writing = writing::begin(Arc::clone(&self.options), context).await?;
        Ok(Box::new(writing))
    }
}
