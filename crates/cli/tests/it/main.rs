//! The command as its users meet it: the real program, on real files, servers and disks.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod browse;
mod checkpoints;
mod classes;
mod common;
mod copy;
mod damage;
mod database;
mod files;
mod follow;
mod followed_redis;
mod forget;
mod full_disk;
mod journals;
mod json;
mod keys;
mod postgres;
mod read_only;
mod redis;
mod rehearsed_redis;
mod s3;
mod second;
mod secrets;
mod signals;
