//! What opens a repository, and for whom a key is made.

use argon2::{Argon2, Block, Params, Version};
use rayon::iter::ParallelIterator;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::agreement::{PrivateKey, PublicKey};
use super::command::KeyCommand;
use crate::error::{Error, Result};

/// More identities than anybody tries at once.
const MAX_IDENTITIES: usize = 64;

/// What opens a repository. It cannot be printed.
#[derive(Clone)]
pub struct Secret(pub(crate) Given);

#[derive(Clone)]
pub(crate) enum Given {
    Passphrase(SecretString),
    Identities(Vec<PrivateKey>),
    Command(KeyCommand),
}

impl Secret {
    /// A passphrase.
    pub fn passphrase(passphrase: impl Into<SecretString>) -> Self {
        Self(Given::Passphrase(passphrase.into()))
    }

    /// Identities of age, as `age-keygen` writes them: a line `AGE-SECRET-KEY-1…` for each. Empty
    /// lines and those that begin with `#` are passed over. Whichever of them a key was made for
    /// opens it.
    ///
    /// # Errors
    /// When there is none, or something else is among them.
    pub fn identity(text: &str) -> Result<Self> {
        let mut found = Vec::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let what = "a line is no identity of age of the form AGE-SECRET-KEY-1…";
            found.push(PrivateKey::from_text(line).ok_or(Error::BadIdentity { what })?);
        }
        match found.len() {
            0 => Err(Error::BadIdentity { what: "it holds none" }),
            1..=MAX_IDENTITIES => Ok(Self(Given::Identities(found))),
            _ => Err(Error::BadIdentity { what: "it holds more than 64" }),
        }
    }

    /// A command that keeps the key, such as one that asks a key management service.
    pub fn command(command: KeyCommand) -> Self {
        Self(Given::Command(command))
    }

    /// What is tried, in the words of an error.
    pub(crate) fn name(&self) -> &'static str {
        match &self.0 {
            Given::Passphrase(_) => "the passphrase",
            Given::Identities(_) => "the identity",
            Given::Command(_) => "the command",
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// For whom a key is made.
#[derive(Clone)]
pub struct Holder(pub(crate) Owner);

#[derive(Clone)]
pub(crate) enum Owner {
    Passphrase(SecretString),
    Recipient(PublicKey),
    Command(KeyCommand),
}

impl Holder {
    /// Whoever knows a passphrase.
    pub fn passphrase(passphrase: impl Into<SecretString>) -> Self {
        Self(Owner::Passphrase(passphrase.into()))
    }

    /// The owner of an identity of age, by its public half: `age1…`.
    ///
    /// # Errors
    /// When it is none. SSH keys, and recipients of age's plugins, are not taken.
    pub fn recipient(text: &str) -> Result<Self> {
        let known = PublicKey::from_text(text).map(Owner::Recipient).map(Self);
        known.ok_or_else(|| Error::BadRecipient { text: text.chars().take(100).collect() })
    }

    /// Whoever can run a command that keeps the key.
    pub fn command(command: KeyCommand) -> Self {
        Self(Owner::Command(command))
    }

    /// Whoever has what opens a repository: the first, where there are several identities.
    ///
    /// # Errors
    /// When the public half of an identity cannot be computed.
    pub fn of(secret: &Secret) -> Result<Self> {
        Ok(Self(match &secret.0 {
            Given::Passphrase(passphrase) => Owner::Passphrase(passphrase.clone()),
            Given::Command(command) => Owner::Command(command.clone()),
            Given::Identities(identities) => {
                let first = identities.first().ok_or(Error::BadIdentity { what: "it holds none" });
                Owner::Recipient(first?.public()?)
            }
        }))
    }
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holder(…)")
    }
}

/// What trying one passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdfCost {
    /// Memory in KiB: 8 × lanes to 1 048 576 (1 GiB).
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 16.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB, three passes, four lanes: the second recommendation of RFC 9106, section 4.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl KdfCost {
    /// The bounds hold on reading too: a hostile key file must not ask for all memory.
    pub(crate) fn is_sane(self) -> bool {
        (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && (8 * self.lanes..=1024 * 1024).contains(&self.memory_kib)
    }

    /// As it is bound to what it protects.
    pub(super) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        for (part, number) in
            bytes.chunks_exact_mut(4).zip([self.memory_kib, self.passes, self.lanes])
        {
            part.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// The key that a passphrase gives. It takes long, on purpose.
pub(crate) fn stretch(
    passphrase: &SecretString,
    salt: &[u8; 32],
    cost: KdfCost,
) -> Result<Zeroizing<[u8; 32]>> {
    let refused = |_| Error::Crypto { doing: "stretch the passphrase" };
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(refused)?;
    let argon = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
    // Memory that nobody has touched is slow the first time: all processors share in that.
    let blocks = rayon::iter::repeat_n(Block::new(), argon.params().block_count());
    let mut blocks: Vec<Block> = blocks.collect();
    let mut key = Zeroizing::new([0; 32]);
    argon
        .hash_password_into_with_memory(
            passphrase.expose_secret().as_bytes(),
            salt,
            key.as_mut(),
            &mut blocks,
        )
        .map_err(refused)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by age-keygen 1.1.1.
    const FILE: &str = "\
# created: 2026-11-21T15:40:00Z
# public key: age13xh8xh6sr0rfe6l9stnnxcttv3yplepkd6xt7zk0qjkfrj7y4g2q0gpylq
AGE-SECRET-KEY-1H59AY8503KCFHSTJ7UHPLHVJ44CS58X5EYSG2M8SJQ853QGECK4SFQ92FP
";

    #[test]
    fn an_identity_file_is_read_as_age_keygen_writes_it() {
        let Secret(Given::Identities(read)) = Secret::identity(FILE).unwrap() else {
            panic!("not an identity");
        };
        let public = FILE.lines().nth(1).unwrap().strip_prefix("# public key: ").unwrap();
        assert_eq!(read[0].public().unwrap().to_text().unwrap(), public);
        for bad in ["", "# nothing\n", "AGE-PLUGIN-YUBIKEY-1QQQ\n", &FILE.to_lowercase()] {
            let error = Secret::identity(bad).unwrap_err();
            assert!(matches!(error, Error::BadIdentity { .. }), "{bad}");
        }
        let damaged = FILE.replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q");
        let error = Secret::identity(&damaged).unwrap_err().to_string();
        assert!(!error.contains("SECRET-KEY-1Q"), "{error}");
        assert!(Secret::identity(&FILE.repeat(65)).is_err());
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        for secret in [Secret::passphrase("hunter2"), Secret::identity(FILE).unwrap()] {
            assert_eq!(format!("{secret:?}"), "Secret(…)");
            assert_eq!(format!("{:?}", Holder::of(&secret).unwrap()), "Holder(…)");
        }
    }
}
