//! Random histories of stores against a model that just keeps every image.
//!
//! Each history edits two stores, backs them up (with and without a baseline, one after the other
//! and side by side, to the end and broken off), and restores every snapshot after every step. The
//! source gives extents as no sane source would: unchanged stretches and holes that begin and end
//! anywhere. `LIFEBOAT_MODEL_SEED` repeats a history.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lifeboat_core::{
    Baseline, Comparison, Completion, Content, Context, Entry, EntryKind, EntryPath, Error,
    ErrorKind, Extent, Inspection, Layout, Reading, Result, SnapshotId, Source, StoreRef,
    Timestamp, TransferOptions, async_trait, transfer,
};
use lifeboat_repository::{CheckOptions, Repository, WriteOptions};
use object_store::ObjectStore;
use parking_lot::Mutex;

use crate::common::{noise, path, repository, restore, secret};

/// Histories in a run, besides one that is different each time.
const HISTORIES: u64 = 40;
const STEPS: usize = 14;
const LARGEST: usize = 250_000;

/// SplitMix64.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// A stretch of something of `length` bytes; often it fits onto a grid.
    fn stretch(&mut self, length: usize, grid: usize) -> std::ops::Range<usize> {
        let (mut start, most) = (self.below(length + 1), [9, 700, 5000, 70_000][self.below(4)]);
        let mut end = (start + 1 + self.below(most)).min(length);
        if self.percent(60) {
            (start, end) = (start / grid * grid, (end.div_ceil(grid) * grid).min(length));
        }
        start.min(end)..end
    }
}

type Image = BTreeMap<EntryPath, (Layout, Vec<u8>)>;
type Past = Arc<Mutex<HashMap<SnapshotId, Image>>>;

fn grid(layout: Layout) -> usize {
    match layout {
        Layout::Pages(page) => page as usize,
        Layout::Stream | Layout::Records => 4096,
    }
}

fn layout(dice: &mut Dice) -> Layout {
    let pages = [Layout::Pages(512), Layout::Pages(1024), Layout::Pages(4096)];
    [Layout::Stream, Layout::Records, pages[0], pages[1], pages[2]][dice.below(5)]
}

fn edit(image: &mut Image, past: &[Image], dice: &mut Dice) {
    let name = path(&format!("file-{}", dice.below(6)));
    let Some((kind, bytes)) = image.get_mut(&name) else {
        let size = [0, 1, 511, 512, 40_000, LARGEST][dice.below(6)];
        let size = if dice.percent(50) { size } else { dice.below(LARGEST) };
        image.insert(name, (layout(dice), noise(dice.roll(), size)));
        return;
    };
    let grid = grid(*kind);
    let part = dice.stretch(bytes.len(), grid);
    match dice.below(12) {
        0 => drop(image.remove(&name)),
        1 => *kind = layout(dice),
        2 => bytes.truncate(part.start),
        3 => {
            let more = noise(dice.roll(), dice.below(3 * grid));
            bytes.extend_from_slice(&more);
        }
        4 => bytes[part].fill(0),
        // One part becomes what another one is.
        5 => {
            let to = dice.stretch(bytes.len(), grid).start.min(bytes.len() - part.len());
            bytes.copy_within(part, to);
        }
        // Pages become what their neighbours are.
        6 => {
            let to = if dice.percent(50) { part.start + grid } else { part.start.max(grid) - grid };
            let to = to.min(bytes.len() - part.len());
            bytes.copy_within(part, to);
        }
        // A part, or all, is what it was once.
        9 | 10 if !past.is_empty() => {
            if let Some((_, old)) = past[dice.below(past.len())].get(&name) {
                match (old.get(part.clone()), dice.percent(50)) {
                    (Some(old), true) => bytes[part].copy_from_slice(old),
                    _ => bytes.clone_from(old),
                }
            }
        }
        7 => drop(bytes.drain(part)),
        8 => {
            let more = noise(dice.roll(), dice.below(2 * grid));
            bytes.splice(part.start..part.start, more);
        }
        _ => {
            let new = noise(dice.roll() % 50, part.len());
            bytes[part].copy_from_slice(&new);
        }
    }
    if let Some((_, bytes)) = image.get_mut(&name) {
        bytes.truncate(LARGEST + 10_000);
    }
}

/// A store as it is now.
struct Model {
    store: StoreRef,
    image: Image,
    /// What it was after each step.
    versions: Vec<Image>,
    past: Past,
    dice: Dice,
    /// It breaks off after so many extents.
    breaks: Option<usize>,
}

impl Model {
    fn extents(
        &self,
        old: Option<&(Layout, Vec<u8>)>,
        bytes: &[u8],
        dice: &mut Dice,
    ) -> Vec<Extent> {
        let old = old.map_or(&[][..], |(_, old)| old);
        if !bytes.is_empty() && old == bytes && dice.percent(60) {
            return vec![Extent::Unchanged(bytes.len() as u64)];
        }
        let mut extents = Vec::new();
        let mut at = 0;
        let aligned = dice.percent(50);
        while at < bytes.len() {
            let most = [100, 9000, 80_000][dice.below(3)];
            let mut end = at + 1 + dice.below(most);
            if aligned {
                end = end.div_ceil(512) * 512;
            }
            let end = end.min(bytes.len());
            let part = &bytes[at..end];
            let length = part.len() as u64;
            extents.push(if old.get(at..end) == Some(part) && dice.percent(50) {
                Extent::Unchanged(length)
            } else if part.iter().all(|byte| *byte == 0) && dice.percent(70) {
                Extent::Hole(length)
            } else {
                Extent::Data(part.to_vec().into())
            });
            at = end;
        }
        extents
    }
}

