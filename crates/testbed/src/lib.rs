//! Real servers on loopback, for Lifeboat's tests, examples, benchmarks and demo.
//!
//! A backup is only as true as the server it was tested with, so the tests start the real thing:
//! every PostgreSQL that `cargo xtask setup` has found or installed, on a free port of 127.0.0.1, in
//! a temporary directory. A server goes with the value that stands for it, also when the test
//! panics, and a watchdog stops it when the whole process is killed.
//!
//! ```
//! # async fn run() -> anyhow::Result<()> {
//! use lifeboat_testbed::{data, postgres::{Cluster, Mode, newest}};
//!
//! let mut cluster = Cluster::builder()
//!     .installation(newest()?)
//!     .setting("wal_compression", "on")
//!     .start()?;
//! let client = cluster.connect("postgres").await?;
//! data::seed(&client, data::Size::TINY).await?;
//! let before = data::digests(&client).await?;
//!
//! cluster.kill()?; // a crash
//! cluster.start_again()?;
//! let client = cluster.connect("postgres").await?;
//! assert_eq!(data::digests(&client).await?, before);
//! cluster.stop(Mode::Fast)?;
//! # Ok(()) }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```
//!
//! | Module | What it gives |
//! | --- | --- |
//! | [`postgres`] | the servers installed, and clusters made with them |
//! | [`data`] | data that looks real, changes to it, and digests to compare two databases row by row |
//! | [`redis`] | the Redis servers installed, and running ones |
//! | [`s3`] | an S3 server in memory |
//! | [`proxy`] | a network that refuses, resets, stalls, truncates and flips bits |
//! | [`disk`] | a disk that is soon full |
//! | [`process`] | programs run within a limit, and their memory and processor time |
//! | [`scratch`] | temporary directories that a server may live in, when tests are run by root |
//! | [`home`] | where the servers are that `cargo xtask setup` installs |
//!
//! Without the default feature `servers` there is only what finds the installed servers, which is
//! what `xtask` needs before anything else can be built.

#[cfg(feature = "servers")]
pub mod data;
#[cfg(feature = "servers")]
pub mod disk;
pub mod home;
#[cfg(feature = "servers")]
mod poll;
pub mod postgres;
#[cfg(feature = "servers")]
pub mod process;
#[cfg(feature = "servers")]
pub mod proxy;
pub mod redis;
pub mod s3;
#[cfg(feature = "servers")]
pub mod scratch;
#[cfg(feature = "servers")]
mod watchdog;

#[cfg(feature = "servers")]
pub use self::scratch::Scratch;
