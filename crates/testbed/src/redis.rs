//! Redis: the servers installed on this machine, and running ones.

#[cfg(feature = "servers")]
mod cluster;
mod installation;
#[cfg(feature = "servers")]
mod server;

#[cfg(feature = "servers")]
pub use self::cluster::Cluster;
pub use self::installation::{
    Installation, OLD, STACK, all, installations, newest, of_version, old_directory,
    stack_directory,
};
#[cfg(feature = "servers")]
pub use self::server::{Builder, Server};
