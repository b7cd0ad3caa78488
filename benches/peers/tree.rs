//! A tree of files such as people have: many small ones, and a few that are large.
//!
//! The same size makes the same tree, byte for byte.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// The size that published figures are for.
pub(crate) const USUAL_MEGABYTES: u32 = 1030;

const MB: usize = 1_000_000;
const SMALL_FILES: usize = 20_000;
const FOLDERS: usize = 200;
const PAGE: usize = 8192;

/// Makes a tree of about so many megabytes: a third in small files, the rest in seven large ones.
pub(crate) fn make(dir: &Path, megabytes: u32) -> Result<()> {
    let scale = f64::from(megabytes) / f64::from(USUAL_MEGABYTES);
    let large = ((100 * MB) as f64 * scale) as usize;
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let words: Vec<String> = (0..4000).map(|_| noise.word()).collect();
    for folder in 0..FOLDERS {
        let folder = dir.join(format!("small/{folder:03}"));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    for number in 0..(SMALL_FILES as f64 * scale) as usize {
        // Log-normal, as sizes of files are: half of them under 8 kB, the mean 17 kB.
        let length = (9.0 + 1.2 * noise.normal()).exp().min((2 * MB) as f64) as usize;
        let (ending, content) = match number % 10 {
            0..5 => ("txt", noise.text(&words, length)),
            5..8 => ("json", noise.rows(&words, length)),
            _ => ("bin", noise.bytes(length)),
        };
        put(dir, &format!("small/{:03}/f{number:05}.{ending}", number % FOLDERS), &content)?;
    }
    fs::create_dir_all(dir.join("large")).context("make the folder of large files")?;
    let log = noise.log(&words, large);
    put(dir, "large/a.log", &log)?;
    // The same ten times ten megabytes, each a little further on than before.
    let mut shifted = Vec::with_capacity(large + 10_000);
    for part in log.chunks((large / 10).max(1)) {
        shifted.extend_from_slice(part);
        shifted.extend(noise.bytes(777));
    }
    put(dir, "large/a-edited.log", &shifted)?;
    drop((log, shifted));
    put(dir, "large/b.log", &noise.log(&words, large))?;
    let csv: Vec<u8> = noise.rows(&words, large).into_iter().filter(|b| *b != b'"').collect();
    put(dir, "large/c.csv", &csv)?;
    put(dir, "large/d.pages", &noise.pages(&words, large))?;
    put(dir, "large/e.bin", &noise.bytes(large))?;
    put(dir, "large/f.bin", &noise.bytes(large))
}

/// Makes one file of so many megabytes, of random stretches and of text in turn.
pub(crate) fn make_large(path: &Path, megabytes: usize) -> Result<()> {
    let mut noise = Noise(0xD1B5_4A32_D192_ED03);
    let words: Vec<String> = (0..4000).map(|_| noise.word()).collect();
    let file = fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut file = BufWriter::new(file);
    for stretch in 0..megabytes.div_ceil(10) {
        let content = match stretch % 2 {
            0 => noise.bytes(10 * MB),
            _ => noise.log(&words, 10 * MB),
        };
        file.write_all(&content).with_context(|| format!("write {}", path.display()))?;
    }
    file.flush().with_context(|| format!("write {}", path.display()))
}

fn put(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))
}

/// Numbers that look random, the same for the same seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of the plain generator are poor.
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From 0 to 1, and never 0.
    fn fraction(&mut self) -> f64 {
        (self.next() + 1) as f64 / (1_u64 << 56) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.fraction().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fraction()).cos()
    }

    fn word(&mut self) -> String {
        let length = 2 + self.below(10);
        (0..length).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes()[..7]);
        }
        bytes.truncate(length);
        bytes
    }

    fn lines(&mut self, length: usize, mut line: impl FnMut(&mut Self, &mut Vec<u8>)) -> Vec<u8> {
        let mut lines = Vec::with_capacity(length + 200);
        while lines.len() < length {
            line(self, &mut lines);
            lines.push(b'\n');
        }
        lines.truncate(length);
        lines
    }

    fn text(&mut self, words: &[String], length: usize) -> Vec<u8> {
        self.lines(length, |noise, line| {
            for _ in 0..12 {
                line.extend_from_slice(words[noise.below(words.len())].as_bytes());
                line.push(b' ');
            }
        })
    }

    fn rows(&mut self, words: &[String], length: usize) -> Vec<u8> {
        let mut id = 0;
        self.lines(length, |noise, line| {
            id += 1;
            let user = &words[noise.below(words.len())];
            let (value, hash) = (noise.fraction(), noise.next());
            let row = format!(
                "{{\"id\":{id},\"user\":\"{user}\",\"v\":{value:.4},\"h\":\"{hash:014x}\"}}"
            );
            line.extend_from_slice(row.as_bytes());
        })
    }

    fn log(&mut self, words: &[String], length: usize) -> Vec<u8> {
        let mut time = 1_767_225_600.0;
        self.lines(length, |noise, line| {
            time += noise.fraction();
            let level = ["INFO", "INFO", "WARN", "DEBUG"][noise.below(4)];
            let (host, process) = (noise.below(40), noise.below(30_000));
            let mut word = |limit| &words[noise.below(limit)];
            let (service, said) = (word(60), [word(4000), word(4000), word(4000), word(4000)]);
            let said = said.map(String::as_str).join(" ");
            let (took, id) = (noise.below(1_000_000), noise.next() as u32);
            let text = format!(
                "{time:.3} {level} host{host:02} svc-{service}[{process}]: {said} took {took} us id={id:08x}"
            );
            line.extend_from_slice(text.as_bytes());
        })
    }

    /// As a database's file: pages that are filled to a half or more, the rest of each zero.
    fn pages(&mut self, words: &[String], length: usize) -> Vec<u8> {
        let mut pages = Vec::with_capacity(length + PAGE);
        for number in 0..(length / PAGE) as u64 {
            let filled = 3000 + self.below(5000);
            pages.extend_from_slice(&number.to_be_bytes());
            pages.extend(self.rows(words, filled));
            pages.resize((number as usize + 1) * PAGE, 0);
        }
        pages
    }
}
