//! Complex tensors and their parts.

use super::{Tensor, apply};
use sinter_runtime::op::UnaryOp;
use sinter_runtime::{DType, Op};

impl Tensor {
    /// Whether the elements are complex numbers.
    pub fn is_complex(&self) -> bool {
        self.dtype().is_complex()
    }

    /// A view of real and imaginary parts along a further last dimension of extent 2.
    ///
    /// ```
    /// use num_complex::Complex;
    /// use sinter::tensor;
    /// let z = tensor([Complex::new(1.0f32, 2.0), Complex::new(3.0, -1.0)]);
    /// assert_eq!(z.view_as_real().to_vec::<f32>(), [1.0, 2.0, 3.0, -1.0]);
    /// assert_eq!((&z * z.conj()).real().to_vec::<f32>(), [5.0, 10.0]);
    /// ```
    ///
    /// # Panics
    /// If the tensor is not complex.
    #[track_caller]
    pub fn view_as_real(&self) -> Tensor {
        apply(Op::ViewAsReal {}, &[self])
    }

    /// Pairs along the last dimension as complex numbers: a view where the parts of a
    /// number are neighbours in memory.
    ///
    /// # Panics
    /// If the type is not f32 or f64, or the last dimension's extent not 2.
    #[track_caller]
    pub fn view_as_complex(&self) -> Tensor {
        apply(Op::ViewAsComplex {}, &[self])
    }

    /// The real parts: a view of a complex tensor, a real one itself.
    #[track_caller]
    pub fn real(&self) -> Tensor {
        if self.is_complex() { self.view_as_real().select(-1, 0) } else { self.clone() }
    }

    /// The imaginary parts, a view.
    ///
    /// # Panics
    /// If the tensor is not complex.
    #[track_caller]
    pub fn imag(&self) -> Tensor {
        if !self.is_complex() {
            panic!("imag: needs complex numbers, got {}", self.dtype());
        }
        self.view_as_real().select(-1, 1)
    }

    /// The conjugates; a real tensor itself.
    #[track_caller]
    pub fn conj(&self) -> Tensor {
        if !self.is_complex() {
            return self.clone();
        }
        let mirror = super::tensor([1.0f64, -1.0]).to_dtype(self.dtype().real());
        (self.view_as_real() * mirror).view_as_complex()
    }

    /// The angle to the positive real axis, in radians: of real numbers 0 or π (NaN of
    /// NaN).
    #[track_caller]
    pub fn angle(&self) -> Tensor {
        if self.is_complex() {
            return self.imag().atan2(self.real());
        }
        let float = if self.dtype().is_float() { self.dtype() } else { super::default_dtype() };
        let x = self.to_dtype(float).detach();
        let below = x.lt(0.0).where_(&super::full_like(&x, std::f64::consts::PI), 0.0);
        x.isnan().where_(&x, below)
    }

    /// `x / |x|`, 0 at 0: the sign of real numbers.
    #[track_caller]
    pub fn sgn(&self) -> Tensor {
        if !self.is_complex() {
            return apply(Op::Unary(UnaryOp::Sign), &[self]);
        }
        let size = self.abs();
        let none = size.eq(0.0);
        let size = none.where_(&super::ones_like(&size), &size);
        self / size.to_dtype(self.dtype())
    }
}

/// Complex numbers of these real and imaginary parts, which broadcast.
///
/// ```
/// use sinter::{complex, polar, tensor};
/// let z = complex(&tensor([0.0f64]), &tensor([2.0f64]));
/// assert_eq!(z.abs().to_vec::<f64>(), [2.0]);
/// let w = polar(&tensor([2.0f64]), &tensor([0.0f64]));
/// assert_eq!(w.real().to_vec::<f64>(), [2.0]);
/// ```
///
/// # Panics
/// If the types are not both f32 or both f64.
#[track_caller]
pub fn complex(real: &Tensor, imag: &Tensor) -> Tensor {
    if real.dtype() != imag.dtype() || !matches!(real.dtype(), DType::F32 | DType::F64) {
        panic!(
            "complex: the parts must both be f32 or both f64, got {} and {}",
            real.dtype(),
            imag.dtype()
        );
    }
    let shape = match sinter_runtime::op::broadcast_shapes("complex", real.shape(), imag.shape()) {
        Ok(shape) => shape,
        Err(e) => super::fail(&e, &[real, imag]),
    };
    let (re, im) = (real.broadcast_to(&shape[..]), imag.broadcast_to(&shape[..]));
    super::stack(&[&re, &im], -1).view_as_complex()
}

/// Complex numbers of these absolute values and angles (in radians), which broadcast.
///
/// # Panics
/// As [`complex`].
#[track_caller]
pub fn polar(abs: &Tensor, angle: &Tensor) -> Tensor {
    complex(&(abs * angle.cos()), &(abs * angle.sin()))
}
