//! Every decoder of this crate, for the fuzz targets. Not for use: it changes without notice.
//!
//! A decoder that sits behind a seal is reached by sealing what it is given: a stranger cannot do
//! that, but a holder of the key with a faulty program can. The decoders in front of it get their
//! bytes as they are.

mod seeds;

pub(crate) use seeds::finished;

use std::sync::OnceLock;

use lifeboat_core::Completeness;
use minicbor::encode::Write;
use minicbor::{Decode, Encode, Encoder};

use crate::check::fuzzing as checks;
use crate::chunk::{
    ChunkKind, Encoding, MAX_CHUNK, compress, compress_block, decompress, decompress_block,
};
use crate::config::Config;
use crate::content::{ContentRecord, PieceList};
use crate::crypto::{Access, AnySlot, Keys, RootKey, Share};
use crate::error::Error;
use crate::id::{ChunkId, ObjectId, RepositoryId};
use crate::index::{IndexObject, fuzzing as index_cache};
use crate::journal::fuzzing as journal;
use crate::maintenance::{LeaseRecord, SessionRecord, TrashRecord, fuzzing as references};
use crate::pack::{Contents, HEADER, PackBuilder, PackRecord, TRAILER};
use crate::pins;
use crate::read::{Sealed, pick};
use crate::sealed::{SealedKind, open, seal};
use crate::snapshot::{RootArea, SnapshotRecord};
use crate::tree::{AttributesRecord, EntryRecord, Page};

/// What a decoder said: nothing when it took the bytes, else why not.
pub type Outcome = Result<(), String>;

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// So many bytes it may have in memory at once, besides a multiple of what it was given.
    pub bound: usize,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]) -> Outcome,
}

impl Target {
    /// Bytes that it takes.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the decoder says.
    pub fn run(&self, bytes: &[u8]) -> Outcome {
        (self.run)(bytes)
    }
}

const MIB: usize = 1 << 20;

/// All of them.
pub fn targets() -> Vec<Target> {
    let target = |name, bound, seeds, run| Target { name, bound, seeds, run };
    let mut all = vec![
        target("config", MIB, seeds::config as _, config as _),
        target("config_signed", MIB, seeds::config_inner, config_signed),
        target("key_slot", MIB, seeds::key_slot, key_slot),
        target("root_key", MIB, seeds::root_key, root_key),
        target("sealed", MIB, seeds::sealed, sealed),
        target("index", MIB, seeds::index, index),
        target("snapshot", MIB, seeds::snapshot, snapshot),
        target("session", MIB, seeds::session, |bytes| {
            inside::<SessionRecord>(SealedKind::Session, bytes)
        }),
        target("trash", MIB, seeds::trash, |bytes| inside::<TrashRecord>(SealedKind::Trash, bytes)),
        target("lease", MIB, seeds::lease, |bytes| inside::<LeaseRecord>(SealedKind::Lease, bytes)),
        target("checkpoint", MIB, seeds::checkpoint, checkpoint),
        target("checks", MIB, checks::seeds, checks::ledger),
        target("references", MIB, references::seeds, references::references),
        target("pin", MIB, pins::fuzzing::seeds, pins::fuzzing::pin),
        target("index_cache", 2 * MIB, index_cache::seeds, index_cache::cached),
        target("pack", MIB, seeds::pack, pack),
        target("chunk", MAX_CHUNK + MIB, seeds::chunk, chunk),
        target("codec", MAX_CHUNK + MIB, seeds::codec, codec),
        target("tree_page", MIB, seeds::tree_page, tree_page),
        target("entry", MIB, seeds::entry, entry),
        target("content", MIB, seeds::content, content),
        target("piece_list", MIB, seeds::piece_list, piece_list),
        target("values", MIB, seeds::values, values),
    ];
    all.extend([
        target("journal_header", MIB, journal::header_seeds, journal::header),
        target("journal_record", MIB, journal::record_seeds, journal::record),
        target("journal_frame", 2 * MIB, journal::frame_seeds, journal::frame),
        target("journal_name", MIB, journal::name_seeds, journal::name),
    ]);
    all
}

/// The keys of a repository that does not exist.
pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys::derive(&RootKey::fixed(7), RepositoryId::from_bytes([3; 16])))
}

/// What an error says.
pub(crate) fn said<T>(result: Result<T, Error>) -> Outcome {
    result.map(drop).map_err(|error| error.to_string())
}

/// Bytes that stand for themselves where something is to be encoded.
struct Raw<'a>(&'a [u8]);

