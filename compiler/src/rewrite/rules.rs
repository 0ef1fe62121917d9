//! The rewrite rules.
//!
//! After Cranelift's discipline: each rule points one way, its right side is
//! never worse, and there is no blanket commutativity or associativity (where an
//! operand may stand on either side, the rule is listed for both). Each has a name
//! by which it can be switched off, says what it preserves, and carries examples
//! on which a test runs both sides and compares ([`super::proof`]).

use super::attention;
use super::examples::*;
use super::lang::{ENode, Facts, Graph, Head, dims};
use egg::{Id, Subst, Var};
use sinter_runtime::op::{Act, BinaryOp, PoolKind, ReduceKind, UnaryOp};
use sinter_runtime::{Dim, Dims, Extent, Op, Scalar};
use smallvec::SmallVec;

/// What a rule preserves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Preserves {
    /// Every bit of the result.
    Exact,
    /// The result up to the order of roundings.
    Reassociating,
    /// The result up to a stated approximation.
    Approximating,
}

impl Preserves {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Preserves::Exact => "exact",
            Preserves::Reassociating => "reassociating",
            Preserves::Approximating => "approximating",
        }
    }
}

/// Makes the right side where more than a pattern is needed: given the variables'
/// classes, the class that equals the left side, or `None` where the rule does
/// not apply after all.
pub type Make = fn(&mut Rewriter<'_>) -> Option<Id>;

/// The right side of a rule.
#[derive(Clone, Copy)]
pub enum Right {
    /// A pattern of ops without attributes.
    Pattern(&'static str),
    /// Code.
    Make(Make),
}

/// A rewrite rule.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it preserves.
    pub preserves: Preserves,
    /// The pattern it looks for.
    pub left: &'static str,
    /// What it adds.
    pub right: Right,
    /// Graphs, in text, on which it applies: the proof runs both sides.
    pub examples: &'static [&'static str],
}

/// The e-graph while a rule is applied.
pub struct Rewriter<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) subst: &'a Subst,
    /// The class the left side matched.
    pub root: Id,
}

impl Rewriter<'_> {
    /// The class a variable of the pattern stands for.
    pub fn var(&self, name: &str) -> Id {
        let v: Var = name.parse().expect("rules name their variables with a question mark");
        self.subst[v]
    }

    /// What is known of a class.
    pub fn facts(&self, id: Id) -> &Facts {
        &self.graph[id].data
    }

    /// The shape of a class's (first) value.
    pub fn shape(&self, id: Id) -> &[Dim] {
        &self.facts(id).types[0].shape
    }

    /// The first member of a class that is the op wanted: its attributes and operands.
    pub fn find<T>(
        &self,
        id: Id,
        want: impl Fn(&Op<Dim>) -> Option<T>,
    ) -> Option<(T, SmallVec<[Id; 3]>)> {
        self.graph[id].nodes.iter().find_map(|n| match &n.head {
            Head::Op(op) => want(op).map(|t| (t, n.children.clone())),
            _ => None,
        })
    }

    /// Adds an op; `None` when its operands break its rule.
    pub fn add(&mut self, op: Op<Dim>, children: &[Id]) -> Option<Id> {
        let fits = {
            let refs: SmallVec<[_; 3]> =
                children.iter().map(|c| self.graph[*c].data.types[0].as_ref()).collect();
            sinter_runtime::op::infer(&op, &refs).is_ok()
        };
        fits.then(|| self.graph.add(ENode::op(op, children)))
    }

    fn binary(&mut self, op: BinaryOp, a: Id, b: Id) -> Option<Id> {
        self.add(Op::Binary(op), &[a, b])
    }

    fn reshape(&mut self, x: Id, shape: Dims<Dim>) -> Option<Id> {
        if self.shape(x) == shape.as_slice() {
            return Some(x);
        }
        self.add(Op::Reshape { shape }, &[x])
    }
}

macro_rules! rules {
    ($($name:literal $preserves:ident: $left:literal => $right:expr, $examples:expr;)*) => {
        &[$(Rule {
            name: $name,
            preserves: Preserves::$preserves,
            left: $left,
            right: $right,
            examples: $examples,
        }),*]
    };
}

