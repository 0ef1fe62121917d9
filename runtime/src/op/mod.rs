//! The op vocabulary: one enum that the eager runtime, autograd, tracing, the
//! rewriter, the code generators and the importers all interpret.
//!
//! *Primitives* have a kernel and stand for themselves. *Composites* have one
//! decomposition into primitives ([`decompose`]) and may have a kernel of their
//! own where that pays. Each op has one shape-and-type rule ([`infer`]), written
//! over [`Extent`] so that it serves tensors that exist and graphs with symbolic
//! sizes alike.

mod attr;
pub mod complex;
mod decompose;
mod infer;
mod kinds;
mod pointwise;
mod special;

pub use attr::{Attr, AttrReader};
pub use decompose::{Build, attention_grad, decompose};
pub use infer::{
    TensorType, TypeRef, broadcast_shapes, check_view, infer, infer_first, view_dtype,
};
pub use kinds::{
    Act, ArgKind, CellKind, PoolKind, RandomKind, Real, ReduceKind, SampleKind, ScanKind,
    ScatterKind,
};
pub use pointwise::{BinaryDomain, BinaryOp, CompareOp, Domain, Kernel32, UnaryOp};

use crate::dim::{Dim, Dims, Extent};
use crate::dtype::{DType, Scalar};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A list of axes: dimensions counted from the front.
pub type Axes = SmallVec<[usize; 5]>;

/// Declares the vocabulary: name, attributes of a type that implements [`Attr`],
/// then attributes that are a whole shape (`dims`) or one extent (`dim`).
macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal
        { $($field:ident : $t:ty),* $(,)? }
        $(dims { $($dims:ident),* })?
        $(dim { $($dim:ident),* })?;
    )*) => {
        /// An op with its attributes. `D` is the type of extents: `usize` where
        /// tensors exist, [`Dim`] in graphs.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[allow(missing_docs)] // fields are described with their op
        pub enum Op<D = usize> {
            /// `f(x)`, element by element.
            Unary(UnaryOp),
            /// `f(a, b)`, element by element; the operands broadcast.
            Binary(BinaryOp),
            /// A comparison, element by element; the operands broadcast.
            Compare(CompareOp),
            $($(#[$doc])* $op {
                $($field: $t,)*
                $($($dims: Dims<D>,)*)?
                $($($dim: D,)*)?
            },)*
        }

        impl<D> Op<D> {
            /// The name of every op.
            pub fn names() -> impl Iterator<Item = &'static str> {
                let unary = UnaryOp::ALL.iter().map(|o| o.name());
                let binary = BinaryOp::ALL.iter().map(|o| o.name());
                let compare = CompareOp::ALL.iter().map(|o| o.name());
                unary.chain(binary).chain(compare).chain([$($name),*])
            }

            /// The op's name in messages and graphs.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Unary(u) => u.name(),
                    Op::Binary(b) => b.name(),
                    Op::Compare(c) => c.name(),
                    $(Op::$op { .. } => $name,)*
                }
            }
        }

        impl<D: Extent> Op<D> {
            /// The same op with every extent mapped; `None` when `f` gives `None`.
            pub fn map_dims<E>(&self, f: &mut dyn FnMut(&D) -> Option<E>) -> Option<Op<E>> {
                Some(match self {
                    Op::Unary(u) => Op::Unary(*u),
                    Op::Binary(b) => Op::Binary(*b),
                    Op::Compare(c) => Op::Compare(*c),
                    $(Op::$op { $($field,)* $($($dims,)*)? $($($dim,)*)? } => Op::$op {
                        $($field: $field.clone(),)*
                        $($($dims: $dims.iter().map(&mut *f).collect::<Option<_>>()?,)*)?
                        $($($dim: f($dim)?,)*)?
                    },)*
                })
            }

            /// `name[key=value, …]`, with the graph's names for symbols.
            pub fn text(&self, names: &[String]) -> String {
                let attrs: Vec<String> = match self {
                    Op::Unary(_) | Op::Binary(_) | Op::Compare(_) => vec![],
                    $(Op::$op { $($field,)* $($($dims,)*)? $($($dim,)*)? } => vec![
                        $(format!("{}={}", stringify!($field), Attr::print($field)),)*
                        $($(format!("{}={}", stringify!($dims), attr::print_dims($dims, names)),)*)?
                        $($(format!("{}={}", stringify!($dim), $dim.show(names)),)*)?
                    ],)*
                };
                if attrs.is_empty() {
                    self.name().to_string()
                } else {
                    format!("{}[{}]", self.name(), attrs.join(", "))
                }
            }
        }

        impl Op<Dim> {
            /// Parses what [`Op::text`] prints.
            pub fn parse(text: &str, names: &[String]) -> Result<Op<Dim>, String> {
                let (name, attrs) = match text.split_once('[') {
                    None => (text, ""),
                    Some((n, rest)) => {
                        (n, rest.strip_suffix(']').ok_or_else(|| format!("`{text}` lacks `]`"))?)
                    }
                };
                #[allow(unused_mut)]
                let mut r = AttrReader::new(attrs, names)?;
                let op = if let Some(u) = UnaryOp::ALL.iter().find(|o| o.name() == name) {
                    Op::Unary(*u)
                } else if let Some(b) = BinaryOp::ALL.iter().find(|o| o.name() == name) {
                    Op::Binary(*b)
                } else if let Some(c) = CompareOp::ALL.iter().find(|o| o.name() == name) {
                    Op::Compare(*c)
                } else {
                    match name {
                        $($name => Op::$op {
                            $($field: r.attr::<$t>(stringify!($field))?,)*
                            $($($dims: r.dims(stringify!($dims))?,)*)?
                            $($($dim: r.dim(stringify!($dim))?,)*)?
                        },)*
                        _ => return Err(format!("unknown op `{name}`")),
                    }
                };
                r.finish()?;
                Ok(op)
            }
        }
    };
}

