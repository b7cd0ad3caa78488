//! Whether a server would read append-only files in place of an RDB.

use std::fs;
use std::path::Path;

use super::RestoreOptions;
use crate::error::{Error, Result};

/// Where servers keep append-only files unless they are told otherwise: the directory from 7.0 on,
/// the single file before.
const DIRECTORY: &str = "appendonlydir";
const FILE: &str = "appendonly.aof";

/// What says that it would, if anything does.
pub(super) fn reason(options: &RestoreOptions, parent: &Path) -> Result<Option<String>> {
    let mut directory = DIRECTORY.to_owned();
    let mut file = FILE.to_owned();
    if let Some(path) = &options.config {
        let text = fs::read_to_string(path).map_err(|source| Error::File {
            doing: "read the configuration",
            path: path.clone(),
            source,
        })?;
        if setting(&text, "appendonly").is_some_and(|value| value.eq_ignore_ascii_case("yes")) {
            return Ok(Some(format!("{} says \"appendonly yes\"", path.display())));
        }
        directory = setting(&text, "appenddirname").unwrap_or(directory);
        file = setting(&text, "appendfilename").unwrap_or(file);
    }
    for name in [directory, file] {
        let path = parent.join(name);
        if path.symlink_metadata().is_ok() {
            let why = format!("{} is there, and would be read in its place", path.display());
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// The value of a setting: the last line counts. Files that are included are not looked into.
pub(super) fn setting(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().rev().map(str::trim_start);
    let mut values = lines.filter_map(|line| {
        let (word, value) = line.split_once(char::is_whitespace)?;
        word.eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_configuration_counts() {
        let text = "# appendonly yes\nappendonly yes\n  AppendOnly  no\nappenddirname \"aof\"\n";
        assert_eq!(setting(text, "appendonly").as_deref(), Some("no"));
        assert_eq!(setting(text, "appenddirname").as_deref(), Some("aof"));
        assert_eq!(setting(text, "save"), None);
    }

    #[test]
    fn files_and_settings_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = RestoreOptions::new(dir.path().join("dump.rdb"));
        let found = |options: &RestoreOptions| reason(options, dir.path()).unwrap();
        assert_eq!(found(&options), None);
        fs::create_dir(dir.path().join("aof")).unwrap();
        assert_eq!(found(&options), None);
        let config = dir.path().join("redis.conf");
        fs::write(&config, "appendonly no\nappenddirname aof\n").unwrap();
        options.config = Some(config.clone());
        assert!(found(&options).unwrap().contains("aof is there"));
        fs::write(&config, "appendonly yes\n").unwrap();
        assert!(found(&options).unwrap().contains("appendonly yes"));
        options.config = None;
        fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        assert!(found(&options).unwrap().contains(DIRECTORY));
    }
}
