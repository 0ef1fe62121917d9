//! Memory: reference-counted, 64-byte aligned blocks from a pool.
//!
//! A [`Block`] is what a tensor's storage is made of. Blocks are handed out by
//! a pool that keeps what is freed: small ones in a list per thread, large ones
//! in one shared list. Memory is initialised at all times: fresh memory is
//! zero, recycled memory holds what its last owner left.

mod system;

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use system::LARGE;

/// Alignment of every pooled block's data, in bytes: a cache line and a full
/// AVX-512 register.
pub const ALIGN: usize = 64;
/// Blocks up to this size are kept per thread.
const THREAD_CACHED: usize = 64 << 10;
/// Bytes a thread keeps to itself.
const THREAD_CACHE_LIMIT: usize = 1 << 20;

/// The operating system has no memory of that size to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub requested: usize,
    /// Bytes in use when they were asked for.
    pub in_use: usize,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "out of memory: {} bytes requested while {} bytes were in use",
            self.requested, self.in_use
        )
    }
}

impl std::error::Error for OutOfMemory {}

#[repr(C, align(64))]
struct Header {
    refs: AtomicUsize,
    data: *mut u8,
    len: usize,
    version: AtomicU64,
    /// The version of the last change that was noted as recorded.
    recorded: AtomicU64,
    /// Whoever changed the contents last, by a number of the caller's.
    writer: AtomicU32,
    /// Size class, or `EXTERNAL`, `LENT` or `DEVICE`.
    class: u32,
    owner: Option<Box<dyn std::any::Any + Send + Sync>>,
}

/// Memory of somebody else's that may not be written, such that may, and such that the
/// processor cannot reach.
const EXTERNAL: u32 = u32::MAX;
const LENT: u32 = u32::MAX - 1;
const DEVICE: u32 = u32::MAX - 2;
/// What is said where the processor would touch a device's memory.
pub(crate) const NOT_HERE: &str =
    "the memory lies on a device: the processor reads and writes copies of it";
const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == ALIGN);

/// A reference-counted piece of memory. Cloning shares it.
///
/// The bytes are reached through [`Block::src`](crate::view) and
/// [`Block::dst`](crate::view). Several handles may write: as with NumPy or
/// PyTorch, ordering writes against reads of the same memory from several
/// threads is the program's business.
pub struct Block(NonNull<Header>);

// SAFETY: the header's counters are atomic, its other fields are immutable while
// shared, and the data is plain bytes reached only through raw-pointer kernels.
unsafe impl Send for Block {}
// SAFETY: as for `Send`.
unsafe impl Sync for Block {}

// A panic leaves plain bytes behind, never a broken invariant.
impl std::panic::UnwindSafe for Block {}
impl std::panic::RefUnwindSafe for Block {}

impl Block {
    /// A block of `len` bytes. Contents are unspecified but initialised.
    pub fn try_new(len: usize) -> Result<Block, OutOfMemory> {
        // Above half the address space rounding to a class could overflow.
        if len > isize::MAX as usize / 2 {
            return Err(out_of_memory(len));
        }
        let class = class_of(len + HEADER);
        let (header, class) = match take_local(class) {
            Some(h) => (h, class),
            None => {
                let found = take_shared(class).or_else(|| Some((fresh(class)?, class)));
                let (h, class) = found.ok_or_else(|| out_of_memory(len))?;
                STATS.on_alloc(class_bytes(class));
                (h, class)
            }
        };
        // SAFETY: `header` points to at least `HEADER + len` bytes that nobody else
        // uses; the data follows the header.
        unsafe {
            let p = header.as_ptr();
            p.write(Header {
                refs: AtomicUsize::new(1),
                data: p.cast::<u8>().add(HEADER),
                len,
                version: AtomicU64::new(0),
                recorded: AtomicU64::new(0),
                writer: AtomicU32::new(0),
                class: class as u32,
                owner: None,
            });
        }
        Ok(Block(header))
    }

    /// A read-only block over memory that `owner` keeps alive, for example a
    /// mapped file.
    pub fn from_owner<O>(owner: O) -> Block
    where
        O: AsRef<[u8]> + Send + Sync + 'static,
    {
        let owner = Box::new(owner);
        let bytes = (*owner).as_ref();
        let (data, len) = (bytes.as_ptr().cast_mut(), bytes.len());
        Block::external(data, len, EXTERNAL, owner)
    }

