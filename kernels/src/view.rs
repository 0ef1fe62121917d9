//! Bounds-checked strided views of blocks: how safe code hands memory to kernels.

use crate::mem::Block;
use num_complex::Complex;
use std::marker::PhantomData;

/// A plain number a kernel can work on. Every bit pattern of such a type is a
/// valid value.
///
/// # Safety
/// Implement only for types without padding or invalid bit patterns.
pub unsafe trait Element:
    Copy + Send + Sync + PartialEq + std::fmt::Debug + 'static
{
    /// The number zero.
    const ZERO: Self;
}

macro_rules! element {
    ($($t:ty = $zero:expr),*) => {$(
        // SAFETY: a primitive number (or a transparent wrapper of one).
        unsafe impl Element for $t {
            const ZERO: Self = $zero;
        }
    )*};
}
element!(
    f32 = 0.0,
    f64 = 0.0,
    i64 = 0,
    i32 = 0,
    i16 = 0,
    i8 = 0,
    u64 = 0,
    u32 = 0,
    u16 = 0,
    u8 = 0
);
element!(Complex<f32> = Complex::ZERO, Complex<f64> = Complex::ZERO, [u64; 2] = [0; 2]);
element!(half::f16 = half::f16::ZERO, half::bf16 = half::bf16::ZERO);

/// A strided view that is read. Strides count elements and may be zero or
/// negative.
#[derive(Clone, Copy)]
pub struct Src<'a, T> {
    ptr: *const T,
    /// Extent of each dimension.
    pub shape: &'a [usize],
    /// Distance, in elements, between neighbours in each dimension.
    pub strides: &'a [isize],
    life: PhantomData<&'a Block>,
}

/// A strided view that is written (or read and written).
///
/// A `Dst` may overlap a [`Src`] of the same call only where the kernel says so.
#[derive(Clone, Copy)]
pub struct Dst<'a, T> {
    ptr: *mut T,
    /// Extent of each dimension.
    pub shape: &'a [usize],
    /// Distance, in elements, between neighbours in each dimension.
    pub strides: &'a [isize],
    life: PhantomData<&'a Block>,
}

/// A view of elements of which only the size is known: enough to move them. One
/// kernel then serves all types of a size, and its driver all types.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    ptr: *mut u8,
    /// Bytes of an element.
    pub(crate) size: usize,
    pub(crate) shape: &'a [usize],
    pub(crate) strides: &'a [isize],
    life: PhantomData<&'a Block>,
}

impl<'a> Raw<'a> {
    /// Address of the first element. Writing through it is the kernel's duty to
    /// justify.
    #[inline]
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr
    }
}

/// `with_size!(size, T => …)`: `T` is the unsigned integer (or the pair) of so many bytes.
macro_rules! with_size {
    ($size:expr, $t:ident => $body:expr) => {
        match $size {
            1 => {
                type $t = u8;
                $body
            }
            2 => {
                type $t = u16;
                $body
            }
            4 => {
                type $t = u32;
                $body
            }
            8 => {
                type $t = u64;
                $body
            }
            16 => {
                type $t = [u64; 2];
                $body
            }
            size => unreachable!("no element has {size} bytes"),
        }
    };
}
pub(crate) use with_size;

// SAFETY: views hold plain numbers; kernels split the index space among threads
// so that no element is written by two.
unsafe impl<T: Element> Send for Src<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for Src<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Element> Send for Dst<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for Dst<'_, T> {}
// SAFETY: as above.
unsafe impl Send for Raw<'_> {}
// SAFETY: as above.
unsafe impl Sync for Raw<'_> {}

/// Where an operand and a result begin, for code that is the same for all types.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) x: *const u8,
    pub(crate) out: *mut u8,
}
// SAFETY: as for the views they come from.
unsafe impl Send for Ends {}
// SAFETY: as above.
unsafe impl Sync for Ends {}

