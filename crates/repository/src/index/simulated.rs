//! An index of many chunks that are nowhere, to see what it costs.
//!
//! `LIFEBOAT_INDEX_CHUNKS` says of how many (`cargo xtask bench index` takes 10^8); without it, as
//! many as a test can take.

use std::sync::Arc;
use std::time::Instant;

use super::cache::{Cache, CacheDirectory};
use super::file::PackRow;
use super::load::Loading;
use super::record::{Packed, Record};
use super::{Index, Place, Prefix, Reliance};
use crate::crypto::{Keys, RootKey};
use crate::id::{ChunkId, ObjectId, RepositoryId};
use crate::objects::{INDEX, Objects, name_in};
use crate::pack::{self, ChunkRecord, Contents, PackHeader};

/// Where packs of 128 MiB have chunks of 1 MiB.
const PER_PACK: u64 = 128;
const LOOKUPS: u64 = 1_000_000;

/// Numbers that look random, by the function that SplitMix64 has (Steele, Lea, Flood: *Fast
/// Splittable Pseudorandom Number Generators*, 2014).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The chunks whose ids begin with the two bytes of `bucket`, in order: so an index of any size
/// can be made without sorting it, and a chunk of it be named without knowing the others.
fn bucket(bucket: u64, chunks: u64) -> Vec<Prefix> {
    let count = (bucket + 1) * chunks / 65_536 - bucket * chunks / 65_536;
    let id = |number: u64| {
        let seed = bucket << 40 | number << 1;
        let mut id = Prefix::default();
        id[..8].copy_from_slice(&random(seed).to_le_bytes());
        id[8..].copy_from_slice(&random(seed + 1).to_le_bytes());
        id[..2].copy_from_slice(&(bucket as u16).to_be_bytes());
        id
    };
    let mut ids: Vec<_> = (0..count).map(id).collect();
    ids.sort_unstable();
    ids
}

fn whole(prefix: &Prefix) -> ChunkId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(prefix);
    ChunkId::from_bytes(id)
}

/// What the system says of this process, in kB.
fn memory() -> Vec<(String, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["VmRSS", "RssAnon", "RssFile"];
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim().strip_suffix(" kB")?.parse().ok()?;
        wanted.contains(&name).then(|| (name.to_owned(), value))
    };
    status.lines().filter_map(line).collect()
}

fn report(what: &str, begun: Instant, each: u64) {
    let took = begun.elapsed();
    println!("{what:<40} {took:>10.2?} {:>8.0} ns each", took.as_nanos() as f64 / each as f64);
}

#[tokio::test]
async fn a_large_index_is_small_in_memory_and_quick() {
    let chunks = std::env::var("LIFEBOAT_INDEX_CHUNKS").ok();
    let chunks: u64 = chunks.map_or(1_200_000, |chunks| chunks.parse().unwrap());
    let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
    let header = PackHeader::draw(&keys, Contents::Data).unwrap();
    let place = tempfile::tempdir().unwrap();
    let cache = Cache::Directory(place.path().to_owned());
    let directory = CacheDirectory::new(&cache, &keys).unwrap();
    let before = memory();

    let begun = Instant::now();
    let mut writer = directory.begin(chunks).unwrap();
    let mut number = 0;
    for beginning in 0..65_536 {
        for prefix in bucket(beginning, chunks) {
            let id = whole(&prefix);
            let chunk = ChunkRecord { id, stored: 500_000, plain: 1 << 20, encoding: 1, kind: 1 };
            // Neighbours in the order of ids are in other packs.
            let pack = (number % chunks.div_ceil(PER_PACK)) as u32;
            let offset = 64 + 500_000 * (number / chunks.div_ceil(PER_PACK));
            let lies = pack::Place { offset, stored: chunk.stored, inner: 0, chunk: &chunk };
            let place = Packed::new(pack, &lies).unwrap();
            writer.record(&Record { prefix, place }).unwrap();
            number += 1;
        }
    }
    let packs = chunks.div_ceil(PER_PACK);
    for number in 0..packs {
        let id = ObjectId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        writer.pack(&PackRow { id, header, size: 64_000_000, source: 0 }).unwrap();
    }
    let source = ObjectId::from_bytes([7; 32]);
    let file = directory.finish(writer, &[source]).unwrap();
    report("write and check the file", begun, chunks);
    let size = std::fs::metadata(file.path()).unwrap().len();
    let of_packs = packs * super::file::PACK as u64;
    println!("{chunks} chunks in {packs} packs, a file of {size} bytes, {of_packs} for packs");
    assert!((size - of_packs) as f64 <= 32.0 * chunks as f64, "more than 32 bytes a chunk");
    drop(file);

    // A listing with just that index object; nobody reads it.
    let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()));
    objects.replace(&name_in(INDEX, source), Vec::new().into()).await.unwrap();
    let begun = Instant::now();
    let index = Index::new(Some(directory));
    index.refresh(&objects, &keys).await.unwrap();
    report("open it", begun, chunks);
    assert!(index.damaged().is_empty());
    assert!(matches!(*index.loading.lock().await, Loading::Open(_)));

    let wanted = |number: u64| {
        let beginning = random(number) % 65_536;
        let ids = bucket(beginning, chunks);
        whole(&ids[(random(number ^ 1) % ids.len() as u64) as usize])
    };
    let hits: Vec<_> = (0..LOOKUPS / 100).map(wanted).collect();
    let misses: Vec<_> = (0..LOOKUPS)
        .map(|number| ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes()))
        .collect();
    let reliance = Reliance::default();
    for round in ["first", "again"] {
        let begun = Instant::now();
        assert!(hits.iter().all(|id| index.rely(id, &reliance)));
        report(&format!("chunks that are there, {round}"), begun, hits.len() as u64);
        let begun = Instant::now();
        assert!(!misses.iter().any(|id| index.rely(id, &reliance)));
        report(&format!("chunks that are not, {round}"), begun, LOOKUPS);
    }
    let after = memory();
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        println!("{what}: {after} kB, {before} kB before");
    }

    let begun = Instant::now();
    let mut last = Prefix::default();
    let mut count = 0;
    for found in index.scan() {
        let (prefix, Place { stored, .. }) = found.unwrap();
        assert!(prefix >= last && stored == 500_000);
        (last, count) = (prefix, count + 1);
    }
    report("scan", begun, chunks);
    assert_eq!(count, chunks);
    for (what, now) in memory() {
        println!("{what}: {now} kB after the scan");
    }
    let grown = |what: &str, of: &[(String, u64)]| {
        of.iter().find(|(name, _)| name == what).map_or(0, |(_, size)| *size)
    };
    // A byte for the filter and three for packs; the ids of a million lookups; the rest of the
    // tests, which may run beside this one at the small size.
    if chunks >= 50_000_000 {
        let grown = grown("VmRSS", &memory()) - grown("VmRSS", &before);
        assert!(grown * 1024 < 5 * chunks, "{grown} kB for {chunks} chunks");
    }
}
