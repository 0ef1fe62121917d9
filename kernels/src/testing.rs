//! Helpers of this crate's tests.

use crate::isa::{self, Isa};
use crate::mem::Block;
use crate::par;
use crate::strided::Walk;
use crate::view::{Dst, Element, Src, numel};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

/// An operand with a layout of its own: axes in any order in memory, gaps between
/// elements, some axes running backwards.
pub(crate) struct Operand<T> {
    block: Block,
    offset: usize,
    pub(crate) shape: Vec<usize>,
    strides: Vec<isize>,
    element: std::marker::PhantomData<T>,
}

/// A style, of every sixteen one: neighbours along a short axis are more than 2³¹ elements
/// apart.
pub(crate) const FAR: u64 = 15;

/// Memory at addresses that are far apart, of which only what is touched is there.
struct Reserved(NonNull<u8>, usize);

// SAFETY: plain memory with one owner.
unsafe impl Send for Reserved {}
// SAFETY: as for `Send`.
unsafe impl Sync for Reserved {}

impl Reserved {
    fn new(bytes: usize) -> Reserved {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: an anonymous private mapping at an address of the system's choice.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        assert!(p != libc::MAP_FAILED, "the system reserves no {bytes} bytes of addresses");
        Reserved(NonNull::new(p.cast()).unwrap(), bytes)
    }
}

impl AsMut<[u8]> for Reserved {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours, and zero where nobody wrote.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.1) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped; nobody uses it.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), self.1);
        }
    }
}

impl<T: Element> Operand<T> {
    /// An operand of zeros; `style` 0 is dense and row-major, others differ. There is no
    /// memory behind the last element, for those who watch what is touched.
    pub(crate) fn zeros(shape: &[usize], style: u64) -> Operand<T> {
        if style % 16 == FAR {
            return Operand::far(shape);
        }
        let mut bits = style.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |n: u64| {
            bits = bits.rotate_left(23).wrapping_mul(0xd129_0d3b_3ad1_e9b5);
            if style == 0 { 0 } else { (bits >> 33) % n }
        };
        let mut order: Vec<usize> = (0..shape.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, i - draw(i as u64 + 1) as usize);
        }
        let mut strides = vec![0; shape.len()];
        let (mut step, mut offset) = (1 + draw(2) as usize, 0);
        for &d in order.iter().rev() {
            strides[d] = step as isize;
            if draw(3) == 1 && shape[d] > 0 {
                strides[d] = -strides[d];
                offset += (shape[d] - 1) * step;
            }
            step *= shape[d] + draw(2) as usize;
        }
        let last =
            shape.iter().zip(&strides).map(|(&n, &s)| s.max(0) as usize * n.saturating_sub(1));
        let len = if numel(shape) == 0 { offset } else { offset + last.sum::<usize>() + 1 };
        let block = Block::from_owner_mut(vec![0u8; len * size_of::<T>()]);
        let element = std::marker::PhantomData;
        Operand { block, offset, shape: shape.to_vec(), strides, element }
    }

    fn far(shape: &[usize]) -> Operand<T> {
        let mut o = Operand::zeros(shape, 0);
        if let Some(axis) = shape.iter().position(|n| (2..=4).contains(n)) {
            o.strides[axis] = (1 << 31) + 7;
            let last = (shape[axis] - 1) * o.strides[axis] as usize + numel(shape);
            o.block = Block::from_owner_mut(Reserved::new(last * size_of::<T>()));
        }
        o
    }

    /// An operand of zeros without gaps, the axes in this order from the outermost in
    /// memory to the innermost.
    pub(crate) fn ordered(shape: &[usize], order: &[usize]) -> Operand<T> {
        let mut o = Operand::zeros(shape, 0);
        let mut step = 1;
        for &d in order.iter().rev() {
            o.strides[d] = step;
            step *= shape[d] as isize;
        }
        o
    }

    /// An operand of these values, given in row-major order.
    pub(crate) fn new(shape: &[usize], style: u64, values: &[T]) -> Operand<T> {
        let o = Operand::zeros(shape, style);
        o.set(values);
        o
    }

    pub(crate) fn set(&self, values: &[T]) {
        assert_eq!(values.len(), numel(&self.shape));
        if values.is_empty() {
            return;
        }
        let d = self.dst();
        let walk = Walk::new(&self.shape, [&self.strides]);
        let [step] = walk.row_strides();
        let mut rows = values.chunks(walk.row_len());
        walk.for_rows(0..walk.rows(), |[at]| {
            for (i, &v) in rows.next().unwrap().iter().enumerate() {
                // SAFETY: the walk stays within the view.
                unsafe { *d.ptr().offset(at + i as isize * step) = v };
            }
        });
    }

    pub(crate) fn src(&self) -> Src<'_, T> {
        self.block.src(self.offset, &self.shape, &self.strides)
    }

    pub(crate) fn dst(&self) -> Dst<'_, T> {
        self.block.dst(self.offset, &self.shape, &self.strides)
    }

    /// The operand repeated to a larger shape of the same rank, with these strides.
    pub(crate) fn wide<'a>(&'a self, shape: &'a [usize], strides: &'a [isize]) -> Src<'a, T> {
        self.block.src(self.offset, shape, strides)
    }

    pub(crate) fn values(&self) -> Vec<T> {
        self.src().to_vec()
    }
}

