//! The stores that golden repositories are taken of: small, the same each time, and with one of
//! everything that the format can hold.

use std::sync::Arc;

use lifeboat_core::{
    Attributes, Baseline, Completion, Content, Context, Entry, EntryInfo, EntryKind, EntryPath,
    Extent, Inspection, Layout, Reading, Source, StoreRef, Timestamp, async_trait, names,
};

use crate::common::noise;

/// An entry with its content, given as what a source would give.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) info: EntryInfo,
    pub(super) extents: Vec<Extent>,
}

/// A store at one moment, and what its owner and its source say of it.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) store: StoreRef,
    pub(super) tags: Vec<String>,
    pub(super) completion: Completion,
    pub(super) items: Vec<Item>,
}

const PAGE: usize = 1024;

/// The three snapshots of a golden repository, in the order in which they are taken.
pub(super) fn scenes() -> [Scene; 3] {
    let everything = |attributes: Attributes| {
        attributes
            .with("golden.unsigned", u64::MAX)
            .with("golden.signed", i64::MIN)
            .with("golden.text", "naïve ☂")
            .with("golden.bytes", vec![0, 0xff, b'%'])
            .with("golden.pairs", vec![(vec![0xfe], vec![]), (b"a".to_vec(), vec![1; 30])])
    };
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let mut first = Completion::at(at(1_700_000_000));
    first.position = "0/16B3748".into();
    first.facts = everything(Attributes::new());
    let mut second = Completion::at(at(1_700_086_400));
    second.position = "0/2000028".into();
    let alpha = StoreRef::new("golden", "alpha");
    let mut items = alpha_items(&everything);
    let one = Scene {
        store: alpha.clone(),
        tags: vec!["first".into(), "kept for ever".into()],
        completion: first,
        items: items.clone(),
    };
    change(&mut items);
    let two = Scene { store: alpha, tags: Vec::new(), completion: second, items };
    let three = Scene {
        store: StoreRef::new("golden", "beta"),
        tags: Vec::new(),
        completion: Completion::at(at(-1)),
        items: beta_items(),
    };
    [one, two, three].map(|mut scene| {
        scene.items.sort_by(|a, b| a.info.path.cmp(&b.info.path));
        scene
    })
}

fn alpha_items(everything: &dyn Fn(Attributes) -> Attributes) -> Vec<Item> {
    let mode = |mode: u32| Attributes::new().with(names::MODE, mode);
    let node = |number: u64| mode(0o600).with(names::NODE, number);
    let to = |target: &[u8]| mode(0o777).with(names::TARGET, target.to_vec());
    let owned = mode(0o4755)
        .with(names::UID, 1000_u32)
        .with(names::GID, 0_u32)
        .with(names::USER, "operator")
        .with(names::MODIFIED, -1_234_567_891_i64)
        .with(names::XATTRS, vec![(b"user.origin".to_vec(), b"https://example.org/\0".to_vec())]);
    vec![
        file(b"b\xff\xfe-not-utf8", owned, b"hello"),
        file(b"every value", everything(mode(0o640)), b"x"),
        plain(b"devices", EntryKind::Directory, mode(0o755)),
        plain(b"devices/block", EntryKind::BlockDevice, node(0x801)),
        plain(b"devices/char", EntryKind::CharDevice, node(0x103)),
        plain(b"devices/fifo", EntryKind::Fifo, mode(0o622)),
        plain(b"devices/socket", EntryKind::Socket, mode(0o755)),
        file(b"empty", mode(0o644), b""),
        file(b"line\nbreak%", Attributes::new(), b"names may hold anything"),
        plain(b"link", EntryKind::Symlink, to(b"\xff/nowhere")),
        file(b"noise", mode(0o644), &noise(3, 20_000)),
        paged(b"pages", &pages(200, 100), None),
        paged(b"pages-with-hole", &pages(96, 0), Some(40..60)),
        sparse(),
        file(b"stream", mode(0o644), &prose(1, 260_000)),
        plain(b"twin", EntryKind::HardLink, to(b"stream")),
        // In this order: a directory comes before all that begins like it.
        plain(b"x", EntryKind::Directory, Attributes::new()),
        file(b"x/z", Attributes::new(), b"beneath"),
        file(b"x-y", Attributes::new(), b"beside"),
    ]
}

/// From the first moment of store alpha to the second.
fn change(items: &mut Vec<Item>) {
    items.retain(|item| item.info.path.as_bytes() != b"empty");
    items.push(file(b"new", Attributes::new(), b"since yesterday"));
    for item in items {
        match item.info.path.as_bytes() {
            b"pages" => {
                let mut bytes = pages(200, 100);
                for page in [5, 70, 71, 130] {
                    bytes[page * PAGE..(page + 1) * PAGE].fill(page as u8);
                }
                bytes.extend_from_slice(&[7; 2000]);
                *item = paged(b"pages", &bytes, None);
            }
            b"stream" => {
                let mut bytes = prose(1, 260_000);
                bytes.splice(100_000..100_000, *b"an insertion");
                *item = file(b"stream", item.info.attributes.clone(), &bytes);
            }
            _ => {}
        }
    }
}

