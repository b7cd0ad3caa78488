//! Names of what a repository holds.

use std::fmt;

use minicbor::{Decode, Encode};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] [u8; $bytes]);

        impl $name {
            /// From its bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// From its hexadecimal text, or `None` when that is something else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0[..6]))
            }
        }
    };
}

id!(
    /// What tells one repository from every other: 16 random bytes.
    RepositoryId,
    16
);
id!(
    /// The name of a chunk: the keyed BLAKE3 hash of its kind and plaintext. Who does not hold
    /// the repository's key learns nothing from it.
    ChunkId,
    32
);
id!(
    /// The name of a pack, an index object, a snapshot or a key: the BLAKE3 hash of its stored
    /// bytes, so that anybody can check them without a key.
    ObjectId,
    32
);

impl ObjectId {
    /// The name of an object that consists of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
