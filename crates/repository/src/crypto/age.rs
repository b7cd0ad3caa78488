//! Files of age (age-encryption.org/v1), as far as a key slot needs them: binary, and to X25519
//! recipients.
//!
//! So `age --decrypt` gets at a repository's key without this program. A file is a text header
//! that wraps its key for each recipient and is authenticated by that key, and the content in
//! chunks of 64 KiB. A slot holds less than one.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use zeroize::{Zeroize, Zeroizing};

use super::agreement::{PrivateKey, PublicKey};
use super::{TAG, random};
use crate::error::{Error, Result};

const VERSION: &str = "age-encryption.org/v1\n";
const STANZA: &str = "-> ";
const X25519: &str = "X25519";
/// What a slot holds is smaller by far.
const MAX_CONTENT: usize = 64 << 10;
/// Far more than a header for one recipient has.
const MAX_HEADER: usize = 16 << 10;
/// Full lines of a stanza's body; one that is shorter ends it.
const LINE: usize = 64;

type Key = Zeroizing<[u8; 32]>;
type FileKey = Zeroizing<[u8; 16]>;

/// Encrypts `content`, 64 KiB at most, to one recipient.
pub(crate) fn encrypt(recipient: &PublicKey, content: &[u8]) -> Result<Vec<u8>> {
    if content.len() > MAX_CONTENT {
        return Err(Error::ObjectTooLarge { kind: "key" });
    }
    let file_key: FileKey = Zeroizing::new(random()?);
    let fresh = PrivateKey::generate()?;
    let share = fresh.public()?;
    let wrapping = wrapping(&fresh, recipient, &share, recipient)?;
    let mut body = file_key.to_vec();
    // Each key seals one thing, so that its only nonce can be zero.
    cipher(&wrapping)?
        .seal_in_place_append_tag(nonce(0), Aad::empty(), &mut body)
        .map_err(|_| refused())?;
    let (share, body) = (BASE64.encode(share.0), BASE64.encode(body));
    let mut header = format!("{VERSION}{STANZA}{X25519} {share}\n{body}\n---");
    let mac = hmac::sign(&header_key(&file_key)?, header.as_bytes());
    header.push_str(&format!(" {}\n", BASE64.encode(mac.as_ref())));

    let mut file = header.into_bytes();
    let salt: [u8; 16] = random()?;
    file.extend_from_slice(&salt);
    let mut sealed = Vec::with_capacity(content.len() + TAG);
    sealed.extend_from_slice(content);
    cipher(&derive(&salt, &*file_key, b"payload")?)?
        .seal_in_place_append_tag(nonce(LAST), Aad::empty(), &mut sealed)
        .map_err(|_| refused())?;
    file.append(&mut sealed);
    Ok(file)
}

/// Decrypts a file, from bytes that may be anything. `None` when they are no such file, are not
/// authentic, or are for somebody else.
pub(crate) fn decrypt(identity: &PrivateKey, file: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let header = Header::parse(file)?;
    let own = identity.public().ok()?;
    let mut stanzas = header.stanzas.iter();
    let file_key = stanzas.find_map(|stanza| stanza.unwrap_key(identity, &own))?;
    hmac::verify(&header_key(&file_key).ok()?, header.bound, &header.mac).ok()?;
    let (salt, sealed) = header.content.split_first_chunk::<16>()?;
    if sealed.len() > MAX_CONTENT + TAG {
        return None;
    }
    let mut content = Zeroizing::new(sealed.to_vec());
    let key = derive(salt, &*file_key, b"payload").ok()?;
    let plain = cipher(&key).ok()?.open_in_place(nonce(LAST), Aad::empty(), &mut content);
    let length = plain.ok()?.len();
    content.truncate(length);
    Some(content)
}

struct Header<'a> {
    stanzas: Vec<Stanza>,
    /// What the MAC is of.
    bound: &'a [u8],
    mac: [u8; 32],
    content: &'a [u8],
}

/// A file key, wrapped for an X25519 recipient.
struct Stanza {
    share: PublicKey,
    body: [u8; 16 + TAG],
}

impl<'a> Header<'a> {
    fn parse(file: &'a [u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(VERSION.as_bytes())?;
        let mut stanzas = Vec::new();
        loop {
            if file.len() - rest.len() > MAX_HEADER {
                return None;
            }
            let (line, after) = line(rest)?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let bound = &file[..file.len() - rest.len() + 3];
                return Some(Self { stanzas, bound, mac: decode(mac)?, content: after });
            }
            let arguments = line.strip_prefix(STANZA)?;
            let (body, after) = body(after)?;
            rest = after;
            // Those of other kinds are for other holders.
            if let Some(share) =
                arguments.strip_prefix(X25519).and_then(|rest| rest.strip_prefix(' '))
            {
                stanzas.push(Stanza { share: PublicKey(decode(share)?), body: decode(&body)? });
            }
        }
    }
}

impl Stanza {
    fn unwrap_key(&self, identity: &PrivateKey, own: &PublicKey) -> Option<FileKey> {
        let wrapping = wrapping(identity, &self.share, &self.share, own).ok()?;
        let mut body = Zeroizing::new(self.body);
        let key = cipher(&wrapping).ok()?.open_in_place(nonce(0), Aad::empty(), &mut *body).ok()?;
        Some(Zeroizing::new((&*key).try_into().ok()?))
    }
}

