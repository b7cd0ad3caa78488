//! The repository as its users see it.

#![allow(clippy::unwrap_used)]

mod browse;
mod checkpoints;
mod common;
mod conformance;
mod copy;
mod damage;
mod dedup;
mod elsewhere;
mod extents;
mod forget;
mod golden;
mod hooked;
mod journal;
mod keys;
mod model;
mod prune;
mod races;
mod scripted;
mod staged;
mod trouble;
