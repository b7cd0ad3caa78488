//! Against real servers, of every version that is installed.

#![allow(clippy::unwrap_used)]

mod access;
mod aof;
mod cluster;
mod common;
mod everything;
mod following;
mod live;
mod master;
mod moments;
mod scanned;
mod scratch;
mod sentinels;
mod slices;
mod trouble;
