//! Files of which the server sends only the pages that changed.
//!
//! Such a file is `INCREMENTAL.<name>`: a header, and then pages.
//!
//! ```text
//! u32 0xd3ae1f0d · u32 n · u32 limit · n × u32 page number · zeros up to a multiple of a page
//! n pages
//! ```
//!
//! Little-endian on all machines that are supported; without pages, the header is not filled up.
//! The page numbers ascend. The file is as long as the limit, or up to its last page that was sent,
//! whichever is more. A page that was not sent is, before the limit, the one that the former backup
//! has; behind it, and where that one has none, it is zero.

use bytes::Bytes;
use lifeboat_core::Extent;

const MAGIC: u32 = 0xd3ae_1f0d;
/// What comes before the page numbers.
const HEAD: usize = 12;

/// What is wrong with a file.
type Flaw = String;

/// The changes of one file, as they come.
#[derive(Debug)]
pub(super) struct Changes {
    page: u64,
    /// How many pages of the former file there are.
    former: u64,
    /// Where the former one is no longer of use.
    limit: u64,
    /// The pages that are sent.
    pages: Vec<u32>,
    /// How many of them have come.
    come: usize,
    /// The next page that was not spoken of.
    next: u64,
    /// How many pages the file has.
    length: u64,
}

impl Changes {
    /// How long the header is at most for files of so many pages of so many bytes.
    pub(super) fn longest_header(page: u32, in_file: u32) -> u64 {
        let bytes = HEAD as u64 + 4 * u64::from(in_file);
        bytes.next_multiple_of(page.into())
    }

    /// Takes the header off the beginning of a file of `size` bytes, all of it being in `bytes`.
    /// `former` is how many bytes the former backup has of the file.
    pub(super) fn begin(
        bytes: &mut Bytes,
        size: u64,
        page: u32,
        in_file: u32,
        former: u64,
    ) -> Result<Self, Flaw> {
        let short = || "its header is cut short".to_owned();
        let number = |bytes: &Bytes, at: usize| {
            let field = bytes.get(at..at + 4).and_then(|field| <[u8; 4]>::try_from(field).ok());
            field.map(u32::from_le_bytes).ok_or_else(short)
        };
        if number(bytes, 0)? != MAGIC {
            return Err("its header is none of changes".into());
        }
        let (count, limit) = (number(bytes, 4)?, number(bytes, 8)?);
        if count > in_file || limit > in_file {
            return Err(format!("it speaks of {} pages", count.max(limit)));
        }
        let mut pages = Vec::with_capacity(count as usize);
        for at in 0..count as usize {
            let number = number(bytes, HEAD + 4 * at)?;
            if number >= in_file || pages.last().is_some_and(|last| *last >= number) {
                return Err("its pages are not in order".into());
            }
            pages.push(number);
        }
        let page = u64::from(page);
        let mut header = (HEAD + 4 * pages.len()) as u64;
        if count > 0 {
            header = header.next_multiple_of(page);
        }
        if size != header + u64::from(count) * page {
            return Err(format!("it has {size} bytes for {count} pages"));
        }
        let header = usize::try_from(header).map_err(|_| short())?;
        if bytes.len() < header {
            return Err(short());
        }
        let filling = bytes.split_to(header);
        if filling[HEAD + 4 * pages.len()..].iter().any(|byte| *byte != 0) {
            return Err("its header is filled up with something".into());
        }
        let last = pages.last().map_or(0, |last| u64::from(*last) + 1);
        let limit = u64::from(limit);
        let length = limit.max(last);
        Ok(Self { page, former: former / page, limit, pages, come: 0, next: 0, length })
    }

    /// How many bytes the file has.
    pub(super) fn size(&self) -> u64 {
        self.length * self.page
    }

