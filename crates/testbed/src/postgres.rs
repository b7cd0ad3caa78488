//! PostgreSQL: the servers installed on this machine, and clusters made with them.

#[cfg(feature = "servers")]
mod builder;
#[cfg(feature = "servers")]
mod cluster;
mod installation;
#[cfg(feature = "servers")]
mod postmaster;
#[cfg(feature = "servers")]
mod remains;

pub use self::installation::{
    Installation, OLDEST_SUPPORTED, Origin, all, installations, newest, of_major, oldest,
};
#[cfg(feature = "servers")]
pub use self::{
    builder::Builder,
    cluster::{Cluster, Mode},
};
