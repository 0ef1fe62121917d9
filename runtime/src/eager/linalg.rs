//! Factorisations and Fourier transforms: the kernels that stand on `faer` and `rustfft`.

use crate::{Array, Op, OpError};

#[cfg(feature = "numerics")]
pub(super) fn exec(op: &Op, inputs: &[&Array], outs: &[&Array]) -> Result<(), OpError> {
    use crate::DType;
    use sinter_numerics as k;

    type C32 = num_complex::Complex<f32>;
    type C64 = num_complex::Complex<f64>;
    /// `with_field!(dtype, t, real, complex => …)`: numbers of that type, their parts, and
    /// the complex numbers of such parts.
    macro_rules! with_field {
        ($dtype:expr, $t:ident, $real:ident, $complex:ident => $body:expr) => {
            match $dtype {
                DType::F32 => with_field!(f32, f32, C32, $t, $real, $complex => $body),
                DType::F64 => with_field!(f64, f64, C64, $t, $real, $complex => $body),
                DType::C64 => with_field!(C32, f32, C32, $t, $real, $complex => $body),
                DType::C128 => with_field!(C64, f64, C64, $t, $real, $complex => $body),
                d => return Err(OpError::dtype(op.name(), format!("does not take {d}"))),
            }
        };
        ($a:ty, $b:ty, $c:ty, $t:ident, $real:ident, $complex:ident => $body:expr) => {{
            type $t = $a;
            type $real = $b;
            type $complex = $c;
            $body
        }};
    }
    let x = inputs[0];
    let failed = |e: k::Failure| OpError::value(op.name(), e.to_string());
    if let Op::Fft { axis, inverse } = op {
        if x.dtype() == DType::C64 {
            k::fourier::<f32>(x.src(), *axis, *inverse, outs[0].dst());
        } else {
            k::fourier::<f64>(x.src(), *axis, *inverse, outs[0].dst());
        }
        return Ok(());
    }
    with_field!(x.dtype(), T, R, C => match op {
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
        Op::Eig {} => {
            let (w, v) = (outs[0].dst::<C>(), outs[1].dst());
            k::eig::<T>(x.src(), w, v).map_err(failed)?;
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
