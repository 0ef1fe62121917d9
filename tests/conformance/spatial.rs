//! `nn.functional` over places: pooling, convolution, images.

use crate::args::{Args, Value, skip};
use crate::nn::{INTEGERS, INTS};
use crate::registry::Registry;
use sinter::Tensor;
use sinter::nn::functional::{
    self as F, InterpolationMode, Outside, PadMode, PoolOptions, Resize, TransposeOptions,
};
use sinter_tests::Tolerance;

/// The choices of a pooling function.
pub fn pool_options<const N: usize>(a: &Args, max: bool) -> PoolOptions<N> {
    let stride = a.opt_ints((2, "stride")).is_some_and(|s| !s.is_empty());
    let mut o = PoolOptions::<N> {
        stride: stride.then(|| a.extents((2, "stride"), 1)),
        padding: a.extents((3, "padding"), 0),
        ..PoolOptions::default()
    };
    if max {
        o.dilation = a.extents((4, "dilation"), 1);
        o.ceil = a.bool_or((5, "ceil_mode"), false);
    } else {
        o.ceil = a.bool_or((4, "ceil_mode"), false);
        o.count_include_pad = a.bool_or((5, "count_include_pad"), true);
        o.divisor = a.opt_i64((6, "divisor_override"));
    }
    o
}

/// Extents where `None` stands for that of the input.
fn output<const N: usize>(a: &Args) -> [usize; N] {
    let shape = a.t(0).shape().to_vec();
    let own = |i: usize| shape[shape.len() - N + i];
    match a.get(1) {
        Value::List(l) => std::array::from_fn(|i| match &l[if l.len() == 1 { 0 } else { i }] {
            Value::Int(n) => *n as usize,
            _ => own(i),
        }),
        Value::Int(n) => [*n as usize; N],
        _ => std::array::from_fn(own),
    }
}

macro_rules! pools {
    ($r:ident: $($n:literal: $max:literal $max_f:ident $with:ident, $avg:literal $avg_f:ident, $ada_max:literal $ada_max_f:ident, $ada_avg:literal $ada_avg_f:ident, [$($unpool:literal)*] $unpool_f:ident;)*) => {$(
        $r.op($max, |a| {
            let (x, o) = (a.t(0), pool_options::<$n>(a, true));
            let window = a.extents((1, "kernel_size"), 1);
            if a.bool_or((6, "return_indices"), false) {
                let (y, at) = F::$with(&x, window, &o);
                vec![y, at]
            } else {
                vec![F::$max_f(&x, window, &o)]
            }
        })
        .without(INTS, INTEGERS);
        $r.op($avg, |a| {
            F::$avg_f(&a.t(0), a.extents((1, "kernel_size"), 1), &pool_options::<$n>(a, false))
        })
        .half(4.0)
        .without(INTS, INTEGERS);
        $r.op($ada_max, |a| {
            let (y, at) = F::$ada_max_f(&a.t(0), output::<$n>(a));
            if a.bool_or((2, "return_indices"), false) { vec![y, at] } else { vec![y] }
        });
        $r.op($ada_avg, |a| F::$ada_avg_f(&a.t(0), output::<$n>(a))).half(8.0);
        for name in [$($unpool),*] {
            $r.op(name, |a| {
                let (x, at) = (a.t(0), a.t(1));
                let window = a.extents::<$n>((2, "kernel_size"), 1);
                let stride = a.opt_ints((3, "stride")).map_or(window, |_| a.extents((3, "stride"), 1));
                let padding = a.extents::<$n>((4, "padding"), 0);
                let size: [usize; $n] = match a.opt_ints((5, "output_size")) {
                    Some(s) => std::array::from_fn(|i| s[s.len() - $n + i] as usize),
                    None => std::array::from_fn(|i| {
                        let n = x.shape()[x.rank() - $n + i];
                        (n - 1) * stride[i] + window[i] - 2 * padding[i]
                    }),
                };
                F::$unpool_f(&x, &at, size)
            });
        }
    )*};
}

