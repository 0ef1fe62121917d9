//! Which memory of a device is free.
//!
//! Asking the driver for memory, or giving it back, waits for the whole device. So large
//! segments are asked for, cut into pieces, and kept. All work of a device is done in the
//! order in which it was started, so that a piece may be handed out again as soon as
//! nobody holds it, though work on what it held before may still wait.

use super::Driver;
use std::collections::{BTreeMap, BTreeSet};

/// Every piece is a multiple of so many bytes.
const ROUND: usize = 512;
/// Pieces up to this size come out of segments of their own kind, [`SMALL_SEGMENT`] long.
const SMALL: usize = 1 << 20;
const SMALL_SEGMENT: usize = 2 << 20;
/// Pieces below [`LARGE`] share segments of this size, larger ones have their own.
const SEGMENT: usize = 20 << 20;
const LARGE: usize = 10 << 20;

/// Bytes of a device's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// In arrays that are alive, rounded up to whole pieces.
    pub allocated: usize,
    /// The most that was ever allocated since the last
    /// [`reset_peak_memory_stats`](super::reset_peak_memory_stats).
    pub max_allocated: usize,
    /// Taken from the driver: what is allocated, and what is kept for later.
    pub reserved: usize,
    /// The most that was ever reserved.
    pub max_reserved: usize,
    /// How often memory ran out and what was kept had to be given back.
    pub retries: usize,
}

/// Why there is no memory.
#[derive(Debug)]
pub(super) enum PoolError {
    /// It ran out.
    Full,
    /// The driver's words.
    Driver(String),
}

/// A piece of a segment, by its address.
struct Piece {
    len: usize,
    segment: u64,
    free: bool,
}

/// The free pieces of a kind, by size.
type Free = BTreeSet<(usize, u64)>;

