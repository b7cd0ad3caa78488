//! The stored form of an entry.

use std::borrow::Cow;

use lifeboat_core::{Attributes, EntryInfo, EntryKind, EntryPath, Layout, Value, names};
use minicbor::bytes::{ByteSlice, ByteVec};
use minicbor::{Decode, Encode};

use crate::content::ContentRecord;

/// The layout that stands for [`Layout::Records`]: no size of a page.
const RECORDS: u32 = 1;

/// An entry in a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct EntryRecord {
    #[n(0)]
    path: ByteVec,
    #[n(1)]
    kind: u8,
    #[n(2)]
    attributes: AttributesRecord,
    /// 0 for a stream, 1 for a stream of records, else the size of a page.
    #[n(3)]
    layout: u32,
    #[n(4)]
    pub(crate) size: u64,
    #[n(5)]
    pub(crate) content: ContentRecord,
}

impl EntryRecord {
    pub(crate) fn new(info: &EntryInfo, content: ContentRecord) -> Self {
        Self {
            path: info.path.as_bytes().to_vec().into(),
            kind: kind_number(info.kind),
            attributes: AttributesRecord::new(&info.attributes),
            layout: match info.layout {
                Layout::Pages(size) => size,
                Layout::Records => RECORDS,
                Layout::Stream => 0,
            },
            size: info.size,
            content,
        }
    }

    /// The path as it is stored, which is valid only where [`EntryRecord::info`] says so.
    pub(crate) fn raw_path(&self) -> &[u8] {
        &self.path
    }

    /// What it is, unless a later version knows more kinds.
    pub(crate) fn kind(&self) -> Option<EntryKind> {
        kind_of(self.kind)
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes.0
    }

    pub(crate) fn layout(&self) -> Layout {
        match self.layout {
            0 => Layout::Stream,
            RECORDS => Layout::Records,
            size => Layout::Pages(size),
        }
    }

    /// What the entry is, or what is wrong with the record.
    pub(crate) fn info(&self) -> Result<EntryInfo, String> {
        let path = EntryPath::new(self.path.as_slice()).map_err(|error| error.to_string())?;
        let kind = kind_of(self.kind).ok_or("an entry is of an unknown kind")?;
        Ok(EntryInfo {
            path,
            kind,
            attributes: self.attributes.decode(),
            layout: self.layout(),
            size: self.size,
        })
    }
}

/// The kinds in the order of their numbers, from 1 on.
const KINDS: [EntryKind; 8] = [
    EntryKind::Directory,
    EntryKind::File,
    EntryKind::Symlink,
    EntryKind::HardLink,
    EntryKind::Fifo,
    EntryKind::CharDevice,
    EntryKind::BlockDevice,
    EntryKind::Socket,
];

fn kind_number(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Directory => 1,
        EntryKind::File => 2,
        EntryKind::Symlink => 3,
        EntryKind::HardLink => 4,
        EntryKind::Fifo => 5,
        EntryKind::CharDevice => 6,
        EntryKind::BlockDevice => 7,
        EntryKind::Socket => 8,
    }
}

fn kind_of(number: u8) -> Option<EntryKind> {
    KINDS.get(usize::from(number.checked_sub(1)?)).copied()
}

/// Attributes or facts, as they are stored: an array of names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AttributesRecord(Attributes);

/// What is read of attributes makes room for no more than so many in advance.
const USUAL: u64 = 16;

/// A value as it is stored.
#[derive(Encode, Decode)]
enum ValueRecord<'a> {
    #[n(0)]
    Unsigned(#[n(0)] u64),
    #[n(1)]
    Signed(#[n(0)] i64),
    #[n(2)]
    Text(#[b(0)] &'a str),
    #[n(3)]
    Bytes(#[b(0)] &'a ByteSlice),
    #[n(4)]
    Pairs(#[b(0)] Vec<(&'a ByteSlice, &'a ByteSlice)>),
}

impl<C> Encode<C> for AttributesRecord {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(self.0.len() as u64)?;
        for (name, value) in self.0.iter() {
            let value = match value {
                Value::Unsigned(value) => ValueRecord::Unsigned(*value),
                Value::Signed(value) => ValueRecord::Signed(*value),
                Value::Text(text) => ValueRecord::Text(text),
                Value::Bytes(bytes) => ValueRecord::Bytes(bytes.as_slice().into()),
                Value::Pairs(pairs) => ValueRecord::Pairs(
                    pairs
                        .iter()
                        .map(|(name, value)| (name.as_slice().into(), value.as_slice().into()))
                        .collect(),
                ),
            };
            encoder.array(2)?.str(name)?;
            value.encode(encoder, context)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for AttributesRecord {
    fn decode(
        decoder: &mut minicbor::Decoder<'b>,
        context: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        let count = decoder.clone().array()?.unwrap_or(0);
        let mut attributes = Attributes::with_capacity(count.min(USUAL) as usize);
        for pair in decoder.array_iter_with::<_, (&str, ValueRecord<'_>)>(context)? {
            let (name, value) = pair?;
            let value = match value {
                ValueRecord::Unsigned(value) => Value::Unsigned(value),
                ValueRecord::Signed(value) => Value::Signed(value),
                ValueRecord::Text(text) => Value::Text(text.to_owned()),
                ValueRecord::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
                ValueRecord::Pairs(pairs) => Value::Pairs(
                    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                ),
            };
            attributes.set(known_name(name), value);
        }
        Ok(Self(attributes))
    }
}

impl AttributesRecord {
    pub(crate) fn new(attributes: &Attributes) -> Self {
        Self(attributes.clone())
    }

    pub(crate) fn decode(&self) -> Attributes {
        self.0.clone()
    }
}

/// The name of a value. Those that nearly every entry has need no memory of their own.
fn known_name(name: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 12] = [
        names::MODE,
        names::UID,
        names::GID,
        names::USER,
        names::GROUP,
        names::MODIFIED,
        names::CHANGED,
        names::INODE,
        names::DEVICE,
        names::NODE,
        names::TARGET,
        names::XATTRS,
    ];
    let known = KNOWN.iter().find(|known| **known == name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_storing() {
        let attributes = Attributes::new()
            .with(names::MODE, 0o644_u32)
            .with(names::MODIFIED, -5_i64)
            .with("postgres.note", "text")
            .with(names::TARGET, vec![0xff, 0])
            .with(names::XATTRS, vec![(b"user.a".to_vec(), vec![1])]);
        let layouts = [Layout::Stream, Layout::Pages(8192), Layout::Records];
        for (kind, layout) in KINDS.iter().zip(layouts.iter().cycle()) {
            let info = EntryInfo {
                path: EntryPath::new(b"a/\xff").unwrap(),
                kind: *kind,
                attributes: attributes.clone(),
                layout: *layout,
                size: 9,
            };
            let record = EntryRecord::new(&info, ContentRecord::default());
            let bytes = minicbor::to_vec(&record).unwrap();
            let back: EntryRecord = minicbor::decode(&bytes).unwrap();
            assert_eq!(back.info().unwrap(), info);
        }
    }

    #[test]
    fn a_hostile_path_does_not_get_in() {
        let info = EntryInfo {
            path: EntryPath::new("a").unwrap(),
            kind: EntryKind::File,
            attributes: Attributes::new(),
            layout: Layout::Stream,
            size: 0,
        };
        let mut record = EntryRecord::new(&info, ContentRecord::default());
        record.path = b"../a".to_vec().into();
        assert!(record.info().is_err());
        record.path = b"a".to_vec().into();
        record.kind = 99;
        assert!(record.info().is_err());
    }
}