fn pooling(r: &mut Registry) {
    pools! { r:
        1: "nn.functional.max_pool1d" max_pool1d max_pool1d_with_indices,
            "nn.functional.avg_pool1d" avg_pool1d,
            "nn.functional.adaptive_max_pool1d" adaptive_max_pool1d,
            "nn.functional.adaptive_avg_pool1d" adaptive_avg_pool1d,
            ["nn.functional.max_unpool1d" "nn.functional.max_unpool1d.grad"] max_unpool1d;
        2: "nn.functional.max_pool2d" max_pool2d_with max_pool2d_with_indices,
            "nn.functional.avg_pool2d" avg_pool2d_with,
            "nn.functional.adaptive_max_pool2d" adaptive_max_pool2d,
            "nn.functional.adaptive_avg_pool2d" adaptive_avg_pool2d,
            ["nn.functional.max_unpool2d" "nn.functional.max_unpool2d.grad"] max_unpool2d;
        3: "nn.functional.max_pool3d" max_pool3d max_pool3d_with_indices,
            "nn.functional.avg_pool3d" avg_pool3d,
            "nn.functional.adaptive_max_pool3d" adaptive_max_pool3d,
            "nn.functional.adaptive_avg_pool3d" adaptive_avg_pool3d,
            ["nn.functional.max_unpool3d" "nn.functional.max_unpool3d.grad"] max_unpool3d;
    }
    let fractional = |a: &Args, n: usize| -> Vec<usize> {
        a.ignore("_random_samples");
        let x = a.t(0);
        match (a.opt_ints("output_size"), a.opt_floats("output_ratio")) {
            (Some(s), _) => (0..n).map(|i| s[if s.len() == 1 { 0 } else { i }] as usize).collect(),
            (None, Some(f)) => (0..n)
                .map(|i| {
                    let length = x.shape()[x.rank() - n + i] as f64;
                    (length * f[if f.len() == 1 { 0 } else { i }]) as usize
                })
                .collect(),
            _ => panic!("no size"),
        }
    };
    r.op("nn.functional.fractional_max_pool2d", move |a| {
        let o = fractional(a, 2);
        let (y, at) = F::fractional_max_pool2d(&a.t(0), a.extents(1, 1), [o[0], o[1]]);
        if a.bool_or("return_indices", false) { vec![y, at] } else { vec![y] }
    });
    r.op("nn.functional.fractional_max_pool3d", move |a| {
        let o = fractional(a, 3);
        let (y, at) = F::fractional_max_pool3d(&a.t(0), a.extents(1, 1), [o[0], o[1], o[2]]);
        if a.bool_or("return_indices", false) { vec![y, at] } else { vec![y] }
    });
}

/// The arguments of a convolution; the input is padded here where they say "same".
#[allow(clippy::type_complexity)]
fn conv<const N: usize>(
    a: &Args,
) -> (Tensor, Tensor, Option<Tensor>, [usize; N], [usize; N], [usize; N], usize) {
    let (mut x, w, b) = (a.t(0), a.t((1, "weight")), a.opt_t((2, "bias")));
    let dilation: [usize; N] = a.extents((5, "dilation"), 1);
    let mut padding = [0; N];
    match a.get((4, "padding")) {
        Value::Str(s) if s == "same" => {
            let mut widths = Vec::new();
            for i in (0..N).rev() {
                let total = dilation[i] * (w.shape()[2 + i] - 1);
                widths.extend([(total / 2) as i64, (total - total / 2) as i64]);
            }
            x = F::pad(&x, &widths, PadMode::Constant(0.0));
        }
        Value::Str(_) => {}
        _ => padding = a.extents((4, "padding"), 0),
    }
    (x, w, b, a.extents((3, "stride"), 1), padding, dilation, a.i64_or((6, "groups"), 1) as usize)
}

fn transposed<const N: usize>(a: &Args) -> TransposeOptions<N> {
    TransposeOptions {
        stride: a.extents((3, "stride"), 1),
        padding: a.extents((4, "padding"), 0),
        output_padding: a.extents((5, "output_padding"), 0),
        groups: a.i64_or((6, "groups"), 1) as usize,
        dilation: a.extents((7, "dilation"), 1),
    }
}

