//! Memory from the operating system.

use super::ALIGN;
use std::alloc::Layout;
use std::ptr::NonNull;

/// From this size on memory comes straight from the operating system, on huge
/// pages where it has them.
pub(super) const LARGE: usize = 1 << 20;
const HUGE_PAGE: usize = 2 << 20;

fn small_layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGN).ok()
}

/// Fresh memory, all zero, aligned as blocks are. `bytes` is not zero.
pub(super) fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    if bytes >= LARGE {
        map_pages(bytes)
    } else {
        // SAFETY: the layout's size is not zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(small_layout(bytes)?) })
    }
}

/// Gives memory back that [`alloc`] gave for so many bytes, and that nobody uses.
pub(super) fn release(p: NonNull<u8>, bytes: usize) {
    if bytes >= LARGE {
        unmap_pages(p, bytes);
    } else if let Some(layout) = small_layout(bytes) {
        // SAFETY: allocated by `alloc` with this very layout; nobody uses it.
        unsafe { std::alloc::dealloc(p.as_ptr(), layout) }
    }
}

#[cfg(unix)]
fn map_pages(bytes: usize) -> Option<NonNull<u8>> {
    // Over-map, then trim, so that the block starts on a huge page.
    let extra = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
    let total = bytes.checked_add(extra)?;
    // SAFETY: an anonymous private mapping at an address of the system's choice.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            total,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if p == libc::MAP_FAILED {
        return None;
    }
    let p = p.cast::<u8>();
    let skip = if extra > 0 { p.align_offset(HUGE_PAGE) } else { 0 };
    // SAFETY: the trimmed pieces and the advised range lie inside the mapping;
    // sizes and addresses are multiples of the page size.
    unsafe {
        if skip > 0 {
            libc::munmap(p.cast(), skip);
        }
        let start = p.add(skip);
        let tail = extra - skip;
        if tail > 0 {
            libc::munmap(start.add(bytes).cast(), tail);
        }
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
        }
        NonNull::new(start)
    }
}

#[cfg(unix)]
fn unmap_pages(p: NonNull<u8>, bytes: usize) {
    // SAFETY: exactly what `map_pages` returned; nobody uses it.
    unsafe {
        libc::munmap(p.as_ptr().cast(), bytes);
    }
}

#[cfg(not(unix))]
fn map_pages(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(small_layout(bytes)?) })
}

#[cfg(not(unix))]
fn unmap_pages(p: NonNull<u8>, bytes: usize) {
    if let Some(layout) = small_layout(bytes) {
        // SAFETY: exactly what `map_pages` returned; nobody uses it.
        unsafe { std::alloc::dealloc(p.as_ptr(), layout) }
    }
}

/// Has the C library give back what it keeps of freed memory.
pub(super) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
