//! Factorisations: the kernels that stand on `faer`.

use crate::{Array, Op, OpError};

#[cfg(feature = "numerics")]
pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    use crate::DType;
    use sinter_numerics as k;

    /// `with_field!(dtype, t, real => …)`: numbers of that type, and their real parts.
    macro_rules! with_field {
        ($dtype:expr, $t:ident, $real:ident => $body:expr) => {
            match $dtype {
                DType::F32 => {
                    #[allow(dead_code)]
                    type $real = f32;
                    type $t = f32;
                    $body
                }
                DType::F64 => {
                    #[allow(dead_code)]
                    type $real = f64;
                    type $t = f64;
                    $body
                }
                d => return Err(OpError::dtype(op.name(), format!("does not take {d}"))),
            }
        };
    }
    let x = inputs[0];
    let failed = |e: k::Failure| OpError::value(op.name(), e.to_string());
    with_field!(x.dtype(), T, R => match op {
        Op::Cholesky {} => k::cholesky::<T>(x.src(), outs[0].dst(), outs[1].dst()),
        Op::Lu {} => k::lu::<T>(x.src(), outs[0].dst(), outs[1].dst()),
        Op::Qr { .. } => k::qr::<T>(x.src(), outs[0].dst(), outs[1].dst()),
        Op::Svd { .. } => {
            let (u, s, vh) = (outs[0].dst(), outs[1].dst::<R>(), outs[2].dst());
            k::svd::<T>(x.src(), u, s, vh).map_err(failed)?;
        }
        Op::Eigh {} => {
            let (w, v) = (outs[0].dst::<R>(), outs[1].dst());
            k::eigh::<T>(x.src(), w, v).map_err(failed)?;
        }
        Op::TriangularSolve { upper, unit } => {
            let b = inputs[1].src();
            k::triangular_solve::<T>(x.src(), b, *upper, *unit, outs[0].dst());
        }
        _ => unreachable!("{} is no factorisation", op.name()),
    });
    Ok(())
}

#[cfg(not(feature = "numerics"))]
pub(super) fn exec(op: &Op, _: &[&Array], _: &[&Array]) -> Result<(), OpError> {
    Err(OpError::unsupported(
        op.name(),
        "this program was built without the feature `numerics` of the runtime",
    ))
}