ops! {
    // ---------------------------------------------------------- sources
    /// An array filled with `value`. No operands.
    Full = "full" { value: Scalar, dtype: DType } dims { shape };
    /// The index along `axis`, as a number of type `dtype`. No operands.
    Iota = "iota" { dtype: DType, axis: usize } dims { shape };
    /// Random numbers: draw `offset` and those after it of the Philox stream
    /// `seed`. No operands, or `(place)`: two i64 that are added to `seed` and `offset`,
    /// so that a compiled program draws other numbers each time.
    Random = "random" { kind: RandomKind, dtype: DType, seed: u64, offset: u64 } dims { shape };

    /// A random number for each element of the parameters, which have one shape: number i
    /// from counter `offset + i` of the Philox stream `seed`.
    Sample = "sample" { kind: SampleKind, seed: u64, offset: u64 };

    // ---------------------------------------------------------- element by element
    /// `(cond, a, b)`: `a` where `cond`, else `b`; the operands broadcast.
    Select = "select" {};
    /// The operand's values in type `dtype`.
    Cast = "cast" { dtype: DType };

    // ---------------------------------------------------------- along axes
    /// Reduces `axes`, which stay as ones when `keep`.
    Reduce = "reduce" { kind: ReduceKind, axes: Axes, keep: bool };
    /// The i64 index, along `axis`, of the extreme.
    ArgReduce = "arg_reduce" { kind: ArgKind, axis: usize, keep: bool };
    /// Accumulates along `axis`, from the end when `reverse`. A running extreme has
    /// the i64 indices as its second result.
    Scan = "scan" { kind: ScanKind, axis: usize, reverse: bool };
    /// Sorted along `axis`, equals in their old order: values and i64 indices.
    Sort = "sort" { axis: usize, descending: bool };
    /// The `k` largest (or smallest) along `axis`, in order: values and i64 indices.
    TopK = "topk" { k: usize, axis: usize, largest: bool };
    /// `(sorted, values)`: the i64 place in the line of `sorted` at which each value
    /// could be inserted: the first, or the last when `right`. Lines are the last axis;
    /// one line serves values of any shape.
    SearchSorted = "searchsorted" { right: bool };

    // ---------------------------------------------------------- layout
    /// The same elements, in row-major order, in another shape.
    Reshape = "reshape" {} dims { shape };
    /// Dimension `i` of the result is dimension `perm[i]` of the operand.
    Permute = "permute" { perm: Axes };
    /// Repeated to a larger shape, aligned at the last dimension.
    Broadcast = "broadcast" {} dims { shape };
    /// `len` elements of `axis` from `start` on, `step` apart.
    Slice = "slice" { axis: usize, step: usize } dim { start, len };
    /// `(base, values)`: `base` with the slice of `axis` that starts at `start`,
    /// `step` apart, replaced by `values`.
    SliceAssign = "slice_assign" { axis: usize, step: usize } dim { start };
    /// The parts of complex numbers along a further last dimension of extent 2.
    ViewAsReal = "view_as_real" {};
    /// Pairs along the last dimension, of extent 2, as complex numbers.
    ViewAsComplex = "view_as_complex" {};
    /// The elements of `axis1` and `axis2` that begin at `row` and `col` and go on by
    /// one in both, `len` of them, as a new last dimension.
    Diagonal = "diagonal" { axis1: usize, axis2: usize, row: usize, col: usize } dim { len };
    /// `count` windows of `size` elements of `axis`, `step` apart; the elements of a
    /// window are a new last dimension.
    Unfold = "unfold" { axis: usize, size: usize, step: usize } dim { count };
    /// The elements, in row-major order, at `offset` plus the index times `strides`.
    AsStrided = "as_strided" {} dims { shape, strides } dim { offset };
    /// Reversed along `axes`.
    Flip = "flip" { axes: Axes };
    /// `value` added around: `low[i]` elements before, `high[i]` after dimension `i`.
    Pad = "pad" { low: Axes, high: Axes, value: Scalar };
    /// Any number of operands joined along `axis`.
    Concat = "concat" { axis: usize };

    // ---------------------------------------------------------- by index
    /// `(x, index)`: element `index[i]` along `axis` for each `i`; the other
    /// coordinates are those of `i`.
    Gather = "gather" { axis: usize };
    /// `(base, index, values)`: the converse of gather, on a copy of `base`.
    Scatter = "scatter" { axis: usize, kind: ScatterKind };
    /// `(x, index)`: the slabs of `axis` with a 1-d `index`.
    IndexSelect = "index_select" { axis: usize };
    /// `(base, index, values)`: `values`' slabs added to those of `base`.
    IndexAdd = "index_add" { axis: usize };

    // ---------------------------------------------------------- contractions
    /// `(a, b)` or `(a, b, bias)`: `act(a b + bias)` over the last two
    /// dimensions; leading ones broadcast; `bias` has the result's last extent.
    MatMul = "matmul" { act: Act };
    /// `(x, w)` or `(x, w, bias)`: 2-d cross-correlation, `x` [N, C, H, W], `w`
    /// [O, C / groups, KH, KW], `bias` `[O]`, then `act`.
    Conv = "conv2d" { stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize, act: Act };
    /// `(gy, w)`: the derivative of [`Op::Conv`] by its input of `height` × `width`.
    ConvInputGrad = "conv2d_input_grad" { stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize } dim { height, width };
    /// `(x, gy)`: the derivative of [`Op::Conv`] by its weight of extent `kernel`.
    ConvWeightGrad = "conv2d_weight_grad" { stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize, kernel: [usize; 2] };
    /// 2-d pooling of [N, C, H, W]. `ceil` keeps windows that start inside the
    /// input and end outside.
    Pool = "pool2d" { kind: PoolKind, window: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], ceil: bool };
    /// `(x, gy)`: the derivative of [`Op::Pool`] by its input.
    PoolGrad = "pool2d_grad" { kind: PoolKind, window: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], ceil: bool };

    // ---------------------------------------------------------- sequences
    /// `(gates, w, h0)`, with `c0` of an LSTM, or the bias `[H]` within the reset gate of
    /// a GRU, which may lack: a recurrent sequence of `gates` [T, N, G H], what the inputs
    /// contribute, `w` [G H, H] and states [N, H]; from the last step when `reverse`. The
    /// states [T, N, H]; of an LSTM the cells as well; and when `keep`, of those with
    /// gates, the values of the gates, [T, N, 4 H], of a GRU with `w h + b` of the last.
    Recurrent = "recurrent" { kind: CellKind, reverse: bool, keep: bool };
    /// The derivative of [`Op::Recurrent`] from what it kept: `(w, y, gy)`;
    /// `(w, y, gy, h0, kept)` and perhaps the gradient of what was kept; of an LSTM
    /// `(w, c, gy, c0, kept)` and perhaps the gradients of the cells and of what was kept.
    /// By `gates`; of a GRU by `w h`; by `h0`; of an LSTM by `c0`.
    RecurrentGrad = "recurrent_grad" { kind: CellKind, reverse: bool };

    // ---------------------------------------------------------- linear algebra, Fourier
    // Matrices are the last two dimensions. Compiled programs hold none of these.
    /// The lower triangular `l` with `x = l lᴴ`, from the lower triangle of `x`; and,
    /// as i32, 0 or the order of the first leading minor that is not positive.
    Cholesky = "cholesky" {};
    /// The factors of `x = p l u` in one matrix, and the rows that were exchanged, in
    /// order, as i32 that count from 1.
    Lu = "lu" {};
    /// `x = q r`; with as many columns of `q` as rows when `full`.
    Qr = "qr" { full: bool };
    /// `x = u diag(s) vh`; with all singular vectors when `full`.
    Svd = "svd" { full: bool };
    /// `x = v diag(w) vᴴ`, from the lower triangle of `x`: `w` and `v`.
    Eigh = "eigh" {};
    /// `x v = v diag(w)`: complex eigenvalues `w` and eigenvectors `v` of any matrix.
    Eig = "eig" {};
    /// `(a, b)`: the solution of `a x = b`, from one triangle of `a`; with ones on its
    /// diagonal when `unit`. The batch dimensions are equal.
    TriangularSolve = "triangular_solve" { upper: bool, unit: bool };
    /// `y[k] = Σ x[j] e^(-2πi jk/n)` along `axis`, of complex numbers; the other sign when
    /// `inverse`, and nothing is divided.
    Fft = "fft" { axis: usize, inverse: bool };

    // ---------------------------------------------------------- composites
    /// `e^x / sum(e^x)` along `axis`, or its logarithm when `log`.
    Softmax = "softmax" { axis: usize, log: bool };
    /// `(y, gy)`: the derivative of [`Op::Softmax`], from its result `y`.
    SoftmaxGrad = "softmax_grad" { axis: usize, log: bool };
    /// `(x)`, `(x, weight)` or `(x, weight, bias)`: normalised over the last
    /// `dims` dimensions.
    LayerNorm = "layer_norm" { dims: usize, eps: Real };
    /// `(x, gy)` or `(x, gy, weight)`: the derivative of [`Op::LayerNorm`] by `x`.
    LayerNormGrad = "layer_norm_grad" { dims: usize, eps: Real };
    /// `(q, k, v)` or `(q, k, v, mask)`: softmax(scale q kᵀ + mask) v over the
    /// last two dimensions; `causal` hides later keys.
    Attention = "attention" { scale: Real, causal: bool };
    /// `(q, k, v, gy)` or `(q, k, v, gy, mask)`: the derivatives of [`Op::Attention`] by
    /// `q`, `k` and `v`, from its operands and the derivative `gy` by its result.
    AttentionGrad = "attention_grad" { scale: Real, causal: bool };
    /// `(x)` or `(x, place)`: zero with probability `p`, else divided by `1 - p`; the
    /// same mask for the same `seed` and `offset`, to which `place` is added as in
    /// [`Op::Random`].
    Dropout = "dropout" { p: Real, seed: u64, offset: u64 };
}

