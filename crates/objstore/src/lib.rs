//! Any object store, by URL.
//!
//! A repository lives on an object store: a bucket, a container, or a directory. This crate turns
//! what an operator writes into such a store, with Lifeboat's rules for durability, limits and
//! retries, and says what is wrong in one line when it cannot.
//!
//! | what | where |
//! |---|---|
//! | what the operator writes | [`Location`] |
//! | opening it | [`open`], [`StoreOptions`], [`Intent`] |
//! | its classes, archives and locks | [`open_whole`], [`Opened::warehouse`] |
//! | limits that follow the size, new tries, their count | [`Patience`], [`Retries`], [`Patient`] |
//! | errors, with the next step | [`Error`], [`classify`], [`hint`] |
//! | what every store must do | [`conformance`] |
//!
//! The stores are `object_store`'s, and so is the trait: nothing here has to be learnt to use one.
//! Credentials come from the environment, under the names that every tool of a provider uses; a
//! [`Location`] never holds any. `docs/objstore.md` is the operator's page, with the variables and
//! the rights that each provider needs.
//!
//! # Example
//!
//! ```
//! use lifeboat_objstore::{Intent, Location, StoreOptions, open};
//! use object_store::ObjectStoreExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let written = dir.path().join("backups").display().to_string();
//! let location: Location = written.parse()?;
//! let options = StoreOptions::new(Intent::Create);
//! let store = open(&location, &options)?;
//!
//! store.put(&"greeting".into(), "hello".into()).await?;
//! assert_eq!(store.get(&"greeting".into()).await?.bytes().await?, "hello");
//! assert_eq!(options.retries.count(), 0);
//! # Ok(()) }
//! ```
//!
//! # TLS
//!
//! Connections are made by `object_store` with rustls, and rustls has one provider of cryptography
//! for the whole process. A program installs it first thing in `main`:
//! `rustls::crypto::aws_lc_rs::default_provider().install_default()`. The authorities are those of
//! the system, or of the file that `SSL_CERT_FILE` names.

mod anchored;
mod checksummed;
mod classes;
mod cloud;
pub mod conformance;
mod error;
mod location;
mod open;
mod options;
mod patient;
mod trouble;
mod warehouse;

pub use error::{Error, Result, classify, hint};
pub use location::{Location, Provider};
pub use open::{Opened, open, open_whole};
pub use options::{Integrity, Intent, Patience, PlainHttp, Retries, StoreOptions, Variables};
pub use patient::{Order, Patient};
