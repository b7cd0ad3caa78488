//! Objects that are checked one by one: that each is what its name says, and opens.

use futures_util::TryStreamExt;
use minicbor::{Decode, Decoder};

use super::ledger::Part;
use super::report::{CheckReport, Damages};
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{CHECKPOINTS, CHECKS, LEASES, Objects, REFERENCES, SESSIONS, TRASH, id_of};
use crate::repository::Shared;
use crate::sealed::{SealedKind, open};

/// Checks that the names of an area's objects are the hashes of their content.
pub(super) async fn check(
    objects: &Objects,
    area: &str,
    limit: u64,
    report: &mut CheckReport,
    damages: &mut Damages,
) -> Result<()> {
    let names: Vec<_> = objects.list(area).map_ok(|listed| listed.name).try_collect().await?;
    for name in names {
        if let Some(id) = id_of(&name) {
            examine(objects, &name, Some(id), limit, None, report, damages).await?;
        }
    }
    Ok(())
}

/// What a name in an area of maintenance stands for: `None` when it is not ours, else the hash that
/// the name promises, if it promises one.
type Naming = fn(&str) -> Option<Option<ObjectId>>;

/// The areas in which objects come and go, whose objects nothing that is stored depends on.
const PASSING: [(&str, SealedKind, Naming); 6] = [
    (CHECKPOINTS, SealedKind::Snapshot, |name| id_of(name).map(Some)),
    (REFERENCES, SealedKind::References, |name| id_of(name).map(Some)),
    (SESSIONS, SealedKind::Session, |name| last_part(name, 32, is_hex).then_some(None)),
    (TRASH, SealedKind::Trash, |name| id_of(name).map(Some)),
    (LEASES, SealedKind::Lease, |name| {
        let digits = name.rsplit_once("maintenance-").map_or("", |(_, digits)| digits);
        last_part(digits, 20, |byte| byte.is_ascii_digit()).then_some(None)
    }),
    (CHECKS, SealedKind::Check, |name| {
        Part::Verified.id_of(name).or_else(|| Part::Damaged.id_of(name)).map(Some)
    }),
];

fn last_part(name: &str, length: usize, is: fn(u8) -> bool) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    last.len() == length && last.bytes().all(is)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Checks the objects of those who are at work, and the notes that they leave.
pub(super) async fn check_passing(
    shared: &Shared,
    report: &mut CheckReport,
    damages: &mut Damages,
) -> Result<()> {
    for (area, kind, naming) in PASSING {
        let listing = shared.objects.list(area).map_ok(|listed| listed.name);
        let names: Vec<_> = listing.try_collect().await?;
        for name in names {
            let Some(id) = naming(&name) else { continue };
            let (objects, sealed) = (&shared.objects, Some((shared, kind)));
            examine(objects, &name, id, kind.limit(), sealed, report, damages).await?;
        }
    }
    Ok(())
}

/// Checks one object. One that is gone since it was listed is no damage: what lists it is what
/// promises it.
///
/// `id` is the hash that its name promises; where there are keys, it must open as `sealed` says.
async fn examine(
    objects: &Objects,
    name: &str,
    id: Option<ObjectId>,
    limit: u64,
    sealed: Option<(&Shared, SealedKind)>,
    report: &mut CheckReport,
    damages: &mut Damages,
) -> Result<()> {
    let read = async {
        let Some(bytes) = objects.read(name, limit).await? else {
            return Ok(None);
        };
        if id.is_some_and(|id| id != ObjectId::of(&bytes)) {
            return Err(Error::damaged(name, "its content does not match its name"));
        }
        if let Some((shared, kind)) = sealed {
            let open = || open::<Anything>(&shared.keys, kind, name, &bytes);
            shared.renewing(name, open).await?;
        }
        Ok(Some(bytes.len() as u64))
    };
    match read.await {
        Ok(None) => return Ok(()),
        Ok(Some(size)) => report.bytes += size,
        Err(Error::Damaged { what, .. }) => {
            damages.of(name, &what);
        }
        Err(error) => return Err(error),
    }
    report.objects += 1;
    Ok(())
}

/// Any CBOR.
struct Anything;

impl<'b> Decode<'b, ()> for Anything {
    fn decode(decoder: &mut Decoder<'b>, (): &mut ()) -> Result<Self, minicbor::decode::Error> {
        decoder.skip().map(|()| Self)
    }
}