impl Ends {
    pub(crate) fn of<T, U>(x: &Src<T>, out: &Dst<U>) -> Ends {
        Ends { x: x.ptr.cast(), out: out.ptr.cast() }
    }

    /// Further on by as many bytes.
    ///
    /// # Safety
    /// Both stay within what they point into.
    #[inline]
    pub(crate) unsafe fn offset(self, x: isize, out: isize) -> Ends {
        // SAFETY: the caller's contract.
        unsafe { Ends { x: self.x.offset(x), out: self.out.offset(out) } }
    }
}

/// Lowest and highest element offset a layout reaches, or `None` when it is
/// empty or an offset does not fit.
pub fn reach(shape: &[usize], strides: &[isize], offset: usize) -> Option<(isize, isize)> {
    let mut lo = isize::try_from(offset).ok()?;
    let mut hi = lo;
    for (&n, &s) in shape.iter().zip(strides) {
        if n == 0 {
            return None;
        }
        let span = isize::try_from(n - 1).ok()?.checked_mul(s)?;
        if span < 0 {
            lo = lo.checked_add(span)?;
        } else {
            hi = hi.checked_add(span)?;
        }
    }
    Some((lo, hi))
}

impl Block {
    #[inline]
    fn checked<T>(&self, offset: usize, shape: &[usize], strides: &[isize]) -> *mut T {
        assert_eq!(shape.len(), strides.len(), "a layout has one stride per dimension");
        assert!(!self.is_on_device(), "{}", crate::mem::NOT_HERE);
        if shape.contains(&0) {
            return std::ptr::NonNull::dangling().as_ptr();
        }
        let inside = reach(shape, strides, offset)
            .is_some_and(|(lo, hi)| lo >= 0 && (hi as usize) < self.len() / size_of::<T>());
        assert!(
            inside,
            "layout {shape:?} with strides {strides:?} at {offset} leaves a block of {} bytes",
            self.len()
        );
        assert!(
            self.as_ptr().cast::<T>().is_aligned(),
            "the block is not aligned for its elements"
        );
        self.as_ptr().cast::<T>().wrapping_add(offset)
    }

    /// A view to read, starting `offset` elements into the block.
    ///
    /// # Panics
    /// If the layout reaches outside the block.
    #[inline]
    pub fn src<'a, T: Element>(
        &'a self,
        offset: usize,
        shape: &'a [usize],
        strides: &'a [isize],
    ) -> Src<'a, T> {
        Src { ptr: self.checked(offset, shape, strides), shape, strides, life: PhantomData }
    }

    /// `len` elements from `offset` on, as a slice.
    ///
    /// # Panics
    /// If they leave the block or are misaligned.
    ///
    /// # Safety
    /// Nothing may write the memory while the slice lives.
    pub unsafe fn slice<T: Element>(&self, offset: usize, len: usize) -> &[T] {
        let p = self.checked::<T>(offset, &[len], &[1]);
        // SAFETY: inside the block and aligned; every bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(p, len) }
    }

    /// The whole elements in the block; `None` where others share it or it is read-only.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        if self.handles() > 1 || self.is_read_only() {
            return None;
        }
        let len = self.len() / size_of::<T>();
        let p = self.checked::<T>(0, &[len], &[1]);
        // SAFETY: inside the block and aligned, every bit pattern is a `T`, and this is
        // the only handle.
        Some(unsafe { std::slice::from_raw_parts_mut(p, len) })
    }

    /// A view to write, starting `offset` elements into the block.
    ///
    /// # Panics
    /// If the layout reaches outside the block or the block is read-only.
    #[inline]
    pub fn dst<'a, T: Element>(
        &'a self,
        offset: usize,
        shape: &'a [usize],
        strides: &'a [isize],
    ) -> Dst<'a, T> {
        assert!(!self.is_read_only(), "the memory is read-only");
        Dst { ptr: self.checked(offset, shape, strides), shape, strides, life: PhantomData }
    }

    /// Fills the block from the front with `values`.
    ///
    /// # Panics
    /// If they do not fit or the block is read-only.
    pub fn write<T: Element>(&self, values: &[T]) {
        assert!(!self.is_read_only(), "the memory is read-only");
        assert!(size_of_val(values) <= self.len());
        assert!(!self.is_on_device(), "{}", crate::mem::NOT_HERE);
        // SAFETY: the block is large enough and distinct from a Rust slice.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.as_ptr().cast(), values.len());
        }
    }
}