use Right::{Make as M, Pattern as P};

/// Every rule, in the order in which reports list them.
pub const RULES: &[Rule] = rules! {
    // ------------------------------------------------------------ algebra
    "mul-one" Exact: "(mul ?x 1.0)" => P("?x"), &[SCALAR_RIGHT_MUL_ONE];
    "one-mul" Exact: "(mul 1.0 ?x)" => P("?x"), &[SCALAR_LEFT_MUL_ONE];
    "div-one" Exact: "(div ?x 1.0)" => P("?x"), &[SCALAR_RIGHT_DIV_ONE];
    "sub-zero" Exact: "(sub ?x 0.0)" => P("?x"), &[SCALAR_RIGHT_SUB_ZERO];
    "add-zero" Reassociating: "(add ?x 0.0)" => P("?x"), &[SCALAR_RIGHT_ADD_ZERO];
    "zero-add" Reassociating: "(add 0.0 ?x)" => P("?x"), &[SCALAR_LEFT_ADD_ZERO];
    "neg-neg" Exact: "(neg (neg ?x))" => P("?x"), &[NEG_NEG];
    "add-neg" Exact: "(add ?x (neg ?y))" => P("(sub ?x ?y)"), &[ADD_NEG];
    "sub-neg" Exact: "(sub ?x (neg ?y))" => P("(add ?x ?y)"), &[SUB_NEG];
    "relu-relu" Exact: "(relu (relu ?x))" => P("(relu ?x)"), &[RELU_RELU];
    "abs-abs" Exact: "(abs (abs ?x))" => P("(abs ?x)"), &[ABS_ABS];
    "abs-neg" Exact: "(abs (neg ?x))" => P("(abs ?x)"), &[ABS_NEG];
    "mul-self" Exact: "(mul ?x ?x)" => P("(square ?x)"), &[MUL_SELF];
    "pow-two" Approximating: "(pow ?x 2.0)" => P("(square ?x)"), &[POW_TWO];
    "div-sqrt" Reassociating: "(div ?x (sqrt ?y))" => P("(mul ?x (rsqrt ?y))"), &[DIV_SQRT];
    "one-div-sqrt" Exact: "(reciprocal (sqrt ?x))" => P("(rsqrt ?x)"), &[RECIPROCAL_SQRT];
    "div-constant" Approximating: "(div ?x ?c)" => M(div_constant), &[DIV_CONSTANT];
    "mul-constants" Reassociating: "(mul (mul ?x ?a) ?b)" => M(mul_constants), &[MUL_CONSTANTS];
    "add-constants" Reassociating: "(add (add ?x ?a) ?b)" => M(add_constants), &[ADD_CONSTANTS];
    "max-zero" Exact: "(maximum ?x 0.0)" => P("(relu ?x)"), &[MAX_ZERO];

    // ------------------------------------------------------------ layout
    "reshape-reshape" Exact: "(reshape (reshape ?x))" => M(reshape_reshape), &[RESHAPE_RESHAPE];
    "reshape-same" Exact: "(reshape ?x)" => M(same_shape), &[RESHAPE_SAME];
    "broadcast-same" Exact: "(broadcast ?x)" => M(same_shape), &[BROADCAST_SAME];
    "permute-permute" Exact: "(permute (permute ?x))" => M(permute_permute), &[PERMUTE_PERMUTE];
    "permute-identity" Exact: "(permute ?x)" => M(permute_identity), &[PERMUTE_IDENTITY];
    "cast-same" Exact: "(cast ?x)" => M(cast_same), &[CAST_SAME];
    "slice-all" Exact: "(slice ?x)" => M(same_shape), &[SLICE_ALL];

    // ------------------------------------------------------------ idioms
    "silu" Reassociating: "(mul ?x (sigmoid ?x))" => P("(silu ?x)"), &[SILU];
    "silu-left" Reassociating: "(mul (sigmoid ?x) ?x)" => P("(silu ?x)"), &[SILU_LEFT];
    "sigmoid" Approximating: "(div 1.0 (add 1.0 (exp (neg ?x))))" => P("(sigmoid ?x)"), &[SIGMOID];
    "gelu" Approximating:
        "(mul (mul ?x 0.5) (add (erf (mul ?x 0.7071067690849304)) 1.0))" => P("(gelu ?x)"), &[GELU];
    "gelu-div" Approximating:
        "(mul (mul ?x 0.5) (add (erf (div ?x 1.4142135381698608)) 1.0))" => P("(gelu ?x)"), &[GELU_DIV];
    "softmax" Reassociating:
        "(div (exp (sub ?x (reduce ?x))) (reduce (exp (sub ?x (reduce ?x)))))" => M(softmax), &[SOFTMAX];
    "log-softmax" Approximating: "(log (softmax ?x))" => M(log_softmax), &[LOG_SOFTMAX];

    "attention" Approximating: "(matmul (softmax ?s) ?v)" => M(attention::raise),
        &[ATTENTION, ATTENTION_MASKED, ATTENTION_SELECTED, ATTENTION_CAUSAL];

    // ------------------------------------------------------------ contractions
    "matmul-bias" Exact: "(add (matmul ?x ?w) ?b)" => M(matmul_bias), &[MATMUL_BIAS];
    "bias-matmul" Exact: "(add ?b (matmul ?x ?w))" => M(matmul_bias), &[BIAS_MATMUL];
    "matmul-act" Exact: "(relu ?y)" => M(activate), &[MATMUL_RELU, CONV_RELU];
    "matmul-gelu" Exact: "(gelu ?y)" => M(activate), &[MATMUL_GELU];
    "matmul-gelu-tanh" Exact: "(gelu_tanh ?y)" => M(activate), &[MATMUL_GELU_TANH];
    "matmul-silu" Exact: "(silu ?y)" => M(activate), &[MATMUL_SILU];
    "matmul-sigmoid" Exact: "(sigmoid ?y)" => M(activate), &[MATMUL_SIGMOID];
    "matmul-tanh" Exact: "(tanh ?y)" => M(activate), &[MATMUL_TANH];
    "matmul-scale" Reassociating: "(mul (matmul ?x ?w) ?c)" => M(matmul_scale), &[MATMUL_SCALE];
    "conv-bias" Exact: "(add (conv2d ?x ?w) ?b)" => M(conv_bias), &[CONV_BIAS];
    "conv-bias-bias" Reassociating: "(add (conv2d ?x ?w ?a) ?b)" => M(conv_bias_bias), &[CONV_BIAS_BIAS];
    "conv-scale" Reassociating: "(mul (conv2d ?x ?w) ?s)" => M(conv_scale), &[CONV_SCALE];
    "conv-bias-scale" Reassociating: "(mul (conv2d ?x ?w ?a) ?s)" => M(conv_bias_scale), &[CONV_BIAS_SCALE];
    "conv-bias-sub" Reassociating: "(sub (conv2d ?x ?w ?a) ?b)" => M(conv_bias_sub), &[CONV_BIAS_SUB];
    "conv-sub" Reassociating: "(sub (conv2d ?x ?w) ?b)" => M(conv_sub), &[CONV_SUB];
    "relu-pool" Exact: "(relu (pool2d ?x))" => M(relu_pool), &[RELU_POOL];
};

