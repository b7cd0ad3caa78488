//! `lifeboat.json`: what makes a place a repository.

use lifeboat_core::Timestamp;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use crate::probe::ConditionalPut;

/// The name of the object.
pub(crate) const NAME: &str = "lifeboat.json";
/// The newest format version that this crate reads.
pub(crate) const VERSION: u32 = 1;
/// No configuration is larger.
pub(crate) const MAX_SIZE: u64 = 64 * 1024;

/// The configuration of a repository. Readable by people; authenticated by the repository's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(array)]
pub(crate) struct Config {
    #[n(0)]
    pub(crate) format: String,
    #[n(1)]
    pub(crate) version: u32,
    #[n(2)]
    pub(crate) id: String,
    #[n(3)]
    pub(crate) created: String,
    #[n(4)]
    pub(crate) features: Features,
    #[n(5)]
    pub(crate) parameters: Parameters,
}

/// What reading takes that this version knows.
const READ: &[&str] = &[SEALED_TO_KEY, BLOCKS];
/// What writing takes that this version knows.
const WRITE: &[&str] = &[SESSIONS];
/// What deleting takes that this version knows.
const DELETE: &[&str] = &[MARKS, WEAK_PUTS];

/// Writers publish sessions and look at marks: what makes it safe to delete beside them.
pub(crate) const SESSIONS: &str = "sessions";
/// Something may be sealed to the repository's public keys, by who may write and not read.
pub(crate) const SEALED_TO_KEY: &str = "sealed-to-key";
/// Small chunks may lie in blocks.
pub(crate) const BLOCKS: &str = "blocks";
/// Nothing is deleted that was not marked before.
pub(crate) const MARKS: &str = "marks";

/// The store takes no notice of conditional puts: a lease is no proof of being alone.
pub(crate) const WEAK_PUTS: &str = "weak-puts";

/// Begins the word that names the class of storage for packs of data; see [`crate::storage`].
const DATA_CLASS: &str = "data-class=";

/// What a program must know to do each kind of work. A word that it does not know forbids it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(array)]
pub(crate) struct Features {
    #[n(0)]
    pub(crate) read: Vec<String>,
    #[n(1)]
    pub(crate) write: Vec<String>,
    #[n(2)]
    pub(crate) delete: Vec<String>,
}

impl Features {
    /// What a new repository asks for.
    fn current() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (read, write, delete) = (words(&[BLOCKS]), words(&[SESSIONS]), words(&[MARKS]));
        Self { read, write, delete }
    }

    /// Whether this version knows all that reading takes.
    pub(crate) fn may_read(&self) -> Result<()> {
        known(&self.read, READ, Class::Refused)
    }

    /// Whether this version knows all that writing takes.
    pub(crate) fn may_write(&self) -> Result<()> {
        known(&self.write, WRITE, Class::Fits)
    }

    /// Whether this version knows all that deleting takes.
    pub(crate) fn may_delete(&self) -> Result<()> {
        known(&self.delete, DELETE, Class::Fits)
    }

    /// Whether readers know blocks, so that writers may make them.
    pub(crate) fn has_blocks(&self) -> bool {
        self.read.iter().any(|word| word == BLOCKS)
    }

    /// Whether the store takes no notice of conditional puts.
    pub(crate) fn has_weak_puts(&self) -> bool {
        self.delete.iter().any(|word| word == WEAK_PUTS)
    }

    /// The class of storage for packs of data.
    pub(crate) fn data_class(&self) -> Option<&str> {
        self.write.iter().find_map(|word| class_in(word))
    }

    /// With this class in place of another one.
    pub(crate) fn with_data_class(&self, name: Option<&str>) -> Self {
        let change = |words: &[String]| {
            let mut words: Vec<_> =
                words.iter().filter(|word| class_in(word).is_none()).cloned().collect();
            words.extend(name.map(|name| format!("{DATA_CLASS}{name}")));
            words
        };
        Self { read: self.read.clone(), write: change(&self.write), delete: change(&self.delete) }
    }

    /// All words of both.
    pub(crate) fn with(&self, more: &Self) -> Self {
        let join = |one: &[String], two: &[String]| {
            let mut words = one.to_vec();
            words.extend(two.iter().filter(|word| !one.contains(word)).cloned());
            words
        };
        Self {
            read: join(&self.read, &more.read),
            write: join(&self.write, &more.write),
            delete: join(&self.delete, &more.delete),
        }
    }
}

