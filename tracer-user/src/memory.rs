//! How much memory the program holds: what others have written is read within a budget, whatever its shape.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated at the moment, without what C libraries (zstd) allocate for themselves.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counted;

// SAFETY: every call goes to the system's allocator as it came, and so do its answers.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that it takes.
        let new = unsafe { System.alloc(layout) };
        if !new.is_null() {
            HELD.fetch_add(layout.size(), Ordering::Relaxed);
        }
        new
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let new = unsafe { System.alloc_zeroed(layout) };
        if !new.is_null() {
            HELD.fetch_add(layout.size(), Ordering::Relaxed);
        }
        new
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) };
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let new = unsafe { System.realloc(old, layout, size) };
        if !new.is_null() {
            HELD.fetch_add(size, Ordering::Relaxed);
            HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_held_until_it_is_not() {
        // Much more than other tests hold for a moment.
        const BYTES: usize = 256 << 20;
        let before = held();
        let mut bytes = Vec::<u8>::with_capacity(BYTES / 2);
        bytes.reserve_exact(BYTES);
        assert!(held() >= before + BYTES / 2, "{before}, {}", held());
        drop(bytes);
        assert!(held() < before + BYTES / 2);
    }
}