    /// A block over memory that `owner` has given up for good, for example a vector: it
    /// may be written.
    pub fn from_owner_mut<O>(owner: O) -> Block
    where
        O: AsMut<[u8]> + Send + Sync + 'static,
    {
        let mut owner = Box::new(owner);
        let bytes = (*owner).as_mut();
        let (data, len) = (bytes.as_mut_ptr(), bytes.len());
        Block::external(data, len, LENT, owner)
    }

    /// A block of `len` bytes that lie on a device, kept by `owner`. The processor cannot
    /// reach them: whatever would give their address, or a view of them, panics.
    pub fn on_device(owner: impl std::any::Any + Send + Sync, len: usize) -> Block {
        // Far from everything, and aligned.
        let nowhere = std::ptr::without_provenance_mut(ALIGN);
        Block::external(nowhere, len, DEVICE, Box::new(owner))
    }

    /// Whether the bytes lie on a device.
    #[inline]
    pub fn is_on_device(&self) -> bool {
        self.header().class == DEVICE
    }

    /// What keeps the memory, if it is a `T`.
    pub fn owner<T: std::any::Any>(&self) -> Option<&T> {
        self.header().owner.as_ref()?.downcast_ref()
    }

    fn external(
        data: *mut u8,
        len: usize,
        class: u32,
        owner: Box<dyn std::any::Any + Send + Sync>,
    ) -> Block {
        let header = Box::new(Header {
            refs: AtomicUsize::new(1),
            data,
            len,
            version: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            writer: AtomicU32::new(0),
            class,
            owner: Some(owner),
        });
        Block(NonNull::from(Box::leak(header)))
    }

    fn header(&self) -> &Header {
        // SAFETY: the header lives until the last handle is dropped.
        unsafe { self.0.as_ref() }
    }

    /// Size in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.header().len
    }

    /// Whether the block holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of the first byte.
    ///
    /// # Panics
    /// If the block lies on a device.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        let h = self.header();
        assert!(h.class != DEVICE, "{NOT_HERE}");
        h.data
    }

    /// Whether both handles share one block.
    #[inline]
    pub fn same(&self, other: &Block) -> bool {
        self.0 == other.0
    }

    /// How many handles share the block.
    pub fn handles(&self) -> usize {
        self.header().refs.load(Ordering::Relaxed)
    }

    /// Whether the block's memory belongs to somebody else and may not be written.
    pub fn is_read_only(&self) -> bool {
        self.header().class == EXTERNAL
    }

    /// How often the contents were changed in place.
    #[inline]
    pub fn version(&self) -> u64 {
        self.header().version.load(Ordering::Relaxed)
    }

    /// Notes a change in place by `writer`, a number that means something to the
    /// caller, and whether the caller keeps a record of it.
    #[inline]
    pub fn bump_version(&self, writer: u32, recorded: bool) {
        let h = self.header();
        h.writer.store(writer, Ordering::Relaxed);
        let now = h.version.fetch_add(1, Ordering::Relaxed) + 1;
        if recorded {
            h.recorded.store(now, Ordering::Relaxed);
        }
    }

    /// The version of the last change in place that was noted as recorded.
    #[inline]
    pub fn recorded_version(&self) -> u64 {
        self.header().recorded.load(Ordering::Relaxed)
    }

    /// Who noted the last change in place; 0 when there was none.
    pub fn last_writer(&self) -> u32 {
        self.header().writer.load(Ordering::Relaxed)
    }
}

impl Clone for Block {
    #[inline]
    fn clone(&self) -> Block {
        self.header().refs.fetch_add(1, Ordering::Relaxed);
        Block(self.0)
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // A single handle has nobody to count against: no locked instruction.
        let refs = &self.header().refs;
        if refs.load(Ordering::Acquire) != 1 {
            if refs.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
        }
        let class = self.header().class;
        if class >= DEVICE {
            // SAFETY: `external` leaked this box and this was the last handle.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        } else {
            // Pooled headers own nothing (`owner` is `None`): no drop is needed.
            recycle(self.0, class as usize);
        }
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} bytes, {} handles)", self.len(), self.handles())
    }
}

fn out_of_memory(requested: usize) -> OutOfMemory {
    OutOfMemory { requested, in_use: STATS.in_use.load(Ordering::Relaxed) }
}

