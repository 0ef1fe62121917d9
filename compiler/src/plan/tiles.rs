//! What the tiles of a contraction see of other values, and what views make of layouts.

use super::channels::Layouts;
use super::layout::Located;
use crate::graph::{Graph, NodeId, Value};
use sinter_kernels::conv::CHANNELS_LAST;
use sinter_runtime::{Dim, Op};

/// The three indices of a tile: where a contraction's result keeps them.
fn tile_axes(g: &Graph, anchor: NodeId) -> (usize, usize) {
    // Dimensions before `.0` are the batch, up to `.1` rows, the rest columns.
    let rank = g.node(anchor).types[0].shape.len();
    match g.op(anchor) {
        Some(Op::Conv { .. }) => (1, 2),
        _ => {
            let b = g.operands(anchor)[1];
            if g.type_of(b).shape.len() == 2 { (0, rank - 1) } else { (rank - 2, rank - 1) }
        }
    }
}

/// A value of the contraction's shape as [batch, rows, columns].
pub(super) fn as_tile(
    g: &Graph,
    layouts: &Layouts,
    anchor: NodeId,
    at: &Located,
) -> Option<Located> {
    let shape = &g.node(anchor).types[0].shape;
    let wide = at.broadcast(shape);
    if layouts.is_last(Value { node: anchor, output: 0 }) {
        // One matrix of all pixels by channels.
        return Some(wide.permute(&CHANNELS_LAST).merge(0, 3)?.outer());
    }
    let (rows, cols) = tile_axes(g, anchor);
    let rank = shape.len();
    wide.merge(cols, rank)?.merge(rows, cols)?.merge(0, rows)
}

/// Where a value will lie, as far as its layout goes: kernels write densely, views
/// are strides.
fn nominal(g: &Graph, layouts: &Layouts, v: Value) -> Located {
    let ty = g.type_of(v);
    let plain = || Located::new(0, ty.dtype, &ty.shape);
    match g.op(v.node) {
        _ if layouts.is_last(v) => plain().lying(&CHANNELS_LAST),
        Some(Op::Attention { .. } | Op::AttentionGrad { .. }) if !g.is_output(v) => {
            let q = nominal(g, layouts, g.operands(v.node)[v.output as usize]);
            plain().lying(&q.order(&g.hints()))
        }
        Some(op) if op.is_view() => {
            let x = nominal(g, layouts, g.operands(v.node)[0]);
            viewed(op, &x, &ty.shape).unwrap_or_else(plain)
        }
        _ => plain(),
    }
}

/// Whether tiles of a contraction can read the operand.
pub(super) fn tile_addressable(g: &Graph, layouts: &Layouts, anchor: NodeId, v: Value) -> bool {
    as_tile(g, layouts, anchor, &nominal(g, layouts, v)).is_some()
}

/// The layout of a view op's result; `None` where it must be copied.
pub(super) fn viewed(op: &Op<Dim>, x: &Located, shape: &[Dim]) -> Option<Located> {
    Some(match op {
        Op::Reshape { .. } => return x.reshape(shape),
        Op::Permute { perm } => x.permute(perm),
        Op::Broadcast { .. } => x.broadcast(shape),
        Op::Slice { axis, start, len, step } => x.slice(*axis, start, len, *step),
        Op::Flip { axes } => x.flip(axes),
        Op::Diagonal { axis1, axis2, row, col, len } => {
            x.diagonal([*axis1, *axis2], [*row, *col], len)
        }
        Op::Unfold { axis, size, step, count } => x.unfold(*axis, *size, *step, count),
        Op::AsStrided { shape, strides, offset } => return x.as_strided(shape, strides, offset),
        _ => return None,
    })
}