/// Number of elements of a shape.
#[inline]
pub fn numel(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Whether elements lie densely in row-major order.
#[inline]
pub fn is_contiguous(shape: &[usize], strides: &[isize]) -> bool {
    let mut expect = 1isize;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        if n != 1 {
            if s != expect {
                return n == 0 || shape.contains(&0);
            }
            expect *= n as isize;
        }
    }
    true
}

impl<'a, T: Element> Src<'a, T> {
    /// A view of a Rust slice, for callers that hold one.
    ///
    /// # Panics
    /// If the layout reaches outside the slice.
    pub fn of(data: &'a [T], shape: &'a [usize], strides: &'a [isize]) -> Src<'a, T> {
        assert_eq!(shape.len(), strides.len());
        let ok = shape.contains(&0)
            || reach(shape, strides, 0)
                .is_some_and(|(lo, hi)| lo >= 0 && (hi as usize) < data.len());
        assert!(ok, "layout {shape:?} with strides {strides:?} leaves a slice of {}", data.len());
        Src { ptr: data.as_ptr(), shape, strides, life: PhantomData }
    }

    /// Address of the first element. Reading through it is the kernel's duty to
    /// justify.
    #[inline]
    pub fn ptr(&self) -> *const T {
        self.ptr
    }

    /// The same elements in another order of axes.
    pub(crate) fn seen<'b>(&self, shape: &'b [usize], strides: &'b [isize]) -> Src<'b, T>
    where
        'a: 'b,
    {
        assert_eq!(numel(shape), self.numel(), "the same elements");
        Src { ptr: self.ptr, shape, strides, life: PhantomData }
    }

    /// The same view of elements without a type.
    #[inline]
    pub(crate) fn raw(&self) -> Raw<'a> {
        let ptr = self.ptr.cast_mut().cast();
        let (shape, strides) = (self.shape, self.strides);
        Raw { ptr, size: size_of::<T>(), shape, strides, life: PhantomData }
    }

    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }

    /// Whether elements lie densely in row-major order.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        is_contiguous(self.shape, self.strides)
    }

    /// The elements, copied in row-major order.
    pub fn to_vec(&self) -> Vec<T> {
        let mut out = vec![T::ZERO; self.numel()];
        let walk = crate::strided::Walk::new(self.shape, [self.strides]);
        let (len, [step]) = (walk.row_len(), walk.row_strides());
        let mut rows = out.chunks_exact_mut(len.max(1));
        if self.numel() > 0 {
            walk.for_rows(0..walk.rows(), |[at]| {
                let row = rows.next().expect("one chunk per row");
                for (i, v) in row.iter_mut().enumerate() {
                    // SAFETY: the walk stays within the view, checked at construction.
                    *v = unsafe { *self.ptr.offset(at + i as isize * step) };
                }
            });
        }
        out
    }

    /// The elements as a slice, when they lie densely in row-major order.
    ///
    /// # Safety
    /// The memory must not be written through another view while the slice lives.
    pub unsafe fn as_slice(&self) -> Option<&'a [T]> {
        // SAFETY: construction checked that the dense range lies inside the block,
        // every bit pattern is a valid `T`, and the caller keeps writers away.
        self.is_contiguous().then(|| unsafe { std::slice::from_raw_parts(self.ptr, self.numel()) })
    }

    /// The element at a multi-index.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn at(&self, index: &[usize]) -> T {
        assert!(
            index.len() == self.shape.len() && index.iter().zip(self.shape).all(|(i, n)| i < n)
        );
        let o: isize = index.iter().zip(self.strides).map(|(&i, &s)| i as isize * s).sum();
        // SAFETY: in range by the check above and the check at construction.
        unsafe { *self.ptr.offset(o) }
    }
}

