//! Changes in place and views: how the history of a tensor follows from that of
//! another which shares its memory.
//!
//! A view knows the tensor whose memory it is a view of, its base. A recorded change
//! through a view gives the base a new history: its old value, with the view's place
//! taken by the new one. All other views learn of that by the version of the memory,
//! and take their history from the base again when they are next asked for it. (As
//! PyTorch's `CopySlices` and `AsStridedBackward`.)
//!
//! Nothing is computed for these histories: the memory holds the right values
//! already. They are made of nodes of ops that move elements, found from the
//! geometry of the two arrays alone, so that it does not matter how a view came
//! about.

use super::Edge;
use super::node::moving;
use crate::tensor::Tensor;
use sinter_runtime::op::{Axes, ScatterKind, TensorType};
use sinter_runtime::{Array, DType, Op, Shape, eager};
use std::panic::Location;

/// How a view's elements lie in its base.
enum Route {
    /// In rows of the base, reshaped.
    Cut(Cut),
    /// Anywhere: their places in the base, in row-major order.
    Places(Tensor),
}

/// The base in shape `factors`, sliced along each dimension, is the view with its
/// dimensions in another order, some reversed, some of extent one left out.
struct Cut {
    factors: Shape,
    /// Start, length and step along each of them.
    slices: Vec<(usize, usize, usize)>,
    /// Which of them is which dimension of the core.
    perm: Axes,
    flipped: Axes,
    /// The view's shape, with ones where it repeats the base.
    narrow: Shape,
}

/// The way of a view into its base when that is dense and the view's strides are
/// nested; `None` otherwise.
fn cut(base: &Array, view: &Array) -> Option<Cut> {
    if !base.is_contiguous() || view.numel() == 0 {
        return None;
    }
    // Of the view's first element in the order of memory.
    let mut start = view.offset() as isize - base.offset() as isize;
    // Dimensions that matter: (stride, extent, place among those that matter).
    let mut core: Vec<(usize, usize, usize)> = Vec::new();
    let mut flipped = Axes::new();
    let mut narrow: Shape = view.shape().into();
    for (i, (&n, &s)) in view.shape().iter().zip(view.strides()).enumerate() {
        if n == 1 || s == 0 {
            narrow[i] = 1;
            continue;
        }
        if s < 0 {
            flipped.push(core.len());
            start += (n as isize - 1) * s;
        }
        core.push((s.unsigned_abs(), n, core.len()));
    }
    let mut rest = usize::try_from(start).ok()?;
    core.sort_unstable_by_key(|c| std::cmp::Reverse(c.0));
    let mut block = base.numel();
    let (mut factors, mut slices) = (Shape::new(), Vec::new());
    for (k, &(stride, n, _)) in core.iter().enumerate() {
        if k + 1 == core.len() {
            // The last may have any step.
            if rest + (n - 1) * stride >= block {
                return None;
            }
            factors.push(block);
            slices.push((rest, n, stride));
        } else {
            if !block.is_multiple_of(stride) || rest / stride + n > block / stride {
                return None;
            }
            factors.push(block / stride);
            slices.push((rest / stride, n, 1));
            (rest, block) = (rest % stride, stride);
        }
    }
    if core.is_empty() {
        factors.push(block);
        slices.push((rest, 1, 1));
    }
    let mut perm: Axes = (0..core.len()).collect();
    for (k, &(_, _, place)) in core.iter().enumerate() {
        perm[place] = k;
    }
    Some(Cut { factors, slices, perm, flipped, narrow })
}

