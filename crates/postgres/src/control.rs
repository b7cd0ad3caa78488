//! `global/pg_control`: what the cluster knows of itself.
//!
//! The server rewrites the file in place, and a reader may see half of a write. It carries a
//! CRC-32C, so it is read again until that is right.

use std::path::Path;
use std::time::Duration;

use crate::crc::crc32c;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, SegmentSize};

/// How often the file is read until it is whole. The server writes it within microseconds.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The file is 8 KiB long in every version; the rest is zero.
const LENGTH: usize = 8192;

/// Where the checkpoint's position is, in every version supported.
const CHECKPOINT: usize = 32;

/// What a copy from a running server gets in place of its last checkpoint: a position in the
/// segment 0, which no cluster has. Recovery begins where `backup_label` says; if someone removes
/// that file, the server then refuses to start, rather than start from a place that is too late.
const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

/// A valid `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) bytes: Vec<u8>,
    pub(crate) system_id: u64,
    pub(crate) control_version: u32,
    pub(crate) catalog_version: u32,
    pub(crate) checkpoint: Lsn,
    /// Where recovery from that checkpoint begins to read WAL.
    pub(crate) redo: Lsn,
    /// The first transaction that had not begun at that checkpoint, with its epoch.
    pub(crate) next_transaction: u64,
    pub(crate) timeline: u32,
    pub(crate) block_size: u32,
    /// Blocks in one file of a relation.
    pub(crate) relation_segment_blocks: u32,
    pub(crate) segment_size: SegmentSize,
    /// 0 when pages carry no checksums.
    pub(crate) checksum_version: u32,
}

impl Control {
    /// Reads the file beneath a data directory. Blocks.
    pub(crate) fn read(data_directory: &Path) -> Result<Self> {
        let path = data_directory.join("global/pg_control");
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            let bytes = std::fs::read(&path)
                .map_err(|source| Error::DataDirectory { path: path.clone(), source })?;
            match Self::parse(bytes) {
                Ok(control) => return Ok(control),
                Err(problem) => why = problem,
            }
        }
        Err(Error::Control { path, why })
    }

    /// Checks the CRC and takes out what is needed.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() != LENGTH {
            return Err(format!("it has {} bytes, and should have {LENGTH}", bytes.len()));
        }
        let control_version = u32_at(&bytes, 8);
        let crc_at = crc_place(control_version)
            .ok_or_else(|| format!("its version {control_version} is not known"))?;
        if crc32c(&bytes[..crc_at]) != u32_at(&bytes, crc_at) {
            return Err("its checksum is wrong".into());
        }
        let block_size = u32_at(&bytes, 216);
        if !block_size.is_power_of_two() || !(1024..=32768).contains(&block_size) {
            return Err(format!("its block size is {block_size}"));
        }
        let segment_size = u32_at(&bytes, 228);
        Ok(Self {
            system_id: u64_at(&bytes, 0),
            control_version,
            catalog_version: u32_at(&bytes, 12),
            checkpoint: Lsn(u64_at(&bytes, CHECKPOINT)),
            redo: Lsn(u64_at(&bytes, 40)),
            next_transaction: u64_at(&bytes, 64),
            timeline: u32_at(&bytes, 48),
            block_size,
            relation_segment_blocks: u32_at(&bytes, 220),
            segment_size: SegmentSize::new(segment_size)
                .ok_or_else(|| format!("its WAL segment size is {segment_size}"))?,
            checksum_version: u32_at(&bytes, 252),
            bytes,
        })
    }

    /// The file for a restored cluster, which can start only from its `backup_label`.
    pub(crate) fn for_restore(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[CHECKPOINT..CHECKPOINT + 8].copy_from_slice(&NO_CHECKPOINT.0.to_ne_bytes());
        if let Some(crc_at) = crc_place(self.control_version) {
            let crc = crc32c(&bytes[..crc_at]);
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
        }
        bytes
    }
}

/// Where the CRC is: it is the last field, and grew out of its place once.
fn crc_place(control_version: u32) -> Option<usize> {
    match control_version {
        // PostgreSQL 13 to 16, and 17.
        1300 | 1700 => Some(288),
        // PostgreSQL 18.
        1800 => Some(292),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        put(0, 77);
        put(8, version);
        put(216, 8192);
        put(220, 131_072);
        put(228, 16 << 20);
        let crc_at = crc_place(version).unwrap_or(288);
        let crc = crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
        bytes
    }

    #[test]
    fn half_a_write_is_noticed() {
        for version in [1300, 1700, 1800] {
            let whole = sample(version);
            assert_eq!(Control::parse(whole.clone()).unwrap().system_id, 77);
            let mut torn = whole;
            torn[250] ^= 1;
            assert!(Control::parse(torn).is_err());
        }
        assert!(Control::parse(sample(1100)).is_err());
        assert!(Control::parse(vec![0; 100]).is_err());
    }

    #[test]
    fn a_restored_one_is_valid_and_starts_nowhere() {
        let control = Control::parse(sample(1800)).unwrap();
        let restored = Control::parse(control.for_restore()).unwrap();
        assert_eq!(restored.checkpoint, NO_CHECKPOINT);
        assert_eq!(restored.system_id, control.system_id);
    }
}
