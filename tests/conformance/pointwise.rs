//! Element by element.

use crate::args::{Args, Either, skip};
use crate::registry::Registry;
use sinter::{DType, Tensor};

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

/// The first operand, which may be a number.
fn left(a: &Args) -> Tensor {
    a.operand(0).tensor()
}

pub fn register(r: &mut Registry) {
    unary! { r:
        "abs" abs; "acos" acos; "acosh" acosh; "asin" asin; "asinh" asinh; "atan" atan;
        "atanh" atanh; "bitwise_not" bitwise_not; "ceil" ceil; "cos" cos; "cosh" cosh;
        "erf" erf; "exp" exp; "exp2" exp2; "expm1" expm1; "floor" floor;
        "isfinite" isfinite; "isinf" isinf; "isnan" isnan; "log" ln; "log10" log10;
        "log1p" log1p; "log2" log2; "logical_not" logical_not; "neg" neg;
        "reciprocal" reciprocal; "round" round; "rsqrt" rsqrt; "sigmoid" sigmoid;
        "sin" sin; "sinh" sinh; "sqrt" sqrt; "tan" tan;
        "tanh" tanh; "trunc" trunc;
    }
    binary! { r:
        "atan2" atan2; "bitwise_and" bitwise_and; "bitwise_or" bitwise_or;
        "bitwise_xor" bitwise_xor; "bitwise_left_shift" bitwise_left_shift;
        "eq" eq; "ne" ne; "lt" lt; "le" le;
        "gt" gt; "ge" ge; "maximum" maximum; "minimum" minimum; "remainder" remainder;
        "floor_divide" floor_divide;
    }
    r.op("sign", |a| a.t(0).sign()).without(&[DType::Bool], TRUTH);
    r.op("square", |a| a.t(0).square()).without(&[DType::Bool], TRUTH);
    r.op("bitwise_right_shift", |a| a.t(0).bitwise_right_shift(a.operand(1))).skip(
        "negative shifts: PyTorch leaves the sign alone, Sinter the number",
        |a| matches!(a.operand(1), Either::Tensor(t) if t.lt(0).any().item::<f64>() != 0.0),
    );
    r.op("add", |a| a.t(0) + scaled(a, a.operand(1)));
    r.op("sub", |a| a.t(0) - scaled(a, a.operand(1)));
    r.op("mul", |a| a.t(0) * a.operand(1));
    r.op("div.no_rounding_mode", |a| a.t(0) / a.operand(1));
    r.op("true_divide", |a| a.t(0) / a.operand(1));
    r.composite("div.floor_rounding", "floor_divide", |a| {
        assert_eq!(a.opt_str("rounding_mode"), Some("floor"));
        a.t(0).floor_divide(a.operand(1))
    });
    r.op("pow", |a| match a.operand(0) {
        Either::Tensor(x) => x.pow(a.operand(1)),
        Either::Number(_) => skip("a number to the power of a tensor"),
    });
    r.composite("__radd__", "`+`", |a| a.t(0) + a.operand(1));
    r.composite("__rmul__", "`*`", |a| a.t(0) * a.operand(1));
    r.composite("__rsub__", "`-`, operands exchanged", |a| -(a.t(0) - a.operand(1)));
    r.composite("__rand__", "bitwise_and", |a| a.t(0).bitwise_and(a.operand(1)));
    r.composite("__ror__", "bitwise_or", |a| a.t(0).bitwise_or(a.operand(1)));
    r.composite("__rxor__", "bitwise_xor", |a| a.t(0).bitwise_xor(a.operand(1)));
    r.composite("max.binary", "maximum", |a| a.t(0).maximum(a.operand(1)));
    r.composite("min.binary", "minimum", |a| a.t(0).minimum(a.operand(1)));
    r.composite("positive", "the tensor itself", |a| a.t(0));
    let logical: [(&'static str, fn(&Tensor, &Tensor) -> Tensor); 3] = [
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
        r.composite(name, "to_dtype", move |a| a.t(0).to_dtype(d));
    }
}