/// Where each element of the view lies in its base, counted in row-major order;
/// `None` where one lies outside.
fn places(base: &Array, view: &Array) -> Option<Tensor> {
    let size = base.dtype().size();
    let (b, v) = (base.byte_range(), view.byte_range());
    let end = b.end.max(v.end) / size;
    let low = if v.is_empty() { b.start } else { b.start.min(v.start) } / size;
    let made = || -> Result<Array, sinter_runtime::OpError> {
        let shape: Shape = [base.numel()].as_slice().into();
        let count = eager::run1(&Op::Iota { dtype: DType::I64, axis: 0, shape }, &[])?;
        let span = [end.saturating_sub(low)];
        let all = Array::from_slice(&vec![-1i64; span[0]], &span)?;
        if base.numel() > 0 {
            let own = all.as_strided(base.shape(), base.strides(), base.offset() - low)?;
            let counted = count.view(base.shape()).expect("a count is dense");
            eager::copy_into(&counted, &own);
        }
        if view.numel() == 0 {
            return Array::from_slice::<i64>(&[], &[0]);
        }
        let seen = all.as_strided(view.shape(), view.strides(), view.offset() - low)?;
        Ok(eager::dense(&seen)?.view(&[view.numel()]).expect("dense"))
    };
    let index = made().unwrap_or_else(|e| panic!("{e}"));
    let outside = index.to_vec::<i64>().contains(&-1);
    (!outside).then(|| Tensor::from_array(index))
}

fn route(base: &Array, view: &Array) -> Option<Route> {
    match cut(base, view) {
        Some(c) => Some(Route::Cut(c)),
        None => places(base, view).map(Route::Places),
    }
}

/// Whether a view shows elements of its base alone.
pub(crate) fn lies_within(base: &Array, view: &Array) -> bool {
    if base.is_contiguous() {
        let (b, v) = (base.byte_range(), view.byte_range());
        return v.is_empty() || b.start <= v.start && v.end <= b.end;
    }
    let (base, view) = alike(base, view);
    base.is_same_view(&view) || route(&base, &view).is_some()
}

/// The two arrays in one type: complex numbers as pairs of parts where the other has
/// parts.
fn alike(base: &Array, view: &Array) -> (Array, Array) {
    match (base.dtype().is_complex(), view.dtype().is_complex()) {
        (true, false) => (parts(base), view.clone()),
        (false, true) => (base.clone(), parts(view)),
        _ => (base.clone(), view.clone()),
    }
}

fn parts(a: &Array) -> Array {
    eager::run1(&Op::ViewAsReal {}, &[a]).expect("complex numbers have parts")
}

/// An edge, and the type of the value it leads to.
struct Line {
    edge: Edge,
    ty: TensorType,
    location: &'static Location<'static>,
}

impl Line {
    fn new(
        edge: Edge,
        dtype: DType,
        shape: &[usize],
        location: &'static Location<'static>,
    ) -> Line {
        Line { edge, ty: TensorType { dtype, shape: shape.into() }, location }
    }

    fn then(&self, op: Op, shape: &[usize]) -> Line {
        let edge = moving(op, &[(self.edge.clone(), self.ty.clone())], None, self.location);
        Line::new(edge, self.ty.dtype, shape, self.location)
    }

    /// The same memory as `a`: between complex numbers and their parts, if need be.
    fn in_type_of(self, a: &Array) -> Line {
        let op = match (self.ty.dtype.is_complex(), a.dtype().is_complex()) {
            (true, false) => Op::ViewAsReal {},
            (false, true) => Op::ViewAsComplex {},
            _ => return self,
        };
        Line { ty: TensorType { dtype: a.dtype(), shape: a.shape().into() }, ..self.then(op, &[]) }
    }

    fn reshape(self, shape: &[usize]) -> Line {
        if self.ty.shape.as_slice() == shape {
            return self;
        }
        self.then(Op::Reshape { shape: shape.into() }, shape)
    }

    fn permute(self, perm: &[usize]) -> Line {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return self;
        }
        let shape: Shape = perm.iter().map(|&p| self.ty.shape[p]).collect();
        self.then(Op::Permute { perm: perm.into() }, &shape)
    }

    fn flip(self, axes: &[usize]) -> Line {
        if axes.is_empty() {
            return self;
        }
        let shape = self.ty.shape.clone();
        self.then(Op::Flip { axes: axes.into() }, &shape)
    }

    fn slice(&self, axis: usize, (start, len, step): (usize, usize, usize)) -> Line {
        let mut shape = self.ty.shape.clone();
        shape[axis] = len;
        self.then(Op::Slice { axis, start, len, step }, &shape)
    }

    /// This value with one slice replaced.
    fn assign(&self, axis: usize, start: usize, step: usize, values: &Line) -> Line {
        let operands =
            [(self.edge.clone(), self.ty.clone()), (values.edge.clone(), values.ty.clone())];
        let edge = moving(Op::SliceAssign { axis, start, step }, &operands, None, self.location);
        Line::new(edge, self.ty.dtype, &self.ty.shape, self.location)
    }
}