impl<'a, T: Element> Dst<'a, T> {
    /// A view of a Rust slice, for callers that hold one.
    ///
    /// # Panics
    /// If the layout reaches outside the slice.
    pub fn of(data: &'a mut [T], shape: &'a [usize], strides: &'a [isize]) -> Dst<'a, T> {
        let ptr = data.as_mut_ptr();
        Src::of(data, shape, strides);
        Dst { ptr, shape, strides, life: PhantomData }
    }

    /// A view of what is at an address.
    ///
    /// # Safety
    /// It is writable, and nobody else touches it while the view lives, at this layout.
    pub(crate) unsafe fn from_ptr(
        ptr: *mut T,
        shape: &'a [usize],
        strides: &'a [isize],
    ) -> Dst<'a, T> {
        Dst { ptr, shape, strides, life: PhantomData }
    }

    /// The same elements in another order of axes.
    pub(crate) fn seen<'b>(&self, shape: &'b [usize], strides: &'b [isize]) -> Dst<'b, T>
    where
        'a: 'b,
    {
        assert_eq!(numel(shape), numel(self.shape), "the same elements");
        Dst { ptr: self.ptr, shape, strides, life: PhantomData }
    }

    /// The same view, to read.
    #[inline]
    pub fn as_src(&self) -> Src<'a, T> {
        Src { ptr: self.ptr, shape: self.shape, strides: self.strides, life: PhantomData }
    }

    /// Address of the first element. Writing through it is the kernel's duty to
    /// justify.
    #[inline]
    pub fn ptr(&self) -> *mut T {
        self.ptr
    }

    /// The same view of elements without a type.
    #[inline]
    pub(crate) fn raw(&self) -> Raw<'a> {
        let ptr = self.ptr.cast();
        let (shape, strides) = (self.shape, self.strides);
        Raw { ptr, size: size_of::<T>(), shape, strides, life: PhantomData }
    }

    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }

    /// Whether elements lie densely in row-major order.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        is_contiguous(self.shape, self.strides)
    }

    /// The elements as a slice, when they lie densely in row-major order.
    ///
    /// # Safety
    /// Nothing else may read or write the memory while the slice lives.
    pub unsafe fn as_mut_slice(&self) -> Option<&'a mut [T]> {
        // SAFETY: construction checked the range; the caller has it to itself.
        self.is_contiguous()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.ptr, self.numel()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_stay_inside() {
        let b = Block::try_new(24).unwrap();
        let _ = b.src::<f32>(0, &[2, 3], &[3, 1]);
        let _ = b.src::<f32>(5, &[6], &[-1]);
        let _ = b.src::<f32>(99, &[0, 4], &[4, 1]);
        for (off, shape, strides) in [
            (0usize, vec![7usize], vec![1isize]),
            (1, vec![2, 3], vec![3, 1]),
            (4, vec![6], vec![-1]),
            (0, vec![2], vec![isize::MAX]),
            (0, vec![usize::MAX, 2], vec![1, 1]),
        ] {
            let r = std::panic::catch_unwind(|| b.src::<f32>(off, &shape, &strides).numel());
            assert!(r.is_err(), "{off} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn contiguity_ignores_ones_and_empties() {
        assert!(is_contiguous(&[2, 1, 3], &[3, 77, 1]));
        assert!(is_contiguous(&[], &[]));
        assert!(is_contiguous(&[0, 3], &[9, 9]));
        assert!(!is_contiguous(&[2, 3], &[1, 2]));
    }
}
