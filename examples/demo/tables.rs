//! The tables before and after.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use lifeboat_testbed::data::TableDigest;

use crate::page;

/// What a database holds, table by table.
pub(crate) type Tables = BTreeMap<String, TableDigest>;

/// How many rows they have together.
pub(crate) fn rows(tables: &Tables) -> u64 {
    tables.values().map(|table| table.rows).sum()
}

/// Shows table by table whether each row is as it was; an error when one is not.
pub(crate) fn compare(before: &Tables, after: &Tables) -> Result<()> {
    let mut different = Vec::new();
    for (table, was) in before {
        let is = after.get(table);
        if is != Some(was) {
            let rows =
                is.map_or("no table".to_owned(), |is| format!("{} rows", page::count(is.rows)));
            page::remark(&format!(
                "{table:<32} {:>11} rows, now {rows}: DIFFERENT",
                page::count(was.rows)
            ));
            different.push(table.as_str());
        }
    }
    for table in after.keys().filter(|table| !before.contains_key(*table)) {
        page::remark(&format!("{table:<32} was not there before: DIFFERENT"));
        different.push(table);
    }
    for (name, group) in groups(before) {
        if group.tables.iter().any(|table| different.contains(table)) {
            continue;
        }
        let name = match group.tables.len() {
            1 => name.to_owned(),
            many => format!("{name} ({many} partitions)"),
        };
        page::remark(&format!("{name:<32} {:>11} rows   all equal", page::count(group.rows)));
    }
    if !different.is_empty() {
        bail!("these tables are not as they were: {}", different.join(", "));
    }
    Ok(())
}

#[derive(Default)]
struct Group<'a> {
    tables: Vec<&'a str>,
    rows: u64,
}

/// The partitions of a table are called as the table, with the month behind; one line serves all.
fn groups(tables: &Tables) -> BTreeMap<&str, Group<'_>> {
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for (table, digest) in tables {
        let name = table.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit());
        let group = groups.entry(name).or_default();
        group.tables.push(table);
        group.rows += digest.rows;
    }
    groups
}
