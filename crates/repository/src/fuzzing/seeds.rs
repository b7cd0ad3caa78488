//! Bytes that each decoder takes, made by its encoder.

use lifeboat_core::{
    Attributes, Completion, EntryInfo, EntryKind, EntryPath, Header, Layout, StoreRef, Timestamp,
    names,
};

use super::{Raw, encoded, keys, packed, packed_block};
use crate::chunk::{ChunkKind, compress};
use crate::config::{Config, Parameters};
use crate::content::{ContentRecord, Piece, PieceList};
use crate::crypto::{Access, RootKey};
use crate::id::{ChunkId, ObjectId};
use crate::index::IndexObject;
use crate::maintenance::TrashRecord;
use crate::pack::{Contents, PackBuilder};
use crate::probe::ConditionalPut;
use crate::sealed::{SealedKind, seal};
use crate::snapshot::SnapshotRecord;
use crate::tree::{AttributesRecord, EntryRecord, Page};

type Seeds = Vec<Vec<u8>>;

pub(super) fn config() -> Seeds {
    let config =
        Config::new(keys().repository(), Parameters::default(), ConditionalPut::Kept, None);
    config.and_then(|config| config.to_file(keys())).into_iter().collect()
}

pub(super) fn config_inner() -> Seeds {
    let config =
        Config::new(keys().repository(), Parameters::default(), ConditionalPut::Kept, None);
    config.ok().and_then(|config| serde_json::to_vec(&config).ok()).into_iter().collect()
}

