//! The stored form of a key slot: an object `keys/<id>`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::aead::Algorithm;
use super::agreement::PublicKey;
use super::command::MAX_WRAPPED;
use super::root::{Access, Share};
use super::secret::{KdfCost, stretch};
use super::slot::{Keeper, Slot, Stretched};
use crate::error::{Error, Result};
use crate::id::RepositoryId;

/// No key file is larger.
pub(crate) const MAX_KEY_FILE: u64 = 64 << 10;

/// JSON, for people who have to look at it on a bad day.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotFile {
    version: u32,
    repository: String,
    label: String,
    holder: HolderFile,
}

/// The kinds of slots.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum HolderFile {
    /// The first form: the root key itself, wrapped with a passphrase.
    Passphrase { cost: KdfCost, salt: String, wrapped: String },
    /// A key pair.
    Recipient {
        access: Access,
        epoch: u32,
        created: String,
        public: String,
        private: PrivateFile,
        share: String,
        mac: String,
    },
}

/// Where the private half is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
enum PrivateFile {
    Owner {},
    Passphrase { cost: KdfCost, salt: String, wrapped: String },
    Command { wrapped: String },
}

/// A slot of either form.
#[derive(Debug, Clone)]
pub(crate) enum AnySlot {
    Direct(DirectSlot),
    Pair(Slot),
}

/// The first form: a passphrase wraps the root key itself, and so nobody can give its holder a
/// newer one without it.
#[derive(Debug, Clone)]
pub(crate) struct DirectSlot {
    pub(crate) repository: RepositoryId,
    pub(crate) label: String,
    stretched: Stretched,
}

/// Why a slot file says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// A later version made it.
    Later,
    /// It is of a known form, and makes no sense.
    Nonsense(&'static str),
}

impl AnySlot {
    /// Reads a slot of `repository`, from bytes that may be anything.
    pub(crate) fn parse(bytes: &[u8], repository: RepositoryId) -> Result<Self, Unread> {
        let Ok(file) = serde_json::from_slice::<SlotFile>(bytes) else { return Err(Unread::Later) };
        if file.version != 1 {
            return Err(Unread::Later);
        }
        if file.repository != repository.to_string() {
            return Err(Unread::Nonsense("it belongs to another repository"));
        }
        let unreadable = Unread::Nonsense("its content is unreadable");
        let label = file.label;
        match file.holder {
            HolderFile::Passphrase { cost, salt, wrapped } => {
                let stretched = stretched(cost, &salt, hex::decode(wrapped).ok())?;
                Ok(Self::Direct(DirectSlot { repository, label, stretched }))
            }
            HolderFile::Recipient { access, epoch, created, public, private, share, mac } => {
                let keeper = match private {
                    PrivateFile::Owner {} => Keeper::Owner,
                    PrivateFile::Passphrase { cost, salt, wrapped } => {
                        let wrapped = hex::decode(wrapped).ok();
                        Keeper::Passphrase(stretched(cost, &salt, wrapped)?)
                    }
                    PrivateFile::Command { wrapped } => {
                        let wrapped = BASE64.decode(wrapped).map_err(|_| unreadable)?;
                        if wrapped.len() > MAX_WRAPPED {
                            return Err(Unread::Nonsense("its parameters are out of range"));
                        }
                        Keeper::Command(wrapped)
                    }
                };
                Ok(Self::Pair(Slot {
                    repository,
                    label,
                    access,
                    epoch,
                    created,
                    public: PublicKey::from_text(&public).ok_or(unreadable)?,
                    keeper,
                    share: BASE64.decode(share).map_err(|_| unreadable)?,
                    mac: digits(&mac).ok_or(unreadable)?,
                }))
            }
        }
    }
}

fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

fn stretched(cost: KdfCost, salt: &str, wrapped: Option<Vec<u8>>) -> Result<Stretched, Unread> {
    if !cost.is_sane() {
        return Err(Unread::Nonsense("its parameters are out of range"));
    }
    match (digits(salt), wrapped) {
        (Some(salt), Some(wrapped)) => Ok(Stretched { cost, salt, wrapped }),
        _ => Err(Unread::Nonsense("its content is unreadable")),
    }
}

impl Slot {
    /// The object that holds it.
    pub(crate) fn to_file(&self) -> Result<Vec<u8>> {
        let private = match &self.keeper {
            Keeper::Owner => PrivateFile::Owner {},
            Keeper::Passphrase(Stretched { cost, salt, wrapped }) => PrivateFile::Passphrase {
                cost: *cost,
                salt: hex::encode(salt),
                wrapped: hex::encode(wrapped),
            },
            Keeper::Command(wrapped) => PrivateFile::Command { wrapped: BASE64.encode(wrapped) },
        };
        let holder = HolderFile::Recipient {
            access: self.access,
            epoch: self.epoch,
            created: self.created.clone(),
            public: self.public.to_text()?,
            private,
            share: BASE64.encode(&self.share),
            mac: hex::encode(self.mac),
        };
        let (repository, label) = (self.repository.to_string(), self.label.clone());
        let file = SlotFile { version: 1, repository, label, holder };
        let unreadable = |_| Error::Crypto { doing: "encode a key" };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(unreadable)?;
        bytes.push(b'\n');
        if bytes.len() as u64 > MAX_KEY_FILE {
            return Err(Error::ObjectTooLarge { kind: "key" });
        }
        Ok(bytes)
    }
}

impl DirectSlot {
    /// What trying a passphrase costs.
    pub(crate) fn cost(&self) -> KdfCost {
        self.stretched.cost
    }

