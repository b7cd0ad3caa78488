//! What each stage of a backup costs by itself, and what is left of that when they work together.
//!
//! `LIFEBOAT_STAGES_MB` says with how much data (`cargo xtask bench stages` takes 512); without it,
//! with as much as a test can take.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Comparison, Context, Entry, EntryPath, TransferOptions, transfer};
use object_store::memory::InMemory;

use crate::chunk::{ChunkKind, Encoding, compress};
use crate::id::ChunkId;
use crate::pack::{Contents, PackBuilder};
use crate::repository::{Compression, InitOptions, Repository, WriteOptions};
use crate::{KdfCost, Secret};

/// Each file has so much.
const FILE: usize = 16 << 20;

/// Lines of words for one half, noise for the other: about half of it compresses.
fn file(number: u64) -> Bytes {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut bytes = Vec::with_capacity(FILE + 64);
    while bytes.len() < FILE {
        if bytes.len() / (1 << 20) % 2 == 0 {
            let (key, value) = (next() >> 48, next() >> 40);
            bytes.extend_from_slice(format!("{{\"order\":{key},\"total\":{value}}}\n").as_bytes());
        } else {
            bytes.extend_from_slice(&next().to_le_bytes());
        }
    }
    bytes.truncate(FILE);
    bytes.into()
}

struct Stages {
    bytes: f64,
    /// Seconds of one processor, all stages together.
    all: f64,
}

impl Stages {
    fn measure<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let seconds = began.elapsed().as_secs_f64();
        self.all += seconds;
        println!("{what:<44} {:>7.0} MB/s", self.bytes / seconds / 1e6);
        done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stages_cost_alone_and_together() {
    let megabytes = std::env::var("LIFEBOAT_STAGES_MB").ok().and_then(|mb| mb.parse().ok());
    let files = (megabytes.unwrap_or(16_usize) << 20).div_ceil(FILE) as u64;
    let files: Vec<Bytes> = (0..files).map(file).collect();
    let bytes = files.iter().map(Bytes::len).sum::<usize>() as f64;

    let secret = Secret::passphrase("measured");
    let cost = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
    let options = InitOptions { cost, ..InitOptions::default() };
    let repository = Repository::init(Arc::new(InMemory::new()), &secret, &options).await.unwrap();
    let shared = repository.shared();
    let level = Compression::default().level();

    println!("one processor, {:.0} MB:", bytes / 1e6);
    let mut stages = Stages { bytes, all: 0.0 };
    let chunks = stages.measure("cutting", || {
        let mut chunks: Vec<Bytes> = Vec::new();
        for file in &files {
            let mut rest = file.clone();
            while !rest.is_empty() {
                chunks.push(rest.split_to(shared.chunker.cut(&rest)));
            }
        }
        chunks
    });
    let ids: Vec<ChunkId> = stages.measure("hashing (BLAKE3, keyed)", || {
        chunks.iter().map(|chunk| shared.keys.chunk_id(ChunkKind::Data, chunk)).collect()
    });
    let compressed: Vec<(Encoding, Vec<u8>)> = stages
        .measure("compressing (zstd, the default)", || {
            chunks.iter().map(|chunk| compress(chunk, level)).collect()
        });
    let packed = stages.measure("sealing (AEAD) and packing (BLAKE3)", || {
        let mut packed = 0;
        let mut pack = PackBuilder::new(&shared.keys, Contents::Data).unwrap();
        for ((chunk, id), (encoding, stored)) in chunks.iter().zip(&ids).zip(compressed) {
            let member = [(*id, chunk.len() as u32)];
            pack.add(ChunkKind::Data, &member, encoding, stored).unwrap();
            if pack.is_full(shared.config.parameters.pack.into()) {
                let next = PackBuilder::new(&shared.keys, Contents::Data).unwrap();
                packed += std::mem::replace(&mut pack, next).finish(&shared.keys).record.size;
            }
        }
        packed + pack.finish(&shared.keys).record.size
    });

    let source = MemoryStore::new("stages");
    for (number, file) in files.iter().enumerate() {
        let path = EntryPath::new(format!("{number:04}")).unwrap();
        source.insert(Entry::file(path, Attributes::new(), file.clone())).await.unwrap();
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let allowed = processors as f64 / stages.all;
    println!("{processors} processors:");
    println!("{:<44} {:>7.0} MB/s", "what these stages allow", bytes * allowed / 1e6);
    let mut options = TransferOptions::default();
    options.comparison = Comparison::Nothing;
    for what in ["a backup", "a backup of what is there already"] {
        let sink = repository.sink(&WriteOptions::default());
        let began = Instant::now();
        let summary = transfer(&source, &sink, &options, &Context::silent()).await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        println!("{what:<44} {:>7.0} MB/s", bytes / seconds / 1e6);
        if summary.progress.new > 0 {
            println!("{:<44} {:>7.2}", "  of what the stages allow", 1.0 / seconds / allowed);
            // It did the same work.
            let stored = summary.progress.stored as f64;
            assert_eq!(summary.progress.new as f64, bytes);
            assert!((packed as f64 * 0.99..packed as f64 * 1.01 + 1e5).contains(&stored));
        } else {
            assert_eq!(what, "a backup of what is there already");
        }
    }
}
