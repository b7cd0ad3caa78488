//! Lifeboat takes every store of a platform to safety in one encrypted, deduplicated repository,
//! and brings it back.
//!
//! This crate is for services that back up their own data, or that of others: everything that the
//! command `lifeboat` does can be called from here. A store is read by a [`Source`] and written by a
//! [`Sink`]; a [`Repository`] is both, and [`transfer()`] moves from one to the other. So a backup is
//! a transfer from a store to the repository, and a restore is a transfer from a snapshot to a
//! store.
//!
//! # A backup, and the way back
//!
//! Everything in this program runs as it stands; only the paths and the passphrase are yours to
//! choose.
//!
#![cfg_attr(feature = "files", doc = "```")]
#![cfg_attr(not(feature = "files"), doc = "```ignore")]
//! use lifeboat::files::{FilesSink, FilesSource, SinkOptions, SourceOptions};
//! use lifeboat::{
//!     Context, InitOptions, Intent, Location, Repository, Secret, Selection, StoreOptions,
//!     TransferOptions, WriteOptions, open, transfer,
//! };
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let folder = tempfile::tempdir()?;
//!     let (site, restored) = (folder.path().join("site"), folder.path().join("restored"));
//!     std::fs::create_dir(&site)?;
//!     std::fs::write(site.join("index.html"), "welcome")?;
//!
//!     // Where the repository lives: a directory here; `"s3://bucket/prefix".parse()` is one, too.
//!     let location = Location::directory(folder.path().join("repository"))?;
//!     let place = open(&location, &StoreOptions::new(Intent::Create))?;
//!     // Without this passphrase nobody gets anything back, you included.
//!     let secret = Secret::passphrase("correct horse battery staple");
//!     let repository = Repository::init(place, &secret, &InitOptions::default()).await?;
//!
//!     // Back up: from the directory into the repository.
//!     let source = FilesSource::new("site", &site, &SourceOptions::default())?;
//!     let sink = repository.sink(&WriteOptions::default());
//!     let options = TransferOptions::default();
//!     let summary = transfer(&source, &sink, &options, &Context::silent()).await?;
//!     // Some files could not be read, or changed meanwhile, when this is not zero.
//!     assert_eq!(summary.warnings, 0);
//!
//!     // Restore: from the newest snapshot into a directory that is empty, or not there yet.
//!     let newest = repository.find("latest", None).await?;
//!     let snapshot = repository.snapshot(&newest.id).await?;
//!     let target = FilesSink::new(&restored, SinkOptions::default());
//!     transfer(&snapshot.source(&Selection::all()), &target, &options, &Context::silent()).await?;
//!
//!     assert_eq!(std::fs::read_to_string(restored.join("index.html"))?, "welcome");
//!     Ok(())
//! }
//! ```
//!
//! The repository is opened again by [`Repository::open`], with [`StoreOptions::default`]. Back up
//! the same store a second time, under the same name, and only what changed since is read and
//! stored; the snapshot is complete all the same.
//!
//! `examples/embed_files.rs` and `examples/embed_postgres.rs` are whole programs to copy from, with
//! progress and warnings; `examples/embed_copy.rs` keeps a second repository, and restores from
//! whichever of the two answers; `examples/embed_redis.rs` has a Redis server, and
//! `examples/embed_redis_follow.rs` keeps every change of one.
//!
//! # Features
//!
//! | feature | on by default | what it adds |
//! |---|---|---|
//! | `files` | yes | `lifeboat::files`: file trees, every attribute kept |
//! | `postgres` | yes | `lifeboat::postgres`: physical backups of PostgreSQL 14 to 18, its WAL by streaming, and databases table by table |
//! | `redis` | yes | `lifeboat::redis`: snapshots of Redis and Valkey over the wire, and the RDB format |
//!
//! # Where things are
//!
//! The names that nearly every program needs are here at the top. The rest lies in the modules,
//! each of which is a crate of its own:
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | the model and the traits; what to read before writing a source or a sink |
//! | [`repository`] | snapshots: writing, finding, reading and checking them |
//! | [`objstore`] | where a repository lives: any object store, by URL |
//! | `files`, `postgres`, `redis` | the stores, behind their features |
//!
//! # What to know before production
//!
//! - **Progress and warnings** come through the [`Context`]: give it your [`Observer`].
//!   [`Context::silent`] is for tests.
//! - **A warning is not an error.** A snapshot with [`Summary::warnings`] above zero exists, but
//!   something in it is not as it was asked for. Tell somebody.
//! - **Memory** is bounded by the context's [`ByteBudget`](core::ByteBudget), whatever the size of
//!   the store.
//! - **Cancelling**: [`Context::cancel`], or drop the future. What was written so far is found
//!   again by the next backup, and never looks like a snapshot.
//! - **Errors** say what was being done to what; [`Error::one_line`] adds the cause and the next
//!   step, [`Error::is_retryable`] says whether to try again.
//! - **TLS**: rustls has one provider of cryptography for the whole process. A program that uses
//!   rustls for other things as well installs one first thing in `main`; see [`objstore`].

pub use lifeboat_core as core;
#[cfg(feature = "files")]
pub use lifeboat_files as files;
pub use lifeboat_objstore as objstore;
#[cfg(feature = "postgres")]
pub use lifeboat_postgres as postgres;
#[cfg(feature = "redis")]
pub use lifeboat_redis as redis;
pub use lifeboat_repository as repository;

pub use lifeboat_core::{
    Comparison, Context, Error, ErrorKind, Event, Observer, Progress, Result, Sink, SnapshotInfo,
    Source, StoreRef, Summary, TransferOptions, transfer,
};
pub use lifeboat_objstore::{Intent, Location, StoreOptions, open};
pub use lifeboat_repository::{
    CheckOptions, CopyOptions, InitOptions, Repository, Secret, Selection, Snapshot,
    SnapshotCopies, WriteOptions,
};