// ---------------------------------------------------------------- size classes
// Multiples of 64 bytes up to 1 KiB, then four classes a doubling.

const FINE: usize = 1024 / ALIGN; // classes 1..=16 are multiples of 64

#[inline]
fn class_of(bytes: usize) -> usize {
    if bytes <= 1024 {
        return bytes.div_ceil(ALIGN).max(1);
    }
    let top = usize::BITS as usize - 1 - (bytes - 1).leading_zeros() as usize; // 2^top < bytes
    let quarter = 1usize << (top - 2);
    let q = (bytes - (1 << top)).div_ceil(quarter); // 1..=4
    FINE + (top - 10) * 4 + q
}

#[inline]
fn class_bytes(class: usize) -> usize {
    if class <= FINE {
        return class * ALIGN;
    }
    let (top, q) = ((class - FINE - 1) / 4 + 10, (class - FINE - 1) % 4 + 1);
    (1 << top) + (q << (top - 2))
}

// ---------------------------------------------------------------- the pool

struct Lists {
    by_class: Vec<Vec<NonNull<Header>>>,
    bytes: usize,
}

// SAFETY: the lists hold free memory that nobody else points to.
unsafe impl Send for Lists {}

impl Lists {
    const fn new() -> Lists {
        Lists { by_class: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, class: usize, h: NonNull<Header>) {
        if self.by_class.len() <= class {
            self.by_class.resize_with(class + 1, Vec::new);
        }
        self.by_class[class].push(h);
        self.bytes += class_bytes(class);
    }

    #[inline]
    fn pop(&mut self, class: usize) -> Option<NonNull<Header>> {
        let h = self.by_class.get_mut(class)?.pop()?;
        self.bytes -= class_bytes(class);
        Some(h)
    }

    fn drain(&mut self) -> Vec<(usize, NonNull<Header>)> {
        self.bytes = 0;
        let lists = std::mem::take(&mut self.by_class);
        lists
            .into_iter()
            .enumerate()
            .flat_map(|(c, l)| l.into_iter().map(move |h| (c, h)))
            .collect()
    }
}

struct ThreadCache(Lists);

impl Drop for ThreadCache {
    fn drop(&mut self) {
        for (class, h) in self.0.drain() {
            recycle_shared(h, class);
        }
    }
}

thread_local! {
    static CACHE: RefCell<ThreadCache> = const { RefCell::new(ThreadCache(Lists::new())) };
}
static SHARED: Mutex<Lists> = Mutex::new(Lists::new());
static CACHING: AtomicBool = AtomicBool::new(true);

fn shared() -> std::sync::MutexGuard<'static, Lists> {
    // No code that runs under this lock can panic half-way through a change.
    SHARED.lock().unwrap_or_else(|e| e.into_inner())
}

#[inline]
fn take_local(class: usize) -> Option<NonNull<Header>> {
    if class_bytes(class) > THREAD_CACHED {
        return None;
    }
    CACHE.try_with(|c| c.borrow_mut().0.pop(class)).ok().flatten()
}

/// A block of this class or, if it is large, one of less than twice the size: to
/// give that back and have another from the system costs more than it wastes.
fn take_shared(class: usize) -> Option<(NonNull<Header>, usize)> {
    let last = if class_bytes(class) >= LARGE { class + 3 } else { class };
    let mut lists = shared();
    let (h, class) = (class..=last).find_map(|c| Some((lists.pop(c)?, c)))?;
    STATS.cached.fetch_sub(class_bytes(class), Ordering::Relaxed);
    Some((h, class))
}

#[inline]
fn recycle(h: NonNull<Header>, class: usize) {
    if class_bytes(class) <= THREAD_CACHED && CACHING.load(Ordering::Relaxed) {
        let kept = CACHE.try_with(|c| {
            let lists = &mut c.borrow_mut().0;
            let room = lists.bytes + class_bytes(class) <= THREAD_CACHE_LIMIT;
            if room {
                lists.push(class, h);
            }
            room
        });
        if kept == Ok(true) {
            return;
        }
    }
    recycle_shared(h, class);
}

