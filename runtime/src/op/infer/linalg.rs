//! Factorisations and what goes with them: stacks of matrices over the last two
//! dimensions. And Fourier transforms.

use super::*;

/// The numbers that factorisations exist for.
fn full_precision(op: &str, d: DType) -> Result<(), OpError> {
    if matches!(d, DType::F32 | DType::F64) || d.is_complex() {
        return Ok(());
    }
    Err(OpError::dtype(
        op,
        format!("needs f32, f64 or complex numbers, got {d}; convert it with `to_dtype`"),
    ))
}

/// Rows and columns of a stack of matrices.
fn matrices<'a, D: Extent>(op: &str, x: &TypeRef<'a, D>) -> Result<(&'a D, &'a D), OpError> {
    full_precision(op, x.dtype)?;
    match x.shape {
        [.., m, n] => Ok((m, n)),
        _ => Err(OpError::shape(op, format!("needs a matrix, the shape is {:?}", x.shape))),
    }
}

fn square<'a, D: Extent>(op: &str, x: &TypeRef<'a, D>) -> Result<&'a D, OpError> {
    let (m, n) = matrices(op, x)?;
    if m == n {
        return Ok(n);
    }
    Err(OpError::shape(op, format!("needs square matrices, the shape is {:?}", x.shape)))
}

/// The smaller of two extents.
fn least<D: Extent>(op: &str, m: &D, n: &D) -> Result<D, OpError> {
    match (m.known(), n.known()) {
        (Some(m), Some(n)) => Ok(D::of(m.min(n))),
        _ if m == n => Ok(m.clone()),
        _ => Err(OpError::shape(op, format!("needs a known size, the matrices are {m} × {n}"))),
    }
}

/// The types of all results.
pub(super) fn factors<D: Extent>(op: &Op<D>, xs: &[TypeRef<'_, D>]) -> Result<Types<D>, OpError> {
    let name = op.name();
    let x = &xs[0];
    let d = x.dtype;
    let lead = |x: &TypeRef<'_, D>, tail: &[&D]| -> Dims<D> {
        let batch = &x.shape[..x.shape.len() - 2];
        batch.iter().chain(tail.iter().copied()).cloned().collect()
    };
    let of = |dtype, shape: Dims<D>| TensorType { dtype, shape };
    Ok(match op {
        Op::Cholesky {} => {
            let n = square(name, x)?;
            smallvec::smallvec![of(d, lead(x, &[n, n])), of(DType::I32, lead(x, &[]))]
        }
        Op::Lu {} => {
            let (m, n) = matrices(name, x)?;
            let k = least(name, m, n)?;
            smallvec::smallvec![of(d, lead(x, &[m, n])), of(DType::I32, lead(x, &[&k]))]
        }
        Op::Qr { full } => {
            let (m, n) = matrices(name, x)?;
            let k = if *full { m.clone() } else { least(name, m, n)? };
            smallvec::smallvec![of(d, lead(x, &[m, &k])), of(d, lead(x, &[&k, n]))]
        }
        Op::Svd { full } => {
            let (m, n) = matrices(name, x)?;
            let k = least(name, m, n)?;
            let (left, right) = if *full { (m, n) } else { (&k, &k) };
            smallvec::smallvec![
                of(d, lead(x, &[m, left])),
                of(d.real(), lead(x, &[&k])),
                of(d, lead(x, &[right, n])),
            ]
        }
        Op::Eigh {} => {
            let n = square(name, x)?;
            smallvec::smallvec![of(d.real(), lead(x, &[n])), of(d, lead(x, &[n, n]))]
        }
        Op::Eig {} => {
            let n = square(name, x)?;
            let c = d.complex();
            smallvec::smallvec![of(c, lead(x, &[n])), of(c, lead(x, &[n, n]))]
        }
        Op::Fft { axis, .. } => {
            if !d.is_complex() {
                return Err(OpError::dtype(name, format!("needs complex numbers, got {d}")));
            }
            axis_in(name, *axis, x.shape.len())?;
            if x.shape[*axis].is(0) {
                return Err(OpError::shape(
                    name,
                    format!("dimension {axis} of {:?} has no elements to transform", x.shape),
                ));
            }
            smallvec::smallvec![of(d, x.shape.into())]
        }
        Op::TriangularSolve { .. } => {
            same_dtype(name, xs)?;
            let (a, b) = (x, &xs[1]);
            let n = square(name, a)?;
            let (m, _) = matrices(name, b)?;
            let batch = |x: &TypeRef<'_, D>| x.shape[..x.shape.len() - 2].to_vec();
            if m != n || batch(a) != batch(b) {
                return Err(OpError::shape(
                    name,
                    format!(
                        "matrices {:?} and right-hand sides {:?} do not have the same rows and batch",
                        a.shape, b.shape
                    ),
                ));
            }
            smallvec::smallvec![of(d, b.shape.into())]
        }
        _ => unreachable!("{name} factorises nothing"),
    })
}
