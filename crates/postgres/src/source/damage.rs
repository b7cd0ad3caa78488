//! Damaged pages: looking at them twice, naming them, and keeping count.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Attributes, Context, EntryPath, Value};
use parking_lot::Mutex;

use crate::checksum;
use crate::connect::{ConnectOptions, Session};
use crate::lsn::Lsn;
use crate::relation::{Fork, RelationDirectory, RelationFile};

/// Warnings for one file name this many pages; the rest is counted.
const NAMED: usize = 10;

/// The facts of a snapshot name this many pages; the rest is counted.
const RECORDED: usize = 10_000;

/// How long a page that looks damaged is given to be completed by its writer.
const SETTLE: Duration = Duration::from_millis(20);

/// The pages of one file of a relation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) directory: RelationDirectory,
    pub(crate) file: RelationFile,
    pub(crate) page_size: u32,
    /// The number that the first page of this file has in its relation.
    pub(crate) first_block: u32,
}

impl Pages {
    /// The pages in `bytes`, read at `offset`, that are damaged: their numbers in the file. A page
    /// that is cut off at the end is being added right now, and is not looked at.
    ///
    /// A page can be caught half written. So one that looks damaged is read again: it is damaged
    /// only if it stays wrong without having changed. Blocks for a moment when it does.
    pub(super) fn damaged(
        &self,
        bytes: &[u8],
        offset: u64,
        reread: &dyn Fn(u64, &mut [u8]) -> bool,
    ) -> Vec<u32> {
        let size = self.page_size as usize;
        let first = offset / u64::from(self.page_size);
        let mut settled = false;
        let mut found = Vec::new();
        for (page, number) in bytes.chunks_exact(size).zip(first..) {
            // A file has at most 2^17 pages.
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let block = self.first_block.wrapping_add(number);
            if checksum::is_intact(page, block) {
                continue;
            }
            let place = u64::from(number) * u64::from(self.page_size);
            let mut again = vec![0; size];
            let still = |again: &mut [u8]| {
                // A page that cannot be read any more was cut off with its file.
                reread(place, again) && again == page && !checksum::is_intact(again, block)
            };
            if !still(&mut again) {
                continue;
            }
            if !settled {
                std::thread::sleep(SETTLE);
                settled = true;
                if !still(&mut again) {
                    continue;
                }
            }
            found.push(number);
        }
        found
    }

    /// The pages in `bytes` that are damaged, of a file that a server sent which looks at them
    /// itself: their numbers in the file.
    ///
    /// The server reads again what looks half written, and sends what it read last. It does not
    /// look at pages that were changed after the backup began at `start`, which the WAL brings
    /// back, nor at pages that are new: they may be half written still.
    pub(crate) fn damaged_before(&self, bytes: &[u8], offset: u64, start: Lsn) -> Vec<u32> {
        let first = offset / u64::from(self.page_size);
        let pages = bytes.chunks_exact(self.page_size as usize).zip(first..);
        let damaged = pages.filter_map(|(page, number)| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let settled = !checksum::is_new(page) && checksum::changed_at(page) < start;
            let damaged =
                settled && !checksum::is_intact(page, self.first_block.wrapping_add(number));
            damaged.then_some(number)
        });
        damaged.collect()
    }

    /// As [`Pages::damaged`], reading again from the file itself.
    pub(super) fn damaged_in(&self, file: &File, bytes: &[u8], offset: u64) -> Vec<u32> {
        self.damaged(bytes, offset, &|place, page| file.read_exact_at(page, place).is_ok())
    }
}

/// All damage of one backup.
pub(crate) struct Damage {
    options: ConnectOptions,
    databases: BTreeMap<u32, String>,
    found: Mutex<Found>,
    /// Names of relations that were asked for, `None` where there was no answer.
    names: tokio::sync::Mutex<HashMap<(u32, u32, u32), Option<String>>>,
}

#[derive(Default)]
struct Found {
    pages: u64,
    recorded: BTreeMap<EntryPath, Vec<u32>>,
    room: usize,
}

impl Damage {
    pub(crate) fn new(options: ConnectOptions, databases: BTreeMap<u32, String>) -> Arc<Self> {
        Arc::new(Self {
            options,
            databases,
            found: Mutex::new(Found { room: RECORDED, ..Found::default() }),
            names: tokio::sync::Mutex::default(),
        })
    }

