//! Redis: the servers installed on this machine, and running ones.

mod installation;
#[cfg(feature = "servers")]
mod server;

pub use self::installation::{
    Installation, OLD, STACK, all, installations, newest, of_version, old_directory,
    stack_directory,
};
#[cfg(feature = "servers")]
pub use self::server::{Builder, Server};