/// The multi-index of a position in row-major order.
pub(crate) fn index_of(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        (*i, position) = (position % n, position / n);
    }
    index
}

/// Numbers that look random, in [-2, 2).
pub(crate) fn noise(n: usize, seed: u64) -> Vec<f64> {
    (0..n as u64)
        .map(|i| {
            let v =
                i.wrapping_add(seed.wrapping_mul(1_000_003)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let v = (v ^ (v >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (v >> 40) as f64 / (1u64 << 22) as f64 - 2.0
        })
        .collect()
}

/// The same as `f32`.
pub(crate) fn noise32(n: usize, seed: u64) -> Vec<f32> {
    noise(n, seed).into_iter().map(|v| v as f32).collect()
}

static SETTINGS: Mutex<()> = Mutex::new(());

fn settings() -> MutexGuard<'static, ()> {
    SETTINGS.lock().unwrap_or_else(|e| e.into_inner())
}

/// What `f` gives at every instruction-set level of this machine and with one thread
/// and several, which must all be the same; the bits are compared.
pub(crate) fn same_everywhere<T: Element>(f: impl Fn() -> Vec<T>) -> Vec<T> {
    let _alone = settings();
    let threads = par::threads();
    let mut first: Option<Vec<T>> = None;
    for level in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
        for n in [1, 3] {
            par::set_threads(n);
            isa::limit(level);
            let now = f();
            let first = first.get_or_insert_with(|| now.clone());
            for (i, (a, b)) in first.iter().zip(&now).enumerate() {
                // A NaN, which is not itself, may be any NaN.
                let nan = |v: &T| !v.eq(v);
                assert!(
                    (nan(a) && nan(b)) || bytes(a) == bytes(b),
                    "{level:?}, {n} threads: {a:?} {b:?} at {i}"
                );
            }
        }
    }
    isa::limit(Isa::Avx512);
    par::set_threads(threads);
    first.unwrap()
}

fn bytes<T: Element>(v: &T) -> &[u8] {
    // SAFETY: elements are plain numbers.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(v).cast(), size_of::<T>()) }
}

/// Asserts that `got` is within `tolerance`, relative to the larger of one and `want`.
#[track_caller]
pub(crate) fn assert_close<T: crate::Real>(got: &[T], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, &w)) in got.iter().zip(want).enumerate() {
        let g = g.f64();
        let same = g == w || (g.is_nan() && w.is_nan());
        let close = (g - w).abs() <= tolerance * w.abs().max(1.0);
        assert!(same || close, "{g} instead of {w} at {i}");
    }
}