fn convolutions(r: &mut Registry) {
    let near = Tolerance { own: 8.0, largest: 16.0, one: 0.0 };
    r.op("nn.functional.conv1d", |a| {
        let (x, w, b, s, p, d, g) = conv::<1>(a);
        F::conv1d(&x, &w, b.as_ref(), s[0], p[0], d[0], g)
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(4.0);
    r.op("nn.functional.conv2d", |a| {
        let (x, w, b, s, p, d, g) = conv::<2>(a);
        F::conv2d(&x, &w, b.as_ref(), s, p, d, g)
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(4.0);
    r.op("nn.functional.conv3d", |a| {
        let (x, w, b, s, p, d, g) = conv::<3>(a);
        F::conv3d(&x, &w, b.as_ref(), s, p, d, g)
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(8.0);
    r.op("nn.functional.conv_transpose1d", |a| {
        let b = a.opt_t((2, "bias"));
        F::conv_transpose1d(&a.t(0), &a.t(1), b.as_ref(), &transposed(a))
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(8.0);
    r.op("nn.functional.conv_transpose2d", |a| {
        let b = a.opt_t((2, "bias"));
        F::conv_transpose2d(&a.t(0), &a.t(1), b.as_ref(), &transposed(a))
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(8.0);
    r.op("nn.functional.conv_transpose3d", |a| {
        let b = a.opt_t((2, "bias"));
        F::conv_transpose3d(&a.t(0), &a.t(1), b.as_ref(), &transposed(a))
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(8.0);
    r.op("nn.functional.unfold", |a| {
        let (kernel, dilation) = (a.extents(1, 1), a.extents((2, "dilation"), 1));
        F::unfold(
            &a.t(0),
            kernel,
            dilation,
            a.extents((3, "padding"), 0),
            a.extents((4, "stride"), 1),
        )
    });
}

fn pad_mode(name: &str, value: f64) -> PadMode {
    match name {
        "constant" => PadMode::Constant(value),
        "reflect" => PadMode::Reflect,
        "replicate" => PadMode::Replicate,
        "circular" => PadMode::Circular,
        other => panic!("mode {other}"),
    }
}

fn images(r: &mut Registry) {
    for name in [
        "nn.functional.pad.constant",
        "nn.functional.pad.reflect",
        "nn.functional.pad.replicate",
        "nn.functional.pad.replicate_negative",
        "nn.functional.pad.circular",
    ] {
        r.op(name, |a| {
            let mode = pad_mode(a.str_or((2, "mode"), "constant"), a.f64_or((3, "value"), 0.0));
            F::pad(&a.t(0), &a.ints(1), mode)
        });
    }
    r.composite("constant_pad_nd", "nn.functional.pad", |a| {
        F::pad(&a.t(0), &a.ints(1), PadMode::Constant(a.f64_or((2, "value"), 0.0)))
    });
    r.op("nn.functional.pixel_shuffle", |a| {
        F::pixel_shuffle(&a.t(0), a.usize((1, "upscale_factor")))
    });
    r.op("nn.functional.pixel_unshuffle", |a| {
        F::pixel_unshuffle(&a.t(0), a.usize((1, "downscale_factor")))
    });
    r.op("nn.functional.channel_shuffle", |a| F::channel_shuffle(&a.t(0), a.usize(1)));
    let resize = |a: &Args, mode: InterpolationMode, corners: bool| {
        let x = a.t(0);
        a.ignore("recompute_scale_factor");
        if a.bool_or("recompute_scale_factor", false) {
            skip("factors that only give the size");
        }
        let inner = x.rank() - 2;
        let many = |l: usize| if l == 1 { vec![0; inner] } else { (0..inner).collect() };
        match (a.opt_ints((1, "size")), a.opt_floats((2, "scale_factor"))) {
            (Some(s), _) => {
                let s: Vec<usize> = many(s.len()).iter().map(|&i: &usize| s[i] as usize).collect();
                F::interpolate(&x, Resize::To(&s), mode, corners)
            }
            (None, Some(f)) => {
                let f: Vec<f64> = many(f.len()).iter().map(|&i: &usize| f[i]).collect();
                F::interpolate(&x, Resize::By(&f), mode, corners)
            }
            _ => panic!("no size"),
        }
    };
    // PyTorch finds the places between points in f32.
    let near = Tolerance { own: 16.0, largest: 64.0, one: 0.0 };
    for (name, mode) in [
        ("nn.functional.interpolate.nearest", InterpolationMode::Nearest),
        ("nn.functional.interpolate.nearest-exact", InterpolationMode::NearestExact),
        ("nn.functional.interpolate.linear", InterpolationMode::Linear),
        ("nn.functional.interpolate.bilinear", InterpolationMode::Linear),
        ("nn.functional.interpolate.trilinear", InterpolationMode::Linear),
        ("nn.functional.interpolate.bicubic", InterpolationMode::Cubic),
        ("nn.functional.interpolate.area", InterpolationMode::Area),
    ] {
        r.op(name, move |a| {
            a.ignore("mode");
            resize(a, mode, a.bool_or("align_corners", false))
        })
        .without(INTS, INTEGERS)
        .within(near)
        .half(16.0);
    }
    r.composite("nn.functional.upsample_nearest", "interpolate", move |a| {
        resize(a, InterpolationMode::Nearest, false)
    });
    r.composite("nn.functional.upsample_bilinear", "interpolate", move |a| {
        resize(a, InterpolationMode::Linear, true)
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(16.0);
    r.composite("_upsample_bilinear2d_aa", "interpolate", |a| {
        a.ignore("scale_factors");
        let corners = a.bool_or((2, "align_corners"), false);
        let size = a.sizes((1, "output_size"));
        F::interpolate(&a.t(0), Resize::To(&size), InterpolationMode::LinearAntialias, corners)
    })
    .without(INTS, INTEGERS)
    .within(near)
    .half(16.0);
    let sample = |a: &Args, mode: &str, outside: &str, corners: bool| {
        let mode = match mode {
            "nearest" => InterpolationMode::Nearest,
            "bilinear" => InterpolationMode::Linear,
            _ => InterpolationMode::Cubic,
        };
        let outside = match outside {
            "zeros" => Outside::Zeros,
            "border" => Outside::Border,
            _ => Outside::Reflection,
        };
        F::grid_sample(&a.t(0), &a.t(1), mode, outside, corners)
    };
    r.op("nn.functional.grid_sample", move |a| {
        let (mode, outside) = (a.str_or("mode", "bilinear"), a.str_or("padding_mode", "zeros"));
        sample(a, mode, outside, a.bool_or("align_corners", false))
    })
    .within(near)
    .half(32.0);
    for name in ["grid_sampler_2d", "grid_sampler_3d"] {
        r.composite(name, "grid_sample", move |a| {
            let mode = ["bilinear", "nearest", "bicubic"][a.usize(2)];
            let outside = ["zeros", "border", "reflection"][a.usize(3)];
            sample(a, mode, outside, a.bool_or(4, false))
        })
        .within(near)
        .half(32.0);
    }
}

pub fn register(r: &mut Registry) {
    pooling(r);
    convolutions(r);
    images(r);
}