impl<D> Op<D> {
    /// How many results the op has.
    pub fn outputs(&self) -> usize {
        match self {
            Op::Sort { .. }
            | Op::TopK { .. }
            | Op::Scan { kind: ScanKind::Max | ScanKind::Min, .. } => 2,
            Op::Cholesky {} | Op::Lu {} | Op::Qr { .. } | Op::Eigh {} | Op::Eig {} => 2,
            Op::Svd { .. } | Op::AttentionGrad { .. } => 3,
            Op::Recurrent { kind, keep, .. } => {
                1 + usize::from(*kind == CellKind::Lstm) + usize::from(*keep && kind.is_gated())
            }
            Op::RecurrentGrad { kind, .. } => 2 + usize::from(kind.is_gated()),
            _ => 1,
        }
    }

    /// How many operands the op takes, least and most.
    pub fn arity(&self) -> (usize, usize) {
        match self {
            Op::Full { .. } | Op::Iota { .. } => (0, 0),
            Op::Random { .. } => (0, 1),
            Op::Dropout { .. } => (1, 2),
            Op::Binary(_) | Op::Compare(_) => (2, 2),
            Op::Sample { kind: SampleKind::Binomial, .. } => (2, 2),
            Op::Select {} | Op::Scatter { .. } | Op::IndexAdd { .. } => (3, 3),
            Op::SliceAssign { .. }
            | Op::SearchSorted { .. }
            | Op::Gather { .. }
            | Op::IndexSelect { .. }
            | Op::ConvInputGrad { .. }
            | Op::ConvWeightGrad { .. }
            | Op::PoolGrad { .. }
            | Op::TriangularSolve { .. }
            | Op::SoftmaxGrad { .. } => (2, 2),
            Op::MatMul { .. } | Op::Conv { .. } | Op::LayerNormGrad { .. } => (2, 3),
            Op::LayerNorm { .. } => (1, 3),
            Op::Attention { .. } => (3, 4),
            Op::AttentionGrad { .. } => (4, 5),
            Op::Recurrent { kind, .. } => match kind {
                CellKind::Lstm => (4, 4),
                CellKind::Gru => (3, 4),
                CellKind::Tanh | CellKind::Relu => (3, 3),
            },
            Op::RecurrentGrad { kind, .. } => match kind {
                CellKind::Lstm => (5, 7),
                CellKind::Gru => (5, 6),
                CellKind::Tanh | CellKind::Relu => (3, 3),
            },
            Op::Concat { .. } => (1, usize::MAX),
            _ => (1, 1),
        }
    }

