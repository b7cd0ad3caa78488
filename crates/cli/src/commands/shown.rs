//! An entry as programs read it.

use lifeboat_core::EntryInfo;
use serde::Serialize;

use crate::output::facts_to_json;

/// What the events `entry`, `found` and `change` say of an entry.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    path: String,
    /// The exact bytes, where the path is not UTF-8 or holds control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'a str,
    size: u64,
    attributes: serde_json::Value,
}

impl<'a> From<&'a EntryInfo> for Shown<'a> {
    fn from(entry: &'a EntryInfo) -> Self {
        let path = entry.path.to_string();
        let exact = path.as_bytes() == entry.path.as_bytes();
        let hex = || entry.path.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            path,
            path_hex: (!exact).then(hex),
            kind: entry.kind.as_str(),
            size: entry.size,
            attributes: facts_to_json(&entry.attributes),
        }
    }
}