/// The class that a word names; `None` for all other words.
fn class_in(word: &str) -> Option<&str> {
    let name = word.strip_prefix(DATA_CLASS)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    ((1..=64).contains(&name.len()) && name.bytes().all(fits)).then_some(name)
}

/// Whether the word that names a class may be among others.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Fits,
    Refused,
}

fn known(words: &[String], known: &[&str], class: Class) -> Result<()> {
    let is_class = |word: &str| class == Class::Fits && class_in(word).is_some();
    let is_known = |word: &&String| known.contains(&word.as_str()) || is_class(word);
    match words.iter().find(|word| !is_known(word)) {
        Some(feature) => Err(Error::UnknownFeature { feature: feature.clone() }),
        None => Ok(()),
    }
}

/// How content is cut and packed. Fixed when the repository is made: changing them would end
/// deduplication with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(deny_unknown_fields)]
#[cbor(array)]
pub struct Parameters {
    /// The smallest chunk of a stream, in bytes, but for its last one: 4 KiB or more.
    #[n(0)]
    pub chunk_min: u32,
    /// The size that chunks of a stream have on average, in bytes: a power of two.
    #[n(1)]
    pub chunk_average: u32,
    /// The largest chunk, in bytes: 8 MiB or less.
    #[n(2)]
    pub chunk_max: u32,
    /// Content made of pages is cut into stretches of this many bytes: a power of two from 64 KiB
    /// to the largest chunk.
    #[n(3)]
    pub stretch: u32,
    /// A pack is closed when it has this many bytes: 1 MiB to 256 MiB.
    #[n(4)]
    pub pack: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            chunk_min: 256 << 10,
            chunk_average: 1 << 20,
            chunk_max: 4 << 20,
            stretch: 1 << 20,
            pack: 16 << 20,
        }
    }
}

impl Parameters {
    pub(crate) fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_owned()) };
        rule(self.chunk_min >= 4 << 10, "chunks must have 4 KiB or more")?;
        rule(self.chunk_max <= 8 << 20, "chunks must have 8 MiB or less")?;
        rule(
            self.chunk_average.is_power_of_two()
                && self.chunk_min < self.chunk_average
                && self.chunk_average < self.chunk_max,
            "the average chunk must be a power of two between the smallest and the largest",
        )?;
        rule(
            self.stretch.is_power_of_two() && (64 << 10..=self.chunk_max).contains(&self.stretch),
            "a stretch must be a power of two from 64 KiB to the largest chunk",
        )?;
        rule(
            (1 << 20..=256 << 20).contains(&self.pack),
            "packs must have between 1 MiB and 256 MiB",
        )
    }
}

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    config: Config,
    /// Finds tampering: keyed BLAKE3 of the configuration's CBOR form.
    mac: String,
    /// Finds damage without a key: BLAKE3 of that form and of the text of `mac`.
    checksum: String,
}

/// Only what tells the version, so that a newer one is told from nonsense.
#[derive(Deserialize)]
struct Probe {
    config: ProbeConfig,
}

#[derive(Deserialize)]
struct ProbeConfig {
    format: String,
    version: u32,
}

impl Config {
    pub(crate) fn new(
        id: RepositoryId,
        parameters: Parameters,
        puts: ConditionalPut,
        data_class: Option<&str>,
    ) -> Result<Self> {
        parameters.check().map_err(|what| Error::BadParameter { what })?;
        let mut features = Features::current().with_data_class(data_class);
        if puts == ConditionalPut::Ignored {
            features.delete.push(WEAK_PUTS.to_owned());
        }
        Ok(Self {
            format: "lifeboat".into(),
            version: VERSION,
            id: id.to_string(),
            created: Timestamp::now().to_string(),
            features,
            parameters,
        })
    }

    fn canonical(&self) -> Result<Vec<u8>> {
        minicbor::to_vec(self).map_err(|_| damaged("it cannot be encoded"))
    }

