//! WAL as records, for the fuzz targets.

use super::records::{self, Records};
use crate::lsn::{Lsn, SegmentSize};
use crate::wal::{PAGE, magic};

const FROM: u64 = 0x300_0000;
const MAJOR: u32 = 17;

/// One page with these records: manager, info, and what follows the head.
fn page(number: u64, records: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let address = FROM + number * PAGE as u64;
    let mut page = vec![0; if number == 0 { 40 } else { 24 }];
    page[0..2].copy_from_slice(&magic(MAJOR).to_ne_bytes());
    page[2..4].copy_from_slice(&(u16::from(number == 0) * 2).to_ne_bytes());
    page[8..16].copy_from_slice(&address.to_ne_bytes());
    let mut before = 0_u64;
    for (manager, info, rest) in records {
        let at = page.len();
        let mut record = vec![0; records::HEAD];
        record[0..4].copy_from_slice(&((records::HEAD + rest.len()) as u32).to_ne_bytes());
        record[4] = 99;
        record[8..16].copy_from_slice(&before.to_ne_bytes());
        (record[16], record[17]) = (*info, *manager);
        record.extend_from_slice(rest);
        page.extend_from_slice(&record);
        page.resize(page.len().next_multiple_of(8), 0);
        before = address + at as u64;
    }
    page.resize(PAGE, 0);
    page
}

pub(crate) fn records_seeds() -> Vec<Vec<u8>> {
    let time = 800_000_000_000_000_i64.to_ne_bytes();
    let commit = [&[255, 8][..], &time].concat();
    let mut prepared = [&time[..], &0x1e_u32.to_ne_bytes()].concat();
    for (count, item) in [(1_u32, 4), (1, 12), (1, 16)] {
        prepared.extend_from_slice(&count.to_ne_bytes());
        prepared.resize(prepared.len() + item, 1);
    }
    prepared.extend_from_slice(&77_u32.to_ne_bytes());
    let prepared = [&[255, prepared.len() as u8][..], &prepared].concat();
    let mut named = [&time[..], b"before the update\x00"].concat();
    named.resize(72, 0);
    let named = [&[254][..], &(named.len() as u32).to_ne_bytes(), &named].concat();
    let one = page(0, &[(10, 0, &[1; 50]), (1, 0, &commit), (0, 0x70, &named)]);
    let two = page(0, &[(1, 0xb0, &prepared), (1, 0x20, &commit), (0, 0x40, &[])]);
    let three = [page(0, &[(10, 0, &[1; 8100])]), page(1, &[(1, 0, &commit)])].concat();
    vec![one, two, three]
}

pub(crate) fn records(bytes: &[u8]) -> Result<(), String> {
    let mut wal = bytes.to_vec();
    wal.chunks_exact_mut(PAGE).for_each(records::sealed);
    let Some(size) = SegmentSize::new(1 << 20) else {
        return Err("no size".into());
    };
    let read = |length: usize| {
        let records = Records::new(magic(MAJOR), size, Lsn(FROM));
        let mut records = records.seeking(Some(Lsn(FROM + 100)));
        let mut events = Vec::new();
        wal.chunks(length).for_each(|piece| records.feed(piece, &mut events));
        records.feed_zeros(3 * PAGE as u64, &mut events);
        (events, records.last())
    };
    let (events, last) = read(wal.len().max(1));
    assert_eq!(read(1000), (events.clone(), last), "pieces make a difference");
    // A record may go on in the zeros.
    let end = Lsn(FROM + (wal.len() + 3 * PAGE) as u64);
    for event in &events {
        assert!(Lsn(FROM) <= event.at && event.at < event.end && event.end <= end, "{event:?}");
    }
    match (events.len(), last) {
        (_, None) => Err("no record".into()),
        (0, Some(_)) => Err("no event".into()),
        _ => Ok(()),
    }
}