// ---------------------------------------------------------------- right sides

fn scalar_of(f: &Facts) -> Option<f64> {
    match f.value? {
        Scalar::Float(v) => Some(v),
        _ => None,
    }
}

/// x / c -> x * (1 / c) for a constant c.
fn div_constant(r: &mut Rewriter<'_>) -> Option<Id> {
    let (x, c) = (r.var("?x"), r.var("?c"));
    let f = r.facts(c);
    let ty = f.types[0].clone();
    let v = scalar_of(f).filter(|v| *v != 0.0 && (1.0 / v).is_finite())?;
    let inverse =
        Op::Full { value: Scalar::Float(1.0 / v), dtype: ty.dtype, shape: ty.shape.clone() };
    let inverse = r.add(inverse, &[])?;
    r.binary(BinaryOp::Mul, x, inverse)
}

/// (x a) b -> x (a b) where a and b are computed when compiling.
fn mul_constants(r: &mut Rewriter<'_>) -> Option<Id> {
    reassociate(r, BinaryOp::Mul)
}

fn add_constants(r: &mut Rewriter<'_>) -> Option<Id> {
    reassociate(r, BinaryOp::Add)
}

fn reassociate(r: &mut Rewriter<'_>, op: BinaryOp) -> Option<Id> {
    let (x, a, b) = (r.var("?x"), r.var("?a"), r.var("?b"));
    if !r.facts(a).weight || !r.facts(b).weight || r.facts(x).weight {
        return None;
    }
    let ab = r.binary(op, a, b)?;
    r.binary(op, x, ab)
}

