//! PostgreSQL's WAL by command: real servers that archive with the real program, and recover.
#![allow(clippy::unwrap_used)]

mod alone;
mod changed;
mod delta;
mod moments;
mod recovery;
mod rehearsed;
mod replica;
mod scene;
mod served;
mod streamed;
mod table_back;
mod verdict;
