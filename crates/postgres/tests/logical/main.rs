//! Databases table by table, with real servers of every major installed.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod common;
mod directory;
mod exports;
mod moment;
mod one_table;
mod refusals;
mod round_trip;
mod swap;
