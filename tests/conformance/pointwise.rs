//! Element by element.

use crate::args::{Args, Either, Value, skip};
use crate::registry::Registry;
use sinter::{DType, Operand, Rounding, Tensor};

/// `other * alpha`, where the case has an `alpha`.
fn scaled(a: &Args, other: Either) -> Either {
    match (a.opt_scalar("alpha"), other) {
        (None, other) => other,
        (Some(s), Either::Tensor(t)) => Either::Tensor(t * s),
        (Some(s), Either::Number(n)) => Either::Number((n.as_f64() * s.as_f64()).into()),
    }
}

macro_rules! unary {
    ($r:ident: $($name:literal $method:ident;)*) => {
        $($r.op($name, |a| a.t(0).$method());)*
    };
}

macro_rules! binary {
    ($r:ident: $($name:literal $method:ident;)*) => {
        $($r.op($name, |a| a.t(0).$method(a.operand((1, "other"))));)*
    };
}

const TRUTH: &str = "truth values are no numbers";

const INFINITE: &str = "infinity, where PyTorch gives NaN and the limit is infinite";
const HUGE: &str = "numbers from 1e15 on";

/// Whether an operand is infinite.
pub fn infinite(a: &Args) -> bool {
    a.tensors.iter().any(|t| t.dtype().is_float() && t.isinf().any().item_scalar().as_bool())
}

fn huge(a: &Args) -> bool {
    a.tensors.iter().any(|t| t.dtype().is_float() && t.abs().ge(1e15).any().item_scalar().as_bool())
}

/// The first operand, which may be a number.
fn left(a: &Args) -> Tensor {
    a.operand(0).tensor()
}

/// The second operand where it stands on the left.
fn right(a: &Args) -> Tensor {
    match a.operand(1) {
        Either::Tensor(t) => t,
        Either::Number(n) => n.as_tensor(n.meet(&a.t(0))).into_owned(),
    }
}

/// Complex numbers and their parts.
fn complex(r: &mut Registry) {
    r.op("complex", |a| sinter::complex(&a.t(0), &a.t(1)));
    r.op("polar", |a| sinter::polar(&a.t(0), &a.t(1)));
    r.op("real", |a| a.t(0).real());
    r.op("imag", |a| a.t(0).imag());
    r.op("conj", |a| a.t(0).conj());
    r.composite("conj_physical", "conj", |a| a.t(0).conj());
    r.op("angle", |a| a.t(0).angle())
        .no_gradient("that of real numbers is zero; Sinter records nothing");
    r.op("view_as_real", |a| a.t(0).view_as_real());
    r.op("view_as_complex", |a| a.t(0).view_as_complex());
    r.composite("nn.functional.silu.complex", "silu", |a| a.t(0).silu());
    r.composite("cfloat", "to_dtype", |a| a.t(0).to_dtype(DType::C64));
    r.composite("cdouble", "to_dtype", |a| a.t(0).to_dtype(DType::C128));
    r.composite("char", "to_dtype", |a| a.t(0).to_dtype(DType::I8));
    r.composite("short", "to_dtype", |a| a.t(0).to_dtype(DType::I16));
}

