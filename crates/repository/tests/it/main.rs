//! The repository as its users see it.

#![allow(clippy::unwrap_used)]

mod blocks;
mod browse;
mod checkpoints;
mod checks;
mod classes;
mod cold;
mod common;
mod conformance;
mod copy;
mod damage;
mod dedup;
mod elsewhere;
mod extents;
mod first_form;
mod forget;
mod golden;
mod healing;
mod hooked;
mod index;
mod journal;
mod keys;
mod locked;
mod model;
mod prune;
mod races;
mod repairs;
mod scripted;
mod staged;
mod stats;
mod trims;
mod trouble;