    pub(crate) fn to_file(&self, keys: &Keys) -> Result<Vec<u8>> {
        let bytes = self.canonical()?;
        let mac = hex::encode(keys.config_mac(&bytes));
        let file = File { config: self.clone(), checksum: checksum(&bytes, &mac), mac };
        let mut text =
            serde_json::to_vec_pretty(&file).map_err(|_| damaged("it cannot be encoded"))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the stored form; what it says is to be believed only after [`Config::verify`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed> {
        let probe: Probe =
            serde_json::from_slice(bytes).map_err(|_| damaged("it is no readable JSON"))?;
        if probe.config.format != "lifeboat" {
            return Err(Error::NotARepository);
        }
        if probe.config.version > VERSION {
            return Err(Error::NewerVersion { found: probe.config.version, known: VERSION });
        }
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
        let canonical = file.config.canonical()?;
        if checksum(&canonical, &file.mac) != file.checksum {
            return Err(damaged("its checksum does not match"));
        }
        file.config.features.may_read()?;
        file.config.parameters.check().map_err(|what| damaged(&what))?;
        let id = RepositoryId::from_hex(&file.config.id).ok_or_else(|| damaged("its id"))?;
        Ok(Parsed { config: file.config, id, mac: file.mac, canonical })
    }
}

/// A configuration that was read but not yet authenticated.
pub(crate) struct Parsed {
    config: Config,
    pub(crate) id: RepositoryId,
    mac: String,
    canonical: Vec<u8>,
}

impl Parsed {
    /// Authenticates it.
    pub(crate) fn verify(self, keys: &Keys) -> Result<Config> {
        let mac = blake3::Hash::from_bytes(keys.config_mac(&self.canonical));
        // Comparing hashes takes constant time.
        if blake3::Hash::from_hex(&self.mac).is_ok_and(|stored| stored == mac) {
            Ok(self.config)
        } else {
            Err(damaged("it was changed by somebody who does not hold the key"))
        }
    }
}

fn checksum(canonical: &[u8], mac: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(canonical).update(mac.as_bytes());
    hasher.finalize().to_hex().to_string()
}

fn damaged(what: &str) -> Error {
    Error::damaged(NAME, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;

    fn sample() -> (Keys, String) {
        let id = RepositoryId::from_bytes([3; 16]);
        let keys = Keys::derive(&RootKey::fixed(1), id);
        let config = Config::new(id, Parameters::default(), ConditionalPut::Kept, None).unwrap();
        let text = String::from_utf8(config.to_file(&keys).unwrap()).unwrap();
        (keys, text)
    }

    #[test]
    fn a_class_is_a_word_that_reading_does_not_take() {
        let plain = Features::current();
        assert_eq!(plain.data_class(), None);
        let cold = plain.with_data_class(Some("GLACIER"));
        assert_eq!(cold.data_class(), Some("GLACIER"));
        assert_eq!(cold.read, plain.read);
        assert!(cold.may_write().is_ok() && cold.may_delete().is_ok());
        for words in [&cold.write, &cold.delete] {
            assert_eq!(words.iter().filter(|word| *word == "data-class=GLACIER").count(), 1);
        }
        let colder = cold.with_data_class(Some("DEEP_ARCHIVE"));
        assert_eq!(colder.data_class(), Some("DEEP_ARCHIVE"));
        assert_eq!(colder.with_data_class(None), plain);
        // What no store could be asked for is no word that this version knows.
        let odd = Features { write: vec!["data-class=a b".into()], ..Features::default() };
        assert_eq!(odd.data_class(), None);
        assert!(matches!(odd.may_write(), Err(Error::UnknownFeature { .. })));
    }

    #[test]
    fn damage_tampering_and_newer_versions_are_told_apart() {
        let (keys, text) = sample();
        assert!(Config::parse(text.as_bytes()).unwrap().verify(&keys).is_ok());

        let newer = text.replace("\"version\": 1", "\"version\": 2");
        assert!(matches!(Config::parse(newer.as_bytes()), Err(Error::NewerVersion { .. })));

        let flipped = text.replace("262144", "262145");
        assert!(matches!(Config::parse(flipped.as_bytes()), Err(Error::Damaged { .. })));

        let other = Keys::derive(&RootKey::fixed(2), RepositoryId::from_bytes([3; 16]));
        assert!(Config::parse(text.as_bytes()).unwrap().verify(&other).is_err());
        assert!(Config::parse(b"{}").is_err());
    }
}