fn reshape_reshape(r: &mut Rewriter<'_>) -> Option<Id> {
    let (x, shape) = (r.var("?x"), dims(r.shape(r.root)));
    r.reshape(x, shape)
}

/// A layout op that changes nothing.
fn same_shape(r: &mut Rewriter<'_>) -> Option<Id> {
    let x = r.var("?x");
    (r.shape(x) == r.shape(r.root)).then_some(x)
}

fn permutation(op: &Op<Dim>) -> Option<sinter_runtime::op::Axes> {
    match op {
        Op::Permute { perm } => Some(perm.clone()),
        _ => None,
    }
}

fn permute_permute(r: &mut Rewriter<'_>) -> Option<Id> {
    let (outer, inner) = r.find(r.root, permutation)?;
    let (first, x) = r.find(inner[0], permutation)?;
    let perm = outer.iter().map(|&p| first[p]).collect();
    r.add(Op::Permute { perm }, &x)
}

fn permute_identity(r: &mut Rewriter<'_>) -> Option<Id> {
    let (perm, x) = r.find(r.root, permutation)?;
    // Moving dimensions of extent one past each other moves no element, but
    // changes the shape: only a true identity is dropped.
    perm.iter().enumerate().all(|(i, &p)| i == p).then_some(x[0])
}

fn cast_same(r: &mut Rewriter<'_>) -> Option<Id> {
    let x = r.var("?x");
    (r.facts(x).types[0].dtype == r.facts(r.root).types[0].dtype).then_some(x)
}

fn softmax(r: &mut Rewriter<'_>) -> Option<Id> {
    let x = r.var("?x");
    // Both reductions over the same single axis, kept: the maximum of x and the sum.
    let (_, parts) = r.find(r.root, |op| matches!(op, Op::Binary(BinaryOp::Div)).then_some(()))?;
    let reduced = |id: Id, kind: ReduceKind| {
        r.find(id, |op| match op {
            Op::Reduce { kind: k, axes, keep: true } if *k == kind && axes.len() == 1 => {
                Some(axes[0])
            }
            _ => None,
        })
    };
    let (axis, sum_of) = reduced(parts[1], ReduceKind::Sum)?;
    let exp = |id: Id| r.find(id, |op| matches!(op, Op::Unary(UnaryOp::Exp)).then_some(()));
    let (_, d) = exp(sum_of[0])?;
    let (_, sub) = r.find(d[0], |op| matches!(op, Op::Binary(BinaryOp::Sub)).then_some(()))?;
    let (max_axis, max_of) = reduced(sub[1], ReduceKind::Max)?;
    let same = r.graph.find(max_of[0]) == r.graph.find(x)
        && r.graph.find(sub[0]) == r.graph.find(x)
        && r.graph.find(sum_of[0]) == r.graph.find(parts[0])
        && axis == max_axis;
    if !same {
        return None;
    }
    r.add(Op::Softmax { axis, log: false }, &[x])
}

