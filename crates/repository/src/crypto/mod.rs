//! Keys, and sealing with them.
//!
//! The design is kept small on purpose:
//!
//! - **One use per key.** Every pack and every sealed object draws a random salt of 32 bytes, and
//!   its key is derived from the repository's key of the epoch and that salt. Within a pack, the
//!   nonce of a chunk is its offset, which never repeats. No nonce is ever random, so none can
//!   collide (the limit of NIST SP 800-38D on random nonces does not apply).
//! - **Everything is bound.** Format, repository, kind, chunk id, encoding, lengths and place are
//!   the associated data: nothing can be moved, swapped or relabelled.
//! - **Capabilities.** What is sealed has keys of its own for each purpose, so that a holder can
//!   be given some: who may write and not read has public halves where others have secrets, and
//!   what he seals has a key that only they can derive (X25519).
//! - **One derivation.** All keys come from a root by BLAKE3's key derivation with a context
//!   string of their own (the BLAKE3 paper, section 2.3).

mod aead;
mod age;
mod agreement;
mod command;
mod keys;
mod root;
mod secret;
mod slot;
mod slot_file;

use rand::TryRng;
use rand::rngs::SysRng;

pub(crate) use aead::{Cipher, Sealer, TAG};
pub(crate) use agreement::PublicKey;
pub use command::KeyCommand;
pub(crate) use keys::{Keys, Purpose, Seal};
pub use root::Access;
pub(crate) use root::{RootKey, Share};
pub(crate) use secret::{Given, Owner};
pub use secret::{Holder, KdfCost, Secret};
pub(crate) use slot::{Description, HolderKey, Keeper, Slot};
pub(crate) use slot_file::{AnySlot, DirectSlot, MAX_KEY_FILE, Unread};

/// Bytes of salt in each pack and sealed object.
pub(crate) const SALT: usize = 32;

/// Fresh random bytes from the operating system's generator.
///
/// Not from the cryptographic library's own, which spends 25 ms on seeding itself: a tenth of a
/// backup of a store that did not change.
pub(crate) fn random<const N: usize>() -> crate::Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| crate::Error::Crypto { doing: "draw random bytes" })?;
    Ok(bytes)
}
