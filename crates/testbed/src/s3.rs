//! An S3 server in memory: moto, a Python program that `cargo xtask setup` installs.
//!
//! It speaks the protocol with its conditions, ranges, pages and batches, but believes every
//! signature: what depends on credentials must be tested otherwise.

#[cfg(feature = "servers")]
mod server;

use std::path::PathBuf;

#[cfg(feature = "servers")]
pub use self::server::Server;
use crate::home;

/// The version that is installed, and tested with.
pub const MOTO: &str = "5.2.5";

/// Where `cargo xtask setup` puts it, beneath its directory.
pub fn directory() -> String {
    format!("moto-{MOTO}")
}

/// Where it is installed, if it is.
pub fn installed() -> Option<PathBuf> {
    home::search_dirs()
        .into_iter()
        .map(|dir| dir.join(directory()))
        .find(|dir| dir.join("moto").is_dir())
}
