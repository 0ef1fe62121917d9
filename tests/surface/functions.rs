//! The functions of the table by their names.

use sinter::{
    Ellipsis, Indexing, Interpolation, NewAxis, Rounding, ScatterReduce, Tensor, Unique,
    block_diag, cartesian_prod, cat, chain_matmul, column_stack, dstack, einsum, hstack, masked, s,
    searchsorted, special, stack, tensordot, vstack,
};

pub type Function = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// Two results.
pub fn pair((a, b): (Tensor, Tensor)) -> Vec<Tensor> {
    vec![a, b]
}

fn distinct(u: Unique) -> Vec<Tensor> {
    vec![u.values, u.inverse, u.counts]
}

/// The function of a case by its name in the table.
pub fn function(name: &str) -> Option<Function> {
    if let Some(spec) = name.strip_prefix("einsum ") {
        let spec = spec.to_string();
        return Some(Box::new(move |x| vec![einsum(&spec, &x.iter().collect::<Vec<_>>())]));
    }
    if let Some(rest) = name.strip_prefix("scatter_reduce ") {
        let (how, include) = rest.split_once(' ')?;
        let (how, include) = (reduction(how)?, include == "True");
        return Some(Box::new(move |x| vec![x[0].scatter_reduce(0, &x[1], &x[2], how, include)]));
    }
    if let Some(how) = name.strip_prefix("index_reduce ") {
        let how = reduction(how)?;
        return Some(Box::new(move |x| vec![x[0].index_reduce(1, &x[1], &x[2], how, true)]));
    }
    if let Some(how) = name.strip_prefix("quantile ").and_then(interpolation) {
        return Some(Box::new(move |x| vec![x[0].quantile(&x[1], 1, false, how)]));
    }
    if let Some(name) = name.strip_prefix("masked ") {
        return masked_function(name);
    }
    if name.contains("_polynomial_") {
        return polynomial(name);
    }
    let f: fn(&[Tensor]) -> Vec<Tensor> = match name {
        "addcmul" => |x| vec![x[0].addcmul(&x[1], &x[2], 0.5)],
        "addcdiv" => |x| vec![x[0].addcdiv(&x[1], &x[2], 0.5)],
        "lerp" => |x| vec![x[0].lerp(&x[1], &x[2])],
        "clamp_tensor" => |x| vec![x[0].clamp_tensor(Some(&x[1]), Some(&x[2]))],
        "fmax" => |x| vec![x[0].fmax(&x[1])],
        "fmin" => |x| vec![x[0].fmin(&x[1])],
        "fmod" => |x| vec![x[0].fmod(&x[1])],
        "copysign" => |x| vec![x[0].copysign(&x[1])],
        "hypot" => |x| vec![x[0].hypot(&x[1])],
        "div trunc" => |x| vec![x[0].div_rounding(&x[1], Rounding::Trunc)],
        "div floor" => |x| vec![x[0].div_rounding(&x[1], Rounding::Floor)],
        "frac" => |x| vec![x[0].frac()],
        "signbit" => |x| vec![x[0].signbit()],
        "logit" => |x| vec![x[0].logit(None)],
        "logit eps" => |x| vec![x[0].logit(0.2)],
        "sinc" => |x| vec![x[0].sinc()],
        "nan_to_num" => |x| vec![x[0].nan_to_num(1.5, None, -7.0)],
        "deg2rad" => |x| vec![x[0].deg2rad()],
        "rad2deg" => |x| vec![x[0].rad2deg()],
        "frexp" => |x| pair(x[0].frexp()),
        "ldexp" => |x| vec![x[0].ldexp(&x[1])],
        "round_decimals" => |x| vec![x[0].round_decimals(2)],
        "round_decimals negative" => |x| vec![x[0].round_decimals(-1)],
        "float_power" => |x| vec![x[0].float_power(&x[1])],
        "logaddexp" | "logaddexp smooth" => |x| vec![x[0].logaddexp(&x[1])],
        "logaddexp2" => |x| vec![x[0].logaddexp2(&x[1])],
        "xlogy" | "xlogy smooth" => |x| vec![x[0].xlogy(&x[1])],
        "heaviside" => |x| vec![x[0].heaviside(&x[1])],
        "lcm" => |x| vec![x[0].lcm(&x[1])],
        "gcd" => |x| vec![x[0].gcd(&x[1])],
        "isclose" => |x| vec![x[0].isclose(&x[1], 1e-5, 1e-8, true)],
        "isin" | "isin none" => |x| vec![x[0].isin(&x[1])],
        "isposinf" => |x| vec![x[0].isposinf()],
        "isneginf" => |x| vec![x[0].isneginf()],
        "entr" | "entr smooth" => |x| vec![special::entr(&x[0])],
        "xlog1py" => |x| vec![special::xlog1py(&x[0], &x[1])],
        "ndtr" => |x| vec![special::ndtr(&x[0])],
        "polygamma 2" => |x| vec![special::polygamma(2, &x[0])],
        "multigammaln 3" => |x| vec![special::multigammaln(&x[0], 3)],
        "spherical_bessel_j0" => |x| vec![special::spherical_bessel_j0(&x[0])],
        "igamma" => |x| vec![x[0].igamma(&x[1])],
        "zeta" => |x| vec![special::zeta(&x[0], &x[1])],

        "nansum" => |x| vec![x[0].nansum_dim(1, false)],
        "nanmean" => |x| vec![x[0].nanmean_dim(0, false)],
        "nanmean all" => |x| vec![x[0].nanmean()],
        "count_nonzero" => |x| vec![x[0].count_nonzero_dim(1)],
        "aminmax" => |x| pair(x[0].aminmax_dim(1, false)),
        "var_mean" => |x| pair(x[0].var_mean_dim(1, 2, false)),
        "std_mean" => |x| pair(x[0].std_mean()),
        "norm 3" => |x| vec![x[0].norm_dim(3.0, 1, false)],
        "norm inf" => |x| vec![x[0].norm_dim(f64::INFINITY, 1, false)],
        "norm -inf" => |x| vec![x[0].norm_dim(f64::NEG_INFINITY, [0, 1], false)],
        "norm 0" => |x| vec![x[0].norm_dim(0.0, 1, false)],
        "norm 1" => |x| vec![x[0].norm_dim(1.0, 1, true)],
        "norm 0.5" => |x| vec![x[0].norm_dim(0.5, 1, false)],
        "dist" => |x| vec![x[0].dist(&x[1], 1.5)],
        "renorm" => |x| vec![x[0].renorm(2.0, 0, 1.5)],
        "logsumexp" => |x| vec![x[0].logsumexp([0, 2], false)],
        "cummax" => |x| pair(x[0].cummax(1)),
        "cummin" => |x| pair(x[0].cummin(0)),
        "logcumsumexp" => |x| vec![x[0].logcumsumexp(1)],
        "diff" => |x| vec![x[0].diff(2, 1)],
        "diff bool" => |x| vec![x[0].diff(1, -1)],
        "trapezoid" => |x| vec![x[0].trapezoid(0.5, 0)],
        "trapezoid at" => |x| vec![x[0].trapezoid_at(&x[1], 1)],
        "cumulative_trapezoid" => |x| vec![x[0].cumulative_trapezoid(0.5, 0)],
        "gradient" => |x| x[0].gradient(0.5, [0, 1], 1),
        "gradient 2" => |x| x[0].gradient(0.5, [0, 1], 2),
        "gradient at" => |x| x[0].gradient_at(&[&x[1]], 1, 1),
        "gradient at 2" => |x| x[0].gradient_at(&[&x[1]], 1, 2),
        "cov" | "cov of a vector" => |x| vec![x[0].cov(1)],
        "corrcoef" => |x| vec![x[0].corrcoef()],
        "cov weighted" => |x| vec![x[0].cov_weighted(1, Some(&x[1]), Some(&x[2]))],

        "msort" => |x| vec![x[0].msort()],
        "kthvalue" => |x| pair(x[0].kthvalue(2, 1, false)),
        "median" => |x| vec![x[0].median()],
        "median dim" => |x| pair(x[0].median_dim(1, false)),
        "median nan" => |x| vec![x[0].median_dim(0, false).0],
        "nanmedian" => |x| vec![x[0].nanmedian_dim(1, false).0],
        "nanmedian all" => |x| vec![x[0].nanmedian()],
        "mode" => |x| vec![x[0].mode(1, false).0],
        "searchsorted" => |x| vec![searchsorted(&x[0], &x[1], false)],
        "bucketize" => |x| vec![x[0].bucketize(&x[1], true)],
        "unique" => |x| distinct(x[0].unique()),
        "unique dim" => |x| distinct(x[0].unique_dim(1)),
        "unique_consecutive" => |x| distinct(x[0].unique_consecutive()),
        "unique_consecutive dim" => |x| distinct(x[0].unique_consecutive_dim(0)),
        "bincount" => |x| vec![x[0].bincount(None, 12)],
        "bincount weights" => |x| vec![x[0].bincount(Some(&x[1]), 0)],
        "histc" => |x| vec![x[0].histc(5, -1.5, 1.5)],
        "histc own" => |x| vec![x[0].histc(5, 0.0, 0.0)],
        "histogram" => |x| vec![x[0].histogram(&x[1], None, false)],
        "histogramdd" => |x| vec![sinter::histogramdd(&x[0], &[&x[1], &x[2]], Some(&x[3]), true)],
        "histogram density" => |x| pair(x[0].histogram_bins(4, (-1.5, 1.75), Some(&x[1]), true)),
        "quantile keep" => |x| vec![x[0].quantile(&x[1], 0, true, Interpolation::Linear)],
        "quantile one" => {
            |x| vec![x[0].reshape([-1]).quantile(&x[1], 0, false, Interpolation::Linear)]
        }
        "nanquantile" => |x| vec![x[0].nanquantile(&x[1], 1, false, Interpolation::Linear)],

        "diagonal" => |x| vec![x[0].diagonal(1, 0, 2)],
        "diag_embed" => |x| vec![x[0].diag_embed(-1, 0, 2)],
        "diag" => |x| vec![x[0].diag(1)],
        "diagflat" => |x| vec![x[0].diagflat(-2)],
        "trace" => |x| vec![x[0].trace()],
        "unfold" => |x| vec![x[0].unfold(1, 3, 2)],
        "as_strided" => |x| vec![x[0].as_strided([2, 3, 2], [1, 2, 3], 1)],
        "diagonal_scatter" => |x| vec![x[0].diagonal_scatter(&x[1], 1, 0, 1)],
        "select_scatter" => |x| vec![x[0].select_scatter(&x[1], 1, -2)],
        "slice_scatter" => |x| vec![x[0].slice_scatter(&x[1], 1, 1, None, 2)],
        "as_strided_scatter" => |x| vec![x[0].as_strided_scatter(&x[1], [2, 2], [5, 2], 1)],
        "roll" => |x| vec![x[0].roll([1, -2], [0, 1])],
        "roll all" => |x| vec![x[0].roll_all(5)],
        "rot90" => |x| {
            let turned = [1, -1, 5].map(|k| x[0].rot90(k, [1, 2]));
            vec![stack(&turned.iter().collect::<Vec<_>>(), 0)]
        },
        "movedims" => |x| vec![x[0].movedims([0, -1], [1, 0])],
        "unflatten" => |x| vec![x[0].unflatten(1, [2, -1])],
        "tensor_split" => |x| x[0].tensor_split(3, 1),
        "tensor_split at" => |x| x[0].tensor_split_at(&[1, -1], 1),
        "sum_to_size" => |x| vec![x[0].sum_to_size([3, 1])],
        "hstack" => |x| vec![hstack(&[&x[0], &x[1]])],
        "vstack" => |x| vec![vstack(&[&x[0], &x[1]])],
        "dstack" => |x| vec![dstack(&[&x[0], &x[1]])],
        "column_stack" => |x| vec![column_stack(&[&x[0], &x[1]])],
        "block_diag" => |x| vec![block_diag(&[&x[0], &x[1]])],
        "tile" => |x| vec![x[0].tile([2])],
        "repeat_interleave" => |x| vec![x[0].repeat_interleave(2, 1)],
        "repeat_interleave each" => |x| vec![x[0].repeat_interleave_each(&x[1], 1)],
        "meshgrid" => |x| sinter::meshgrid(&[&x[0], &x[1]], Indexing::Xy),
        "cartesian_prod" => |x| vec![cartesian_prod(&[&x[0], &x[1]])],
        "combinations" => |x| vec![x[0].combinations(3, false)],
        "combinations twice" => |x| vec![x[0].combinations(2, true)],
        "cat promotes" => |x| vec![cat(&[&x[0], &x[1]], 0)],

        "index" | "mask" => |x| vec![x[0].i(&x[1])],
        "index two" => |x| vec![x[0].i((&x[1], &x[2]))],
        "index apart" => |x| vec![x[0].i((&x[1], .., &x[2]))],
        "index middle" => |x| vec![x[0].i((.., &x[1], 1..3))],
        "index after" => |x| vec![x[0].i((Ellipsis, 1, &x[1]))],
        "index new" => |x| vec![x[0].i((NewAxis, &x[1], NewAxis))],
        "mask rows" => |x| vec![x[0].i((&x[1], 1..))],
        "mask last" => |x| vec![x[0].i((.., &x[1]))],
        "steps" => |x| vec![x[0].i((s(1, None, 2), s(None, None, 3)))],
        "index_put" => |x| vec![x[0].index_put(&x[1], &x[2], false)],
        "index_put accumulate" => |x| vec![x[0].index_put(&x[1], &x[2], true)],
        "index_put slices" => |x| vec![x[0].index_put((.., &x[1]), &x[2], true)],
        "index_copy" => |x| vec![x[0].index_copy(1, &x[1], &x[2])],
        "index_fill" => |x| vec![x[0].index_fill(1, &x[1], 2.5)],
        "take" => |x| vec![x[0].take(&x[1])],
        "take_along_dim" => |x| vec![x[0].take_along_dim(&x[1], 1)],
        "put" => |x| vec![x[0].put(&x[1], &x[2], true)],
        "masked_scatter" => |x| vec![x[0].masked_scatter(&x[1], &x[2])],
        "unravel_index" => |x| x[0].unravel_index([3, 4]),

        "inner" => |x| vec![x[0].inner(&x[1])],
        "addmm" => |x| vec![x[0].addmm(&x[1], &x[2], 0.5, 2.0)],
        "addmv" => |x| vec![x[0].addmv(&x[1], &x[2], 0.0, 2.0)],
        "addr" => |x| vec![x[0].addr(&x[1], &x[2], 1.0, 1.0)],
        "addbmm" => |x| vec![x[0].addbmm(&x[1], &x[2], 1.0, 1.0)],
        "baddbmm" => |x| vec![x[0].baddbmm(&x[1], &x[2], 1.0, 1.0)],
        "tensordot" => |x| vec![tensordot(&x[0], &x[1], &[1, 0], &[0, 2])],
        "kron" => |x| vec![x[0].kron(&x[1])],
        "chain_matmul" => |x| vec![chain_matmul(&[&x[0], &x[1], &x[2]])],
        "cross" => |x| vec![x[0].cross(&x[1], 0)],
        "vecdot" => |x| vec![x[0].vecdot(&x[1], -1)],
        "cdist 2" => |x| vec![x[0].cdist(&x[1], 2.0)],
        "cdist 1" => |x| vec![x[0].cdist(&x[1], 1.0)],
        "cdist 3" => |x| vec![x[0].cdist(&x[1], 3.0)],
        "pdist" => |x| vec![x[0].pdist(2.0)],
        _ => return None,
    };
    Some(Box::new(f))
}