pub(super) fn key_slot() -> Seeds {
    let cost = r#"{"memory_kib":64,"passes":1,"lanes":1}"#;
    let (id, hash) = (keys().repository().to_string(), "5a".repeat(32));
    let direct = format!(r#"{{"kind":"passphrase","cost":{cost},"salt":"{hash}","wrapped":"00"}}"#);
    let private = format!(r#"{{"by":"passphrase","cost":{cost},"salt":"{hash}","wrapped":"00"}}"#);
    let pair = |private: &str| {
        format!(
            r#"{{"kind":"recipient","access":"full","epoch":1,"created":"2026-11-20T15:00:00Z","public":"{hash}","private":{private},"share":"00","mac":"{hash}"}}"#
        )
    };
    let holders = [
        direct,
        pair(r#"{"by":"owner"}"#),
        pair(&private),
        pair(r#"{"by":"command","wrapped":"00"}"#),
    ];
    let file = |holder: String| {
        format!(r#"{{"version":1,"repository":"{id}","label":"first","holder":{holder}}}"#)
    };
    holders.into_iter().map(|holder| file(holder).into_bytes()).collect()
}

/// The first byte is the access: 1 all of it, 2 what writing takes.
pub(super) fn root_key() -> Seeds {
    let share = |(number, access)| {
        let bytes = RootKey::fixed(7).share(access).ok()?;
        Some([&[number], &bytes[..]].concat())
    };
    [(1, Access::Full), (2, Access::WriteOnly)].into_iter().filter_map(share).collect()
}

pub(super) fn sealed() -> Seeds {
    let seal = |bytes: Vec<u8>| seal(keys(), SealedKind::Index, &Raw(&bytes)).ok();
    index().into_iter().filter_map(seal).map(|(_, bytes)| bytes).collect()
}

pub(super) fn index() -> Seeds {
    let packs = finished().map(|pack| pack.record);
    encoded(&[
        IndexObject { packs: Vec::new() },
        IndexObject { packs: packs.into_iter().collect() },
    ])
}

pub(crate) fn finished() -> Option<crate::pack::FinishedPack> {
    let mut builder = PackBuilder::new(keys(), Contents::Data).ok()?;
    for plain in [&b"one"[..], &[7; 5000], b""] {
        let (encoding, stored) = compress(plain, 1);
        let id = keys().chunk_id(ChunkKind::Data, plain);
        builder.add(ChunkKind::Data, &[(id, plain.len() as u32)], encoding, stored).ok()?;
    }
    Some(builder.finish(keys()))
}

pub(super) fn snapshot() -> Seeds {
    let header = Header::new(StoreRef::new("files", "etc"));
    let mut completion = Completion::at(Timestamp::UNIX_EPOCH);
    completion.facts = attributes();
    completion.position = "0/3000028".to_owned();
    let root = ChunkId::from_bytes([9; 32]);
    encoded(&[SnapshotRecord::new(&header, &completion, root).counted(5, 6, 7, 0)])
}

pub(super) fn checkpoint() -> Seeds {
    let header = Header::new(StoreRef::new("files", "etc"));
    let completion = Completion::at(Timestamp::UNIX_EPOCH);
    let root = ChunkId::from_bytes([9; 32]);
    encoded(&[SnapshotRecord::new(&header, &completion, root).counted(5, 6, 7, 0).incomplete()])
}

pub(super) fn session() -> Seeds {
    encoded(&[("host", "a backup of files/etc", "0.1.0")])
}

pub(super) fn trash() -> Seeds {
    encoded(&[TrashRecord { packs: vec![ObjectId::of(b"one"), ObjectId::of(b"two")] }])
}

pub(super) fn lease() -> Seeds {
    let owner = || minicbor::bytes::ByteArray::from([1_u8; 16]);
    let early = encoded(&[(owner(), "host", "prune", 0_u8)]);
    [early, encoded(&[(owner(), "host", "prune", 1_u8, i64::MIN)])].concat()
}

pub(super) fn pack() -> Seeds {
    let bytes = |pack: crate::pack::FinishedPack| {
        pack.payload.iter().flat_map(|part| part.to_vec()).collect::<Vec<u8>>()
    };
    finished().map(bytes).into_iter().collect()
}

pub(super) fn chunk() -> Seeds {
    let blocks = [packed_block(0, b""), packed_block(3, &[7; 500])];
    codec().into_iter().chain(blocks).collect()
}

pub(super) fn codec() -> Seeds {
    vec![packed(b""), packed(b"short"), packed(&[7; 5000]), packed(&b"ab".repeat(2000))]
}

fn attributes() -> Attributes {
    Attributes::new()
        .with(names::MODE, 0o644_u32)
        .with(names::MODIFIED, -5_i64)
        .with("postgres.note", "text")
        .with(names::TARGET, vec![0xff, 0])
        .with(names::XATTRS, vec![(b"user.a".to_vec(), vec![1])])
}

fn contents() -> [ContentRecord; 3] {
    let chunk = |byte| Some(ChunkId::from_bytes([byte; 32]));
    let pieces = [
        Piece { chunk: chunk(1), offset: 0, length: 10 },
        Piece { chunk: None, offset: 0, length: 1 << 40 },
        Piece { chunk: chunk(2), offset: 70_000, length: 8192 },
        Piece { chunk: chunk(1), offset: 20, length: 5 },
    ];
    let list = PieceList::encode(&pieces);
    let plain = ContentRecord { depth: 0, list: list.clone(), fingerprints: None };
    let deep = ContentRecord { depth: 2, list, fingerprints: Some(Box::new(plain.clone())) };
    [ContentRecord::default(), plain, deep]
}

fn entries() -> Vec<EntryRecord> {
    let kinds = [EntryKind::Directory, EntryKind::File, EntryKind::Symlink];
    let entry = |(kind, content): (EntryKind, ContentRecord)| {
        let info = EntryInfo {
            path: EntryPath::new(b"a/\xff").ok()?,
            kind,
            attributes: attributes(),
            layout: Layout::Pages(8192),
            size: 9,
        };
        Some(EntryRecord::new(&info, content))
    };
    kinds.into_iter().zip(contents()).filter_map(entry).collect()
}

pub(super) fn tree_page() -> Seeds {
    let leaf = Page { level: 0, entries: entries(), children: Vec::new() };
    encoded(&[Page::default(), leaf])
}

pub(super) fn entry() -> Seeds {
    encoded(&entries())
}

pub(super) fn content() -> Seeds {
    encoded(&contents())
}

pub(super) fn piece_list() -> Seeds {
    encoded(&contents().map(|content| content.list))
}

pub(super) fn values() -> Seeds {
    encoded(&[AttributesRecord::default(), AttributesRecord::new(&attributes())])
}
