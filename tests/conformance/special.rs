//! Special functions.

use crate::args::Args;
use crate::registry::Registry;
use sinter::{DType, special};
use sinter_tests::Tolerance;

macro_rules! unary {
    ($r:ident: $($name:literal $function:ident;)*) => {
        $($r.op($name, |a| special::$function(&a.t(0)));)*
    };
}

macro_rules! polynomials {
    ($r:ident: $($name:literal $function:ident;)*) => {
        $($r.op($name, |a| special::$function(&a.operand(0).tensor(), a.operand(1)));)*
    };
}

const SEVEN: &str = "PyTorch's values are good to seven digits";

pub fn register(r: &mut Registry) {
    unary! { r:
        "special.erfcx" erfcx; "special.ndtri" ndtri; "special.log_ndtr" log_ndtr;
        "special.i0e" i0e; "special.i1e" i1e;
        "special.entr" entr; "special.modified_bessel_k0" modified_bessel_k0;
        "special.modified_bessel_k1" modified_bessel_k1;
        "special.scaled_modified_bessel_k0" scaled_modified_bessel_k0;
        "special.scaled_modified_bessel_k1" scaled_modified_bessel_k1;
        "special.spherical_bessel_j0" spherical_bessel_j0;
    }
    let infinite = "infinity, where PyTorch gives NaN and the limit is infinite";
    r.op("special.i1", |a| special::i1(&a.t(0))).skip(infinite, crate::pointwise::infinite);
    r.op("special.modified_bessel_i0", |a| special::modified_bessel_i0(&a.t(0)))
        .skip(infinite, crate::pointwise::infinite);
    r.op("special.modified_bessel_i1", |a| special::modified_bessel_i1(&a.t(0)))
        .skip(infinite, crate::pointwise::infinite);
    // PyTorch adds 1 to the error function, which cancels.
    let added = Tolerance { one: 2.0, ..Tolerance::units(8.0) };
    r.op("special.ndtr", |a| special::ndtr(&a.t(0))).within(added).half = Some(added);
    // PyTorch's values of negative numbers are good to seven digits, and so their derivatives.
    let eight = Tolerance { one: 4e9, ..Tolerance::units(1e8) };
    r.op("special.bessel_j0", |a| special::bessel_j0(&a.t(0))).double(eight).no_gradient(SEVEN);
    r.op("special.bessel_j1", |a| special::bessel_j1(&a.t(0))).double(eight).no_gradient(SEVEN);
    r.op("special.bessel_y0", |a| special::bessel_y0(&a.t(0))).double(eight).no_gradient(SEVEN);
    r.op("special.bessel_y1", |a| special::bessel_y1(&a.t(0)))
        .within(Tolerance { one: 8.0, ..Tolerance::units(64.0) })
        .double(eight)
        .no_gradient(SEVEN);
    r.op("special.zeta", |a| special::zeta(&a.operand(0).tensor(), a.operand(1))).skip(
        "NaN, where PyTorch gives infinity at the pole",
        |a| {
            a.tensors
                .iter()
                .any(|t| t.dtype().is_float() && t.isnan().any().item_scalar().as_bool())
        },
    );
    polynomials! { r:
        "special.chebyshev_polynomial_t" chebyshev_polynomial_t;
        "special.chebyshev_polynomial_u" chebyshev_polynomial_u;
        "special.chebyshev_polynomial_v" chebyshev_polynomial_v;
        "special.chebyshev_polynomial_w" chebyshev_polynomial_w;
        "special.shifted_chebyshev_polynomial_t" shifted_chebyshev_polynomial_t;
        "special.shifted_chebyshev_polynomial_u" shifted_chebyshev_polynomial_u;
        "special.shifted_chebyshev_polynomial_v" shifted_chebyshev_polynomial_v;
        "special.shifted_chebyshev_polynomial_w" shifted_chebyshev_polynomial_w;
        "special.hermite_polynomial_h" hermite_polynomial_h;
        "special.hermite_polynomial_he" hermite_polynomial_he;
        "special.laguerre_polynomial_l" laguerre_polynomial_l;
        "special.legendre_polynomial_p" legendre_polynomial_p;
        "special.xlog1py" xlog1py;
    }
    // `x.polygamma(n)` and `special.polygamma(n, x)` are written both ways.
    let polygamma = |a: &Args| {
        let n = a.usize((1, "n")) as u32;
        special::polygamma(n, &a.t(0))
    };
    for name in [
        "polygamma.polygamma_n_0",
        "polygamma.polygamma_n_1",
        "polygamma.polygamma_n_2",
        "polygamma.polygamma_n_3",
        "polygamma.polygamma_n_4",
        "special.polygamma.special_polygamma_n_0",
    ] {
        // Near a pole, of a difference from it that is rounded.
        r.op(name, polygamma)
            .without(&[DType::I8], "integers: poles, which PyTorch misses by a rounding")
            .within(Tolerance::units(4096.0))
            .double(Tolerance::units(1e7)); // PyTorch's has nine digits
    }
    for name in ["mvlgamma.mvlgamma_p_1", "mvlgamma.mvlgamma_p_3", "mvlgamma.mvlgamma_p_5"] {
        r.op(name, |a| special::multigammaln(&a.t(0), a.usize((1, "p"))));
    }
}
