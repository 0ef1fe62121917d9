//! Reductions, scans and sorting.

use crate::dim::Shape;
use crate::op::{ArgKind, ReduceKind, ScanKind};
use crate::{Array, DType, Op, OpError};
use sinter_kernels::{reduce as k, scan, sort};
use smallvec::SmallVec;

/// The type that the operand of a reduction or scan is converted to before it is
/// joined, given its own and the result's; its own for other ops.
pub fn adds_in<D>(op: &Op<D>, x: DType, out: DType) -> DType {
    match op {
        Op::Reduce { kind: ReduceKind::Any | ReduceKind::All, .. } => DType::Bool,
        Op::Reduce { .. } | Op::Scan { .. } => out,
        _ => x,
    }
}

/// The operand is of type [`adds_in`].
pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    let (x, out) = (inputs[0], outs[0]);
    match op {
        Op::Reduce { kind, axes, .. } => reduce(*kind, axes, x, out)?,
        Op::ArgReduce { kind, axis, .. } => {
            let flat = without(out, x, &[*axis])?;
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        match kind {
                            ArgKind::Max => k::argmax::<$t>(x.src(), *axis, flat.dst()),
                            ArgKind::Min => k::argmin::<$t>(x.src(), *axis, flat.dst()),
                        }
                    };
                }
                for_number!(n, run)
            });
        }
        Op::Scan { kind: kind @ (ScanKind::Max | ScanKind::Min), axis, .. } => {
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {{
                        let (x, y, at) = (x.src::<$t>(), out.dst(), outs[1].dst());
                        match kind {
                            ScanKind::Max => scan::cummax::<$t>(x, *axis, y, at),
                            _ => scan::cummin::<$t>(x, *axis, y, at),
                        }
                    }};
                }
                for_number!(n, run)
            });
        }
        Op::Scan { kind, axis, reverse } => {
            let (from, to) = if *reverse {
                (x.flip(&[*axis]), out.flip(&[*axis]))
            } else {
                (x.clone(), out.clone())
            };
            macro_rules! run {
                ($t:ty) => {
                    match kind {
                        ScanKind::Sum => scan::cumsum::<$t>(from.src(), *axis, to.dst()),
                        _ => scan::cumprod::<$t>(from.src(), *axis, to.dst()),
                    }
                };
            }
            match out.dtype() {
                DType::F32 if *kind == ScanKind::LogSumExp => {
                    scan::logcumsumexp::<f32>(from.src(), *axis, to.dst());
                }
                DType::F64 if *kind == ScanKind::LogSumExp => {
                    scan::logcumsumexp::<f64>(from.src(), *axis, to.dst());
                }
                DType::F32 => run!(f32),
                DType::F64 => run!(f64),
                _ => run!(i64),
            }
        }
        Op::Sort { axis, descending } => {
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        sort::sort::<$t>(
                            x.src(),
                            *axis,
                            *descending,
                            Some(outs[0].dst()),
                            Some(outs[1].dst()),
                        )
                    };
                }
                for_number!(n, run)
            });
        }
        Op::SearchSorted { right } => {
            let (lines, values) = (inputs[0], inputs[1]);
            // One line of boundaries serves all values.
            let flat = (lines.rank() == 1).then(|| [values.numel()]);
            let reshaped = |a: &Array| -> Result<Array, OpError> {
                match &flat {
                    None => Ok(a.clone()),
                    Some(n) => super::layout::view(&Op::Reshape { shape: n[..].into() }, a),
                }
            };
            let dense = if out.is_contiguous() { out.clone() } else { out.empty_like()? };
            let (values, to) = (reshaped(values)?, reshaped(&dense)?);
            numbers(lines.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        sort::searchsorted::<$t>(lines.src(), values.src(), *right, to.dst())
                    };
                }
                for_number!(n, run)
            });
            if !out.is_contiguous() {
                super::layout::copy(&dense, out);
            }
        }
        Op::TopK { axis, largest, .. } => {
            numbers(x.dtype(), |n| {
                macro_rules! run {
                    ($t:ty) => {
                        sort::topk::<$t>(x.src(), *axis, *largest, outs[0].dst(), outs[1].dst())
                    };
                }
                for_number!(n, run)
            });
        }
        _ => unreachable!("{} reduces nothing", op.name()),
    }
    Ok(())
}

/// The element types kernels of this family are built for.
#[derive(Clone, Copy)]
enum N {
    F32,
    F64,
    I64,
    I32,
    U8,
}

macro_rules! for_number {
    ($n:expr, $run:ident) => {
        match $n {
            N::F32 => $run!(f32),
            N::F64 => $run!(f64),
            N::I64 => $run!(i64),
            N::I32 => $run!(i32),
            N::U8 => $run!(u8),
        }
    };
}
use for_number;

fn numbers<R>(d: DType, f: impl FnOnce(N) -> R) -> R {
    f(match d {
        DType::F32 => N::F32,
        DType::F64 => N::F64,
        DType::I64 => N::I64,
        DType::I32 => N::I32,
        DType::U8 | DType::Bool => N::U8,
        d => unreachable!("{d} is computed in another type"),
    })
}

/// The output without the reduced axes, which it may keep as ones.
fn without(out: &Array, x: &Array, axes: &[usize]) -> Result<Array, OpError> {
    if out.rank() + axes.len() == x.rank() {
        return Ok(out.clone());
    }
    let pick = |i: &usize| !axes.contains(i);
    let shape: Shape = (0..x.rank()).filter(pick).map(|i| out.shape()[i]).collect();
    let strides: SmallVec<[isize; 5]> =
        (0..x.rank()).filter(pick).map(|i| out.strides()[i]).collect();
    out.as_strided(&shape, &strides, out.offset())
}

fn reduce(kind: ReduceKind, axes: &[usize], x: &Array, out: &Array) -> Result<(), OpError> {
    let flat = without(out, x, axes)?;
    let mut marked: SmallVec<[bool; 8]> = SmallVec::from_elem(false, x.rank());
    for &a in axes {
        marked[a] = true;
    }
    if matches!(kind, ReduceKind::Any | ReduceKind::All) {
        match kind {
            ReduceKind::Any => k::any(x.src(), &marked, flat.dst()),
            _ => k::all(x.src(), &marked, flat.dst()),
        }
        return Ok(());
    }
    macro_rules! total {
        ($t:ty) => {
            match kind {
                ReduceKind::Sum => k::sum::<$t>(x.src(), &marked, flat.dst()),
                _ => k::prod::<$t>(x.src(), &marked, flat.dst()),
            }
        };
    }
    macro_rules! extreme {
        ($t:ty) => {
            match kind {
                ReduceKind::Max => k::max::<$t>(x.src(), &marked, flat.dst()),
                _ => k::min::<$t>(x.src(), &marked, flat.dst()),
            }
        };
    }
    match (kind, out.dtype()) {
        (ReduceKind::Sum | ReduceKind::Prod, DType::F32) => total!(f32),
        (ReduceKind::Sum | ReduceKind::Prod, DType::F64) => total!(f64),
        // Integers are added up as i64.
        (ReduceKind::Sum | ReduceKind::Prod, _) => total!(i64),
        (_, d) => numbers(d, |n| for_number!(n, extreme)),
    }
    Ok(())
}