impl Encode<()> for Raw<'_> {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        (): &mut (),
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.writer_mut().write_all(self.0).map_err(minicbor::encode::Error::write)
    }
}

/// What a decoder takes, made from values; what cannot be made is left out. That a target takes
/// none of its seeds is told by who runs it.
pub(crate) fn encoded<T: Encode<()>>(values: &[T]) -> Vec<Vec<u8>> {
    values.iter().filter_map(|value| minicbor::to_vec(value).ok()).collect()
}

/// Decodes what is given as the content of a sealed object.
pub(crate) fn unsealed<T: for<'b> Decode<'b, ()>>(
    kind: SealedKind,
    bytes: &[u8],
) -> Result<T, Error> {
    let (_, object) = seal(keys(), kind, &Raw(bytes))?;
    open(keys(), kind, "object", &object)
}

fn inside<T: for<'b> Decode<'b, ()>>(kind: SealedKind, bytes: &[u8]) -> Outcome {
    said(unsealed::<T>(kind, bytes))
}

fn config(bytes: &[u8]) -> Outcome {
    said(Config::parse(bytes).and_then(|parsed| parsed.verify(keys())))
}

fn config_signed(bytes: &[u8]) -> Outcome {
    let config: Config = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let file = config.to_file(keys()).map_err(|error| error.to_string())?;
    self::config(&file)
}

fn key_slot(bytes: &[u8]) -> Outcome {
    AnySlot::parse(bytes, keys().repository()).map(drop).map_err(|why| format!("{why:?}"))
}

fn root_key(bytes: &[u8]) -> Outcome {
    let (first, rest) = bytes.split_first().ok_or("too short")?;
    let access = if *first == 1 { Access::Full } else { Access::WriteOnly };
    Share::decode(access, rest).map(drop).ok_or_else(|| "no key".to_owned())
}

fn sealed(bytes: &[u8]) -> Outcome {
    said(open::<IndexObject>(keys(), SealedKind::Index, "object", bytes))
}

fn index(bytes: &[u8]) -> Outcome {
    let object: IndexObject =
        unsealed(SealedKind::Index, bytes).map_err(|error| error.to_string())?;
    let places = object.packs.iter().map(|pack| pack.places().count()).sum::<usize>();
    if places > bytes.len() { Err("more chunks than bytes".to_owned()) } else { Ok(()) }
}

fn snapshot(bytes: &[u8]) -> Outcome {
    let record: SnapshotRecord =
        unsealed(SealedKind::Snapshot, bytes).map_err(|error| error.to_string())?;
    let info = record.info(lifeboat_core::SnapshotId::from_bytes([1; 32]));
    if info.store.kind().len() > bytes.len() { Err("it grew".to_owned()) } else { Ok(()) }
}

/// A root that is read as that of a checkpoint.
fn checkpoint(bytes: &[u8]) -> Outcome {
    let record: SnapshotRecord =
        unsealed(SealedKind::Snapshot, bytes).map_err(|error| error.to_string())?;
    record.expect(RootArea::Checkpoints).map_err(|error| error.to_string())?;
    let info = record.info(lifeboat_core::SnapshotId::from_bytes([1; 32]));
    if info.completeness == Completeness::Whole {
        Err("it counts as a whole one".to_owned())
    } else {
        Ok(())
    }
}

fn pack(bytes: &[u8]) -> Outcome {
    let size = bytes.len() as u64;
    let trailer = &bytes[bytes.len().saturating_sub(TRAILER)..];
    let end = PackRecord::end("pack", size, trailer).map_err(|error| error.to_string())?;
    let end = bytes.get(end as usize..).ok_or("its end is beyond its end")?;
    let head = &bytes[..HEADER.min(bytes.len())];
    let parsed = PackRecord::parse("pack", ObjectId::of(bytes), size, head, end);
    let (record, mac) = parsed.map_err(|error| error.to_string())?;
    let places = record.places().count();
    let authentic = record.is_authentic(keys(), mac);
    if authentic { Ok(()) } else { Err(format!("{places} chunks, and it is not authentic")) }
}