    /// Whether each element of the result depends on the elements at its own
    /// place alone (the operands broadcast).
    pub fn is_pointwise(&self) -> bool {
        matches!(
            self,
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select {} | Op::Cast { .. }
        )
    }

    /// Whether the op only moves elements, or makes them from nothing: it takes every
    /// type as it is. All others compute, some types in another one
    /// ([`DType::computed_in`]), complex numbers in their parts ([`complex`]).
    pub fn moves(&self) -> bool {
        self.is_view()
            || matches!(
                self,
                Op::Full { .. }
                    | Op::Select {}
                    | Op::SliceAssign { .. }
                    | Op::Pad { .. }
                    | Op::Concat { .. }
                    | Op::Gather { .. }
                    | Op::IndexSelect { .. }
                    | Op::Scatter { kind: ScatterKind::Set, .. }
            )
    }

    /// Whether its kernels stand on other libraries, which take complex numbers, too:
    /// factorisations and Fourier transforms.
    pub fn is_linalg(&self) -> bool {
        matches!(
            self,
            Op::Cholesky {}
                | Op::Lu {}
                | Op::Qr { .. }
                | Op::Svd { .. }
                | Op::Eigh {}
                | Op::Eig {}
                | Op::TriangularSolve { .. }
                | Op::Fft { .. }
        )
    }

