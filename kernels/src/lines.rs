//! Lines along an axis, handed to kernels as dense rows.
//!
//! A kernel that works along one axis is written for rows without gaps. Where an
//! operand's lines are not dense, a group of them that lie side by side is copied
//! to dense rows first, and results are copied back, so that whole cache lines
//! are used and a result never depends on the layout.

use crate::copy::transpose::{Tile, transpose};
use crate::par;
use crate::scratch::Scratch;
use crate::strided::Walk;
use crate::view::Element;
use smallvec::SmallVec;
use std::ops::Range;

/// Lines taken together where some have to be copied: a cache line of `f32`.
const GROUP: usize = 16;
/// Lines taken together where all are dense.
const DENSE_GROUP: usize = 64;

/// The lines of `K` operands along an axis. The operands agree in all other axes.
/// Lines without elements do not count.
pub(crate) struct Lines<const K: usize> {
    walk: Walk<K>,
    empty: bool,
    step: [isize; K],
    group: usize,
}

/// `values` without the entry of `axis`.
pub(crate) fn without<T: Copy>(values: &[T], axis: usize) -> SmallVec<[T; 6]> {
    values.iter().enumerate().filter(|&(d, _)| d != axis).map(|(_, &v)| v).collect()
}

impl<const K: usize> Lines<K> {
    /// Plans the lines along `axis` of operands of this shape. `dense` says of
    /// which operands a kernel wants dense rows.
    pub(crate) fn new(
        shape: &[usize],
        axis: usize,
        strides: [&[isize]; K],
        dense: [bool; K],
    ) -> Lines<K> {
        let rest = strides.map(|s| without(s, axis));
        let step = strides.map(|s| s[axis]);
        let copied = (0..K).any(|k| dense[k] && step[k] != 1 && shape[axis] > 1);
        Lines {
            walk: Walk::new(&without(shape, axis), std::array::from_fn(|k| &rest[k][..])),
            empty: shape.contains(&0),
            step,
            group: if copied { GROUP } else { DENSE_GROUP },
        }
    }

    /// Calls `f` with each group of lines, in parallel where a line takes
    /// `line_cost` tenths of a nanosecond; `S` is scratch memory that one thread
    /// uses for group after group.
    pub(crate) fn for_groups<S: Default>(
        &self,
        line_cost: usize,
        f: impl Fn(Group<K>, &mut S) + Sync,
    ) {
        if self.empty {
            return;
        }
        let lanes = self.walk.row_len();
        let per_row = lanes.div_ceil(self.group);
        let grain = (par::SHARE_NS * 10).div_ceil(line_cost.max(1) * self.group.min(lanes.max(1)));
        par::for_range(self.walk.rows() * per_row, grain, |groups| {
            let mut scratch = S::default();
            for g in groups {
                let (row, first) = (g / per_row, g % per_row * self.group);
                let lines = self.group.min(lanes - first);
                self.walk.for_rows(row..row + 1, |at| f(self.at(at, first, lines), &mut scratch));
            }
        });
    }

    /// Calls `f` with the lines in `range`, in order, of operands with only one
    /// other axis.
    pub(crate) fn for_range(&self, range: Range<usize>, mut f: impl FnMut(Group<K>)) {
        debug_assert_eq!(self.walk.rows(), 1);
        if self.empty {
            return;
        }
        for first in range.clone().step_by(self.group) {
            f(self.at([0; K], first, self.group.min(range.end - first)));
        }
    }

    fn at(&self, row: [isize; K], first: usize, lines: usize) -> Group<K> {
        let lane = self.walk.row_strides();
        let at = std::array::from_fn(|k| row[k] + first as isize * lane[k]);
        Group { lines, at, lane, step: self.step }
    }
}

/// Bytes between copied rows of `n`: whole cache lines, an odd number of them, so that
/// the same element of all rows does not fall into one set of the cache.
fn pitch(size: usize, n: usize) -> usize {
    ((n * size).div_ceil(64) | 1) * 64
}

/// Lines next to each other: line `l` of operand `k` starts at
/// `at[k] + l * lane[k]`, its elements are `step[k]` apart.
pub(crate) struct Group<const K: usize> {
    pub(crate) lines: usize,
    pub(crate) at: [isize; K],
    lane: [isize; K],
    step: [isize; K],
}

/// Dense rows, `pitch` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<P> {
    ptr: P,
    pitch: isize,
}

impl<T> Rows<*const T> {
    /// The same rows of elements with another name.
    fn cast<U>(self) -> Rows<*const U> {
        let pitch = self.pitch * size_of::<T>() as isize / size_of::<U>() as isize;
        Rows { ptr: self.ptr.cast(), pitch }
    }

    /// Row `l`.
    ///
    /// # Safety
    /// There is one.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, l: usize) -> *const T {
        // SAFETY: as the caller vouches.
        unsafe { self.ptr.offset(l as isize * self.pitch) }
    }
}

impl<T> Rows<*mut T> {
    /// As for rows to read.
    fn cast<U>(self) -> Rows<*mut U> {
        let pitch = self.pitch * size_of::<T>() as isize / size_of::<U>() as isize;
        Rows { ptr: self.ptr.cast(), pitch }
    }

    /// Row `l`.
    ///
    /// # Safety
    /// There is one.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, l: usize) -> *mut T {
        // SAFETY: as the caller vouches.
        unsafe { self.ptr.offset(l as isize * self.pitch) }
    }
}

impl<const K: usize> Group<K> {
    /// Offset of line `l` of operand `k`.
    #[inline(always)]
    pub(crate) fn line(&self, k: usize, l: usize) -> isize {
        self.at[k] + l as isize * self.lane[k]
    }