fn masked_function(name: &str) -> Option<Function> {
    // What is hidden is not compared.
    fn shown(y: &Tensor, mask: &Tensor) -> Vec<Tensor> {
        vec![mask.where_(y, 0.0)]
    }
    let f: fn(&[Tensor]) -> Vec<Tensor> = match name {
        "sum" => |x| vec![masked::sum(&x[0], &x[1], 1, false)],
        "prod" => |x| vec![masked::prod(&x[0], &x[1], 1, false)],
        "mean" => |x| vec![masked::mean(&x[0], &x[1], 1, false)],
        "amax" => |x| vec![masked::amax(&x[0], &x[1], 1, false)],
        "amin" => |x| vec![masked::amin(&x[0], &x[1], 1, false)],
        "argmax" => |x| vec![masked::argmax(&x[0], &x[1], 1, false)],
        "argmin" => |x| vec![masked::argmin(&x[0], &x[1], 1, false)],
        "cumsum" => |x| shown(&masked::cumsum(&x[0], &x[1], 1), &x[1]),
        "cumprod" => |x| shown(&masked::cumprod(&x[0], &x[1], 1), &x[1]),
        "logsumexp" => |x| vec![masked::logsumexp(&x[0], &x[1], 1, false)],
        "softmax" => |x| shown(&masked::softmax(&x[0], &x[1], 1), &x[1]),
        "log_softmax" => |x| shown(&masked::log_softmax(&x[0], &x[1], 1), &x[1]),
        "softmin" => |x| shown(&masked::softmin(&x[0], &x[1], 1), &x[1]),
        "median" => |x| vec![masked::median(&x[0], &x[1], 1, false)],
        "var" => |x| vec![masked::var(&x[0], &x[1], 1, 1, false)],
        "std" => |x| vec![masked::std(&x[0], &x[1], 1, 1, false)],
        "norm" => |x| vec![masked::norm(&x[0], &x[1], 3.0, 1, false)],
        "normalize" => |x| shown(&masked::normalize(&x[0], &x[1], 2.0, 1, 1e-12), &x[1]),
        "logaddexp" => {
            |x| vec![masked::logaddexp(&x[0], &x[1], &x[2], &x[2].logical_or(&x[2].logical_not()))]
        }
        _ => return None,
    };
    Some(Box::new(f))
}

fn reduction(name: &str) -> Option<ScatterReduce> {
    Some(match name {
        "sum" => ScatterReduce::Sum,
        "prod" => ScatterReduce::Prod,
        "mean" => ScatterReduce::Mean,
        "amax" => ScatterReduce::Amax,
        "amin" => ScatterReduce::Amin,
        _ => return None,
    })
}

fn interpolation(name: &str) -> Option<Interpolation> {
    Some(match name {
        "linear" => Interpolation::Linear,
        "lower" => Interpolation::Lower,
        "higher" => Interpolation::Higher,
        "nearest" => Interpolation::Nearest,
        "midpoint" => Interpolation::Midpoint,
        _ => return None,
    })
}

fn polynomial(name: &str) -> Option<Function> {
    macro_rules! by_name {
        ($($f:ident)*) => {
            match name {
                $(stringify!($f) => Box::new(|x: &[Tensor]| vec![special::$f(&x[0], &x[1])]),)*
                _ => return None,
            }
        };
    }
    Some(by_name!(
        chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
        shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
        shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w hermite_polynomial_h
        hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p
    ))
}
