//! The ring buffer, as an event loop reads it.

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use tokio::io::{Interest, unix::AsyncFd};

use crate::model::failure::Failure;

/// A ring buffer of the kernel side's.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Watches it from now on.
    ///
    /// # Errors
    /// If that is refused.
    pub fn watch(ring: RingBuf<MapData>) -> Result<Self, Failure> {
        // SAFETY: the ring buffer owns its descriptor and keeps it open until both are dropped together.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self(ring.context("the ring buffer cannot be watched")?))
    }

    /// Waits until there may be a record. It can be dropped while it waits.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        self.0.readable_mut().await.context("the ring buffer cannot be read")?.clear_ready();
        Ok(())
    }

    /// The next record, if there is one by now.
    pub fn take(&mut self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&self.0.get_mut().next()?))
    }
}
