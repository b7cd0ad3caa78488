//! Where the passphrase comes from: a file, a command, the environment, or a person; never an
//! argument, which every user of the machine can read. An identity of age comes from a file, and a
//! command that keeps the key is run when it is needed.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;

use lifeboat_core::{Error, ErrorKind};
use lifeboat_repository::{Holder, KeyCommand, Secret};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use crate::args::{Global, NewHolder, OtherSecret};
use crate::failure::Failed;

/// Holds the passphrase itself.
const VARIABLE: &str = "LIFEBOAT_PASSPHRASE";
/// Name the file and the command, when the command line does not.
const FILE_VARIABLE: &str = "LIFEBOAT_PASSPHRASE_FILE";
const COMMAND_VARIABLE: &str = "LIFEBOAT_PASSPHRASE_COMMAND";
/// Name the file with identities, and the command that keeps the key.
const IDENTITY_VARIABLE: &str = "LIFEBOAT_IDENTITY_FILE";
const KEY_COMMAND_VARIABLE: &str = "LIFEBOAT_KEY_COMMAND";
/// How the variables begin that are for the other repository of a command.
const OTHER: &str = "LIFEBOAT_OTHER_";
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

/// Finds the passphrase: where the command line says, else where the environment says, else by
/// asking. Dropping the future while a person is asked leaves the terminal as it was.
pub(crate) async fn find(global: &Global, purpose: Purpose) -> Result<Secret, Failed> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = &global.identity_file {
        return identity(path).await;
    }
    if let Some(command) = &global.key_command {
        return Ok(Secret::command(key_command(command)?));
    }
    let text = if let Some(path) = &global.passphrase_file {
        from_file(path).await?
    } else if let Some(command) = &global.passphrase_command {
        from_command(command.as_ref()).await?
    } else if let Some(text) = std::env::var_os(VARIABLE) {
        let text = text.into_string().map_err(|_| not_text(VARIABLE))?;
        Zeroizing::new(text)
    } else if let Some(path) = variable(FILE_VARIABLE) {
        from_file(Path::new(&path)).await?
    } else if let Some(command) = variable(COMMAND_VARIABLE) {
        from_command(&command).await?
    } else if let Some(path) = variable(IDENTITY_VARIABLE) {
        return identity(Path::new(&path)).await;
    } else if let Some(command) = variable(KEY_COMMAND_VARIABLE) {
        let command = command.into_string().map_err(|_| not_text(KEY_COMMAND_VARIABLE))?;
        return Ok(Secret::command(key_command(&command)?));
    } else {
        let hint = "name a file with --passphrase-file, a command with --passphrase-command, or \
                    set LIFEBOAT_PASSPHRASE";
        from_person("passphrase: ", purpose, hint).await?
    };
    passphrase(&text)
}

/// The same for the other repository of a command that works with two, which is at `place`. Its
/// options and variables are its own.
pub(crate) async fn find_other(other: &OtherSecret, place: &str) -> Result<Secret, Failed> {
    let name = |suffix: &str| format!("{OTHER}{suffix}");
    let variable = |suffix| std::env::var_os(name(suffix)).filter(|value| !value.is_empty());
    let text = if let Some(path) = &other.other_passphrase_file {
        from_file(path).await?
    } else if let Some(command) = &other.other_passphrase_command {
        from_command(command.as_ref()).await?
    } else if let Some(text) = variable("PASSPHRASE") {
        Zeroizing::new(text.into_string().map_err(|_| not_text(&name("PASSPHRASE")))?)
    } else if let Some(path) = variable("PASSPHRASE_FILE") {
        from_file(Path::new(&path)).await?
    } else if let Some(command) = variable("PASSPHRASE_COMMAND") {
        from_command(&command).await?
    } else if let Some(path) = variable("IDENTITY_FILE") {
        return identity(Path::new(&path)).await;
    } else {
        let hint = "this is about the other repository: name a file with \
                    --other-passphrase-file, a command with --other-passphrase-command, or set \
                    LIFEBOAT_OTHER_PASSPHRASE";
        from_person(&format!("passphrase of {place}: "), Purpose::Open, hint).await?
    };
    passphrase(&text)
}

