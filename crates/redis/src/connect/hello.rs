//! What a server says of itself to everybody.
//!
//! `HELLO` takes no right: servers let every user call it, since users log in with it. It tells
//! whether the server is a node of a cluster, which a user of few rights could not ask otherwise.

use super::{Answer, Connection};
use crate::error::Result;

/// How a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Standalone,
    Cluster,
    Sentinel,
    /// It does not say: it is of a version before 6, or something between hides it.
    Unknown,
}

/// What a server is to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Replica,
    Unknown,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) mode: Mode,
    pub(crate) role: Role,
}

impl Connection {
    /// Asks how the server runs. The protocol stays as it is.
    pub(crate) async fn hello(&mut self) -> Result<Hello> {
        let answer = self.ask("ask how the server runs", &[b"HELLO", b"2"]).await?;
        let Answer::List(parts) = answer else {
            return Ok(Hello { mode: Mode::Unknown, role: Role::Unknown });
        };
        let said = |name: &[u8]| {
            let pairs = parts.chunks_exact(2);
            pairs.into_iter().find_map(|pair| match pair {
                [Answer::Text(key), Answer::Text(value)] if key == name => Some(&value[..]),
                _ => None,
            })
        };
        let mode = match said(b"mode") {
            Some(b"standalone") => Mode::Standalone,
            Some(b"cluster") => Mode::Cluster,
            Some(b"sentinel") => Mode::Sentinel,
            _ => Mode::Unknown,
        };
        let role = match said(b"role") {
            Some(b"master") => Role::Primary,
            Some(b"replica" | b"slave") => Role::Replica,
            _ => Role::Unknown,
        };
        Ok(Hello { mode, role })
    }
}