/// Enough entries for more than one page of the tree.
fn beta_items() -> Vec<Item> {
    let mut items = vec![plain(b"many", EntryKind::Directory, Attributes::new())];
    items.extend((0..600_u32).map(|number| {
        let name = format!("many/{number}");
        file(name.as_bytes(), Attributes::new(), &[number as u8 / 64; 3])
    }));
    items
}

fn item(path: &[u8], kind: EntryKind, attributes: Attributes, extents: Vec<Extent>) -> Item {
    let info = EntryInfo {
        path: EntryPath::new(path).unwrap(),
        kind,
        attributes,
        layout: Layout::Stream,
        size: extents.iter().map(Extent::len).sum(),
    };
    Item { info, extents }
}

fn plain(path: &[u8], kind: EntryKind, attributes: Attributes) -> Item {
    item(path, kind, attributes, Vec::new())
}

fn file(path: &[u8], attributes: Attributes, bytes: &[u8]) -> Item {
    let extents = bytes.chunks(50_000).map(|part| Extent::Data(part.to_vec().into()));
    item(path, EntryKind::File, attributes, extents.collect())
}

/// Content made of pages; those of `hole` are a hole.
fn paged(path: &[u8], bytes: &[u8], hole: Option<std::ops::Range<usize>>) -> Item {
    let hole = hole.map_or(0..0, |hole| hole.start * PAGE..hole.end * PAGE);
    let mut item = file(path, Attributes::new(), &bytes[..hole.start]);
    if !hole.is_empty() {
        item.extents.push(Extent::Hole(hole.len() as u64));
    }
    item.extents.push(Extent::Data(bytes[hole.end..].to_vec().into()));
    item.info.layout = Layout::Pages(PAGE as u32);
    item.info.size = bytes.len() as u64;
    item
}

/// So many stretches that their list does not fit into one page.
fn sparse() -> Item {
    let mut extents = Vec::new();
    for stretch in 0..700_u64 {
        extents.push(Extent::Data(noise(stretch % 23, 20).into()));
        extents.push(Extent::Hole(4096 + stretch));
    }
    item(b"sparse", EntryKind::File, Attributes::new(), extents)
}

/// Pages that differ, of which a little is left when they are compressed.
fn pages(count: u64, rest: usize) -> Vec<u8> {
    let page = |number| noise(number, 16).repeat(PAGE / 16);
    let mut bytes: Vec<_> = (0..count).flat_map(page).collect();
    bytes.extend(noise(count, rest));
    bytes
}

/// Text that never repeats and compresses well.
fn prose(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["anchor", "boat", "current", "deck", "ebb", "fathom", "gale", "harbour"];
    let mut text = String::new();
    for (line, byte) in noise(seed, length / 20).into_iter().enumerate() {
        let (a, b) = (usize::from(byte) % 8, usize::from(byte) / 8 % 8);
        text += &format!("{line:06} {} of the {} {} lies still\n", WORDS[a], WORDS[b], byte);
    }
    text.truncate(length);
    text.into_bytes()
}

impl Item {
    /// All bytes; holes are zeros.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for extent in &self.extents {
            match extent {
                Extent::Data(data) => bytes.extend_from_slice(data),
                other => bytes.resize(bytes.len() + other.len() as usize, 0),
            }
        }
        bytes
    }
}

#[async_trait]
impl Source for Scene {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(
        &self,
        since: Option<Arc<dyn Baseline>>,
        _: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        Ok(Box::new(SceneReading {
            items: self.items.clone().into_iter(),
            completion: self.completion.clone(),
            since,
        }))
    }
}

struct SceneReading {
    items: std::vec::IntoIter<Item>,
    completion: Completion,
    since: Option<Arc<dyn Baseline>>,
}

#[async_trait]
impl Reading for SceneReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        let Some(Item { info, extents }) = self.items.next() else {
            return Ok(None);
        };
        let old = match &self.since {
            Some(since) => since.entry(&info.path).await?,
            None => None,
        };
        // What changes in these scenes changes its size.
        let content = if old.is_some_and(|old| old == info) {
            Content::unchanged(info.size)
        } else {
            Content::extents(extents)
        };
        let entry = Entry::new(info.path, info.kind, info.attributes);
        let entry = entry.with_layout(info.layout);
        Ok(Some(entry.with_content(info.size, content)))
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        Ok(self.completion)
    }
}