#[async_trait]
impl Source for Model {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        _: &Context,
    ) -> Result<Box<dyn Reading>> {
        let old = since.map(|since| self.past.lock()[&since.snapshot().id].clone());
        let old = old.unwrap_or_default();
        let mut dice = self.dice.clone();
        let mut left = self.breaks;
        let entries = self.image.iter().map(|(path, (layout, bytes))| {
            let mut extents: Vec<_> =
                self.extents(old.get(path), bytes, &mut dice).into_iter().map(Ok).collect();
            if let Some(count) = &mut left {
                if *count < extents.len() {
                    extents.truncate(*count);
                    extents.push(Err(Error::new(ErrorKind::Unavailable, "broken off")));
                }
                *count = count.saturating_sub(extents.len());
            }
            let content = if extents.len() < 2 && extents.iter().all(Result::is_ok) {
                Content::extents(extents.into_iter().flatten())
            } else {
                Content::stream(futures_util::stream::iter(extents))
            };
            Entry::new(path.clone(), EntryKind::File, Default::default())
                .with_layout(*layout)
                .with_content(bytes.len() as u64, content)
        });
        let entries: Vec<_> = entries.collect();
        Ok(Box::new(ModelReading(entries.into_iter())))
    }
}

struct ModelReading(std::vec::IntoIter<Entry>);

#[async_trait]
impl Reading for ModelReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.0.next())
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(Timestamp::now()))
    }
}

/// Backs a store up; a snapshot that came to be is remembered.
async fn back_up(repository: &Repository, model: &Model, comparison: Comparison) {
    let mut options = TransferOptions::default();
    options.comparison = comparison;
    let sink = repository.sink(&WriteOptions::default());
    match transfer(model, &sink, &options, &Context::silent()).await {
        Ok(summary) => {
            let id = summary.receipt.snapshot.unwrap();
            model.past.lock().insert(id, model.image.clone());
        }
        Err(error) => {
            let broken = model.breaks.is_some() && error.kind() == ErrorKind::Unavailable;
            assert!(broken, "{error:?}");
        }
    }
}

async fn history(seed: u64) {
    let mut dice = Dice(seed);
    let (store, repository) = repository().await;
    let open = async || {
        let place: Arc<dyn ObjectStore> = Arc::clone(&store);
        Repository::open(place, &secret()).await.unwrap()
    };
    let mut handles = [repository, open().await];
    let past = Past::default();
    let model = |name: &str| Model {
        store: StoreRef::new("model", name),
        image: Image::new(),
        versions: Vec::new(),
        past: Arc::clone(&past),
        dice: Dice(0),
        breaks: None,
    };
    let mut models = [model("one"), model("two")];
    for _ in 0..STEPS {
        for model in &mut models {
            for _ in 0..dice.below(8) {
                edit(&mut model.image, &model.versions, &mut dice);
            }
            model.versions.push(model.image.clone());
            model.dice = Dice(dice.roll());
            model.breaks = dice.percent(15).then(|| dice.below(40));
        }
        if dice.percent(10) {
            // What one store has, the other one may come to have as well.
            models[1].image = models[0].image.clone();
        }
        let comparison = if dice.percent(20) { Comparison::Nothing } else { Comparison::Newest };
        let [one, two] = &models;
        if dice.percent(50) {
            tokio::join!(
                back_up(&handles[0], one, comparison),
                back_up(&handles[1], two, Comparison::Newest),
            );
        } else {
            back_up(&handles[dice.below(2)], one, comparison).await;
        }
        if dice.percent(15) {
            handles[dice.below(2)] = open().await;
        }
        let reader = &handles[dice.below(2)];
        let snapshots = past.lock().clone();
        for (id, image) in &snapshots {
            let restored = restore(reader, *id).await.image();
            assert!(restored.keys().eq(image.keys()), "{id} has other entries");
            for (path, (layout, bytes)) in image {
                let (info, found) = &restored[path];
                assert_eq!(info.layout, *layout, "{path} of {id}");
                assert!(found == bytes, "{path} of {id} came back different");
            }
        }
    }
    let listed = handles[0].snapshots().await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.damaged.len()), (past.lock().len(), 0));
    let context = Context::silent();
    let report = handles[0].check(&CheckOptions::every_byte(), &context).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_come_back_byte_for_byte() {
    let given = std::env::var("LIFEBOAT_MODEL_SEED").ok();
    let seeds: Vec<u64> = match given {
        Some(seed) => vec![seed.parse().unwrap()],
        None => {
            let fresh = Timestamp::now().as_nanosecond() as u64;
            (1..=HISTORIES).chain([fresh]).collect()
        }
    };
    for seed in seeds {
        println!("LIFEBOAT_MODEL_SEED={seed}");
        history(seed).await;
    }
}