pub fn register(r: &mut Registry) {
    unary! { r:
        "abs" abs; "acos" acos; "acosh" acosh; "asin" asin; "asinh" asinh; "atan" atan;
        "atanh" atanh; "bitwise_not" bitwise_not; "ceil" ceil; "cos" cos; "cosh" cosh;
        "erf" erf; "exp" exp; "exp2" exp2; "expm1" expm1; "floor" floor;
        "isfinite" isfinite; "isinf" isinf; "isnan" isnan; "log" ln; "log10" log10;
        "log1p" log1p; "log2" log2; "logical_not" logical_not; "neg" neg;
        "round" round; "sigmoid" sigmoid;
        "sin" sin; "sinh" sinh; "sqrt" sqrt; "tan" tan;
        "tanh" tanh; "trunc" trunc; "erfc" erfc; "erfinv" erfinv; "lgamma" lgamma;
        "digamma" digamma; "frac" frac; "signbit" signbit;
        "deg2rad" deg2rad; "rad2deg" rad2deg; "isposinf" isposinf; "isneginf" isneginf;
        "isreal" isreal; "frexp" frexp; "positive" positive;
    }
    binary! { r:
        "atan2" atan2; "bitwise_and" bitwise_and; "bitwise_or" bitwise_or;
        "bitwise_xor" bitwise_xor; "fmod" fmod; "copysign" copysign; "hypot" hypot;
        "gcd" gcd;
        "clamp_min" clamp_min; "clamp_max" clamp_max; "fmax" fmax; "fmin" fmin;
        "float_power" float_power; "logaddexp2" logaddexp2;
        "xlogy" xlogy; "true_divide" true_divide; "bitwise_left_shift" bitwise_left_shift;
        "eq" eq; "ne" ne; "lt" lt; "le" le;
        "gt" gt; "ge" ge; "maximum" maximum; "minimum" minimum; "remainder" remainder;
        "floor_divide" floor_divide;
    }
    r.op("sinc", |a| a.t(0).sinc());
    r.op("lcm", |a| a.t(0).lcm(a.operand(1))).without(&[DType::I8], "multiples that do not fit");
    r.op("ldexp", |a| a.t(0).ldexp(a.operand(1)));
    r.op("logaddexp", |a| a.t(0).logaddexp(a.operand(1))).real();
    let zero = "complex zero, whose inverse PyTorch takes as infinite";
    let complex_zero =
        |a: &Args| a.t(0).is_complex() && a.t(0).abs().eq(0.0).any().item_scalar().as_bool();
    r.op("reciprocal", |a| a.t(0).reciprocal()).skip(zero, complex_zero);
    r.op("rsqrt", |a| a.t(0).rsqrt()).skip(zero, complex_zero);
    r.op("sgn", |a| a.t(0).sgn()).without(&[DType::Bool], TRUTH);
    r.op("nextafter", |a| a.t(0).nextafter(a.operand(1)))
        .without(&[DType::BF16, DType::F16], "neighbours of numbers of 16 bits");
    r.op("i0", |a| a.t(0).i0()).skip(INFINITE, infinite);
    r.op("igamma", |a| a.t(0).igamma(a.operand(1))).skip(HUGE, huge);
    r.op("igammac", |a| a.t(0).igammac(a.operand(1))).skip(HUGE, huge);
    r.op("item", |a| {
        let x = a.t(0);
        // A Python number.
        let d = match x.dtype() {
            d if d.is_float() => DType::F64,
            d if d.is_complex() => DType::C64,
            DType::Bool => DType::Bool,
            _ => DType::I64,
        };
        sinter::scalar(x.item_scalar(), d)
    });
    r.op("to", |a| {
        a.ignore(3);
        a.ignore(4);
        match (a.get(1), a.get(2)) {
            (Value::DType(_), _) => {
                a.ignore(2);
                a.t(0).to_dtype(a.opt_dtype(1).expect("a type"))
            }
            (_, Value::DType(_)) => a.t(0).to_dtype(a.opt_dtype(2).expect("a type")),
            (Value::Tensor(_), _) => {
                a.ignore(2);
                a.t(0).type_as(&a.t(1))
            }
            _ => a.t(0).to_dtype(a.opt_dtype("dtype").unwrap_or(a.t(0).dtype())),
        }
    });
    for name in ["resolve_conj", "resolve_neg"] {
        r.composite(name, "the tensor itself: nothing is put off", |a| a.t(0));
    }
    r.op("sign", |a| a.t(0).sign()).without(&[DType::Bool], TRUTH);
    r.op("square", |a| a.t(0).square()).without(&[DType::Bool], TRUTH);
    r.op("bitwise_right_shift", |a| a.t(0).bitwise_right_shift(a.operand(1))).skip(
        "negative shifts: PyTorch leaves the sign alone, Sinter the number",
        |a| matches!(a.operand(1), Either::Tensor(t) if t.lt(0).any().item::<f64>() != 0.0),
    );
    complex(r);
    r.op("add", |a| a.t(0) + scaled(a, a.operand(1)));
    r.op("sub", |a| a.t(0) - scaled(a, a.operand(1)));
    r.op("mul", |a| a.t(0) * a.operand(1));
    r.op("div.no_rounding_mode", |a| a.t(0) / a.operand(1));
    for (name, rounding) in
        [("div.floor_rounding", Rounding::Floor), ("div.trunc_rounding", Rounding::Trunc)]
    {
        r.op(name, move |a| {
            a.ignore("rounding_mode");
            a.t(0).div_rounding(a.operand(1), rounding)
        });
    }
    r.op("pow", |a| match a.operand(0) {
        Either::Tensor(x) => x.pow(a.operand(1)),
        Either::Number(_) => skip("a number to the power of a tensor"),
    });
    r.composite("__radd__", "`+`", |a| a.t(0) + a.operand(1));
    r.composite("__rmul__", "`*`", |a| a.t(0) * a.operand(1));
    r.composite("__rsub__", "rsub", |a| a.t(0).rsub(a.operand(1)));
    r.composite("__rdiv__", "`/`, operands exchanged", |a| right(a) / a.t(0));
    r.composite("__rmod__", "`%`, operands exchanged", |a| right(a).remainder(a.t(0)));
    r.composite("__rpow__", "pow, operands exchanged", |a| right(a).pow(a.t(0)));
    r.op("rsub", |a| match (a.opt_scalar("alpha"), a.t(0)) {
        (None, x) => x.rsub(a.operand(1)),
        (Some(s), x) => (x * s).rsub(a.operand(1)),
    });
    r.op("addcmul", |a| a.t(0).addcmul(&a.t(1), &a.t(2), a.f64_or("value", 1.0))).half(4.0);
    r.op("addcdiv", |a| a.t(0).addcdiv(&a.t(1), &a.t(2), a.f64_or("value", 1.0))).half(4.0);
    r.op("lerp", |a| a.t(0).lerp(&a.t(1), a.operand(2))).half(4.0);
    r.op("clamp", |a| match (a.get((1, "min")), a.get((2, "max"))) {
        (Value::Tensor(_), _) | (_, Value::Tensor(_)) => {
            let (low, high) = (a.opt_t((1, "min")), a.opt_t((2, "max")));
            a.t(0).clamp_tensor(low.as_ref(), high.as_ref())
        }
        _ => a.t(0).clamp(a.opt_f64((1, "min")), a.opt_f64((2, "max"))),
    });
    r.op("logit", |a| a.t(0).logit(a.opt_f64((1, "eps"))))
        .skip("bounds that are upside down", |a| a.f64_or((1, "eps"), 0.0) > 0.5);
    r.op("nan_to_num", |a| {
        let nan = a.f64_or((1, "nan"), 0.0);
        a.t(0).nan_to_num(nan, a.opt_f64((2, "posinf")), a.opt_f64((3, "neginf")))
    });
    for name in ["round.decimals_0", "round.decimals_3", "round.decimals_neg_3"] {
        r.op(name, |a| a.t(0).round_decimals(a.i64("decimals") as i32));
    }
    r.op("heaviside", |a| a.t(0).heaviside(&a.t(1)));
    r.op("isclose", |a| {
        let (rtol, atol) = (a.f64_or("rtol", 1e-5), a.f64_or("atol", 1e-8));
        a.t(0).isclose(&a.t(1), rtol, atol, a.bool_or("equal_nan", false))
    });
    r.op("equal", |a| a.t(0).equal(&a.t(1)));
    r.op("isin", |a| {
        let found = a.t(0).isin(&a.t(1));
        if a.bool_or("invert", false) { found.logical_not() } else { found }
    });
    r.composite("__rand__", "bitwise_and", |a| a.t(0).bitwise_and(a.operand(1)));
    r.composite("__ror__", "bitwise_or", |a| a.t(0).bitwise_or(a.operand(1)));
    r.composite("__rxor__", "bitwise_xor", |a| a.t(0).bitwise_xor(a.operand(1)));
    r.composite("max.binary", "maximum", |a| a.t(0).maximum(a.operand(1)));
    r.composite("min.binary", "minimum", |a| a.t(0).minimum(a.operand(1)));
    type Two = fn(&Tensor, &Tensor) -> Tensor;
    let logical: [(&'static str, Two); 3] = [
        ("logical_and", Tensor::logical_and),
        ("logical_or", Tensor::logical_or),
        ("logical_xor", Tensor::logical_xor),
    ];
    for (name, f) in logical {
        r.op(name, move |a| f(&left(a), &a.operand(1).tensor()));
    }
    let types = [
        ("bfloat16", DType::BF16),
        ("bool", DType::Bool),
        ("byte", DType::U8),
        ("double", DType::F64),
        ("float", DType::F32),
        ("half", DType::F16),
        ("int", DType::I32),
        ("long", DType::I64),
    ];
    for (name, d) in types {
        r.composite(name, "to_dtype", move |a| a.t(0).to_dtype(d))
            .no_second("differences of what is rounded");
    }
}
