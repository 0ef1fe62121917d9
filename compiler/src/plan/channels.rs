//! Which images have their channels side by side.
//!
//! Convolutions have kernels for both layouts, and which is faster depends on sizes:
//! vectors of pixels or vectors of channels are full. What is element-wise does not care,
//! as long as its operands agree. Turning an image from one layout into the other costs a
//! pass over memory. The cheapest choice for a whole graph is a minimum cut: the values
//! are nodes, the source stands for planes (NCHW), the sink for channels last (NHWC); a
//! value on the wrong side pays what its op takes longer, values on different sides pay
//! for turning.

use super::pack::Exactness;
use crate::cost;
use crate::graph::{Graph, Kind, NodeId, Value, sink_side};
use crate::quantize::Quantized;
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::{FxHashMap, FxHashSet};
use sinter_kernels::conv::{ConvKernel, ConvParams};
use sinter_runtime::{DType, Dim, Extent, Op};

/// The values whose channels lie side by side, and what that saves.
#[derive(Default)]
pub(super) struct Layouts {
    last: FxHashSet<Value>,
    saved: FxHashMap<NodeId, u64>,
}

impl Layouts {
    /// Whether the value is an image whose channels lie side by side.
    pub(super) fn is_last(&self, v: Value) -> bool {
        self.last.contains(&v)
    }

    /// For people: why a convolution computes in that layout.
    pub(super) fn reason(&self, n: NodeId) -> Option<String> {
        let ns = self.saved.get(&n)?;
        Some(format!("channels last, estimated to save {:.1} µs", *ns as f64 / 1000.0))
    }
}

/// What a convolution by a constant weight needs to know to choose its kernel.
pub(super) struct Image {
    pub(super) input: [usize; 3],
    pub(super) weight: [usize; 4],
    pub(super) params: ConvParams,
}

/// The convolution's sizes, if its weight and the size of its images are known.
pub(super) fn image(g: &Graph, n: NodeId) -> Option<Image> {
    let &Op::Conv { stride, padding, dilation, groups, .. } = g.op(n)? else { return None };
    let operands = g.operands(n);
    let Kind::Constant(_) = g.node(operands[1].node).kind else { return None };
    let known = |shape: &[Dim]| shape.iter().map(Extent::known).collect::<Option<Vec<usize>>>();
    let input = known(&g.type_of(operands[0]).shape[1..])?.try_into().ok()?;
    let weight = known(&g.type_of(operands[1]).shape)?.try_into().ok()?;
    Some(Image { input, weight, params: ConvParams { stride, padding, dilation, groups } })
}

/// More than any program takes.
const NEVER: u64 = 1 << 50;

/// Chooses, for a graph of which some layers may be computed with integers.
pub(super) fn choose(g: &Graph, exactness: Exactness, quantized: Option<&Quantized>) -> Layouts {
    if !g.topological().iter().any(|&n| matches!(g.op(n), Some(Op::Conv { .. }))) {
        return Layouts::default();
    }
    let hints = g.hints();
    let exactness =
        |n: NodeId| exactness.of_layer(quantized.is_some_and(|q| q.layers.contains_key(&n)));
    let mut net: DiGraph<(), u64> = DiGraph::new();
    let (planes, last) = (net.add_node(()), net.add_node(()));
    let mut of: FxHashMap<Value, NodeIndex> = FxHashMap::default();
    let mut saves: FxHashMap<NodeId, u64> = FxHashMap::default();
    for n in g.topological() {
        let v = Value { node: n, output: 0 };
        let Some(op) = g.op(n) else { continue };
        let conv = image(g, n);
        let follows = op.is_pointwise() || matches!(op, Op::Pool { .. });
        if !has_layout(g, v) || g.is_output(v) || !(conv.is_some() || follows) {
            continue;
        }
        let node = net.add_node(());
        of.insert(v, node);
        let Some(conv) = conv else { continue };
        let batch = g.type_of(v).shape[0].eval(&hints).unwrap_or(1);
        let [first, other] = [false, true].map(|last| conv_ns(&conv, exactness(n), batch, last));
        if other < first {
            saves.insert(n, first - other);
        }
        // Whatever lies with the source pays what its op takes in planes, and the other
        // way round.
        net.add_edge(node, last, first);
        net.add_edge(planes, node, other);
    }
    if saves.is_empty() {
        return Layouts::default();
    }
    // Where a value is read in the other layout, it is turned: once, however many read it.
    let mut turned: FxHashMap<Value, [NodeIndex; 2]> = FxHashMap::default();
    for n in g.topological() {
        let v = Value { node: n, output: 0 };
        let Some(op) = g.op(n) else { continue };
        for x in g.operands(n) {
            if !is_image(g, x) {
                continue;
            }
            let turning = cost::turning_ns(g.type_of(x), &hints) as u64;
            let (from, to) = (of.get(&x).copied(), of.get(&v).copied());
            // Reduced over its pixels, an image may lie as it likes.
            if matches!(op, Op::Reduce { axes, .. } if axes.as_slice() == [2, 3]) {
                continue;
            }
            let conv = image(g, n);
            let (from, to) = (from.unwrap_or(planes), to.unwrap_or(planes));
            if from == to || g.operands(n).get(1) == Some(&x) && conv.is_some() {
                continue;
            }
            // Cut when `from` is in planes and `to` is not; and when it is the other way.
            let [forth, back] = *turned.entry(x).or_insert_with(|| {
                let ends = [net.add_node(()), net.add_node(())];
                net.add_edge(from, ends[0], turning);
                net.add_edge(ends[1], from, turning);
                ends
            });
            let own = conv.and_then(|conv| {
                match exactness(n).convolution(&conv, true).0 {
                    kernel if !kernel.any_input(conv.weight) => None,
                    ConvKernel::PixelRows => Some(0),
                    // While its numbers are converted.
                    _ => Some(turning / 2),
                }
            });
            match own {
                Some(own) => net.add_edge(from, to, own),
                None => net.add_edge(forth, to, NEVER),
            };
            net.add_edge(to, back, NEVER);
            // Behind a convolution, a loop could have been part of that.
            if op.is_pointwise() && matches!(g.op(x.node), Some(Op::Conv { .. })) {
                net.add_edge(from, to, 2 * turning);
                net.add_edge(to, from, 2 * turning);
            }
        }
    }
    // Of equal choices the one with the fewest values in an unusual layout.
    let turned = sink_side(&net, planes, last);
    let last: FxHashSet<Value> =
        of.into_iter().filter(|(_, node)| turned.contains(node)).map(|(v, _)| v).collect();
    saves.retain(|&n, _| last.contains(&Value { node: n, output: 0 }));
    Layouts { last, saved: saves }
}

fn has_layout(g: &Graph, v: Value) -> bool {
    let ty = g.type_of(v);
    ty.shape.len() == 4 && ty.dtype == DType::F32
}

/// Whether the layouts differ: with one pixel, or one channel, they are the same.
pub(super) fn is_image(g: &Graph, v: Value) -> bool {
    let shape = &g.type_of(v).shape;
    has_layout(g, v) && !shape[1].is(1) && !(shape[2].is(1) && shape[3].is(1))
}

/// Estimated time in one of the layouts.
fn conv_ns(conv: &Image, exactness: Exactness, batch: usize, last: bool) -> u64 {
    let (kernel, _) = exactness.convolution(conv, last);
    match kernel.channels_last() == last {
        true => {
            let unit = exactness.matrix_unit;
            cost::conv_ns(kernel, unit, batch, conv.input, conv.weight, conv.params) as u64
        }
        false => NEVER,
    }
}