impl Cut {
    /// Whether the slice along dimension `k` leaves nothing out.
    fn whole(&self, k: usize) -> bool {
        self.slices[k] == (0, self.factors[k], 1)
    }

    /// The core's shape, in the order of memory.
    fn sliced(&self) -> Shape {
        self.slices.iter().map(|s| s.1).collect()
    }

    fn core(&self) -> Shape {
        if self.perm.is_empty() {
            return self.sliced();
        }
        let sliced = self.sliced();
        self.perm.iter().map(|&p| sliced[p]).collect()
    }
}

/// The history of a view, from that of its base.
pub(crate) fn read(
    history: Edge,
    base: &Array,
    view: &Array,
    location: &'static Location<'static>,
) -> Option<Edge> {
    let (b, v) = alike(base, view);
    let start = Line::new(history, base.dtype(), base.shape(), location).in_type_of(&b);
    let line = match route(&b, &v)? {
        Route::Cut(c) => {
            let mut line = start.reshape(&c.factors);
            for k in 0..c.slices.len() {
                if !c.whole(k) {
                    line = line.slice(k, c.slices[k]);
                }
            }
            let line = line.permute(&c.perm).flip(&c.flipped).reshape(&c.narrow);
            if c.narrow.as_slice() == v.shape() {
                line
            } else {
                line.then(Op::Broadcast { shape: v.shape().into() }, v.shape())
            }
        }
        Route::Places(index) => {
            let flat = start.reshape(&[b.numel()]);
            let ty = TensorType { dtype: DType::I64, shape: index.shape().into() };
            let operands = [(flat.edge.clone(), flat.ty.clone()), (Edge::None, ty)];
            let edge = moving(Op::IndexSelect { axis: 0 }, &operands, Some(&index), location);
            Line::new(edge, b.dtype(), index.shape(), location).reshape(v.shape())
        }
    };
    Some(line.in_type_of(view).edge)
}