pub(super) struct Pool {
    pieces: BTreeMap<u64, Piece>,
    small: Free,
    large: Free,
    /// Length of each segment, and whether it holds small pieces.
    segments: BTreeMap<u64, (usize, bool)>,
    caching: bool,
    stats: MemoryStats,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool {
            pieces: BTreeMap::new(),
            small: Free::new(),
            large: Free::new(),
            segments: BTreeMap::new(),
            caching: true,
            stats: MemoryStats::default(),
        }
    }

    pub(super) fn stats(&self) -> MemoryStats {
        self.stats
    }

    pub(super) fn reset_peak(&mut self) {
        self.stats.max_allocated = self.stats.allocated;
        self.stats.max_reserved = self.stats.reserved;
    }

    /// Whether memory is kept. If not, every piece is a segment of exactly its size.
    pub(super) fn set_caching(&mut self, on: bool, driver: &dyn Driver) -> Result<(), String> {
        self.caching = on;
        if on { Ok(()) } else { self.empty(driver) }
    }

    fn free_of(&mut self, small: bool) -> &mut Free {
        if small { &mut self.small } else { &mut self.large }
    }

    /// The address of `len` bytes, at least one.
    pub(super) fn allocate(&mut self, len: usize, driver: &dyn Driver) -> Result<u64, PoolError> {
        if !self.caching {
            let at = self.segment(len, len, false, driver)?;
            return Ok(self.take(at, len));
        }
        let Some(want) = len.checked_next_multiple_of(ROUND) else { return Err(PoolError::Full) };
        let small = want <= SMALL;
        let found = self.free_of(small).range((want, 0)..).next().copied();
        // A much larger piece that stands alone is left for what needs it.
        let fits = |&(have, at): &(usize, u64)| {
            let alone = self.segments.get(&at).is_some_and(|s| s.0 == have);
            want < LARGE || !alone || have <= want.saturating_mul(2)
        };
        if let Some((_, at)) = found.filter(fits) {
            return Ok(self.take(at, want));
        }
        let segment = match small {
            true => SMALL_SEGMENT,
            false if want < LARGE => SEGMENT,
            false => want.next_multiple_of(SMALL_SEGMENT),
        };
        let at = self.segment(segment, want, small, driver)?;
        Ok(self.take(at, want))
    }

    /// A segment from the driver, of `len` bytes if it has them, else `least`.
    fn segment(
        &mut self,
        len: usize,
        least: usize,
        small: bool,
        driver: &dyn Driver,
    ) -> Result<u64, PoolError> {
        let ask = |len| match driver.allocate(len) {
            Ok(Some(at)) => Ok(Some((at, len))),
            Ok(None) => Ok(None),
            Err(e) => Err(PoolError::Driver(e)),
        };
        let mut found = ask(len)?;
        if found.is_none() {
            self.stats.retries += 1;
            self.empty(driver).map_err(PoolError::Driver)?;
            found = match ask(len)? {
                None if least < len => ask(least)?,
                other => other,
            };
        }
        let (at, len) = found.ok_or(PoolError::Full)?;
        self.segments.insert(at, (len, small));
        self.pieces.insert(at, Piece { len, segment: at, free: true });
        self.free_of(small).insert((len, at));
        self.stats.reserved += len;
        self.stats.max_reserved = self.stats.max_reserved.max(self.stats.reserved);
        Ok(at)
    }

    /// Hands out the first `want` bytes of a free piece; the rest stays, if it is of use.
    fn take(&mut self, at: u64, want: usize) -> u64 {
        let piece = self.pieces.get_mut(&at).expect("free pieces are known");
        let (have, segment) = (piece.len, piece.segment);
        piece.free = false;
        let small = self.segments[&segment].1;
        self.free_of(small).remove(&(have, at));
        let rest = have - want;
        if rest >= if small { ROUND } else { SMALL } {
            let next = at + want as u64;
            self.pieces.get_mut(&at).expect("just looked at").len = want;
            self.pieces.insert(next, Piece { len: rest, segment, free: true });
            self.free_of(small).insert((rest, next));
        }
        self.stats.allocated += self.pieces[&at].len;
        self.stats.max_allocated = self.stats.max_allocated.max(self.stats.allocated);
        at
    }

    /// Takes a piece back.
    pub(super) fn free(&mut self, at: u64, driver: &dyn Driver) -> Result<(), String> {
        let piece = self.pieces.get_mut(&at).expect("what is freed was allocated");
        piece.free = true;
        let (mut at, mut len, segment) = (at, piece.len, piece.segment);
        self.stats.allocated -= len;
        let small = self.segments[&segment].1;
        let neighbour = |p: &Piece| p.free && p.segment == segment;
        if let Some((&next, p)) = self.pieces.range(at + 1..).next()
            && neighbour(p)
        {
            let more = p.len;
            self.free_of(small).remove(&(more, next));
            self.pieces.remove(&next);
            len += more;
        }
        if let Some((&before, p)) = self.pieces.range(..at).next_back()
            && neighbour(p)
        {
            let more = p.len;
            self.free_of(small).remove(&(more, before));
            self.pieces.remove(&at);
            at = before;
            len += more;
        }
        self.pieces.insert(at, Piece { len, segment, free: true });
        self.free_of(small).insert((len, at));
        if self.caching { Ok(()) } else { self.empty(driver) }
    }

    /// Gives segments back of which nothing is in use.
    #[allow(unsafe_code)]
    pub(super) fn empty(&mut self, driver: &dyn Driver) -> Result<(), String> {
        let idle = |(at, s): (&u64, &(usize, bool))| {
            let p = &self.pieces[at];
            (p.free && p.len == s.0).then_some((*at, s.0, s.1))
        };
        let idle: Vec<(u64, usize, bool)> = self.segments.iter().filter_map(idle).collect();
        for (at, len, small) in idle {
            self.segments.remove(&at);
            self.pieces.remove(&at);
            self.free_of(small).remove(&(len, at));
            self.stats.reserved -= len;
            // SAFETY: a segment of the driver's, which is forgotten here.
            unsafe { driver.free(at) }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceInfo, Entry};
    use super::*;
    use std::sync::Mutex;

    /// Gives addresses, as long as there is room.
    struct Room {
        limit: usize,
        given: Mutex<BTreeMap<u64, usize>>,
    }

    impl Room {
        fn new(limit: usize) -> Room {
            Room { limit, given: Mutex::new(BTreeMap::new()) }
        }
    }

    #[allow(unsafe_code)]
    impl Driver for Room {
        fn info(&self) -> Result<DeviceInfo, String> {
            Err("room".into())
        }
        fn allocate(&self, len: usize) -> Result<Option<u64>, String> {
            let mut given = self.given.lock().unwrap();
            if given.values().sum::<usize>() + len > self.limit {
                return Ok(None);
            }
            // Right behind the last one: neighbours of other segments must not be joined.
            let at = given.last_key_value().map_or(1 << 20, |(at, len)| at + *len as u64);
            given.insert(at, len);
            Ok(Some(at))
        }
        unsafe fn free(&self, address: u64) -> Result<(), String> {
            self.given.lock().unwrap().remove(&address).map(|_| ()).ok_or("not given".into())
        }
        unsafe fn upload(&self, _: &[u8], _: u64) -> Result<(), String> {
            Ok(())
        }
        unsafe fn download(&self, _: u64, _: &mut [u8]) -> Result<(), String> {
            Ok(())
        }
        unsafe fn copy(&self, _: u64, _: u64, _: usize) -> Result<(), String> {
            Ok(())
        }
        fn load(&self, _: &str, _: &str) -> Result<Box<dyn Entry>, String> {
            Err("room".into())
        }
        fn synchronize(&self) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn freed_memory_is_found_again_and_neighbours_are_joined() {
        let (room, mut p) = (Room::new(1 << 30), Pool::new());
        let a: Vec<u64> = (0..4).map(|_| p.allocate(1000, &room).unwrap()).collect();
        assert_eq!((p.stats.allocated, p.stats.reserved), (4 * 1024, SMALL_SEGMENT));
        p.free(a[1], &room).unwrap();
        p.free(a[2], &room).unwrap();
        assert_eq!(p.allocate(2048, &room).unwrap(), a[1]);
        for at in [a[0], a[1], a[3]] {
            p.free(at, &room).unwrap();
        }
        assert_eq!(p.small.iter().copied().collect::<Vec<_>>(), [(SMALL_SEGMENT, a[0])]);
        assert_eq!(p.stats.max_allocated, 4 * 1024);
        p.empty(&room).unwrap();
        assert_eq!((p.stats.reserved, room.given.lock().unwrap().len()), (0, 0));
        assert!(p.pieces.is_empty() && p.segments.is_empty());
    }

    #[test]
    fn large_pieces_have_segments_of_their_own() {
        let (room, mut p) = (Room::new(1 << 30), Pool::new());
        let a = p.allocate((30 << 20) + 1, &room).unwrap();
        assert_eq!(p.stats.reserved, 32 << 20);
        // The rest of that segment serves; another large one does not fit.
        let b = p.allocate(SMALL + 1, &room).unwrap();
        assert_eq!(p.stats.reserved, 32 << 20);
        assert_eq!(b, a + (30 << 20) + ROUND as u64);
        p.allocate(2 << 20, &room).unwrap();
        assert_eq!(p.stats.reserved, (32 << 20) + SEGMENT);
    }

    #[test]
    fn what_is_kept_is_given_back_when_memory_runs_out() {
        let (room, mut p) = (Room::new(64 << 20), Pool::new());
        let a = p.allocate(40 << 20, &room).unwrap();
        p.free(a, &room).unwrap();
        let b = p.allocate(60 << 20, &room).unwrap();
        assert_eq!((p.stats.retries, p.stats.reserved), (1, 60 << 20));
        // No whole segment is left, but what was asked for is.
        let c = p.allocate(3 << 20, &room).unwrap();
        assert_eq!(p.stats.reserved, 63 << 20);
        assert!(matches!(p.allocate(2 << 20, &room), Err(PoolError::Full)));
        assert!(matches!(p.allocate(usize::MAX, &room), Err(PoolError::Full)));
        p.free(b, &room).unwrap();
        p.free(c, &room).unwrap();
        assert_eq!(p.stats.allocated, 0);
    }

    #[test]
    fn without_caching_every_piece_is_the_drivers() {
        let (room, mut p) = (Room::new(1 << 20), Pool::new());
        p.set_caching(false, &room).unwrap();
        let a = p.allocate(5, &room).unwrap();
        assert_eq!(room.given.lock().unwrap().get(&a), Some(&5));
        p.free(a, &room).unwrap();
        assert!(room.given.lock().unwrap().is_empty());
    }
}
