//! What is fuzzed: the repository's decoders, and what the core reads.

use lifeboat_core::journal::Span;
use lifeboat_core::{EntryPath, SnapshotId, parse_time_zone};
use lifeboat_repository::fuzzing;

/// A decoder, its seeds and its bound.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// So many bytes it may hold at once, besides [`FACTOR`] times its input.
    bound: usize,
    pub(crate) seeds: Vec<Vec<u8>>,
    run: Box<Run>,
}

/// What is fuzzed: nothing when the bytes are taken, else why not.
type Run = dyn Fn(&[u8]) -> Result<(), String> + Send + Sync;

/// A byte of input may become so many in memory: an empty array of one byte is a list of 24, and
/// lists double as they grow.
const FACTOR: usize = 96;

impl Target {
    fn text(
        name: &'static str,
        seeds: &[&str],
        run: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            bound: 1 << 20,
            seeds: seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect(),
            run: Box::new(move |bytes| {
                run(std::str::from_utf8(bytes).map_err(|_| "no text".to_owned())?)
            }),
        }
    }

    pub(crate) fn run(&self, bytes: &[u8]) -> Result<(), String> {
        (self.run)(bytes)
    }

    /// The most that it may hold at once for an input.
    pub(crate) fn bound(&self, input: &[u8]) -> usize {
        self.bound + FACTOR * input.len()
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Target> {
    let repository = fuzzing::targets().into_iter().map(|target| Target {
        name: target.name,
        bound: target.bound,
        seeds: target.seeds(),
        run: Box::new(move |bytes| target.run(bytes)),
    });
    let mut all: Vec<_> = repository.collect();
    all.push(Target::text("path", &["etc/hosts", "a/é/..."], |text| {
        let path = EntryPath::new(text).map_err(|error| error.to_string())?;
        let parts: Vec<_> = path.components().collect();
        if parts.join(&b"/"[..]) == text.as_bytes() { Ok(()) } else { Err("other parts".into()) }
    }));
    let spans = ["0000000000000000-ffffffffffffffff", "0000000000003000-0000000000004000"];
    all.push(Target::text("span", &spans, |text| {
        let span: Span = text.parse().map_err(|_| "no span".to_owned())?;
        assert_eq!(span.to_string(), text, "a span is read as another");
        Ok(())
    }));
    all.push(Target::text("time_zone", &["Europe/Berlin", "+05:30", "UTC"], |text| {
        parse_time_zone(text).map(drop).map_err(|_| "no time zone".to_owned())
    }));
    all.push(Target::text("snapshot_id", &["ab".repeat(32).as_str()], |text| {
        let id: SnapshotId = text.parse().map_err(|_| "no id".to_owned())?;
        if id.to_string().eq_ignore_ascii_case(text) { Ok(()) } else { Err("another id".into()) }
    }));
    all
}
