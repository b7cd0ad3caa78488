//! X25519: two key pairs agree on a secret (RFC 7748).
//!
//! In text they are those of age (age-encryption.org/v1): Bech32 with the prefix `age` for public
//! halves, and `AGE-SECRET-KEY-` for private ones.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::random;
use crate::error::{Error, Result};

const RECIPIENT: Hrp = Hrp::parse_unchecked("age");
const IDENTITY: Hrp = Hrp::parse_unchecked("age-secret-key-");
/// No text of either half is longer.
const MAX_TEXT: usize = 90;

/// The half that anybody may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PublicKey(pub(crate) [u8; 32]);

impl PublicKey {
    /// Reads `age1…`; `None` for anything else.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 32];
        decode(RECIPIENT, text, &mut bytes)?;
        Some(Self(bytes))
    }

    /// `age1…`.
    pub(crate) fn to_text(self) -> Result<String> {
        bech32::encode::<Bech32>(RECIPIENT, &self.0)
            .map_err(|_| Error::Crypto { doing: "write a public key" })
    }
}

/// The half that its owner keeps. Wiped when dropped, and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct PrivateKey([u8; 32]);

impl PrivateKey {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self(random()?))
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// Reads `AGE-SECRET-KEY-1…`; `None` for anything else.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut key = Self([0; 32]);
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        decode(IDENTITY, text, &mut key.0)?;
        Some(key)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn ready(&self) -> Result<agreement::PrivateKey> {
        agreement::PrivateKey::from_private_key(&X25519, &self.0)
            .map_err(|_| Error::Crypto { doing: "set up a private key" })
    }

    pub(crate) fn public(&self) -> Result<PublicKey> {
        let refused = |_| Error::Crypto { doing: "compute a public key" };
        let public = self.ready()?.compute_public_key().map_err(refused)?;
        let bytes = <[u8; 32]>::try_from(public.as_ref());
        Ok(PublicKey(bytes.map_err(|_| Error::Crypto { doing: "compute a public key" })?))
    }

    /// The secret that only the owners of the two private halves know. An error for a public half
    /// that leaves none: one of small order, with which every private half gives zero.
    pub(crate) fn agree(&self, peer: &PublicKey) -> Result<Zeroizing<[u8; 32]>> {
        let refused = || Error::Crypto { doing: "agree on a key" };
        let peer = UnparsedPublicKey::new(&X25519, &peer.0);
        agreement::agree(&self.ready()?, peer, refused(), |shared| {
            let shared = <[u8; 32]>::try_from(shared).map_err(|_| refused())?;
            let shared = Zeroizing::new(shared);
            if *shared == [0; 32] { Err(refused()) } else { Ok(shared) }
        })
    }
}

fn decode(prefix: Hrp, text: &str, into: &mut [u8; 32]) -> Option<()> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    let mut bytes = checked.byte_iter();
    if checked.hrp() != prefix || bytes.len() != into.len() {
        return None;
    }
    into.fill_with(|| bytes.next().unwrap_or_default());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).unwrap();
        bytes
    }

    /// RFC 7748, section 6.1: Bob's private half, and Alice's public one.
    #[test]
    fn two_agree_as_the_standard_says() {
        let bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
        let alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        let bob = PrivateKey::from_bytes(&bytes(bob));
        assert_eq!(bob.public().unwrap().0, bytes(public));
        assert_eq!(*bob.agree(&PublicKey(bytes(alice))).unwrap(), bytes(shared));
    }

    #[test]
    fn a_public_half_that_leaves_no_secret_is_refused() {
        let own = PrivateKey::generate().unwrap();
        for small in [0, 1] {
            let mut point = [0; 32];
            point[0] = small;
            assert!(own.agree(&PublicKey(point)).is_err());
        }
    }

    #[test]
    fn both_halves_are_read_in_one_case_only() {
        let own = PrivateKey::generate().unwrap();
        let public = own.public().unwrap();
        let text = public.to_text().unwrap();
        assert!(text.starts_with("age1") && text.len() == 62);
        assert_eq!(PublicKey::from_text(&text), Some(public));
        let identity = bech32::encode_upper::<Bech32>(IDENTITY, &own.0).unwrap();
        assert!(identity.starts_with("AGE-SECRET-KEY-1"));
        assert_eq!(PrivateKey::from_text(&identity).unwrap().0, own.0);
        let mut typo = text.clone();
        typo.replace_range(10..11, if &text[10..11] == "q" { "p" } else { "q" });
        for wrong in [&typo, &text.to_uppercase(), &text[1..], "", "age1", &identity] {
            assert!(PublicKey::from_text(wrong).is_none(), "{wrong}");
        }
        assert!(PrivateKey::from_text(&identity.to_lowercase()).is_none());
        assert!(PrivateKey::from_text(&text).is_none());
    }
}
