//! What is fuzzed: the repository's decoders, what the core reads, and what servers send.

use lifeboat_core::journal::Span;
use lifeboat_core::{EntryPath, SnapshotId, parse_time_zone};
use lifeboat_redis::rdb;
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
    let postgres = lifeboat_postgres::fuzzing::targets().into_iter().map(|target| Target {
        name: target.name,
        bound: target.bound,
        seeds: target.seeds(),
        run: Box::new(move |bytes| target.run(bytes)),
    });
    let mut all: Vec<_> = repository.chain(postgres).collect();
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
    all.push(Target {
        name: "rdb",
        // Its buffer, and the most that it holds of a name.
        bound: 1 << 20,
        seeds: rdbs(),
        run: Box::new(|bytes| {
            // Most of what is changed at random has a wrong checksum, and that is told last.
            let mut reader = rdb::RdbReader::new(bytes);
            let mut last = 0;
            while let Some(item) = reader.next().map_err(|error| class(&error))? {
                let rdb::Item::Key(key) = item else { continue };
                let in_order = last <= key.start && key.start < key.value && key.value <= key.end;
                assert!(in_order && key.end <= bytes.len() as u64, "{key:?}");
                last = key.end;
            }
            rdb::check(bytes).map(drop).map_err(|error| class(&error))
        }),
    });
    all
}

/// An answer without the numbers that differ from input to input and are none to those who read it.
fn class(error: &rdb::RdbError) -> String {
    match error {
        rdb::RdbError::Checksum { .. } => "its checksum is wrong".to_owned(),
        rdb::RdbError::NotRdb { .. } => "no RDB".to_owned(),
        other => other.to_string(),
    }
}

/// Datasets of every layout, by the versions that wrote them. Without a checksum, so that the
/// structure alone decides.
fn rdbs() -> Vec<Vec<u8>> {
    let key = |header: &str, before: &[u8], code: u8, value: &[u8]| {
        let start = [header.as_bytes(), b"\xfa\x09redis-ver\x057.4.1\xfe\x00\xfb\x01\x00"].concat();
        [&start[..], before, &[code, 1, b'k'], value, b"\xff", &[0; 8]].concat()
    };
    let redis = "REDIS0012";
    let stream = [
        &b"\x01\x10"[..],
        &[1; 16],
        b"\x04list\x01\x05\x00\x05\x00\x00\x00\x01\x01\x01g\x05\x00\x01\x01",
        &[2; 24],
        b"\x01\x01\x01c",
        &[3; 16],
        b"\x01",
        &[2; 16],
    ];
    let module =
        [&b"\x81"[..], &[7; 8], b"\x02\x06\x03", &[0; 4], b"\x04", &[0; 8], b"\x05\x01s\x00"];
    vec![
        key(
            redis,
            b"\xfc\x10\x27\x00\x00\x00\x00\x00\x00\xf8\x2a",
            0,
            b"\xc3\x05\x0a\x00a\xe0\x00\x00",
        ),
        key(redis, b"\xfd\x01\x02\x03\x04\xf9\x07", 1, b"\x02\x01a\xc0\x07"),
        key(redis, b"\xf5\x04code\xf4\x01\x02\x03", 3, b"\x02\x01a\x031.5\x01b\xfe"),
        key(redis, b"", 5, &[&b"\x01\x01a"[..], &[0; 8]].concat()),
        key(redis, b"", 7, &module.concat()),
        key(redis, b"", 18, b"\x02\x01\x05plain\x02\x02lp"),
        key(redis, b"", 21, &stream.concat()),
        key(redis, b"", 24, &[&[9; 8][..], b"\x01\x05\x01f\x01v"].concat()),
        key("VALKEY080", b"", 22, &[&b"\x01\x01f\x01v"[..], &[0xff; 8]].concat()),
    ]
}
