//! The password file of libpq: lines of `host:port:database:user:password`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;

use crate::error::{Error, Result};

/// For whom a password is looked up.
pub(super) struct Wanted<'a> {
    /// A host name or address; `localhost` for sockets.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Looks the password up. A file that is not there has none.
pub(super) fn lookup(path: &Path, wanted: &Wanted<'_>) -> Result<Option<SecretString>> {
    let failed = |source| Error::ConnectionFile { path: path.to_owned(), source };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if about.mode() & 0o077 != 0 {
        let why = "others may read the password file: chmod 0600 it";
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(text.lines().find_map(|line| matching(line, wanted)))
}

fn matching(line: &str, wanted: &Wanted<'_>) -> Option<SecretString> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [host, port, database, user, password] = fields.as_slice() else {
        return None;
    };
    let port_wanted = wanted.port.to_string();
    let pairs = [
        (host, wanted.host),
        (port, port_wanted.as_str()),
        (database, wanted.database),
        (user, wanted.user),
    ];
    // A star that was written with a backslash is a name.
    let fits = pairs.iter().all(|((field, star), value)| *star || field == value);
    fits.then(|| SecretString::from(password.0.clone()))
}

/// The fields, and whether each is the star that stands for all.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let (mut field, mut escaped) = (String::new(), false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                escaped = true;
                field.extend(characters.next());
            }
            ':' if found.len() < 4 => {
                let star = field == "*" && !escaped;
                found.push((std::mem::take(&mut field), star));
                escaped = false;
            }
            _ => field.push(character),
        }
    }
    found.push((field, false));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    fn look(text: &str, user: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let wanted = Wanted { host: "localhost", port: 5432, database: "db", user };
        let found = lookup(&path, &wanted).unwrap();
        found.map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# x\nother:*:*:*:no\nlocalhost:5432:*:me:a\\:b\\\\:c\n*:*:*:*:last\n";
        assert_eq!(look(text, "me").as_deref(), Some("a:b\\:c"));
        assert_eq!(look(text, "you").as_deref(), Some("last"));
        assert_eq!(look("localhost:1:*:*:x", "me"), None);
        assert_eq!(look("\\*:*:*:*:x", "me"), None);
    }

    #[test]
    fn a_file_that_others_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "*:*:*:*:x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let wanted = Wanted { host: "h", port: 1, database: "d", user: "u" };
        assert!(lookup(&path, &wanted).is_err());
        assert!(lookup(&dir.path().join("none"), &wanted).unwrap().is_none());
    }
}