    /// Says that `pages` of a file are damaged, and remembers it.
    pub(crate) async fn report(
        &self,
        path: &EntryPath,
        of: &Pages,
        pages: &[u32],
        context: &Context,
    ) {
        if pages.is_empty() {
            return;
        }
        let before = {
            let mut found = self.found.lock();
            found.pages += pages.len() as u64;
            let kept = pages.len().min(found.room);
            found.room -= kept;
            let recorded = found.recorded.entry(path.clone()).or_default();
            let before = recorded.len();
            recorded.extend(&pages[..kept]);
            before
        };
        let relation = self.relation(of).await;
        let room = NAMED.saturating_sub(before);
        for page in pages.iter().take(room) {
            let block = of.first_block.wrapping_add(*page);
            context.warn(
                path,
                format!(
                    "page {page} (block {block} of {relation}) is damaged: its checksum is wrong"
                ),
            );
        }
        if pages.len() > room {
            let more = pages.len() - room;
            context.warn(path, format!("{more} more pages of {relation} are damaged"));
        }
    }

    /// Relation and database, by name where they have one that can be asked for.
    async fn relation(&self, of: &Pages) -> String {
        let RelationDirectory { database, tablespace } = of.directory;
        let number = of.file.number;
        let fork = match of.file.fork {
            Fork::Main => "",
            Fork::FreeSpace => "the free space map of ",
            Fork::Visibility => "the visibility map of ",
            Fork::Init => "the init fork of ",
        };
        let mut names = self.names.lock().await;
        let key = (database, tablespace, number);
        let name = match names.get(&key) {
            Some(known) => known.clone(),
            None => {
                let asked = self.ask(database, tablespace, number).await;
                names.insert(key, asked.clone());
                asked
            }
        };
        let relation = match name {
            Some(name) => format!("relation {name}"),
            None => format!("the relation with file number {number}"),
        };
        match self.databases.get(&database) {
            Some(database) => format!("{fork}{relation} in database {database}"),
            None if database == 0 => format!("{fork}{relation}, shared by all databases"),
            None => format!("{fork}{relation} in the database with oid {database}"),
        }
    }

    /// The name is a courtesy: when it cannot be had, the number does.
    async fn ask(&self, database: u32, tablespace: u32, number: u32) -> Option<String> {
        let options = match database {
            0 => self.options.clone(),
            _ => self.options.with_database(self.databases.get(&database)?),
        };
        let session = Session::open(&options).await.ok()?;
        let statement = "SELECT pg_catalog.pg_filenode_relation($1, $2)::regclass::text";
        let row = session.one("name a relation", statement, &[&tablespace, &number]).await.ok()?;
        row.try_get::<_, Option<String>>(0).ok()?
    }

    /// Adds to the facts of the snapshot what was found.
    pub(crate) fn record(&self, facts: &mut Attributes) {
        let found = self.found.lock();
        facts.set(super::facts::DAMAGED_PAGES, found.pages);
        if found.pages > 0 {
            let rows = found.recorded.iter().map(|(path, pages)| {
                let pages: Vec<String> = pages.iter().map(ToString::to_string).collect();
                (path.as_bytes().to_vec(), pages.join(",").into_bytes())
            });
            facts.set(super::facts::DAMAGED, Value::from(rows.collect::<Vec<_>>()));
        }
    }
}

