//! Where the passphrase comes from: a file, a command, the environment, or a person; never an
//! argument, which every user of the machine can read.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::Stdio;

use console::Term;
use lifeboat_core::{Error, ErrorKind};
use lifeboat_repository::Secret;
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::failure::Failed;

/// Holds the passphrase itself.
const VARIABLE: &str = "LIFEBOAT_PASSPHRASE";
/// No passphrase is longer; a file that is, was named by mistake.
const MAX_LENGTH: u64 = 64 << 10;

/// Whether the passphrase is being chosen, or should be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A mistyped one would lock its owner out: a person is asked twice.
    Choose,
    /// A wrong one opens nothing.
    Open,
}

/// Finds the passphrase.
pub(crate) async fn find(global: &Global, purpose: Purpose) -> Result<Secret, Failed> {
    let text = if let Some(path) = &global.passphrase_file {
        from_file(path).await?
    } else if let Some(command) = &global.passphrase_command {
        from_command(command).await?
    } else if let Some(text) = std::env::var_os(VARIABLE) {
        let text = text.into_string().map_err(|_| not_text(VARIABLE))?;
        Zeroizing::new(text)
    } else {
        let ask = move || from_person(purpose);
        tokio::task::spawn_blocking(ask)
            .await
            .map_err(|_| Error::new(ErrorKind::Other, "ask for the passphrase"))??
    };
    if text.is_empty() {
        let hint = "give one in a file, by a command, or in LIFEBOAT_PASSPHRASE";
        return Err(Failed::usage("the passphrase is empty", hint));
    }
    Ok(Secret::passphrase(SecretString::from(text.as_str())))
}

async fn from_file(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let doing = || format!("read the passphrase file {}", path.display());
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Error::io(doing(), error))?;
    let bytes = read(file)
        .await
        .map_err(|error| Error::io(doing(), error))?;
    line(&bytes, &doing())
}

async fn from_command(command: &str) -> Result<Zeroizing<String>, Failed> {
    const DOING: &str = "run the passphrase command";
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        // A program that asks a person does it on the terminal.
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::io(DOING, error))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(Error::new(ErrorKind::Other, DOING).into());
    };
    let bytes = read(stdout)
        .await
        .map_err(|error| Error::io(DOING, error))?;
    let status = child
        .wait()
        .await
        .map_err(|error| Error::io(DOING, error))?;
    if !status.success() {
        let message = format!("{DOING}: it ended with {status}");
        let hint = "run it by hand and see what it says; it must print the passphrase";
        return Err(Error::new(ErrorKind::Refused, message)
            .with_hint(hint)
            .into());
    }
    line(&bytes, DOING)
}

async fn read(from: impl tokio::io::AsyncRead + Unpin) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room from the start: growing would leave copies behind in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    from.take(MAX_LENGTH + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The first line; a file that was written by an editor ends in a line break.
fn line(bytes: &[u8], doing: &str) -> Result<Zeroizing<String>, Failed> {
    if bytes.len() as u64 > MAX_LENGTH {
        let message = format!("{doing}: it is longer than 64 KiB");
        return Err(Error::new(ErrorKind::InvalidInput, message).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| not_text(doing))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.contains('\n') {
        let message = format!("{doing}: it has more than one line");
        return Err(Error::new(ErrorKind::InvalidInput, message).into());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn not_text(what: &str) -> Failed {
    Error::new(
        ErrorKind::InvalidInput,
        format!("{what}: the passphrase is not UTF-8"),
    )
    .into()
}

fn from_person(purpose: Purpose) -> Result<Zeroizing<String>, Failed> {
    let term = Term::stderr();
    if !term.is_term() || !io::stdin().is_terminal() {
        let hint = "name a file with --passphrase-file, a command with --passphrase-command, or \
                    set LIFEBOAT_PASSPHRASE";
        return Err(Failed::usage(
            "no passphrase is given, and nobody can be asked",
            hint,
        ));
    }
    let ask = |prompt: &str| -> Result<Zeroizing<String>, Failed> {
        let failed = |error| Error::io("ask for the passphrase", error);
        term.write_str(prompt).map_err(failed)?;
        Ok(Zeroizing::new(term.read_secure_line().map_err(failed)?))
    };
    let text = ask("passphrase: ")?;
    if purpose == Purpose::Choose && *ask("the same again: ")? != *text {
        let message = "the two passphrases are not the same";
        return Err(Error::new(ErrorKind::InvalidInput, message).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_line(text: &str) -> Result<String, String> {
        line(text.as_bytes(), "x")
            .map(|line| line.to_string())
            .map_err(|failed| failed.to_string())
    }

    #[test]
    fn one_line_break_at_the_end_is_the_editors() {
        assert_eq!(first_line("secret\n").as_deref(), Ok("secret"));
        assert_eq!(first_line("secret\r\n").as_deref(), Ok("secret"));
        assert_eq!(first_line(" two words ").as_deref(), Ok(" two words "));
        assert!(first_line("one\ntwo\n").is_err());
        assert!(first_line(&"x".repeat(100_000)).is_err());
    }
}
