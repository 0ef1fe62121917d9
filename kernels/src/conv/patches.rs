//! What each output of a convolution reads, without building it.
//!
//! Images are staged with their padding, one plane for each phase of the stride.
//! Then what output `q` (counted row by row, at the staged pitch) finds under a tap
//! of the kernel lies at `q` plus a constant, whatever stride and dilation. Columns
//! between the end of an output row and the pitch belong to no output.

use super::stage::{Image, Steps, plane};
use crate::gemm::pairs::join;
use crate::scratch::Scratch;
use std::ops::Range;

/// What outputs along one axis read: output `i` finds pixel `bases[t] + i * step`
/// under tap `t`.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    step: usize,
    /// First pixel of each phase: taps whose pixels are a multiple of `step` apart
    /// read the same plane.
    pub(super) phases: Vec<isize>,
    /// For each tap, its phase and how far into it the first output reads.
    taps: Vec<(usize, usize)>,
    /// The largest of these distances.
    reach: usize,
}

impl Axis {
    pub(super) fn new(bases: &[isize], step: usize) -> Axis {
        let s = step as isize;
        let mut phases: Vec<isize> = Vec::new();
        for &b in bases {
            match phases.iter_mut().find(|p| (b - **p) % s == 0) {
                Some(p) => *p = b.min(*p),
                None => phases.push(b),
            }
        }
        let place = |&b: &isize| {
            let i = phases.iter().position(|p| (b - p) % s == 0).expect("a phase for each tap");
            (i, ((b - phases[i]) / s) as usize)
        };
        let taps: Vec<_> = bases.iter().map(place).collect();
        let reach = taps.iter().map(|t| t.1).max().unwrap_or(0);
        Axis { step, phases, taps, reach }
    }

    pub(super) fn steps(&self, phase: usize, from: usize, count: usize) -> Steps {
        let first = self.phases[phase] + (from * self.step) as isize;
        Steps { first, step: self.step, count: count + self.reach }
    }
}

/// The input of a convolution, as its outputs read it.
pub(super) struct Patches {
    /// Channels of the input in a group.
    pub(super) inner: usize,
    /// Whether two channels, rounded to bf16, share a plane.
    pub(super) paired: bool,
    /// Base and strides of batch, channels, rows and columns of the input.
    pub(super) x: *const f32,
    pub(super) strides: [isize; 4],
    /// Rows and columns of the input and of the output.
    pub(super) size: [usize; 2],
    pub(super) out: [usize; 2],
    pub(super) axes: [Axis; 2],
}

impl Patches {
    /// Planes of the same phase in a group.
    fn channels(&self) -> usize {
        if self.paired { self.inner.div_ceil(2) } else { self.inner }
    }

    /// Numbers that an output reads: channels times taps.
    pub(super) fn len(&self) -> usize {
        self.channels() * self.axes[0].taps.len() * self.axes[1].taps.len()
    }

    /// Distance of rows of staged planes, which the outputs are counted by.
    pub(super) fn pitch(&self) -> usize {
        self.out[1] + self.axes[1].reach
    }

    /// Floats of one plane with so many rows of outputs.
    fn plane(&self, rows: usize) -> usize {
        (rows + self.axes[0].reach) * self.pitch()
    }

    /// Floats of the staged planes of a group with so many rows of outputs.
    pub(super) fn staged(&self, rows: usize) -> usize {
        let planes = self.axes[0].phases.len() * self.axes[1].phases.len();
        self.channels() * planes * self.plane(rows)
    }

    /// Whether outputs read the pixels of dense images one by one.
    fn as_it_lies(&self) -> bool {
        let plain = |a: &Axis| a.step == 1 && a.phases == [0] && a.reach == 0;
        self.axes.iter().all(plain)
            && self.size == self.out
            && self.strides[2..] == [self.size[1] as isize, 1]
    }

    /// Stages the input of some rows of one image's group.
    ///
    /// # Safety
    /// The input is readable, `out` writable for [`Patches::staged`] floats.
    pub(super) unsafe fn stage(
        &self,
        image: usize,
        group: usize,
        rows: &Range<usize>,
        out: *mut f32,
    ) {
        let [batch, sc, sh, sw] = self.strides;
        let at = image as isize * batch + (group * self.inner) as isize * sc;
        let (first, size) = (self.x.wrapping_offset(at), self.size);
        let image = |c: usize| {
            let ptr = first.wrapping_offset(c as isize * sc);
            Image { ptr, strides: [sc, sh, sw], size }
        };
        let mut to = out;
        let other = self.paired.then(|| Scratch::new(2 * self.plane(rows.len())));
        if self.paired && self.as_it_lies() {
            let from = rows.start * size[1];
            for c in (0..self.inner).step_by(2) {
                let ptr = |c: usize| image(c).ptr.wrapping_add(from);
                let high = if c + 1 < self.inner { ptr(c + 1) } else { std::ptr::null() };
                // SAFETY: whole rows of the image, and a plane of them.
                unsafe {
                    join(ptr(c), high, rows.len() * size[1], to);
                    to = to.add(rows.len() * size[1]);
                }
            }
            return;
        }
        for c in (0..self.inner).step_by(if self.paired { 2 } else { 1 }) {
            for i in 0..self.axes[0].phases.len() {
                for j in 0..self.axes[1].phases.len() {
                    let rows = self.axes[0].steps(i, rows.start, rows.len());
                    let cols = self.axes[1].steps(j, 0, self.out[1]);
                    // SAFETY: the caller has room for all planes of this size.
                    unsafe {
                        let len = rows.count * cols.count;
                        if let Some(other) = &other {
                            let (low, mut high) = (other.ptr(), std::ptr::null_mut());
                            plane(image(c), rows, cols, low);
                            if c + 1 < self.inner {
                                high = low.add(len);
                                plane(image(c + 1), rows, cols, high);
                            }
                            join(low, high, len, to);
                        } else {
                            plane(image(c), rows, cols, to);
                        }
                        to = to.add(len);
                    }
                }
            }
        }
    }

    /// Where output 0 finds each number it reads, in planes of so many rows of
    /// outputs: over channels, rows and columns of the kernel.
    ///
    /// # Safety
    /// `table` is writable for [`Patches::len`] numbers.
    pub(super) unsafe fn tabulate(&self, rows: usize, table: *mut u32) {
        let (staged, plane, [down, right]) = (self.staged(rows), self.plane(rows), &self.axes);
        assert!(u32::try_from(staged).is_ok(), "rows of {staged} staged pixels are too long");
        let mut next = table;
        for c in 0..self.channels() {
            for &(i, down_by) in &down.taps {
                for &(j, right_by) in &right.taps {
                    let phase = (c * down.phases.len() + i) * right.phases.len() + j;
                    let at = phase * plane + down_by * self.pitch() + right_by;
                    // SAFETY: the caller has room for a number for each step.
                    unsafe {
                        *next = at as u32;
                        next = next.add(1);
                    }
                }
            }
        }
    }
}
