//! Authenticated encryption with associated data.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm as LcAlgorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use crate::error::{Error, Result};

/// Bytes that sealing adds.
pub(crate) const TAG: usize = 16;

/// Which cipher sealed something. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439), faster where the processor has no AES.
    ChaCha20Poly1305 = 2,
}

impl Algorithm {
    /// The faster one on this processor.
    pub(crate) fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes = std::arch::is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305].into_iter().find(|known| *known as u8 == number)
    }

    fn implementation(self) -> &'static LcAlgorithm {
        match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// A key ready for use.
    pub(crate) fn key(self, key: &[u8; 32]) -> Result<Sealer> {
        let key = UnboundKey::new(self.implementation(), key)
            .map_err(|_| Error::Crypto { doing: "set up a key" })?;
        Ok(Sealer(LessSafeKey::new(key)))
    }
}

/// A cipher as objects name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cipher {
    pub(crate) algorithm: Algorithm,
    /// The key is agreed between a fresh key pair, whose public half is the salt, and the
    /// repository's.
    pub(crate) agreed: bool,
}

/// Added to the number of an algorithm when the key is agreed.
const AGREED: u8 = 2;

impl Cipher {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let direct = Algorithm::from_number(number).map(|algorithm| (algorithm, false));
        let agreed = || Some((Algorithm::from_number(number.checked_sub(AGREED)?)?, true));
        let (algorithm, agreed) = direct.or_else(agreed)?;
        Some(Self { algorithm, agreed })
    }

    pub(crate) fn number(self) -> u8 {
        self.algorithm as u8 + if self.agreed { AGREED } else { 0 }
    }
}

/// A key of one pack or one object. The caller gives each nonce once only.
pub(crate) struct Sealer(LessSafeKey);

impl Sealer {
    /// Encrypts `data` in place and appends the tag.
    pub(crate) fn seal(&self, nonce: u64, aad: &[u8], data: &mut Vec<u8>) -> Result<()> {
        self.0
            .seal_in_place_append_tag(number_used_once(nonce), Aad::from(aad), data)
            .map_err(|_| Error::Crypto { doing: "seal" })
    }

    /// Decrypts `data` in place and returns the plaintext, or `None` when it is not authentic.
    pub(crate) fn open<'a>(&self, nonce: u64, aad: &[u8], data: &'a mut [u8]) -> Option<&'a [u8]> {
        let opened = self.0.open_in_place(number_used_once(nonce), Aad::from(aad), data);
        opened.ok().map(|plain| &*plain)
    }
}

fn number_used_once(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_has_one_number() {
        let known: Vec<_> = (0..=255).filter_map(Cipher::from_number).map(Cipher::number).collect();
        assert_eq!(known, [1, 2, 3, 4]);
    }

    #[test]
    fn both_ciphers_refuse_what_was_changed() {
        for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
            let sealer = algorithm.key(&[7; 32]).unwrap();
            let mut data = b"precious".to_vec();
            sealer.seal(3, b"where", &mut data).unwrap();
            assert_eq!(data.len(), 8 + TAG);
            assert_eq!(sealer.open(3, b"where", &mut data.clone()).unwrap(), b"precious");
            assert!(sealer.open(4, b"where", &mut data.clone()).is_none());
            assert!(sealer.open(3, b"there", &mut data.clone()).is_none());
            data[2] ^= 1;
            assert!(sealer.open(3, b"where", &mut data).is_none());
        }
    }
}