/// The first byte is the encoding, the next three the plain length; the rest is sealed. Of a block
/// the second chunk is taken, after one of as many bytes as the first byte of the block says.
fn chunk(bytes: &[u8]) -> Outcome {
    let Some((&[encoding, a, b, c], rest)) = bytes.split_first_chunk() else {
        return Err("too short".to_owned());
    };
    let plain = u32::from_le_bytes([a, b, c, 0]);
    let encoding = match encoding {
        0 => Encoding::Raw,
        3 => Encoding::Solid,
        _ => Encoding::Zstd,
    };
    let block = matches!(encoding, Encoding::Solid).then(|| decompress_block(rest)).flatten();
    let before = block.as_ref().and_then(|block| block.first()).map_or(0, |first| *first);
    let told = match (&block, encoding) {
        (Some(block), _) => block.get(before.into()..).map(<[u8]>::to_vec),
        (None, Encoding::Solid) => None,
        (None, _) => decompress(encoding as u8, rest, (plain as usize).min(MAX_CHUNK)),
    };
    let told = told.unwrap_or_default();
    let told = &told[..told.len().min(plain as usize)];
    let id = keys().chunk_id(ChunkKind::Data, told);
    let first = (ChunkId::from_bytes([0; 32]), before.into());
    let run = || {
        let mut builder = PackBuilder::new(keys(), Contents::Data)?;
        let members = [first, (id, plain)];
        let members = if encoding == Encoding::Solid { &members[..] } else { &members[1..] };
        builder.add(ChunkKind::Data, members, encoding, rest.to_vec())?;
        let pack = builder.finish(keys());
        let bytes: Vec<u8> = pack.payload.iter().flat_map(|part| part.to_vec()).collect();
        let header = &pack.record.header;
        let Some(place) = pack.record.places().last() else { return Ok(()) };
        let sealed = &bytes[HEADER..HEADER + place.stored as usize];
        let sealed = Sealed { pack: "pack", header, offset: place.offset, bytes: sealed };
        let opened = sealed.open(keys(), place.chunk)?;
        pick(keys(), "pack", &place, &opened).map(drop)
    };
    said(run())
}

/// As [`chunk`], without a seal.
fn codec(bytes: &[u8]) -> Outcome {
    let Some((&[encoding, a, b, c], rest)) = bytes.split_first_chunk() else {
        return Err("too short".to_owned());
    };
    let plain = (u32::from_le_bytes([a, b, c, 0]) as usize).min(MAX_CHUNK);
    match decompress(encoding, rest, plain) {
        Some(bytes) if bytes.len() == plain => Ok(()),
        Some(_) => Err("another length than was asked for".to_owned()),
        None => Err(format!("encoding {encoding} does not open")),
    }
}

fn decoded<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, String> {
    minicbor::decode(bytes).map_err(|error| error.to_string())
}

fn tree_page(bytes: &[u8]) -> Outcome {
    let page: Page = decoded(bytes)?;
    page.entries.iter().try_for_each(look)
}

fn entry(bytes: &[u8]) -> Outcome {
    look(&decoded(bytes)?)
}

fn look(entry: &EntryRecord) -> Outcome {
    entry.info()?;
    pieces(&entry.content)
}

fn content(bytes: &[u8]) -> Outcome {
    pieces(&decoded(bytes)?)
}

fn pieces(content: &ContentRecord) -> Outcome {
    content.list.decode().ok_or("a piece names no chunk")?;
    content.list.length().ok_or("it is too long")?;
    content.fingerprints.as_deref().map_or(Ok(()), pieces)
}

fn piece_list(bytes: &[u8]) -> Outcome {
    let list: PieceList = decoded(bytes)?;
    list.decode().ok_or("a piece names no chunk")?;
    list.length().map(drop).ok_or_else(|| "it is too long".to_owned())
}

fn values(bytes: &[u8]) -> Outcome {
    decoded::<AttributesRecord>(bytes).map(|record| drop(record.decode()))
}

/// A chunk as [`chunk`] takes it.
fn packed(plain: &[u8]) -> Vec<u8> {
    let (encoding, stored) = compress(plain, 1);
    let mut bytes = (plain.len() as u32).to_le_bytes().to_vec();
    bytes.pop();
    bytes.insert(0, encoding as u8);
    bytes.extend_from_slice(&stored);
    bytes
}

/// A block as [`chunk`] takes it, with a chunk of `before` bytes in front of the one that is taken.
fn packed_block(before: u8, plain: &[u8]) -> Vec<u8> {
    let mut block = vec![before; usize::from(before).max(1)];
    block.extend_from_slice(plain);
    let taken = block.len() - usize::from(before);
    let mut bytes = (taken as u32).to_le_bytes().to_vec();
    bytes.pop();
    bytes.insert(0, Encoding::Solid as u8);
    bytes.extend(compress_block(&block, 1).unwrap_or_default());
    bytes
}
