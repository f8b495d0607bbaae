//! How much memory the program holds: what others have written is read within a budget, whatever its shape; and what is not needed any more
//! is given back.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ffi::{c_int, c_void},
    ptr::null_mut,
    slice,
    sync::atomic::{AtomicUsize, Ordering},
};

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated at the moment, without what C libraries (zstd) allocate for themselves.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// From this size on (bytes), what is allocated has pages of its own, which go when it goes.
#[cfg(target_env = "gnu")]
const OWN_PAGES: c_int = 256 << 10;

/// So much that is free at the end of the heap is given back (bytes).
#[cfg(target_env = "gnu")]
const FREE: c_int = 512 << 10;

/// Lets all threads allocate in one place: those beside the first one do so seldom, and each would keep what it has freed. And holds the
/// allocator to two sizes: of its own accord it raises both to those of the largest that was ever freed, the kernel's types, and keeps megabytes.
/// To be called before there are any.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: each takes two numbers. Where one is refused, it is as before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE);
    };
}

/// Gives back what a start took and tracing does not need: several times what tracing takes. That is free memory, and the pages of the
/// program's own file and of its libraries, which come from there again when they are used.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and works on the allocator only, which takes its own locks.
    unsafe {
        libc::malloc_trim(0)
    };
    // SAFETY: the callback is sound for whatever the loader lists.
    unsafe { libc::dl_iterate_phdr(Some(give_back_pages), null_mut()) };
}

/// Gives back what is mapped of one loaded file and never written: its code and its constants.
unsafe extern "C" fn give_back_pages(
    file: *mut libc::dl_phdr_info,
    _size: usize,
    _nothing: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands on one of its own.
    let file = unsafe { &*file };
    if file.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: it has so many headers.
    let headers = unsafe { slice::from_raw_parts(file.dlpi_phdr, file.dlpi_phnum.into()) };
    let page = procfs::page_size();
    for header in
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
    {
        let start = file.dlpi_addr.wrapping_add(header.p_vaddr);
        let (first, end) = (start.next_multiple_of(page), start.wrapping_add(header.p_memsz) / page * page);
        if let Some(len) = end.checked_sub(first) {
            // SAFETY: whole pages of a segment that nobody may write, so that they are the file's own. Where the kernel refuses, as for
            // what it maps itself, they stay.
            unsafe { libc::madvise(first as *mut c_void, len as usize, libc::MADV_DONTNEED) };
        }
    }
    0
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
