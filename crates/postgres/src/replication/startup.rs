//! The beginning of a connection: who we are, and the proof of it.

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;

use super::error::{ReplicationError, Result};
use super::frame::{Fields, Flaw};
use super::link::{ANSWER_LIMIT, Link};

/// A server that asks for more rounds than this wants to keep us busy: its own default is 4096.
const MAX_ROUNDS: u32 = 1 << 20;

/// Says who we are, proves it, and waits until the server is ready.
pub(super) async fn begin(link: &mut Link, config: &Config, target: &str) -> Result<()> {
    let what = format!("connect to PostgreSQL at {target} for replication");
    let user = config.get_user().unwrap_or_default();
    let mut parameters = vec![("user", user), ("replication", "true"), ("client_encoding", "UTF8")];
    parameters.extend(config.get_application_name().map(|name| ("application_name", name)));
    parameters.extend(config.get_options().map(|options| ("options", options)));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)
        .map_err(|error| unsuitable(target, error.to_string(), SETTINGS))?;
    link.send(&message, &what).await?;
    authenticate(link, config, target, &what).await?;
    loop {
        let frame = link.next_within(ANSWER_LIMIT, &what).await?;
        match frame.tag {
            // The key with which a statement could be cancelled; we end the connection instead.
            b'K' => {}
            // A newer version of the protocol is offered, which nobody asked for.
            b'v' => {}
            b'Z' => return Ok(()),
            tag => return Err(unexpected(&what, tag)),
        }
    }
}

const SETTINGS: &str = "correct the connection settings";
const PASSWORD: &str = "give the password in PGPASSWORD, a password file, or by a command";

fn unsuitable(target: &str, why: impl Into<String>, remedy: &'static str) -> ReplicationError {
    ReplicationError::Unsuitable { target: target.to_owned(), why: why.into(), remedy }
}

pub(super) fn unexpected(what: &str, tag: u8) -> ReplicationError {
    ReplicationError::protocol(what, format!("a message with the tag {tag} where none belongs"))
}

/// What the server asks for.
enum Request {
    Nothing,
    Password,
    Md5([u8; 4]),
    Scram { offered: bool },
    ScramContinue(Bytes),
    ScramFinal(Bytes),
    Other,
}

impl Request {
    fn read(body: Bytes) -> Result<Self, Flaw> {
        let mut fields = Fields(body);
        Ok(match fields.int32()? {
            0 => Self::Nothing,
            3 => Self::Password,
            5 => Self::Md5(fields.array()?),
            10 => {
                let mut offered = false;
                loop {
                    let mechanism = fields.cstring()?;
                    if mechanism.is_empty() {
                        break;
                    }
                    offered |= mechanism == SCRAM_SHA_256.as_bytes();
                }
                Self::Scram { offered }
            }
            11 => Self::ScramContinue(fields.0),
            12 => Self::ScramFinal(fields.0),
            _ => Self::Other,
        })
    }
}

async fn authenticate(link: &mut Link, config: &Config, target: &str, what: &str) -> Result<()> {
    let password = || {
        let missing = "the server asks for a password, and there is none";
        config.get_password().ok_or_else(|| unsuitable(target, missing, PASSWORD))
    };
    let flaw = |why: Flaw| ReplicationError::protocol(what, why);
    let invalid = |error: std::io::Error| flaw(error.to_string());
    let mut scram: Option<ScramSha256> = None;
    loop {
        let frame = link.next_within(ANSWER_LIMIT, what).await?;
        if frame.tag != b'R' {
            return Err(unexpected(what, frame.tag));
        }
        let mut message = BytesMut::new();
        match Request::read(frame.body).map_err(flaw)? {
            // The server has to prove itself, too, before it is believed.
            Request::Nothing if scram.is_none() => return Ok(()),
            Request::Password => {
                frontend::password_message(password()?, &mut message).map_err(invalid)?;
            }
            Request::Md5(salt) => {
                let user = config.get_user().unwrap_or_default();
                let hash = md5_hash(user.as_bytes(), password()?, salt);
                frontend::password_message(hash.as_bytes(), &mut message).map_err(invalid)?;
            }
            Request::Scram { offered: true } if scram.is_none() => {
                let begun = ScramSha256::new(password()?, ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut message)
                    .map_err(invalid)?;
                scram = Some(begun);
            }
            Request::ScramContinue(challenge) => {
                let scram = scram.as_mut().ok_or_else(|| flaw("it goes on unasked".into()))?;
                rounds(&challenge).map_err(flaw)?;
                scram.update(&challenge).map_err(invalid)?;
                frontend::sasl_response(scram.message(), &mut message).map_err(invalid)?;
            }
            Request::ScramFinal(proof) => {
                let mut scram = scram.take().ok_or_else(|| flaw("it ends unasked".into()))?;
                scram.finish(&proof).map_err(invalid)?;
                continue;
            }
            Request::Nothing => {
                return Err(flaw("the server did not prove that it knows the password".into()));
            }
            Request::Scram { .. } | Request::Other => {
                let why = "the server asks for a way to authenticate that is not supported";
                let remedy =
                    "let pg_hba.conf ask for scram-sha-256, md5, password, peer, ident or trust";
                return Err(unsuitable(target, why, remedy));
            }
        }
        link.send(&message, what).await?;
    }
}

/// Refuses a challenge that asks for more work than any server needs.
fn rounds(challenge: &[u8]) -> Result<(), Flaw> {
    let text = std::str::from_utf8(challenge).map_err(|_| "its challenge is no text")?;
    let rounds = text.split(',').find_map(|part| part.strip_prefix("i="));
    match rounds.map(str::parse::<u32>) {
        Some(Ok(rounds)) if rounds <= MAX_ROUNDS => Ok(()),
        _ => Err("its challenge asks for too many rounds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_that_would_keep_us_busy_is_refused() {
        assert_eq!(rounds(b"r=abc,s=W22Z,i=4096"), Ok(()));
        for bad in ["r=abc,s=W22Z,i=4294967295", "r=abc,s=W22Z,i=99999999999", "r=abc", "\u{e9}"] {
            assert!(rounds(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_are_read_within_their_bounds() {
        let read = |body: &'static [u8]| Request::read(Bytes::from_static(body));
        let offer = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        assert!(matches!(read(offer), Ok(Request::Scram { offered: true })));
        assert!(matches!(read(b"\0\0\0\x0aX\0\0"), Ok(Request::Scram { offered: false })));
        assert!(read(b"\0\0\0\x0aX\0").is_err());
        assert!(read(b"\0\0\0\x05abc").is_err());
        assert!(matches!(read(b"\0\0\0\x07"), Ok(Request::Other)));
    }
}