fn passphrase(text: &Zeroizing<String>) -> Result<Secret, Failed> {
    if text.is_empty() {
        let hint = "give one in a file, by a command, or in LIFEBOAT_PASSPHRASE";
        return Err(Failed::usage("the passphrase is empty", hint));
    }
    Ok(Secret::passphrase(SecretString::from(text.as_str())))
}

/// A passphrase that is in a file.
pub(crate) async fn passphrase_in(path: &Path) -> Result<Secret, Failed> {
    passphrase(&from_file(path).await?)
}

/// For whom a new key is made: as the command line says, else for a passphrase that is asked for.
pub(crate) async fn holder(new: &NewHolder) -> Result<Holder, Failed> {
    if let Some(text) = &new.recipient {
        return Holder::recipient(text).map_err(Failed::argument);
    }
    if let Some(command) = &new.new_key_command {
        return Ok(Holder::command(key_command(command)?));
    }
    let secret = match &new.new_passphrase_file {
        Some(path) => passphrase_in(path).await?,
        None => {
            let hint = "name its recipient with --recipient, a file with --new-passphrase-file, or \
                        a command with --new-key-command";
            passphrase(&from_person("new passphrase: ", Purpose::Choose, hint).await?)?
        }
    };
    Ok(Holder::of(&secret)?)
}

async fn identity(path: &Path) -> Result<Secret, Failed> {
    let doing = || format!("read the identity file {}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|error| Error::io(doing(), error))?;
    let bytes = read(file).await.map_err(|error| Error::io(doing(), error))?;
    if bytes.len() as u64 > MAX_LENGTH {
        let message = format!("{}: it is longer than 64 KiB", doing());
        return Err(Error::new(ErrorKind::InvalidInput, message).into());
    }
    let text = std::str::from_utf8(&bytes).unwrap_or("this is no text");
    Secret::identity(text).map_err(|error| Error::from(error).context(doing()).into())
}

/// A program and its arguments. There is no quoting: what needs it, needs a script.
fn key_command(text: &str) -> Result<KeyCommand, Failed> {
    let mut words = text.split_ascii_whitespace();
    let Some(program) = words.next() else {
        return Err(Failed::usage("the key command is empty", "name a program"));
    };
    Ok(KeyCommand::new(program).with_arguments(words))
}

async fn from_file(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let doing = || format!("read the passphrase file {}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(|error| Error::io(doing(), error))?;
    let bytes = read(file).await.map_err(|error| Error::io(doing(), error))?;
    line(&bytes, &doing())
}

async fn from_command(command: &OsStr) -> Result<Zeroizing<String>, Failed> {
    const DOING: &str = "run the passphrase command";
    let mut child = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(command)
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
    let bytes = read(stdout).await.map_err(|error| Error::io(DOING, error))?;
    let status = child.wait().await.map_err(|error| Error::io(DOING, error))?;
    if !status.success() {
        let message = format!("{DOING}: it ended with {status}");
        let hint = "run it by hand and see what it says; it must print the passphrase";
        return Err(Error::new(ErrorKind::Refused, message).with_hint(hint).into());
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
    Error::new(ErrorKind::InvalidInput, format!("{what}: the passphrase is not UTF-8")).into()
}

async fn from_person(
    prompt: &str,
    purpose: Purpose,
    hint: &str,
) -> Result<Zeroizing<String>, Failed> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = "no passphrase is given, and nobody can be asked";
        return Err(Failed::usage(message, hint));
    }
    let failed = |error| Failed::from(Error::io("ask for the passphrase", error));
    let text = ask(prompt).await.map_err(failed)?;
    if purpose == Purpose::Choose && *ask("the same again: ").await.map_err(failed)? != *text {
        let message = "the two passphrases are not the same";
        return Err(Error::new(ErrorKind::InvalidInput, message).into());
    }
    Ok(text)
}

async fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    // Silence first: what is typed at the sight of the prompt must not show.
    let silence = Silence::begin()?;
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let read = || {
        let mut line = Zeroizing::new(String::with_capacity(1024));
        io::stdin().read_line(&mut line).map(|_| line)
    };
    let line = tokio::task::spawn_blocking(read).await??;
    drop(silence);
    writeln!(stderr)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_line(text: &str) -> Result<String, String> {
        line(text.as_bytes(), "x").map(|line| line.to_string()).map_err(|failed| failed.to_string())
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
