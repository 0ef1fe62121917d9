//! Rules of recurrent sequences.

use super::*;

/// The types of all results.
pub(super) fn results<D: Extent>(op: &Op<D>, xs: &[TypeRef<'_, D>]) -> Result<Types<D>, OpError> {
    match op {
        Op::Recurrent { kind, keep, .. } => forward(op.name(), *kind, *keep, xs),
        Op::RecurrentGrad { kind, .. } => backward(op.name(), *kind, xs),
        _ => unreachable!("{} is no sequence", op.name()),
    }
}

/// Refuses operands but those of these shapes.
fn expect<D: Extent>(
    op: &str,
    xs: &[TypeRef<'_, D>],
    names: &[&str],
    shapes: &[&[D]],
) -> Result<(), OpError> {
    for ((x, name), want) in xs.iter().zip(names).zip(shapes) {
        if x.shape != *want {
            return Err(OpError::shape(op, format!("{name} is {:?}, not {want:?}", x.shape)));
        }
    }
    Ok(())
}

/// Number of units, from a recurrent weight.
fn units<'a, D: Extent>(op: &str, kind: CellKind, w: &'a [D]) -> Result<&'a D, OpError> {
    match w {
        [wide, h] if *wide == h.times(&D::of(kind.gates())) => Ok(h),
        _ => Err(OpError::shape(
            op,
            format!("the weight is {w:?}, not [{} H, H] for H units", kind.gates()),
        )),
    }
}

fn forward<D: Extent>(
    op: &str,
    kind: CellKind,
    keep: bool,
    xs: &[TypeRef<'_, D>],
) -> Result<Types<D>, OpError> {
    let (least, most) = Op::<D>::Recurrent { kind, reverse: false, keep }.arity();
    debug_assert!((least..=most).contains(&xs.len()));
    let d = same_dtype(op, xs)?;
    float_only(op, d)?;
    let h = units(op, kind, xs[1].shape)?;
    let wide = h.times(&D::of(kind.gates()));
    let [t, n, g] = xs[0].shape else {
        return Err(OpError::shape(op, format!("gates are {:?}, not [T, N, G H]", xs[0].shape)));
    };
    if *g != wide {
        return Err(OpError::shape(
            op,
            format!("gates {:?} do not belong to the weight {:?}", xs[0].shape, xs[1].shape),
        ));
    }
    let state = [n.clone(), h.clone()];
    let last: &[D] = if kind == CellKind::Lstm { &state } else { &state[1..] };
    let name = if kind == CellKind::Lstm { "the cell state" } else { "the bias" };
    expect(op, &xs[2..], &["the state", name], &[&state, last])?;
    let y = TensorType::new(d, [t.clone(), n.clone(), h.clone()].as_slice());
    let mut types = Types::from_elem(y, if kind == CellKind::Lstm { 2 } else { 1 });
    if keep && kind.is_gated() {
        let kept = [t.clone(), n.clone(), h.times(&D::of(4))];
        types.push(TensorType::new(d, kept.as_slice()));
    }
    Ok(types)
}

fn backward<D: Extent>(
    op: &str,
    kind: CellKind,
    xs: &[TypeRef<'_, D>],
) -> Result<Types<D>, OpError> {
    let d = same_dtype(op, xs)?;
    float_only(op, d)?;
    let h = units(op, kind, xs[0].shape)?;
    let [t, n, _] = xs[1].shape else {
        return Err(OpError::shape(op, format!("states are {:?}, not [T, N, H]", xs[1].shape)));
    };
    let of = |k: usize| [t.clone(), n.clone(), h.times(&D::of(k))];
    let (all, kept, state) = (of(1), of(4), [n.clone(), h.clone()]);
    let names =
        ["the states", "their gradient", "the state", "the gates", "a gradient", "a gradient"];
    let fifth: &[D] = if kind == CellKind::Lstm { &all } else { &kept };
    expect(op, &xs[1..], &names, &[&all, &all, &state, &kept, fifth, &kept])?;
    let wide = TensorType::new(d, of(kind.gates()).as_slice());
    let state = TensorType::new(d, state.as_slice());
    Ok(match kind {
        CellKind::Tanh | CellKind::Relu => smallvec::smallvec![wide, state],
        CellKind::Gru => smallvec::smallvec![wide.clone(), wide, state],
        CellKind::Lstm => smallvec::smallvec![wide, state.clone(), state],
    })
}
