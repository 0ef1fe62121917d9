//! Special functions.

use crate::args::Args;
use crate::registry::Registry;
use sinter::special;

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

pub fn register(r: &mut Registry) {
    unary! { r:
        "special.erfcx" erfcx; "special.ndtri" ndtri; "special.log_ndtr" log_ndtr;
        "special.i0e" i0e; "special.i1" i1; "special.i1e" i1e; "special.ndtr" ndtr;
        "special.entr" entr; "special.modified_bessel_i0" modified_bessel_i0;
        "special.modified_bessel_i1" modified_bessel_i1;
        "special.modified_bessel_k0" modified_bessel_k0;
        "special.modified_bessel_k1" modified_bessel_k1;
        "special.scaled_modified_bessel_k0" scaled_modified_bessel_k0;
        "special.scaled_modified_bessel_k1" scaled_modified_bessel_k1;
        "special.bessel_j0" bessel_j0; "special.bessel_j1" bessel_j1;
        "special.bessel_y0" bessel_y0; "special.bessel_y1" bessel_y1;
        "special.spherical_bessel_j0" spherical_bessel_j0;
    }
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
        "special.xlog1py" xlog1py; "special.zeta" zeta;
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
        r.op(name, polygamma);
    }
    for name in ["mvlgamma.mvlgamma_p_1", "mvlgamma.mvlgamma_p_3", "mvlgamma.mvlgamma_p_5"] {
        r.op(name, |a| special::multigammaln(&a.t(0), a.usize((1, "p"))));
    }
}
