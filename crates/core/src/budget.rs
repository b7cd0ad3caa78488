//! One limit, in bytes, for the buffers of a whole transfer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bound on the memory that is held by buffers.
///
/// A [`Buffer`] takes its size from the budget when it is made, and gives it back when the last
/// [`Bytes`] made of it is dropped, wherever in the pipeline that happens. A source that reads
/// faster than the sink can store therefore waits; memory never grows with the store.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    total: usize,
}

impl ByteBudget {
    /// A budget of `bytes` (at least 1 MiB, at most 2 GiB; values outside are clamped).
    pub fn new(bytes: usize) -> Self {
        let total = bytes.clamp(1 << 20, 1 << 31);
        Self { free: Arc::new(Semaphore::new(total)), total }
    }

    /// The whole of it.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What is free now.
    pub fn available(&self) -> usize {
        self.free.available_permits()
    }

    /// Waits for room, and returns an empty buffer that can take `capacity` bytes.
    ///
    /// A capacity beyond the whole budget is lowered to it. Waiting ends when buffers downstream
    /// are dropped; dropping the future takes nothing.
    pub async fn buffer(&self, capacity: usize) -> Buffer {
        let capacity = capacity.clamp(1, self.total);
        let permit = self.acquire(capacity).await;
        Buffer { data: Vec::with_capacity(capacity), permit }
    }

    /// A buffer for reading ahead, when there is room to spare now.
    ///
    /// Never more than half of the budget goes to what nobody asked for yet, so that what is read
    /// ahead cannot starve what is waited for. Ask for a quarter of the budget or less where
    /// somebody waits ([`ByteBudget::buffer`]), and the two never block each other.
    pub fn spare_buffer(&self, capacity: usize) -> Option<Buffer> {
        let capacity = capacity.clamp(1, self.total);
        if self.available() < self.total / 2 + capacity {
            return None;
        }
        let count = u32::try_from(capacity).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(count).ok()?;
        Some(Buffer { data: Vec::with_capacity(capacity), permit: Some(permit) })
    }

    /// Like [`ByteBudget::buffer`], for a thread that may block (never one of the runtime's own
    /// workers).
    pub fn buffer_blocking(&self, capacity: usize, runtime: &tokio::runtime::Handle) -> Buffer {
        runtime.block_on(self.buffer(capacity))
    }

    async fn acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        // The semaphore is never closed, so this is always Some; None would only mean unmetered.
        Arc::clone(&self.free).acquire_many_owned(count).await.ok()
    }
}

impl Default for ByteBudget {
    /// 32 MiB.
    fn default() -> Self {
        Self::new(32 << 20)
    }
}

/// Bytes being filled, accounted for in a [`ByteBudget`].
#[derive(Debug)]
pub struct Buffer {
    data: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// The bytes, to be filled. Growing past the capacity asked for is not accounted.
    pub fn data_mut(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Ends the filling, and gives back what the capacity exceeds the content by.
    pub fn freeze(mut self) -> Bytes {
        if let Some(permit) = &mut self.permit {
            let unused = permit.num_permits().saturating_sub(self.data.len());
            if self.data.capacity() > self.data.len() && unused > 64 * 1024 {
                self.data.shrink_to_fit();
                drop(permit.split(unused));
            }
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_returns_when_the_last_slice_is_gone() {
        let budget = ByteBudget::new(1 << 20);
        let mut buffer = budget.buffer(1 << 20).await;
        buffer.data_mut().resize(1 << 20, 7);
        let bytes = buffer.freeze();
        let slice = bytes.slice(5..9);
        drop(bytes);
        assert_eq!(budget.available(), 0);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(5), budget.buffer(1))
                .await
                .is_err()
        );
        drop(slice);
        assert_eq!(budget.available(), 1 << 20);
    }

    #[tokio::test]
    async fn reading_ahead_leaves_half_to_others() {
        let budget = ByteBudget::new(1 << 20);
        let ahead: Vec<_> = std::iter::from_fn(|| budget.spare_buffer(100_000)).collect();
        assert_eq!(ahead.len(), 5);
        assert!(budget.available() >= 1 << 19);
        budget.buffer(1 << 18).await;
    }

    #[tokio::test]
    async fn a_half_filled_buffer_gives_back_the_rest() {
        let budget = ByteBudget::new(1 << 20);
        let mut buffer = budget.buffer(1 << 20).await;
        buffer.data_mut().extend_from_slice(b"abc");
        let bytes = buffer.freeze();
        assert_eq!(budget.available(), (1 << 20) - 3);
        assert_eq!(&bytes[..], b"abc");
    }
}
