//! Names of users and groups of this machine.

use std::collections::HashMap;
use std::path::Path;

/// Numbers and names, both ways, as `/etc/passwd` and `/etc/group` say. Accounts that come from
/// a directory service have a number only.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    user_numbers: HashMap<String, u32>,
    group_numbers: HashMap<String, u32>,
}

impl Accounts {
    /// Reads both files. A missing one means no names. Blocks.
    pub(crate) fn load() -> Self {
        let (users, user_numbers) = read(Path::new("/etc/passwd"));
        let (groups, group_numbers) = read(Path::new("/etc/group"));
        Self { users, groups, user_numbers, group_numbers }
    }

    pub(crate) fn user(&self, number: u32) -> Option<&str> {
        self.users.get(&number).map(String::as_str)
    }

    pub(crate) fn group(&self, number: u32) -> Option<&str> {
        self.groups.get(&number).map(String::as_str)
    }

    pub(crate) fn user_number(&self, name: &str) -> Option<u32> {
        self.user_numbers.get(name).copied()
    }

    pub(crate) fn group_number(&self, name: &str) -> Option<u32> {
        self.group_numbers.get(name).copied()
    }
}

fn read(path: &Path) -> (HashMap<u32, String>, HashMap<String, u32>) {
    let text = std::fs::read(path).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text))
}

/// Lines of `name:password:number:…`. The first one of a number, or of a name, counts.
fn parse(text: &str) -> (HashMap<u32, String>, HashMap<String, u32>) {
    let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    (names, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts_and_nonsense_does_not() {
        let (names, numbers) = parse("root:x:0:0::/:\ntoor:x:0:\n#\nbad:x:y:\nann:x:7\n");
        assert_eq!(names[&0], "root");
        assert_eq!(numbers["toor"], 0);
        assert_eq!(numbers["ann"], 7);
        assert_eq!(names.len(), 2);
    }
}