    /// The number of the page that comes next.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = u32> + '_ {
        self.pages[self.come..].iter().copied()
    }

    /// Takes whole pages, and gives the content up to their end.
    pub(super) fn feed(&mut self, mut bytes: Bytes, into: &mut Vec<Extent>) -> Result<(), Flaw> {
        let page = usize::try_from(self.page).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let left = &self.pages[self.come..];
            let Some(first) = left.first() else {
                return Err("something follows its last page".into());
            };
            // As many as follow one another.
            let most = bytes.len() / page;
            let run = left.iter().zip(*first..).take(most).take_while(|(at, place)| *at == place);
            let run = run.count();
            if run == 0 {
                return Err("a page of it is cut short".into());
            }
            self.gap(u64::from(*first), into);
            into.push(Extent::Data(bytes.split_to(run * page)));
            self.come += run;
            self.next += run as u64;
        }
        Ok(())
    }

    /// The rest of the content, when all pages have come.
    pub(super) fn finish(&mut self, into: &mut Vec<Extent>) -> Result<(), Flaw> {
        if self.come < self.pages.len() {
            return Err("not all of its pages came".into());
        }
        self.gap(self.length, into);
        Ok(())
    }

    /// What lies before a page, and was not sent.
    fn gap(&mut self, to: u64, into: &mut Vec<Extent>) {
        let kept = to.min(self.limit).min(self.former).saturating_sub(self.next);
        let zeros = to.saturating_sub(self.next) - kept;
        if kept > 0 {
            into.push(Extent::Unchanged(kept * self.page));
        }
        if zeros > 0 {
            into.push(Extent::Hole(zeros * self.page));
        }
        self.next = self.next.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u32 = 512;

    fn file(limit: u32, pages: &[u32]) -> Bytes {
        let mut bytes = Vec::new();
        for number in [MAGIC, pages.len() as u32, limit].iter().chain(pages) {
            bytes.extend(number.to_le_bytes());
        }
        if !pages.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        }
        for page in pages {
            bytes.extend(vec![*page as u8 + 1; PAGE as usize]);
        }
        bytes.into()
    }

    fn begin(bytes: &mut Bytes, former: u32) -> Result<Changes, Flaw> {
        let size = bytes.len() as u64;
        Changes::begin(bytes, size, PAGE, 1000, u64::from(former * PAGE))
    }

    /// The pages of the file: what was sent, `0` for zeros and `255` for former ones.
    fn read(mut bytes: Bytes, former: u32, piece: usize) -> Result<Vec<u8>, Flaw> {
        let mut changes = begin(&mut bytes, former)?;
        let (mut extents, size) = (Vec::new(), changes.size());
        while !bytes.is_empty() {
            let piece = bytes.split_to(piece.min(bytes.len()));
            changes.feed(piece, &mut extents)?;
        }
        changes.finish(&mut extents)?;
        assert_eq!(extents.iter().map(Extent::len).sum::<u64>(), size);
        let mut found = Vec::new();
        for extent in extents {
            let pages = (extent.len() / u64::from(PAGE)) as usize;
            match extent {
                Extent::Data(data) => found.extend(data.chunks(PAGE as usize).map(|page| page[0])),
                Extent::Unchanged(_) => found.extend(vec![255; pages]),
                Extent::Hole(_) => found.extend(vec![0; pages]),
            }
        }
        Ok(found)
    }

    #[test]
    fn a_file_is_put_together() {
        let all = |limit, pages: &[u32], former| read(file(limit, pages), former, 512).unwrap();
        assert_eq!(all(4, &[1], 4), [255, 2, 255, 255]);
        assert_eq!(all(3, &[], 3), [255, 255, 255]);
        assert!(all(0, &[], 3).is_empty());
        // Cut short, and grown again.
        assert_eq!(all(1, &[3], 4), [255, 0, 0, 4]);
        // Longer than the former one.
        assert_eq!(all(5, &[3], 2), [255, 255, 0, 4, 0]);
        assert_eq!(all(0, &[0, 1, 2], 9), [1, 2, 3]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = file(9, &[1, 2, 7]);
        assert!(read(good.clone(), 9, 512).is_ok());
        for end in 0..good.len() {
            assert!(read(good.slice(..end), 9, 512).is_err(), "{end}");
        }
        let changed = |at: usize, value: u32| {
            let mut bytes = good.to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            read(bytes.into(), 9, 512)
        };
        for (at, value) in [(0, 1), (4, 2), (4, 4), (4, u32::MAX), (8, 1001), (12, 2), (16, 7)] {
            assert!(changed(at, value).is_err(), "{at} {value}");
        }
        assert!(changed(20, 1000).is_err(), "beyond the file");
        assert!(changed(100, 5).is_err(), "no zeros");
        let mut long = good.to_vec();
        long.extend([0; 512]);
        assert!(read(long.into(), 9, 512).is_err());
    }

    proptest! {
        /// As the server's own program puts it together: page by page.
        #[test]
        fn pieces_and_pages_are_in_their_places(
            limit in 0..40_u32, former in 0..40_u32,
            pages in proptest::collection::btree_set(0..40_u32, 0..20), piece in 1..9_usize
        ) {
            let pages: Vec<u32> = pages.into_iter().collect();
            let length = limit.max(pages.last().map_or(0, |last| last + 1));
            let expected: Vec<u8> = (0..length).map(|page| {
                if pages.contains(&page) {
                    page as u8 + 1
                } else if page < limit && page < former {
                    255
                } else {
                    0
                }
            }).collect();
            prop_assert_eq!(read(file(limit, &pages), former, piece * 512).unwrap(), expected);
        }

        #[test]
        fn anything_can_come(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut with_magic = MAGIC.to_le_bytes().to_vec();
            with_magic.extend(&bytes);
            let _ = (read(bytes.into(), 9, 512), read(with_magic.into(), 9, 512));
        }
    }
}
