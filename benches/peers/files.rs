//! The programs that back up trees of files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lifeboat_testbed::Scratch;

use crate::rounds::{Outcome, extent, measure_all};
use crate::tool::{Scene, Tool};
use crate::tree;

/// What a file is to have for the memory that it takes to be told from the memory of small ones.
const LARGE_MEGABYTES: usize = 4000;

const LIFEBOAT: Tool = Tool {
    name: "lifeboat",
    version: "exec \"$LIFEBOAT\" --version",
    init: "exec \"$LIFEBOAT\" -q -r \"$REPO\" init",
    first: "exec \"$LIFEBOAT\" -q -r \"$REPO\" backup files \"$SOURCE\" --name tree",
    unchanged: "exec \"$LIFEBOAT\" -q -r \"$REPO\" backup files \"$SOURCE\" --name tree",
    restore: "exec \"$LIFEBOAT\" -q -r \"$REPO\" restore latest --to \"$OUT\"",
    check: "exec \"$LIFEBOAT\" -q -r \"$REPO\" verify",
    verify: "exec \"$LIFEBOAT\" -q -r \"$REPO\" verify --every-byte",
    prune: "\"$LIFEBOAT\" -q -r \"$REPO\" forget --keep-last 1 \
            && exec \"$LIFEBOAT\" -q -r \"$REPO\" prune",
    before: "",
    after: "",
};

const RESTIC: Tool = Tool {
    name: "restic",
    version: "exec restic version",
    init: "exec restic -q -r \"$REPO\" init",
    first: "exec restic -q -r \"$REPO\" backup \"$SOURCE\"",
    unchanged: "exec restic -q -r \"$REPO\" backup \"$SOURCE\"",
    restore: "exec restic -q -r \"$REPO\" restore latest --target \"$OUT\"",
    check: "exec restic -q -r \"$REPO\" check",
    verify: "exec restic -q -r \"$REPO\" check --read-data",
    prune: "exec restic -q -r \"$REPO\" forget --keep-last 1 --prune",
    before: "",
    after: "",
};

const BORG: Tool = Tool {
    name: "borg, zstd 3",
    version: "exec borg --version",
    init: "exec borg init -e repokey-blake2 \"$REPO\"",
    first: "exec borg create -C zstd,3 \"$REPO::first\" \"$SOURCE\"",
    unchanged: "exec borg create -C zstd,3 \"$REPO::second\" \"$SOURCE\"",
    restore: "cd \"$OUT\" && exec borg extract \"$REPO::second\"",
    check: "exec borg check --archives-only \"$REPO\"",
    verify: "exec borg check --verify-data \"$REPO\"",
    prune: "borg delete \"$REPO::first\" && exec borg compact \"$REPO\"",
    before: "",
    after: "",
};

const BUPSTASH: Tool = Tool {
    name: "bupstash",
    version: "exec bupstash --version",
    init: "bupstash init -r \"$REPO\" && bupstash new-key -o \"$DIR/key\"",
    first: "exec bupstash put -q -r \"$REPO\" -k \"$DIR/key\" --send-log \"$DIR/sent\" \
            name=first \"$SOURCE\"",
    unchanged: "exec bupstash put -q -r \"$REPO\" -k \"$DIR/key\" --send-log \"$DIR/sent\" \
                name=second \"$SOURCE\"",
    // What it sends is a tar archive, so unpacking that is part of it.
    restore: "bupstash get -q -r \"$REPO\" -k \"$DIR/key\" name=second | tar x -C \"$OUT\"",
    check: "",
    verify: "",
    prune: "bupstash rm -q -r \"$REPO\" -k \"$DIR/key\" name=first \
            && exec bupstash gc -q -r \"$REPO\"",
    before: "",
    after: "",
};

const RUSTIC: Tool = Tool {
    name: "rustic",
    version: "exec rustic --version",
    init: "exec rustic --no-progress -r \"$REPO\" init",
    first: "exec rustic --no-progress -r \"$REPO\" backup \"$SOURCE\"",
    unchanged: "exec rustic --no-progress -r \"$REPO\" backup \"$SOURCE\"",
    restore: "exec rustic --no-progress -r \"$REPO\" restore latest \"$OUT\"",
    check: "exec rustic --no-progress -r \"$REPO\" check",
    verify: "exec rustic --no-progress -r \"$REPO\" check --read-data",
    prune: "exec rustic --no-progress -r \"$REPO\" forget --keep-last 1 --prune",
    before: "",
    after: "",
};

/// Any passphrase will do: the repositories do not outlive the comparison.
fn scene(source: &Path, lifeboat: &Path) -> Scene {
    let secret = || "measured".to_owned();
    let variables = vec![
        ("LIFEBOAT", lifeboat.to_string_lossy().into_owned()),
        ("LIFEBOAT_PASSPHRASE", secret()),
        ("RESTIC_PASSWORD", secret()),
        ("RUSTIC_PASSWORD", secret()),
        ("BORG_PASSPHRASE", secret()),
    ];
    Scene { source: source.to_owned(), variables, account: None, server: None }
}

/// Makes a tree and lets the programs back it up.
pub(crate) fn compare(
    scratch: &Scratch,
    lifeboat: &Path,
    megabytes: u32,
    runs: usize,
) -> Result<Outcome> {
    eprintln!("making a tree of about {megabytes} MB");
    let source = scratch.subdir("tree")?;
    tree::make(&source, megabytes)?;
    let (files, bytes) = extent(&source)?;
    let title = format!("A tree of {files} files, {} MB", bytes / 1_000_000);
    let outcome = compare_at(title, scratch, lifeboat, &source, runs)?;
    fs::remove_dir_all(&source).context("remove the tree")?;
    Ok(outcome)
}

/// Lets the programs back up what is there already.
pub(crate) fn compare_at(
    title: String,
    scratch: &Scratch,
    lifeboat: &Path,
    source: &Path,
    runs: usize,
) -> Result<Outcome> {
    let tools = [LIFEBOAT, RESTIC, BORG, BUPSTASH, RUSTIC];
    measure_all(title, scratch, &scene(source, lifeboat), &tools, runs)
}

/// Lets Lifeboat back up and restore one large file, once: to see the memory that it takes.
pub(crate) fn large(scratch: &Scratch, lifeboat: &Path) -> Result<Outcome> {
    eprintln!("making a file of {LARGE_MEGABYTES} MB");
    let source = scratch.subdir("large")?;
    tree::make_large(&source.join("large"), LARGE_MEGABYTES)?;
    let title = format!("One file of {LARGE_MEGABYTES} MB");
    let lifeboat_alone = [LIFEBOAT];
    let outcome = measure_all(title, scratch, &scene(&source, lifeboat), &lifeboat_alone, 1)?;
    fs::remove_dir_all(&source).context("remove the large file")?;
    Ok(outcome)
}