    /// Why the op cannot be part of a compiled program; `None` for those that can.
    pub fn eager_only(&self) -> Option<&'static str> {
        if self.is_linalg() {
            return Some(
                "the kernels of factorisations and Fourier transforms are not linked into compiled programs",
            );
        }
        if let Op::Sample { .. } = self {
            return Some("compiled programs draw uniform and normal numbers alone");
        }
        None
    }

    /// Whether the result is the first operand with some elements changed.
    pub fn changes_first(&self) -> bool {
        matches!(self, Op::SliceAssign { .. } | Op::Scatter { .. } | Op::IndexAdd { .. })
    }

    /// Whether the result can be a view of the first operand.
    pub fn is_view(&self) -> bool {
        matches!(
            self,
            Op::Reshape { .. }
                | Op::Permute { .. }
                | Op::Broadcast { .. }
                | Op::Slice { .. }
                | Op::Diagonal { .. }
                | Op::Unfold { .. }
                | Op::AsStrided { .. }
                | Op::Flip { .. }
                | Op::ViewAsReal {}
                | Op::ViewAsComplex {}
        )
    }
}

impl Op<Dim> {
    /// The op for given sizes of the symbols.
    pub fn eval(&self, sizes: &[usize]) -> Option<Op> {
        self.map_dims(&mut |d| d.eval(sizes))
    }
}

impl Op {
    /// The op as it stands in a graph.
    pub fn to_graph(&self) -> Op<Dim> {
        self.map_dims(&mut |&d| Some(Dim::of(d))).expect("every number is an extent")
    }
}

impl<D: Extent> std::fmt::Display for Op<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(&[]))
    }
}

#[cfg(test)]
mod tests;
