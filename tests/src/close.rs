//! Comparing numbers.

use sinter::Tensor;
use sinter_runtime::{Array, DType, Op, eager};

/// How far a result may be from the reference, in units of the type's precision:
/// the distance from 1 to the next number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Times the magnitude of the element itself.
    pub own: f64,
    /// Times the largest finite magnitude of the result: what sums are good to.
    pub largest: f64,
    /// Times one.
    pub one: f64,
}

impl Tolerance {
    /// Bit for bit, but for the payload of NaN.
    pub const EXACT: Tolerance = Tolerance { own: 0.0, largest: 0.0, one: 0.0 };

    /// Equal numbers; zeros of either sign are.
    pub const EQUAL: Tolerance = Tolerance::units(0.5);

    /// So many units of each element. Results below the least normal number may
    /// be zero.
    pub const fn units(own: f64) -> Tolerance {
        Tolerance { own, ..Tolerance::EXACT }
    }

    /// So many units of the largest element.
    pub const fn of_largest(largest: f64) -> Tolerance {
        Tolerance { largest, ..Tolerance::EXACT }
    }
}

/// The distance from 1 to the next number, and the least normal number.
fn precision(d: DType) -> (f64, f64) {
    match d {
        DType::F64 => (f64::EPSILON, f64::MIN_POSITIVE),
        DType::F32 => (f32::EPSILON.into(), f32::MIN_POSITIVE.into()),
        DType::F16 => (half::f16::EPSILON.into(), half::f16::MIN_POSITIVE.into()),
        DType::BF16 => (half::bf16::EPSILON.into(), half::bf16::MIN_POSITIVE.into()),
        _ => (0.0, 0.0),
    }
}

fn doubles(a: &Array) -> Vec<f64> {
    eager::run1(&Op::Cast { dtype: DType::F64 }, &[a]).expect("numbers convert").to_vec()
}

/// Where and how `got` is not `want`; `None` when it is.
pub fn compare(got: &Array, want: &Array, tolerance: Tolerance) -> Option<String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        return Some(format!(
            "{} {:?}, expected {} {:?}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    if want.dtype().is_complex() {
        return compare(&got.view_as_real(), &want.view_as_real(), tolerance);
    }
    if !want.dtype().is_float() {
        let (g, w) = (got.to_bytes(), want.to_bytes());
        return (g != w).then(|| format!("{:?}, expected {:?}", doubles(got), doubles(want)));
    }
    let (g, w) = (doubles(got), doubles(want));
    let (unit, tiny) = precision(want.dtype());
    let flushes = tolerance.own > 0.5;
    let largest = w.iter().copied().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (&g, &w)) in g.iter().zip(&w).enumerate() {
        let allowed =
            unit * (tolerance.own * w.abs() + tolerance.largest * largest + tolerance.one);
        let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan());
        let near = tolerance != Tolerance::EXACT
            && (g == w || (g - w).abs() <= allowed || flushes && g.abs().max(w.abs()) <= tiny);
        if !same && !near {
            let units = (g - w).abs() / (unit * w.abs().max(tiny));
            return Some(format!("element {i} is {g:e}, expected {w:e} ({units:.1} units)"));
        }
    }
    None
}

/// Panics where two tensors differ by more than the tolerance.
///
/// # Panics
/// If they do.
#[track_caller]
pub fn assert_close(what: &str, got: &Tensor, want: &Array, tolerance: Tolerance) {
    if let Some(e) = compare(got.array(), want, tolerance) {
        panic!("{what}: {e}");
    }
}
