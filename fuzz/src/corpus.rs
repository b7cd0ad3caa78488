//! Inputs that are kept: `fuzz/corpus/<target>/<name>`, one file each.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// What is kept for a target, by name.
pub(crate) fn read(target: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = folder(target);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut kept = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list the corpus")?.path();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        kept.push((name.unwrap_or_default(), bytes));
    }
    // The same order everywhere, so that a seed means the same everywhere.
    kept.sort();
    Ok(kept)
}

/// Keeps an input, and says where.
pub(crate) fn write(target: &str, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let folder = folder(target);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Keeps an input no longer.
pub(crate) fn remove(target: &str, name: &str) -> Result<()> {
    let path = folder(target).join(name);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}