fn recycle_shared(h: NonNull<Header>, class: usize) {
    let bytes = class_bytes(class);
    STATS.on_free(bytes);
    // Keep at most as much as the process has used at its peak: a loop finds
    // its memory again, and a burst does not double the footprint for good.
    let limit = STATS.peak.load(Ordering::Relaxed);
    let total = STATS.in_use.load(Ordering::Relaxed) + STATS.cached.load(Ordering::Relaxed) + bytes;
    if !CACHING.load(Ordering::Relaxed) || total > limit.max(16 << 20) {
        system::release(h.cast(), class_bytes(class));
        return;
    }
    STATS.cached.fetch_add(bytes, Ordering::Relaxed);
    shared().push(class, h);
}

fn fresh(class: usize) -> Option<NonNull<Header>> {
    let bytes = class_bytes(class);
    STATS.fresh.fetch_add(1, Ordering::Relaxed);
    // What lies in the shared list counts against the peak: give it back before
    // asking the system for more than the process ever used.
    let held = STATS.in_use.load(Ordering::Relaxed) + STATS.cached.load(Ordering::Relaxed);
    if bytes >= LARGE && held + bytes > STATS.peak.load(Ordering::Relaxed) {
        release_some(bytes);
    }
    let found = system::alloc(bytes).or_else(|| {
        empty_cache();
        system::alloc(bytes)
    });
    Some(found?.cast())
}

/// Gives cached large blocks back to the system until `bytes` are freed.
fn release_some(bytes: usize) {
    let mut freed = 0;
    let mut out = Vec::new();
    {
        let mut lists = shared();
        for class in (class_of(LARGE)..lists.by_class.len()).rev() {
            while freed < bytes {
                let Some(h) = lists.pop(class) else { break };
                freed += class_bytes(class);
                out.push((class, h));
            }
        }
    }
    for (class, h) in out {
        STATS.cached.fetch_sub(class_bytes(class), Ordering::Relaxed);
        system::release(h.cast(), class_bytes(class));
    }
}

/// Gives the memory kept in the pool back to the system (of other threads'
/// small lists, only what they have handed over), and what the allocator of the
/// program's other memory keeps.
pub fn empty_cache() {
    let mine = CACHE.try_with(|c| c.borrow_mut().0.drain()).unwrap_or_default();
    for (class, h) in mine {
        STATS.on_free(class_bytes(class));
        system::release(h.cast(), class_bytes(class));
    }
    let all = shared().drain();
    for (class, h) in all {
        STATS.cached.fetch_sub(class_bytes(class), Ordering::Relaxed);
        system::release(h.cast(), class_bytes(class));
    }
    system::trim();
}

/// Turns keeping freed memory on or off (on at first). Off, every block goes
/// straight back to the system, which lets memory checkers see each one.
pub fn set_caching(on: bool) {
    CACHING.store(on, Ordering::Relaxed);
    if !on {
        empty_cache();
    }
}

// ---------------------------------------------------------------- statistics

struct Counters {
    in_use: AtomicUsize,
    peak: AtomicUsize,
    cached: AtomicUsize,
    fresh: AtomicUsize,
}

static STATS: Counters = Counters {
    in_use: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
    cached: AtomicUsize::new(0),
    fresh: AtomicUsize::new(0),
};

impl Counters {
    #[inline]
    fn on_alloc(&self, bytes: usize) {
        let now = self.in_use.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    #[inline]
    fn on_free(&self, bytes: usize) {
        self.in_use.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What the pool holds, in bytes (block headers and rounding included).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// In blocks that are alive, or kept by a thread for its own small blocks
    /// (at most 1 MiB a thread).
    pub in_use: usize,
    /// The most that was ever in use since the last [`reset_peak`].
    pub peak: usize,
    /// Kept for reuse in the shared lists.
    pub cached: usize,
    /// How many blocks the system had to supply since the program began.
    pub fresh: usize,
}

/// The pool's statistics.
pub fn stats() -> Stats {
    Stats {
        in_use: STATS.in_use.load(Ordering::Relaxed),
        peak: STATS.peak.load(Ordering::Relaxed),
        cached: STATS.cached.load(Ordering::Relaxed),
        fresh: STATS.fresh.load(Ordering::Relaxed),
    }
}

/// Starts a new measurement of [`Stats::peak`] at what is in use now.
pub fn reset_peak() {
    STATS.peak.store(STATS.in_use.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The most memory this process has had resident, in bytes; `None` where the
/// system does not say.
pub fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests;