/// The history of a base, from its old one and the new history of a view that no two
/// indices of reach one element.
pub(crate) fn write(
    history: Edge,
    base: &Array,
    new: Edge,
    view: &Array,
    location: &'static Location<'static>,
) -> Option<Edge> {
    let (b, v) = alike(base, view);
    let start = Line::new(history, base.dtype(), base.shape(), location).in_type_of(&b);
    let new = Line::new(new, view.dtype(), view.shape(), location).in_type_of(&v);
    let line = match route(&b, &v)? {
        Route::Cut(c) => {
            let mut inverse: Axes = c.perm.clone();
            for (i, &p) in c.perm.iter().enumerate() {
                inverse[p] = i;
            }
            let mut line = new.reshape(&c.core()).flip(&c.flipped).permute(&inverse);
            // The old values around each slice.
            let cuts: Vec<usize> = (0..c.slices.len()).filter(|&k| !c.whole(k)).collect();
            if !cuts.is_empty() {
                let mut around = vec![start.reshape(&c.factors)];
                for &k in &cuts[..cuts.len() - 1] {
                    let next = around[around.len() - 1].slice(k, c.slices[k]);
                    around.push(next);
                }
                for (&k, old) in cuts.iter().zip(&around).rev() {
                    line = old.assign(k, c.slices[k].0, c.slices[k].2, &line);
                }
            }
            line
        }
        Route::Places(index) => {
            let n = index.numel();
            let (flat, new) = (start.reshape(&[b.numel()]), new.reshape(&[n]));
            let ty = TensorType { dtype: DType::I64, shape: index.shape().into() };
            let operands = [(flat.edge, flat.ty.clone()), (Edge::None, ty), (new.edge, new.ty)];
            let op = Op::Scatter { axis: 0, kind: ScatterKind::Set };
            let edge = moving(op, &operands, Some(&index), location);
            Line::new(edge, b.dtype(), &[b.numel()], location)
        }
    };
    Some(line.reshape(b.shape()).in_type_of(base).edge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the nodes of [`read`] and [`write`] stand for, computed.
    fn read_values(base: &Array, view: &Array) -> Vec<i64> {
        let x = Tensor::from_array(base.clone()).copy();
        match route(base, view).expect("it lies inside") {
            Route::Cut(c) => {
                let mut x = x.reshape(c.factors.as_slice());
                for (k, &(start, len, step)) in c.slices.iter().enumerate() {
                    x = crate::tensor::apply(Op::Slice { axis: k, start, len, step }, &[&x]);
                }
                let x = if c.perm.is_empty() { x } else { x.permute(c.perm.as_slice()) };
                x.flip(c.flipped.as_slice())
                    .reshape(c.narrow.as_slice())
                    .broadcast_to(view.shape())
                    .to_vec()
            }
            Route::Places(i) => x.reshape([-1]).index_select(0, &i).to_vec(),
        }
    }

    fn numbers(shape: &[usize]) -> Array {
        let v: Vec<i64> = (0..shape.iter().product::<usize>() as i64).collect();
        Array::from_slice(&v, shape).unwrap()
    }

    #[test]
    fn common_views_are_cuts() {
        let base = numbers(&[4, 6, 5]);
        let views = [
            base.slice(0, 2, 1, 1),
            base.slice(2, 3, 1, 1),
            base.slice(1, 1, 4, 1),
            base.slice(2, 0, 3, 2),
            base.permute(&[2, 0, 1]),
            base.slice(1, 0, 2, 1).permute(&[1, 2, 0]).flip(&[0, 2]),
            base.view(&[2, 2, 30]).unwrap().slice(1, 1, 1, 1),
            base.slice(0, 0, 1, 1).broadcast_to(&[3, 6, 5]).unwrap(),
        ];
        for v in &views {
            assert!(cut(&base, v).is_some(), "{:?} {:?}", v.shape(), v.strides());
            assert_eq!(read_values(&base, v), v.to_vec::<i64>());
        }
        // A step that divides nothing, inside another dimension.
        let odd = base.slice(1, 0, 3, 2).slice(2, 0, 2, 2);
        assert_eq!(read_values(&base, &odd), odd.to_vec::<i64>());
    }

    proptest! {
        #[test]
        fn a_route_leads_to_the_elements(
            shape in proptest::collection::vec(1usize..5, 0..4),
            steps in proptest::collection::vec((0usize..5, 0usize..5, 1usize..3, 0usize..4), 0..5),
            dense in proptest::bool::ANY,
        ) {
            let base = numbers(&shape);
            let base = if dense || shape.is_empty() { base } else {
                base.permute(&(0..shape.len()).rev().collect::<Vec<_>>())
            };
            let mut v = base.clone();
            for (a, b, step, kind) in steps {
                if v.rank() == 0 || v.numel() == 0 { break; }
                let axis = a % v.rank();
                let n = v.shape()[axis];
                v = match kind {
                    0 => { let start = b % n; v.slice(axis, start, (n - start).div_ceil(step), step) }
                    1 => v.flip(&[axis]),
                    2 => {
                        let mut p: Vec<usize> = (0..v.rank()).collect();
                        p.swap(axis, b % v.rank());
                        v.permute(&p)
                    }
                    _ if n == 1 => {
                        let mut s = v.shape().to_vec();
                        s[axis] = 2;
                        v.broadcast_to(&s).unwrap()
                    }
                    _ => v.slice(axis, b % n, 1, 1),
                };
            }
            prop_assert_eq!(read_values(&base, &v), v.to_vec::<i64>());
        }
    }
}