    /// Unwraps the root key: `None` when `passphrase` is another one. It takes as long as the cost
    /// says.
    pub(crate) fn open(&self, passphrase: &SecretString) -> Result<Option<Share>> {
        let Stretched { cost, salt, wrapped } = &self.stretched;
        let key = stretch(passphrase, salt, *cost)?;
        let mut wrapped = Zeroizing::new(wrapped.clone());
        let bound = self.bound();
        let Some(plain) = Algorithm::Aes256Gcm.key(&key)?.open(0, &bound, &mut wrapped) else {
            return Ok(None);
        };
        let share = Share::decode(Access::Full, plain);
        share.map(Some).ok_or_else(|| Error::damaged("a key", "what it holds is unreadable"))
    }

    fn bound(&self) -> Vec<u8> {
        let Stretched { cost, salt, .. } = &self.stretched;
        let parts: [&[u8]; 4] =
            [b"lifeboat v1 key slot", self.repository.as_bytes(), &cost.to_bytes(), salt];
        parts.concat()
    }

    /// One as version 0.1 made them.
    #[cfg(test)]
    pub(crate) fn file(
        root: &super::root::RootKey,
        repository: RepositoryId,
        label: &str,
        passphrase: &SecretString,
        cost: KdfCost,
    ) -> Vec<u8> {
        let salt = [5; 32];
        let mut wrapped = root.share(Access::Full).unwrap().to_vec();
        let stretched = Stretched { cost, salt, wrapped: Vec::new() };
        let slot = Self { repository, label: label.into(), stretched };
        let key = stretch(passphrase, &salt, cost).unwrap();
        let sealer = Algorithm::Aes256Gcm.key(&key).unwrap();
        sealer.seal(0, &slot.bound(), &mut wrapped).unwrap();
        let (salt, wrapped) = (hex::encode(salt), hex::encode(wrapped));
        let holder = HolderFile::Passphrase { cost, salt, wrapped };
        let repository = repository.to_string();
        serde_json::to_vec(&SlotFile { version: 1, repository, label: label.into(), holder })
            .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::crypto::slot::{Description, HolderKey};
    use proptest::prelude::*;

    const CHEAP: KdfCost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn here() -> RepositoryId {
        RepositoryId::from_bytes([1; 16])
    }

    fn slots() -> [Slot; 3] {
        let root = RootKey::fixed(9);
        let key = HolderKey::generate(&root, Access::Full).unwrap();
        let stretched = key.wrap(here(), &"x".into(), CHEAP).unwrap();
        [Keeper::Owner, stretched, Keeper::Command(vec![7; 100])].map(|keeper| {
            let description = Description {
                label: "a \"label\"".into(),
                access: Access::Full,
                created: "now".into(),
                public: key.public().unwrap(),
                keeper,
            };
            Slot::grant(&root, here(), description).unwrap()
        })
    }

    #[test]
    fn what_is_written_is_read() {
        for slot in slots() {
            let file = slot.to_file().unwrap();
            let Ok(AnySlot::Pair(read)) = AnySlot::parse(&file, here()) else {
                panic!("not read");
            };
            assert_eq!(read, slot);
            assert!(AnySlot::parse(&file, RepositoryId::from_bytes([2; 16])).is_err());
        }
    }

    #[test]
    fn later_forms_are_told_from_nonsense() {
        let [_, slot, _] = slots();
        let text = String::from_utf8(slot.to_file().unwrap()).unwrap();
        let read = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} is not in {text}");
            AnySlot::parse(text.replace(from, to).as_bytes(), here()).err()
        };
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("\"kind\": \"recipient\"", "\"kind\": \"other\""),
            ("\"by\": \"passphrase\"", "\"by\": \"other\""),
            ("\"access\": \"full\"", "\"access\": \"other\""),
            ("\"epoch\"", "\"more\": 1, \"epoch\""),
            ("\"lanes\": 1", "\"lanes\": 1, \"more\": 2"),
            ("\"label\"", "\"more\": 1, \"label\""),
        ] {
            assert_eq!(read(from, to), Some(Unread::Later), "{from}");
        }
        // A hostile file must not ask for all memory, or for all time.
        for (from, to) in [
            ("\"memory_kib\": 64", "\"memory_kib\": 4294967295"),
            ("\"passes\": 1", "\"passes\": 1048576"),
            ("\"lanes\": 1", "\"lanes\": 0"),
            ("\"public\": \"age1", "\"public\": \"age2"),
            ("\"mac\": \"", "\"mac\": \"00"),
            ("\"salt\": \"", "\"salt\": \"00"),
        ] {
            assert!(matches!(read(from, to), Some(Unread::Nonsense(_))), "{from}");
        }
    }

    #[test]
    fn the_first_form_is_opened() {
        let root = RootKey::fixed(9);
        let file = DirectSlot::file(&root, here(), "first", &"correct horse".into(), CHEAP);
        let Ok(AnySlot::Direct(slot)) = AnySlot::parse(&file, here()) else {
            panic!("not read");
        };
        let opened = slot.open(&"correct horse".into()).unwrap();
        assert!(matches!(opened, Some(Share::Full(opened)) if opened == root));
        assert!(slot.open(&"wrong".into()).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn changed_files_are_refused_without_panic(at in 0_usize..2000, to in 0_u8..128) {
            let [_, slot, _] = slots();
            let mut file = slot.to_file().unwrap();
            let at = at % file.len();
            file[at] = to;
            if let Ok(AnySlot::Pair(read)) = AnySlot::parse(&file, here()) {
                prop_assert!(read == slot || !read.is_authentic(&RootKey::fixed(9)));
            }
        }
    }
}
