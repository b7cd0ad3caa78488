//! Names of accounts and groups, from the files in which local ones are kept.

use std::collections::HashMap;
use std::fs;

/// The name of account or group number `id`, from the text of `/etc/passwd` or `/etc/group`.
pub(crate) fn name_of(text: &str, id: u32) -> Option<&str> {
    rows(text).find_map(|(name, have)| (have == id).then_some(name))
}

fn rows(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        Some((name, id))
    })
}

/// The fourth field of each line of `/etc/passwd`, by the first.
fn primary(text: &str) -> HashMap<String, u32> {
    let mut groups = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, group) = (fields.next(), fields.nth(2).and_then(|group| group.parse().ok()));
        if let (Some(name), Some(group)) = (name, group) {
            groups.entry(name.to_owned()).or_insert(group);
        }
    }
    groups
}

/// The accounts and the groups of this host.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
    /// Users and the numbers of their groups.
    primary: HashMap<String, u32>,
    user_names: HashMap<u32, String>,
    group_names: HashMap<u32, String>,
}

impl Accounts {
    /// Reads them. Hosts without these files have none. Blocks.
    pub(crate) fn read() -> Self {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let by_name = |text: &str| {
            let mut map = HashMap::new();
            for (name, id) in rows(text) {
                map.entry(name.to_owned()).or_insert(id);
            }
            map
        };
        let by_id = |text: &str| {
            let mut map = HashMap::new();
            for (name, id) in rows(text) {
                map.entry(id).or_insert_with(|| name.to_owned());
            }
            map
        };
        Self {
            users: by_name(&users),
            groups: by_name(&groups),
            primary: primary(&users),
            user_names: by_id(&users),
            group_names: by_id(&groups),
        }
    }

    pub(crate) fn user_name(&self, uid: u32) -> Option<&str> {
        self.user_names.get(&uid).map(String::as_str)
    }

    pub(crate) fn group_name(&self, gid: u32) -> Option<&str> {
        self.group_names.get(&gid).map(String::as_str)
    }

    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    /// The group that an account has by itself.
    pub(crate) fn primary_group(&self, name: &str) -> Option<u32> {
        self.primary.get(name).copied()
    }

    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_with_a_number_names_it() {
        let text = "root:x:0:0:r:/root:/bin/sh\n# note\npostgres:x:26:26::/:\ntoor:x:0:0::/:\n";
        assert_eq!(name_of(text, 0), Some("root"));
        assert_eq!(name_of(text, 26), Some("postgres"));
        assert_eq!(name_of(text, 1), None);
    }
}
