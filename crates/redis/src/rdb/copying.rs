//! Copying some of the keys of an RDB into another, byte for byte, while it is read.
//!
//! What stands before the name of a key is held until it is known whether the key is wanted; from
//! there on its bytes pass from one to the other, however large the value is.

use std::io::{self, Write};

use super::Dialect;
use super::reader::Aux;
use super::writer::RdbWriter;

/// What stands before the value of one key has no more bytes: its name, and what modules attached.
const MOST_HELD: usize = 128 << 20;

/// Says to which database a key goes; `None` when it is not wanted.
pub(crate) type Choose = Box<dyn FnMut(u64, &[u8]) -> Option<u64> + Send>;

/// What of the auxiliary fields is true of a part as well.
const AUX: [&[u8]; 4] = [b"redis-ver", b"valkey-ver", b"redis-bits", b"ctime"];

pub(super) struct Copying {
    /// Until the version is known.
    to: Option<Box<dyn Write + Send>>,
    writer: Option<RdbWriter<Box<dyn Write + Send>>>,
    choose: Choose,
    state: State,
    /// Why it cannot be written further.
    failed: io::Result<()>,
}

enum State {
    /// Nothing is wanted here.
    Idle,
    /// What may be wanted.
    Held(Vec<u8>),
    /// This is wanted.
    Passing,
}

impl Copying {
    pub(super) fn new(to: Box<dyn Write + Send>, choose: Choose) -> Self {
        Self { to: Some(to), writer: None, choose, state: State::Idle, failed: Ok(()) }
    }

    pub(super) fn version(&mut self, dialect: Dialect, version: u32) {
        if let Some(to) = self.to.take() {
            self.writer = Some(RdbWriter::begin(to, dialect, version));
        }
    }

    pub(super) fn aux(&mut self, aux: &Aux) {
        if AUX.contains(&&*aux.name) {
            self.write(|writer| writer.aux(&aux.name, &aux.value));
        }
    }

    /// Something begins that may be the record of a key.
    pub(super) fn hold(&mut self, first: u8) {
        // Types of values, and what may stand before one: expiry, use, what modules attached.
        self.state = match (first, std::mem::replace(&mut self.state, State::Idle)) {
            (0..128 | 243 | 248 | 249 | 252 | 253, State::Held(mut held)) => {
                held.clear();
                held.push(first);
                State::Held(held)
            }
            (0..128 | 243 | 248 | 249 | 252 | 253, _) => State::Held(vec![first]),
            _ => State::Idle,
        };
    }

    /// It is the record of this key.
    pub(super) fn name(&mut self, database: u64, name: &[u8]) {
        let wanted = (self.choose)(database, name);
        let held = std::mem::replace(&mut self.state, State::Idle);
        if let (State::Held(held), Some(database)) = (held, wanted) {
            self.write(|writer| {
                writer.database(database);
                writer.raw(&held)
            });
            self.state = State::Passing;
        }
    }

    /// What began has ended.
    pub(super) fn end(&mut self) {
        self.state = State::Idle;
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Idle => {}
            State::Held(held) if held.len() + bytes.len() > MOST_HELD => {
                let what = "what stands before the value of a key is too large";
                self.failed = Err(io::Error::other(what));
                self.state = State::Idle;
            }
            State::Held(held) => held.extend_from_slice(bytes),
            State::Passing => self.write(|writer| writer.raw(bytes)),
        }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut RdbWriter<Box<dyn Write + Send>>) -> io::Result<()>,
    ) {
        if let (Ok(()), Some(writer)) = (&self.failed, &mut self.writer) {
            self.failed = write(writer);
        }
    }

    /// Whether it could be written so far.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_err()
    }

    /// Writes the end.
    pub(super) fn finish(self) -> io::Result<()> {
        self.failed?;
        match self.writer {
            Some(writer) => writer.end().map(drop),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
