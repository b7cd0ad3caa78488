//! Keys that a command of the owner's keeps: the way to a key management service.
//!
//! The command is run without a shell. It reads one JSON object on standard input and writes one
//! to standard output; secrets are in neither its arguments nor its environment.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::id::RepositoryId;

/// A command answers in less.
const MAX_ANSWER: usize = 64 << 10;
/// What a key slot has room for, with much to spare.
pub(crate) const MAX_WRAPPED: usize = 16 << 10;

/// A command that wraps and unwraps a key. What it is told, and must answer, is in `docs/keys.md`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyCommand {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: OsString,
    /// Its arguments, none of them secret.
    pub arguments: Vec<OsString>,
    /// How long it may take before it is stopped: 30 seconds by default.
    pub limit: Duration,
}

impl KeyCommand {
    /// This program, without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        let limit = Duration::from_secs(30);
        Self { program: program.into(), arguments: Vec::new(), limit }
    }

    /// The same with these arguments.
    pub fn with_arguments<T: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Gives it a secret to keep, and takes what it makes of it.
    pub(crate) async fn wrap(&self, repository: RepositoryId, secret: &[u8]) -> Result<Vec<u8>> {
        let secret = Zeroizing::new(BASE64.encode(secret));
        let question = Question::new("wrap", repository, Some(&secret), None);
        let mut answer = self.ask(&question).await?;
        let wrapped = answer.wrapped.take().and_then(|text| BASE64.decode(text).ok());
        match wrapped {
            Some(wrapped) if (1..=MAX_WRAPPED).contains(&wrapped.len()) => Ok(wrapped),
            _ => Err(self.failed("it gave no \"wrapped\" of at most 16 KiB in base64")),
        }
    }

    /// Gives it what it made, and takes the secret back.
    pub(crate) async fn unwrap(
        &self,
        repository: RepositoryId,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let wrapped = BASE64.encode(wrapped);
        let question = Question::new("unwrap", repository, None, Some(&wrapped));
        let answer = self.ask(&question).await?;
        let secret = answer.secret.as_ref().and_then(|text| BASE64.decode(text).ok());
        secret.map(Zeroizing::new).ok_or_else(|| self.failed("it gave no \"secret\" in base64"))
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer> {
        // Room from the start: growing would leave copies behind in memory.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        serde_json::to_writer(&mut *text, question)
            .map_err(|_| Error::Crypto { doing: "encode a key" })?;
        text.push(b'\n');
        let asking = Box::pin(self.run(&text));
        let answer = tokio::time::timeout(self.limit, asking).await.map_err(|_| {
            self.failed(&format!("it did not end within {} s", self.limit.as_secs_f32()))
        })??;
        // What serde says of it could repeat a part of it.
        let answer = serde_json::from_slice::<Answer>(&answer);
        answer.map_err(|_| self.failed("what it wrote is not the answer that was asked for"))
    }

    async fn run(&self, question: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let io = |error: std::io::Error| self.failed(&error.to_string());
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .env_remove("LIFEBOAT_PASSPHRASE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed("it has no standard input and output"));
        };
        let asking = async {
            // One that does not read what it is asked says so by its answer.
            let _ = stdin.write_all(question).await;
            let _ = stdin.shutdown().await;
            drop(stdin);
        };
        let answering = async {
            let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER + 1));
            stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer).await.map(|_| answer)
        };
        let ((), answer) = tokio::join!(asking, answering);
        let answer = answer.map_err(io)?;
        if answer.len() > MAX_ANSWER {
            return Err(self.failed("it wrote more than 64 KiB"));
        }
        let status = child.wait().await.map_err(io)?;
        if status.success() {
            Ok(answer)
        } else {
            Err(self.failed(&format!("it ended with {status}")))
        }
    }

    fn failed(&self, what: &str) -> Error {
        let program = self.program.to_string_lossy().into_owned();
        Error::KeyCommand { program, what: what.to_owned() }
    }
}

#[derive(Serialize)]
struct Question<'a> {
    version: u32,
    action: &'a str,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped: Option<&'a str>,
}

impl<'a> Question<'a> {
    fn new(
        action: &'a str,
        repository: RepositoryId,
        secret: Option<&'a str>,
        wrapped: Option<&'a str>,
    ) -> Self {
        Self { version: 1, action, repository: repository.to_string(), secret, wrapped }
    }
}

#[derive(Deserialize)]
struct Answer {
    secret: Option<String>,
    wrapped: Option<String>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> KeyCommand {
        KeyCommand::new("sh").with_arguments(["-c", script])
    }

    async fn said(script: &str, limit: Duration) -> String {
        let mut command = shell(script);
        command.limit = limit;
        let id = RepositoryId::from_bytes([1; 16]);
        command.unwrap(id, b"wrapped").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn it_is_told_what_to_do_and_answers() {
        let id = RepositoryId::from_bytes([1; 16]);
        // Keeps what it is given as it is: the answer to a question is the question's other side.
        let command = shell(
            r#"sed -e 's/"secret"/"x"/; s/"wrapped"/"secret"/; s/"x"/"wrapped"/' -e 's/"action"/"-"/'"#,
        );
        let wrapped = command.wrap(id, b"secret").await.unwrap();
        assert_eq!(wrapped, b"secret");
        assert_eq!(*command.unwrap(id, &wrapped).await.unwrap(), b"secret");
    }

    #[tokio::test]
    async fn it_cannot_hold_us_up_or_fill_memory() {
        let long = Duration::from_secs(60);
        assert!(said("exit 3", long).await.contains("3"));
        assert!(said("cat >/dev/null", long).await.contains("not the answer"));
        assert!(said("echo '{\"wrapped\":\"AA==\"}'", long).await.contains("no \"secret\""));
        assert!(said("cat /dev/zero", long).await.contains("64 KiB"));
        let waited = said("exec sleep 600", Duration::from_millis(50)).await;
        assert!(waited.contains("did not end within"), "{waited}");
        let missing = KeyCommand::new("/nothing/here");
        let error = missing.unwrap(RepositoryId::from_bytes([1; 16]), b"").await.unwrap_err();
        assert!(error.to_string().contains("/nothing/here"), "{error}");
        // Nothing that it wrote is told: it may be the secret.
        let error = said("echo hunter2", long).await;
        assert!(!error.contains("hunter2"), "{error}");
    }
}