fn log_softmax(r: &mut Rewriter<'_>) -> Option<Id> {
    let (_, inner) = r.find(r.root, |op| matches!(op, Op::Unary(UnaryOp::Log)).then_some(()))?;
    let (axis, x) = r.find(inner[0], |op| match op {
        Op::Softmax { axis, log: false } => Some(*axis),
        _ => None,
    })?;
    r.add(Op::Softmax { axis, log: true }, &x)
}

/// A plain product (no bias, no activation) in a class.
fn plain_matmul(r: &Rewriter<'_>, id: Id) -> Option<SmallVec<[Id; 3]>> {
    let (_, ops) = r.find(id, |op| matches!(op, Op::MatMul { act: Act::None }).then_some(()))?;
    (ops.len() == 2).then_some(ops)
}

fn matmul_bias(r: &mut Rewriter<'_>) -> Option<Id> {
    let (x, w, b) = (r.var("?x"), r.var("?w"), r.var("?b"));
    let (_, sides) = r.find(r.root, |op| matches!(op, Op::Binary(BinaryOp::Add)).then_some(()))?;
    sides.iter().find(|&&s| plain_matmul(r, s).is_some())?;
    // A bias has one value per column: a vector, or a vector behind ones.
    let n = r.shape(w).last()?.clone();
    let shape = r.shape(b);
    let is_row = shape.last() == Some(&n) && shape.iter().rev().skip(1).all(|d| d.is(1));
    if !is_row || r.shape(r.root).len() < shape.len() {
        return None;
    }
    let b = r.reshape(b, dims(&[n]))?;
    r.add(Op::MatMul { act: Act::None }, &[x, w, b])
}

/// An activation becomes part of the contraction before it.
fn activate(r: &mut Rewriter<'_>) -> Option<Id> {
    let y = r.var("?y");
    let (act, _) = r.find(r.root, |op| match op {
        Op::Unary(u) => Act::from_unary(*u),
        _ => None,
    })?;
    let (op, operands) = r.find(y, |op| match op {
        Op::MatMul { act: Act::None } => Some(Op::MatMul { act }),
        Op::Conv { stride, padding, dilation, groups, act: Act::None } => Some(Op::Conv {
            stride: *stride,
            padding: *padding,
            dilation: *dilation,
            groups: *groups,
            act,
        }),
        _ => None,
    })?;
    r.add(op, &operands)
}

/// (x w) c -> x (w c) for a weight w and a constant c that is one number or one
/// per column.
fn matmul_scale(r: &mut Rewriter<'_>) -> Option<Id> {
    let (x, w, c) = (r.var("?x"), r.var("?w"), r.var("?c"));
    let n = r.shape(w).last()?.clone();
    let shape = r.shape(c);
    let fits = shape.is_empty() || (shape.len() == 1 && shape[0] == n);
    if !fits || !r.facts(w).weight || !r.facts(c).weight || r.facts(x).weight {
        return None;
    }
    let (_, sides) = r.find(r.root, |op| matches!(op, Op::Binary(BinaryOp::Mul)).then_some(()))?;
    plain_matmul(r, sides[0])?;
    let wc = r.binary(BinaryOp::Mul, w, c)?;
    r.add(Op::MatMul { act: Act::None }, &[x, wc])
}

/// The convolution in a class, with that many operands and no activation.
fn plain_conv(r: &Rewriter<'_>, id: Id, operands: usize) -> Option<(Op<Dim>, SmallVec<[Id; 3]>)> {
    let found = r.graph[id].nodes.iter().find_map(|n| match &n.head {
        Head::Op(op @ Op::Conv { act: Act::None, .. }) if n.children.len() == operands => {
            Some((op.clone(), n.children.clone()))
        }
        _ => None,
    })?;
    Some(found)
}

/// A constant with one value per output channel ([O, 1, 1], perhaps behind ones,
/// or a single number), as a vector.
fn per_channel(r: &mut Rewriter<'_>, c: Id, channels: &Dim) -> Option<Id> {
    if !r.facts(c).weight {
        return None;
    }
    let shape = r.shape(c);
    if shape.iter().all(|d| d.is(1)) {
        let one = r.reshape(c, dims(&[Dim::of(1)]))?;
        return r.add(Op::Broadcast { shape: dims(std::slice::from_ref(channels)) }, &[one]);
    }
    let k = shape.len();
    let fits = (3..=4).contains(&k)
        && shape[k - 3] == *channels
        && shape.iter().enumerate().all(|(i, d)| i == k - 3 || d.is(1));
    if !fits {
        return None;
    }
    r.reshape(c, dims(std::slice::from_ref(channels)))
}