/// Paths with damaged pages that a snapshot's facts name; `None` when they do not name all.
pub(crate) fn known_damage(facts: &Attributes) -> Option<std::collections::HashSet<Vec<u8>>> {
    let pages = facts.unsigned(super::facts::DAMAGED_PAGES)?;
    let rows = facts.pairs(super::facts::DAMAGED).unwrap_or_default();
    let named = rows.iter().map(|(_, pages)| {
        pages.split(|byte| *byte == b',').filter(|page| !page.is_empty()).count() as u64
    });
    (named.sum::<u64>() == pages).then(|| rows.iter().map(|(path, _)| path.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::tests::page;
    use std::cell::Cell;

    fn pages() -> Pages {
        Pages {
            directory: RelationDirectory { database: 5, tablespace: 0 },
            file: RelationFile::parse(b"16384.1").unwrap(),
            page_size: 8192,
            first_block: 131_072,
        }
    }

    fn bytes() -> Vec<u8> {
        (0..4).flat_map(|number| page(number as u8 + 1, 131_072 + number)).collect()
    }

    #[test]
    fn a_page_that_stays_wrong_is_damaged() {
        let mut bytes = bytes();
        assert!(pages().damaged(&bytes, 0, &|_, _| panic!("nothing to read again")).is_empty());
        bytes[2 * 8192 + 100] ^= 1;
        let same = |place: u64, page: &mut [u8]| {
            page.copy_from_slice(&bytes[place as usize..][..8192]);
            true
        };
        assert_eq!(pages().damaged(&bytes, 0, &same), [2]);
    }

    #[test]
    fn a_page_caught_half_written_is_not() {
        let whole = bytes();
        let mut torn = whole.clone();
        torn[8192 + 4096..2 * 8192].fill(9);
        let completed = |place: u64, page: &mut [u8]| {
            page.copy_from_slice(&whole[place as usize..][..8192]);
            true
        };
        assert!(pages().damaged(&torn, 0, &completed).is_empty());

        // Its writer is slow: the first look shows the same half.
        let looks = Cell::new(0);
        let slow = |place: u64, page: &mut [u8]| {
            looks.set(looks.get() + 1);
            let from = if looks.get() == 1 { &torn } else { &whole };
            page.copy_from_slice(&from[place as usize..][..8192]);
            true
        };
        assert!(pages().damaged(&torn, 0, &slow).is_empty());

        // The file was cut off.
        assert!(pages().damaged(&torn, 0, &|_, _| false).is_empty());
    }

    #[test]
    fn a_page_cut_off_at_the_end_is_being_written() {
        let mut bytes = bytes();
        bytes.truncate(3 * 8192 + 5000);
        assert!(pages().damaged(&bytes, 0, &|_, _| false).is_empty());
    }

    #[test]
    fn pages_are_counted_from_the_offset() {
        let bytes = bytes();
        assert!(pages().damaged(&bytes[2 * 8192..], 2 * 8192, &|_, _| panic!()).is_empty());
        let same = |place: u64, page: &mut [u8]| {
            page.copy_from_slice(&bytes[place as usize - 8192..][..8192]);
            true
        };
        assert_eq!(pages().damaged(&bytes[..8192], 8192, &same), [1], "a page in the wrong place");
    }

    #[test]
    fn what_a_server_sends_is_looked_at_as_it_does_itself() {
        let start = Lsn(0x2_0000_0000);
        let with = |changed: Lsn, damaged: bool| {
            let mut page = page(7, 131_072);
            page[..4].copy_from_slice(&((changed.0 >> 32) as u32).to_ne_bytes());
            page[4..8].copy_from_slice(&(changed.0 as u32).to_ne_bytes());
            let sum = checksum::compute(&page, 131_072);
            page[8..10].copy_from_slice(&sum.to_ne_bytes());
            page[5000] ^= u8::from(damaged);
            page
        };
        let found = |page: &[u8]| pages().damaged_before(page, 0, start);
        assert_eq!(found(&with(Lsn(start.0 - 1), true)), [0]);
        assert!(found(&with(Lsn(start.0 - 1), false)).is_empty());
        assert!(found(&with(start, true)).is_empty(), "changed since: the WAL brings it back");
        let mut new = vec![0; 8192];
        new[8000] = 1;
        assert!(found(&new).is_empty(), "new");
        assert!(found(&with(Lsn(1), true)[..8191]).is_empty(), "being added");
        assert_eq!(pages().damaged_before(&with(Lsn(1), true), 3 * 8192, start), [3]);
    }

    #[tokio::test]
    async fn damage_is_told_and_recorded() {
        let options = ConnectOptions::parse("host=127.0.0.1 port=1").unwrap();
        let damage = Damage::new(options, BTreeMap::from([(5, "shop".to_owned())]));
        let watched = Arc::new(lifeboat_core::Collecting::new());
        let context = Context::new(watched.clone());
        let path = EntryPath::new("cluster/base/5/16384.1").unwrap();
        let many: Vec<u32> = (0..15).collect();
        damage.report(&path, &pages(), &many, &context).await;
        let warnings = watched.warnings();
        assert_eq!(warnings.len(), 11);
        assert_eq!(
            warnings[3].1,
            "page 3 (block 131075 of the relation with file number 16384 in database shop) is damaged: its checksum is wrong"
        );
        assert!(warnings[10].1.starts_with("5 more pages"));

        let mut facts = Attributes::new();
        damage.record(&mut facts);
        let known = known_damage(&facts).unwrap();
        assert!(known.contains(path.as_bytes()));
        facts.set(crate::source::facts::DAMAGED_PAGES, 16_u64);
        assert!(known_damage(&facts).is_none(), "one is not named");
    }
}