/// The first line, of visible ASCII, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(MAX_HEADER).position(|byte| *byte == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let visible = line.iter().all(|byte| (b' '..=b'~').contains(byte));
    visible.then(|| std::str::from_utf8(line).ok()).flatten().map(|line| (line, rest))
}

/// The body of a stanza, its lines joined, and what follows it.
fn body(mut rest: &[u8]) -> Option<(String, &[u8])> {
    let mut joined = String::new();
    loop {
        let (line, after) = line(rest)?;
        if line.len() > LINE || joined.len() > MAX_HEADER {
            return None;
        }
        joined.push_str(line);
        rest = after;
        if line.len() < LINE {
            return Some((joined, rest));
        }
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // In full, with all bits: another text for the same bytes is refused.
    let bytes = (text.len() == (N * 4).div_ceil(3)).then(|| BASE64.decode(text).ok()).flatten()?;
    bytes.try_into().ok()
}

/// The key that wraps a file key, agreed between `own` and `peer`.
fn wrapping(
    own: &PrivateKey,
    peer: &PublicKey,
    share: &PublicKey,
    recipient: &PublicKey,
) -> Result<Key> {
    let shared = own.agree(peer)?;
    let mut salt = [0; 64];
    salt[..32].copy_from_slice(&share.0);
    salt[32..].copy_from_slice(&recipient.0);
    derive(&salt, &*shared, b"age-encryption.org/v1/X25519")
}

fn header_key(file_key: &FileKey) -> Result<hmac::Key> {
    let key = derive(b"", &**file_key, b"header")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*key))
}

/// HKDF-SHA-256 (RFC 5869).
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Key> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let mut key = Zeroizing::new([0; 32]);
    let info = [info];
    let expanded = extracted.expand(&info, hkdf::HKDF_SHA256).map_err(|_| refused())?;
    match expanded.fill(&mut *key) {
        Ok(()) => Ok(key),
        Err(_) => {
            key.zeroize();
            Err(refused())
        }
    }
}

fn cipher(key: &Key) -> Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, &**key).map(LessSafeKey::new).map_err(|_| refused())
}

/// The last byte tells the last chunk of a content from the others; here it is the first as well.
const LAST: u8 = 1;

fn nonce(last: u8) -> Nonce {
    let mut bytes = [0; 12];
    bytes[11] = last;
    Nonce::assume_unique_for_key(bytes)
}

fn refused() -> Error {
    Error::Crypto { doing: "encrypt to a recipient" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (PrivateKey, PublicKey) {
        let private = PrivateKey::from_bytes(&[7; 32]);
        let public = private.public().unwrap();
        (private, public)
    }

    #[test]
    fn only_its_recipient_opens_a_file_and_only_unchanged() {
        let (private, public) = pair();
        for content in [&b""[..], b"root", &[9; 5000]] {
            let file = encrypt(&public, content).unwrap();
            assert_eq!(*decrypt(&private, &file).unwrap(), content);
            assert!(decrypt(&PrivateKey::from_bytes(&[8; 32]), &file).is_none());
            for at in 0..file.len().min(400) {
                let mut file = file.clone();
                file[at] ^= 1;
                assert!(decrypt(&private, &file).is_none(), "byte {at}");
            }
            for end in 0..file.len().min(400) {
                assert!(decrypt(&private, &file[..end]).is_none(), "{end} bytes");
            }
        }
        assert!(encrypt(&public, &vec![0; MAX_CONTENT + 1]).is_err());
    }

    #[test]
    fn stanzas_of_other_kinds_are_passed_over() {
        // One with a long body, one whose body fills its line, one that is no stanza's.
        let (private, public) = pair();
        let file = encrypt(&public, b"root").unwrap();
        let text = String::from_utf8_lossy(&file).into_owned();
        let stanza = &text[VERSION.len()..text.find("---").unwrap()];
        let other = format!("-> other a b\n{}\n{}\n\n", "A".repeat(64), "B".repeat(64));
        let parses = |header: &str| {
            Header::parse(format!("{VERSION}{header}").as_bytes())
                .map(|header| header.stanzas.len())
        };
        let mac = format!("--- {}\n", "A".repeat(43));
        assert_eq!(parses(&format!("{other}{stanza}{mac}")), Some(1));
        assert_eq!(parses(&format!("{stanza}{stanza}{mac}")), Some(2));
        assert_eq!(parses(&format!("{stanza}x\n{mac}")), None);
        assert_eq!(parses(&format!("{stanza}--- short\n")), None);
        assert_eq!(parses(&format!("{}{mac}", other.repeat(200))), None);
        // Whoever adds a stanza has to know the file's key.
        let mut longer = file.clone();
        longer.splice(VERSION.len()..VERSION.len(), other.bytes());
        assert!(decrypt(&private, &longer).is_none());
    }

    proptest! {
        #[test]
        fn anything_else_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decrypt(&pair().0, &bytes).is_none());
            let mut bytes = bytes;
            bytes.splice(0..0, *b"age-encryption.org/v1\n-> X25519 ");
            prop_assert!(decrypt(&pair().0, &bytes).is_none());
        }
    }
}
