//! The files of a set, opened together, and what of them counts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use lifeboat_core::Timestamp;

use super::manifest::{MOST, Manifest};
use crate::error::{Error, Result};
use crate::rdb::RdbReader;
use crate::sink::AppendOnlyForm;
use crate::stream::Walker;

/// A rewrite removes files while they are looked for; so often it is tried again.
const ATTEMPTS: u32 = 20;
/// So much is read at a time.
const PIECE: usize = 256 << 10;

/// Files that belong together.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) form: AppendOnlyForm,
    /// In the order in which a server reads them.
    pub(super) files: Vec<Opened>,
    /// All that was written by then is in it.
    pub(super) taken: Timestamp,
}

/// A file of a set.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// How many bytes it has that belong to the set.
    pub(super) length: u64,
    /// How many of these are an RDB, at its beginning.
    pub(super) rdb: u64,
}

/// Opens a set. Blocks.
pub(super) fn open(path: &Path) -> Result<Set> {
    // What was written while the files were opened may be in them, and is not promised.
    let taken = Timestamp::now();
    let meta = fs::metadata(path).map_err(failed("look at", path))?;
    let (form, files) = match meta.is_dir() {
        false => (AppendOnlyForm::Single, vec![open_file(path)?]),
        true => (AppendOnlyForm::MultiPart, open_directory(path)?),
    };
    let mut files = files;
    let last = files.len().saturating_sub(1);
    for (at, opened) in files.iter_mut().enumerate() {
        // Only the first may begin with an RDB.
        if at == 0 {
            opened.rdb = opened.find_rdb()?;
        }
        let end = opened.find_end()?;
        if end != opened.length && at != last {
            let what = format!("it ends within a command at byte {end}");
            return Err(Error::AppendOnlyFile { path: opened.path.clone(), what });
        }
        opened.length = end;
    }
    Ok(Set { form, files, taken })
}

fn open_directory(directory: &Path) -> Result<Vec<Opened>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let manifest = manifest(directory)?;
        let names = manifest.base.iter().chain(&manifest.increments);
        let opened: Result<Vec<_>> = names.map(|name| open_file(&directory.join(name))).collect();
        match opened {
            // A rewrite has ended since, and removed it.
            Err(Error::File { source, .. })
                if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            other => return other,
        }
    }
}

/// The only manifest in a directory.
fn manifest(directory: &Path) -> Result<Manifest> {
    let bad =
        |what: &str| Error::AppendOnlyFile { path: directory.to_owned(), what: what.to_owned() };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed("look into", directory))? {
        let path = entry.map_err(failed("look into", directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".manifest") && !name.starts_with("temp") {
            found.push(path);
        }
    }
    let path = match &found[..] {
        [path] => path,
        [] => return Err(bad("it holds no manifest; the server writes one from 7.0 on")),
        _ => return Err(bad("it holds more than one manifest")),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed("open", path))?;
    file.take(MOST).read_to_string(&mut text).map_err(failed("read", path))?;
    Manifest::parse(&text).map_err(|what| Error::AppendOnlyFile { path: path.clone(), what })
}

fn open_file(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(failed("open", path))?;
    let length = file.metadata().map_err(failed("look at", path))?.len();
    Ok(Opened { path: path.to_owned(), file, length, rdb: 0 })
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}

impl Opened {
    /// The bytes from here on, up to the length.
    pub(super) fn from(&self, offset: u64) -> Result<io::Take<&File>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset)).map_err(failed("read", &self.path))?;
        Ok(file.take(self.length.saturating_sub(offset)))
    }

    /// Where the RDB at its beginning ends.
    fn find_rdb(&self) -> Result<u64> {
        let mut start = [0; 5];
        let mut reader = self.from(0)?;
        let is_rdb = match reader.read_exact(&mut start) {
            Ok(()) => start == *b"REDIS" || start == *b"VALKE",
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(failed("read", &self.path)(error)),
        };
        if !is_rdb {
            return Ok(0);
        }
        let mut rdb = RdbReader::new(self.from(0)?);
        loop {
            match rdb.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(rdb.offset()),
                Err(source) => {
                    return Err(Error::AppendOnlyRdb { path: self.path.clone(), source });
                }
            }
        }
    }

    /// Where the last whole command or transaction ends.
    fn find_end(&self) -> Result<u64> {
        let mut reader = self.from(self.rdb)?;
        let mut commands = Commands::new(self.rdb);
        let mut piece = vec![0; PIECE];
        loop {
            let count = match reader.read(&mut piece) {
                Ok(0) => return Ok(commands.boundary),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read", &self.path)(error)),
            };
            let fed = commands.feed(&piece[..count]);
            fed.map_err(|error| {
                let what = format!("byte {} is no part of a command: {error}", commands.position);
                Error::AppendOnlyFile { path: self.path.clone(), what }
            })?;
        }
    }
}

/// Commands, with times between them (`#TS:…`).
struct Commands {
    walker: Walker,
    position: u64,
    boundary: u64,
    in_remark: bool,
}

impl Commands {
    fn new(position: u64) -> Self {
        let walker = Walker::new(position);
        Self { walker, position, boundary: position, in_remark: false }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(first) = bytes.first() {
            let taken = if self.in_remark {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                self.in_remark = end.is_none();
                end.map_or(bytes.len(), |end| end + 1)
            } else if self.walker.is_between() && *first == b'#' {
                self.in_remark = true;
                continue;
            } else {
                self.walker.advance(bytes)?
            };
            self.position += taken as u64;
            bytes = &bytes[taken..];
            if !self.in_remark && self.walker.boundary() == self.walker.position() {
                self.boundary = self.position;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_command_is_found_however_it_is_read() {
        let ping = "*1\r\n$4\r\nPING\r\n";
        let text = format!("{ping}#TS:17\r\n{ping}*1\r\n$5\r\nMULTI\r\n#TS:18\r\n{ping}");
        let whole = format!("{text}*1\r\n$4\r\nEXEC\r\n");
        let end = text.find("*1\r\n$5").unwrap() as u64;
        for piece in [1, 3, 7, 1000] {
            for (bytes, expected) in [
                (text.as_bytes(), end),
                (whole.as_bytes(), whole.len() as u64),
                (&whole.as_bytes()[..whole.len() - 1], end),
                (&ping.as_bytes()[..5], 0),
            ] {
                let mut commands = Commands::new(0);
                for bytes in bytes.chunks(piece) {
                    commands.feed(bytes).unwrap();
                }
                assert_eq!(commands.boundary, expected, "in pieces of {piece}");
            }
        }
        assert!(Commands::new(0).feed(b"*1\r\nx").is_err());
        assert!(Commands::new(0).feed(b"SET a 1\r\n").is_err());
    }
}
