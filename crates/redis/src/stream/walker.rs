//! Where commands end.

use crate::error::{Error, Result};

/// A command has no more words than this, and a word no more bytes: what a server could send. None
/// of it is held.
const MOST: u64 = u32::MAX as u64;
/// The digits of a number, at most.
const DIGITS: usize = 10;
/// So much of a command's name is held: enough to tell those that matter.
const NAME: usize = 16;

/// Walks through a stream that it is fed piece by piece, however it was cut.
#[derive(Debug, Clone)]
pub(crate) struct Walker {
    /// The place of the next byte.
    position: u64,
    /// The end of the last command that is no part of an unfinished transaction.
    boundary: u64,
    state: State,
    /// How many words are still to come, the present one included.
    words: u64,
    number: u64,
    digits: usize,
    name: Vec<u8>,
    naming: bool,
    in_transaction: bool,
    changes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a `*`.
    Command,
    /// In the number after it.
    Count,
    /// Before a `$`.
    Word,
    /// In the number after it.
    Length,
    /// In a word, with so many bytes to come.
    Bytes(u64),
    /// Before the line feed behind a number or a word, and what comes after it.
    Feed(Next),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Words,
    Bytes,
    WordEnded,
}

impl Walker {
    /// Begins at `position`, which is the end of a command.
    pub(crate) fn new(position: u64) -> Self {
        Self {
            position,
            boundary: position,
            state: State::Command,
            words: 0,
            number: 0,
            digits: 0,
            name: Vec::new(),
            naming: false,
            in_transaction: false,
            changes: 0,
        }
    }

    /// The place of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The end of the last command that is no part of an unfinished transaction.
    pub(crate) fn boundary(&self) -> u64 {
        self.boundary
    }

    /// How many commands were passed that are more than what keeps a connection alive.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a command begins here.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Command
    }

    /// Passes over the bytes that follow.
    ///
    /// # Errors
    /// When they are no commands. Nothing can be fed then any more.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.advance(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Passes over the bytes that follow, up to the end of a command, and says how many they were.
    ///
    /// # Errors
    /// As [`Walker::feed`].
    pub(crate) fn advance(&mut self, all: &[u8]) -> Result<usize> {
        let mut bytes = all;
        while let Some((&byte, rest)) = bytes.split_first() {
            if let State::Bytes(left @ 1..) = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                if self.naming {
                    let room = NAME - self.name.len().min(NAME);
                    self.name.extend_from_slice(&bytes[..here.min(room)]);
                }
                self.state = State::Bytes(left - here as u64);
                self.position += here as u64;
                bytes = &bytes[here..];
                continue;
            }
            self.take(byte)?;
            self.position += 1;
            bytes = rest;
            if self.state == State::Command {
                if !self.in_transaction {
                    self.boundary = self.position;
                }
                break;
            }
        }
        Ok(all.len() - bytes.len())
    }

    fn take(&mut self, byte: u8) -> Result<()> {
        let (state, expected) = (self.state, |is: bool| if is { Ok(()) } else { Err(()) });
        let fits = match state {
            State::Command => {
                (self.number, self.digits) = (0, 0);
                self.state = State::Count;
                expected(byte == b'*')
            }
            State::Word => {
                (self.number, self.digits) = (0, 0);
                self.state = State::Length;
                expected(byte == b'$')
            }
            State::Count | State::Length if byte.is_ascii_digit() => {
                self.number = self.number * 10 + u64::from(byte - b'0');
                self.digits += 1;
                expected(self.digits <= DIGITS && self.number <= MOST)
            }
            State::Count => {
                self.state = State::Feed(Next::Words);
                expected(byte == b'\r' && self.number > 0)
            }
            State::Length => {
                self.state = State::Feed(Next::Bytes);
                expected(byte == b'\r' && self.digits > 0)
            }
            State::Bytes(_) => {
                self.state = State::Feed(Next::WordEnded);
                expected(byte == b'\r')
            }
            State::Feed(next) => {
                self.follow(next);
                expected(byte == b'\n')
            }
        };
        fits.map_err(|()| Error::NoCommand {
            position: self.position,
            byte: std::ascii::escape_default(byte).to_string(),
        })
    }

    fn follow(&mut self, next: Next) {
        self.state = match next {
            Next::Words => {
                self.words = self.number;
                self.naming = true;
                self.name.clear();
                State::Word
            }
            Next::Bytes => State::Bytes(self.number),
            Next::WordEnded => {
                self.naming = false;
                self.words -= 1;
                if self.words > 0 {
                    State::Word
                } else {
                    self.ended();
                    State::Command
                }
            }
        };
    }

    fn ended(&mut self) {
        self.name.make_ascii_uppercase();
        match &self.name[..] {
            b"MULTI" => self.in_transaction = true,
            b"EXEC" => self.in_transaction = false,
            b"PING" | b"REPLCONF" | b"SELECT" => {}
            _ => self.changes += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn a_transaction_is_kept_whole() {
        let mut walker = Walker::new(1000);
        let set = command(&[b"SET", b"a", b"\r\n*1\r\n"]);
        walker.feed(&set).unwrap();
        let first = 1000 + set.len() as u64;
        assert_eq!((walker.boundary(), walker.changes()), (first, 1));
        walker.feed(&command(&[b"MULTI"])).unwrap();
        walker.feed(&set).unwrap();
        assert_eq!(walker.boundary(), first);
        walker.feed(&command(&[b"exec"])).unwrap();
        assert_eq!(walker.boundary(), walker.position());
        let before = walker.changes();
        walker.feed(&command(&[b"PING"])).unwrap();
        walker.feed(&command(&[b"REPLCONF", b"GETACK", b"*"])).unwrap();
        assert_eq!((walker.boundary(), walker.changes()), (walker.position(), before));
    }

    #[test]
    fn what_is_no_command_is_an_error_with_its_place() {
        let bad: [(&[u8], u64); 8] = [
            (b"+OK\r\n", 0),
            (b"*0\r\n", 2),
            (b"*1\n", 2),
            (b"*1\r\n:1\r\n", 4),
            (b"*1\r\n$-1\r\n", 5),
            (b"*1\r\n$3\r\nabcd\r\n", 11),
            (b"*4294967296\r\n", 10),
            (b"*1\r\n$1\r\na\rx", 10),
        ];
        for (bytes, at) in bad {
            match Walker::new(0).feed(bytes) {
                Err(Error::NoCommand { position, .. }) => {
                    assert_eq!(position, at, "{}", bytes.escape_ascii());
                }
                other => panic!("{}: {other:?}", bytes.escape_ascii()),
            }
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_stream_is_cut(
            commands in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 0..20),
            step in 1..50_usize
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            let mut inside = false;
            for words in &commands {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                bytes.extend(command(&words));
                inside = match &words[0].to_ascii_uppercase()[..] {
                    b"MULTI" => true,
                    b"EXEC" => false,
                    _ => inside,
                };
                if !inside {
                    ends.push(bytes.len() as u64);
                }
            }
            let mut walker = Walker::new(0);
            for piece in bytes.chunks(step) {
                walker.feed(piece).unwrap();
                let at = walker.position();
                let last = ends.iter().copied().filter(|end| *end <= at).max();
                prop_assert_eq!(Some(walker.boundary()), last);
            }
        }
    }
}
