//! Views along several axes at once.

use super::*;

/// The rule of the op on an operand of this shape.
pub(super) fn check<D: Extent>(op: &Op<D>, x: &[D]) -> Result<(), OpError> {
    let name = op.name();
    match op {
        Op::Diagonal { axis1, axis2, row, col, len } => {
            axes_in(name, &[*axis1, *axis2], x.len())?;
            check_slice(name, &x[*axis1], *axis1, &D::of(*row), len, 1)?;
            check_slice(name, &x[*axis2], *axis2, &D::of(*col), len, 1)
        }
        Op::Unfold { axis, size, step, count } => {
            axis_in(name, *axis, x.len())?;
            if *step == 0 {
                return Err(OpError::shape(name, "the windows are 0 apart"));
            }
            // The places at which windows may begin.
            let places = x[*axis].plus(&D::of(1)).minus(&D::of(*size));
            let Some(places) = places else {
                return Err(OpError::shape(
                    name,
                    format!("a window of {size} does not fit dimension {axis} of {x:?}"),
                ));
            };
            check_slice(name, &places, *axis, &D::of(0), count, *step)
        }
        Op::AsStrided { shape, strides, offset } => {
            if shape.len() != strides.len() {
                return Err(OpError::shape(
                    name,
                    format!("shape {shape:?} and strides {strides:?} differ in length"),
                ));
            }
            if shape.iter().any(|n| n.is(0)) {
                return Ok(());
            }
            let last = shape.iter().zip(strides).try_fold(offset.clone(), |last, (n, s)| {
                Some(last.plus(&n.minus(&D::of(1))?.times(s)))
            });
            match last.and_then(|last| count(x).minus(&last)) {
                Some(room) if !room.is(0) => Ok(()),
                _ => Err(OpError::shape(
                    name,
                    format!(
                        "shape {shape:?} with strides {strides:?} at {offset} leaves the elements of {x:?}"
                    ),
                )),
            }
        }
        _ => Ok(()),
    }
}

/// The shape of the result, the rule being kept.
pub(super) fn shape<D: Extent>(op: &Op<D>, x: &[D]) -> Dims<D> {
    match op {
        Op::Diagonal { axis1, axis2, len, .. } => {
            let rest = (0..x.len()).filter(|i| i != axis1 && i != axis2);
            rest.map(|i| x[i].clone()).chain([len.clone()]).collect()
        }
        Op::Unfold { axis, size, count, .. } => {
            let mut shape: Dims<D> = x.into();
            shape[*axis] = count.clone();
            shape.push(D::of(*size));
            shape
        }
        Op::AsStrided { shape, .. } => shape.clone(),
        _ => x.into(),
    }
}