/// The convolution on the left of the matched op, and a per-channel constant.
fn conv_and_channel(
    r: &mut Rewriter<'_>,
    operands: usize,
    constant: &str,
    binary: BinaryOp,
) -> Option<(Op<Dim>, SmallVec<[Id; 3]>, Id)> {
    let (_, sides) = r.find(r.root, |op| (*op == Op::Binary(binary)).then_some(()))?;
    let (op, xs) = plain_conv(r, sides[0], operands)?;
    if r.shape(r.root) != r.shape(sides[0]) {
        return None;
    }
    let channels = r.shape(xs[1])[0].clone();
    let c = r.var(constant);
    let v = per_channel(r, c, &channels)?;
    Some((op, xs, v))
}

fn conv_bias(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, b) = conv_and_channel(r, 2, "?b", BinaryOp::Add)?;
    r.add(op, &[xs[0], xs[1], b])
}

fn conv_bias_bias(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, b) = conv_and_channel(r, 3, "?b", BinaryOp::Add)?;
    let both = r.binary(BinaryOp::Add, xs[2], b)?;
    r.add(op, &[xs[0], xs[1], both])
}

fn conv_sub(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, b) = conv_and_channel(r, 2, "?b", BinaryOp::Sub)?;
    let b = r.add(Op::Unary(UnaryOp::Neg), &[b])?;
    r.add(op, &[xs[0], xs[1], b])
}

fn conv_bias_sub(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, b) = conv_and_channel(r, 3, "?b", BinaryOp::Sub)?;
    let both = r.binary(BinaryOp::Sub, xs[2], b)?;
    r.add(op, &[xs[0], xs[1], both])
}

/// The weight [O, C, KH, KW] times one factor per output channel.
fn scaled_weight(r: &mut Rewriter<'_>, w: Id, s: Id) -> Option<Id> {
    if !r.facts(w).weight {
        return None;
    }
    let o = r.shape(s)[0].clone();
    let s = r.reshape(s, dims(&[o, Dim::of(1), Dim::of(1), Dim::of(1)]))?;
    r.binary(BinaryOp::Mul, w, s)
}

/// Batch normalisation in inference is a factor and a shift per channel: the
/// factor goes into the weight.
fn conv_scale(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, s) = conv_and_channel(r, 2, "?s", BinaryOp::Mul)?;
    let w = scaled_weight(r, xs[1], s)?;
    r.add(op, &[xs[0], w])
}

fn conv_bias_scale(r: &mut Rewriter<'_>) -> Option<Id> {
    let (op, xs, s) = conv_and_channel(r, 3, "?s", BinaryOp::Mul)?;
    let w = scaled_weight(r, xs[1], s)?;
    let b = r.binary(BinaryOp::Mul, xs[2], s)?;
    r.add(op, &[xs[0], w, b])
}

/// relu(maxpool(x)) -> maxpool(relu(x)): the activation moves towards a
/// contraction that applies it for nothing.
fn relu_pool(r: &mut Rewriter<'_>) -> Option<Id> {
    let (_, inner) = r.find(r.root, |op| matches!(op, Op::Unary(UnaryOp::Relu)).then_some(()))?;
    let (pool, x) = r.find(inner[0], |op| match op {
        Op::Pool { kind: PoolKind::Max, padding: [0, 0], .. } => Some(op.clone()),
        _ => None,
    })?;
    // Only worth it where a contraction waits for it: alone it would touch more.
    r.find(x[0], |op| matches!(op, Op::Conv { .. }).then_some(()))?;
    let y = r.add(Op::Unary(UnaryOp::Relu), &x)?;
    r.add(pool, &[y])
}