    fn is_dense(&self, k: usize, n: usize) -> bool {
        self.step[k] == 1 || n <= 1
    }

    /// The lines of operand `k`, `n` elements each, as dense rows: where they lie,
    /// or copied to `room`.
    ///
    /// # Safety
    /// `base` is the first element of the view the lines were planned for.
    pub(crate) unsafe fn read<T: Element>(
        &self,
        k: usize,
        base: *const T,
        n: usize,
        room: &mut Scratch,
    ) -> Rows<*const T> {
        // SAFETY: as the caller vouches.
        unsafe { self.read_raw(k, base.cast(), size_of::<T>(), n, room) }.cast()
    }

    /// As [`Group::read`], of elements of `size` bytes. Such rows count bytes.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn read_raw(
        &self,
        k: usize,
        base: *const u8,
        size: usize,
        n: usize,
        room: &mut Scratch,
    ) -> Rows<*const u8> {
        let bytes = size as isize;
        // SAFETY: lines lie within the view.
        let from = unsafe { base.offset(self.at[k] * bytes) };
        if self.is_dense(k, n) {
            return Rows { ptr: from, pitch: self.lane[k] * bytes };
        }
        let pitch = pitch(size, n);
        let rows = room.room::<u8>(self.lines * pitch);
        let (lines, dense) = ([self.lane[k], self.step[k]], [(pitch / size) as isize, 1]);
        // SAFETY: lines lie within the view, rows within the room made for them.
        unsafe { lay_out(size)(self.lines, n, from, lines, rows, dense) };
        Rows { ptr: rows.cast_const(), pitch: pitch as isize }
    }

    /// Dense rows for the lines of operand `k`, `n` elements each, to be written:
    /// where the lines lie, or in `room`, from where [`Group::put`] fetches them.
    ///
    /// # Safety
    /// `base` is the first element of the view the lines were planned for.
    pub(crate) unsafe fn room<T: Element>(
        &self,
        k: usize,
        base: *mut T,
        n: usize,
        room: &mut Scratch,
    ) -> Rows<*mut T> {
        // SAFETY: as the caller vouches.
        unsafe { self.room_raw(k, base.cast(), size_of::<T>(), n, room) }.cast()
    }

    /// As [`Group::room`], of elements of `size` bytes. Such rows count bytes.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn room_raw(
        &self,
        k: usize,
        base: *mut u8,
        size: usize,
        n: usize,
        room: &mut Scratch,
    ) -> Rows<*mut u8> {
        if self.is_dense(k, n) {
            let bytes = size as isize;
            // SAFETY: lines lie within the view.
            let ptr = unsafe { base.offset(self.at[k] * bytes) };
            return Rows { ptr, pitch: self.lane[k] * bytes };
        }
        let pitch = pitch(size, n);
        Rows { ptr: room.room(self.lines * pitch), pitch: pitch as isize }
    }

    /// Copies rows that [`Group::room`] gave to where the lines lie.
    ///
    /// # Safety
    /// As there, with the same arguments.
    pub(crate) unsafe fn put<T: Element>(
        &self,
        k: usize,
        base: *mut T,
        n: usize,
        rows: Rows<*mut T>,
    ) {
        // SAFETY: as the caller vouches.
        unsafe { self.put_raw(k, base.cast(), size_of::<T>(), n, rows.cast()) }
    }

    /// As [`Group::put`], of rows that [`Group::room_raw`] gave.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn put_raw(
        &self,
        k: usize,
        base: *mut u8,
        size: usize,
        n: usize,
        rows: Rows<*mut u8>,
    ) {
        if self.is_dense(k, n) {
            return;
        }
        let bytes = size as isize;
        let (dense, lines) = ([rows.pitch / bytes, 1], [self.lane[k], self.step[k]]);
        // SAFETY: lines lie within the view, rows within their room.
        unsafe {
            let to = base.offset(self.at[k] * bytes);
            lay_out(size)(self.lines, n, rows.ptr, dense, to, lines);
        }
    }
}

/// Copies so many lines of so many elements: where they are, how far apart lines and
/// their elements are, and the same of where they go.
type LayOut = unsafe fn(usize, usize, *const u8, [isize; 2], *mut u8, [isize; 2]);

/// What copies lines of elements of `size` bytes.
fn lay_out(size: usize) -> LayOut {
    match size {
        1 => lay_out_as::<u8>,
        4 => lay_out_as::<u32>,
        8 => lay_out_as::<u64>,
        _ => unreachable!("no kernel works on lines of elements of {size} bytes"),
    }
}

/// # Safety
/// The elements are there to read and to write, and have the size of `T`.
unsafe fn lay_out_as<T: Element>(
    lines: usize,
    n: usize,
    from: *const u8,
    [from_line, from_step]: [isize; 2],
    to: *mut u8,
    [to_line, to_step]: [isize; 2],
) {
    let (from, to) = (from.cast::<T>(), to.cast::<T>());
    // SAFETY: as the caller vouches.
    unsafe {
        if from_line == 1 && to_step == 1 {
            transpose(from, to, Tile { na: n, nb: lines, step_x: from_step, step_out: to_line });
        } else if to_line == 1 && from_step == 1 {
            transpose(from, to, Tile { na: lines, nb: n, step_x: from_line, step_out: to_step });
        } else {
            for l in 0..lines as isize {
                let (from, to) = (from.offset(l * from_line), to.offset(l * to_line));
                for i in 0..n as isize {
                    *to.offset(i * to_step) = *from.offset(i * from_step);
                }
            }
        }
    }
}
