//! Reading images between their points: `interpolate` and `grid_sample`.

use super::pool::{adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d};
use crate::no_grad;
use crate::tensor::{Tensor, from_slice, zeros_like};
use sinter_runtime::DType;

/// How values between points come about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterpolationMode {
    /// The point at the rounded-down place, as OpenCV and PyTorch do.
    Nearest,
    /// The nearest point.
    NearestExact,
    /// Along straight lines, one to three inner dimensions: linear, bilinear, trilinear.
    Linear,
    /// By cubic convolution with a = -0.75 (Keys 1981).
    Cubic,
    /// Straight lines, blurred where the result is smaller, against aliasing.
    LinearAntialias,
    /// The mean of the area.
    Area,
}

/// How large a result is to be.
#[derive(Clone, Copy, Debug)]
pub enum Resize<'a> {
    /// Of these extents.
    To(&'a [usize]),
    /// By these factors, which also give the places between points.
    By(&'a [f64]),
}

/// For each output a few inputs and their weights: `taps[k]` is the k-th of every output.
type Taps = Vec<(Vec<i64>, Vec<f64>)>;

/// Weights of four neighbours at `t` behind the second.
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Where outputs read along one dimension.
fn taps(mode: InterpolationMode, n: usize, out: usize, factor: Option<f64>, corners: bool) -> Taps {
    let scale = factor.map_or(n as f64 / out as f64, |f| 1.0 / f);
    let last = n as i64 - 1;
    let clamp = |i: f64| (i as i64).clamp(0, last);
    let place = |i: usize| {
        if corners {
            if out > 1 { i as f64 * (n - 1) as f64 / (out - 1) as f64 } else { 0.0 }
        } else {
            (i as f64 + 0.5) * scale - 0.5
        }
    };
    match mode {
        InterpolationMode::Nearest | InterpolationMode::NearestExact => {
            let shift = if mode == InterpolationMode::Nearest { 0.0 } else { 0.5 };
            // In f32, as PyTorch: the place of a point must not depend on its type.
            let at = |i: usize| clamp(((i as f32 + shift) * scale as f32).floor().into());
            vec![((0..out).map(at).collect(), vec![1.0; out])]
        }
        InterpolationMode::Linear => {
            let places: Vec<f64> = (0..out).map(|i| place(i).max(0.0)).collect();
            let part = |x: f64| x - x.floor().min(last as f64);
            vec![
                (
                    places.iter().map(|x| clamp(x.floor())).collect(),
                    places.iter().map(|&x| 1.0 - part(x)).collect(),
                ),
                (
                    places.iter().map(|x| clamp(x.floor() + 1.0)).collect(),
                    places.iter().map(|&x| part(x)).collect(),
                ),
            ]
        }
        InterpolationMode::Cubic => (0..4)
            .map(|k| {
                let at = |i: usize| clamp(place(i).floor() - 1.0 + k as f64);
                let weight = |i: usize| cubic(place(i) - place(i).floor())[k];
                ((0..out).map(at).collect(), (0..out).map(weight).collect())
            })
            .collect(),
        InterpolationMode::LinearAntialias => {
            let scale = if corners && out > 1 { (n - 1) as f64 / (out - 1) as f64 } else { scale };
            let support = scale.max(1.0);
            let mut rows: Vec<Vec<(i64, f64)>> = Vec::with_capacity(out);
            for i in 0..out {
                let center = scale * (i as f64 + 0.5);
                let low = ((center - support + 0.5) as i64).max(0);
                let high = ((center + support + 0.5) as i64).min(n as i64);
                let weight = |j: i64| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0);
                let total: f64 = (low..high).map(weight).sum();
                rows.push((low..high).map(|j| (j, weight(j) / total)).collect());
            }
            let most = rows.iter().map(Vec::len).max().unwrap_or(0);
            (0..most)
                .map(|k| {
                    let tap = |r: &Vec<(i64, f64)>| r.get(k).copied().unwrap_or((0, 0.0));
                    rows.iter().map(tap).unzip()
                })
                .collect()
        }
        InterpolationMode::Area => unreachable!("areas are means"),
    }
}

#[track_caller]
fn resample(x: &Tensor, dim: usize, taps: &Taps) -> Tensor {
    let mut sum: Option<Tensor> = None;
    for (at, weights) in taps {
        let part = x.index_select(dim as i64, &from_slice(at, [at.len()]));
        let part = if weights.iter().all(|&w| w == 1.0) {
            part
        } else {
            let mut shape = vec![1; x.rank() - dim];
            shape[0] = weights.len();
            part * from_slice(weights, shape).to_dtype(x.dtype())
        };
        sum = Some(match sum {
            None => part,
            Some(s) => s + part,
        });
    }
    sum.expect("every output reads an input")
}

/// `x` [N, C, ..] in another size. `align_corners` puts the outermost points of input
/// and output on each other, instead of their outer edges.
///
/// ```
/// use sinter::nn::functional::{self as F, InterpolationMode, Resize};
/// use sinter::tensor;
/// let x = tensor([[[0.0f32, 2.0]]]);
/// let y = F::interpolate(&x, Resize::To(&[3]), InterpolationMode::Linear, true);
/// assert_eq!(y.to_vec::<f32>(), [0.0, 1.0, 2.0]);
/// ```
///
/// # Panics
/// If the extents are not those of the inner dimensions, one to three, or one is 0.
#[track_caller]
pub fn interpolate(
    x: &Tensor,
    size: Resize,
    mode: InterpolationMode,
    align_corners: bool,
) -> Tensor {
    let inner = x.rank().saturating_sub(2);
    let (output, factors): (Vec<usize>, Option<&[f64]>) = match size {
        Resize::To(s) => (s.to_vec(), None),
        Resize::By(f) => {
            let n = x.shape().iter().skip(2);
            (n.zip(f).map(|(&n, f)| (n as f64 * f).floor() as usize).collect(), Some(f))
        }
    };
    if !(1..=3).contains(&inner)
        || output.len() != inner
        || factors.is_some_and(|f| f.len() != inner)
    {
        panic!("interpolate: {size:?} is not a size for the inner dimensions of {:?}", x.shape());
    }
    if output.contains(&0) || x.shape()[2..].contains(&0) {
        panic!("interpolate: from {:?} to {output:?}; no inner extent may be 0", x.shape());
    }
    if mode == InterpolationMode::Area {
        return match *output.as_slice() {
            [a] => adaptive_avg_pool1d(x, [a]),
            [a, b] => adaptive_avg_pool2d(x, [a, b]),
            [a, b, c] => adaptive_avg_pool3d(x, [a, b, c]),
            _ => unreachable!("the dimensions were counted"),
        };
    }
    let mut y = x.clone();
    // The last dimension first: PyTorch's order of sums.
    for i in (0..inner).rev() {
        let n = x.shape()[2 + i];
        let factor = factors.map(|f| f[i]);
        if output[i] == n && factor.is_none_or(|f| f == 1.0) {
            continue;
        }
        y = resample(&y, 2 + i, &taps(mode, n, output[i], factor, align_corners));
    }
    y
}

/// What lies outside of an image that is sampled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// Its edge.
    Border,
    /// Its mirror image.
    Reflection,
}

/// Brings coordinates that lie outside back, where there is something.
#[track_caller]
fn inside(x: &Tensor, n: usize, outside: Outside, corners: bool) -> Tensor {
    let last = n as f64 - 1.0;
    match outside {
        Outside::Zeros => x.clone(),
        Outside::Border => x.clamp(0.0, last),
        Outside::Reflection => {
            let (low, span) = if corners { (0.0, last) } else { (-0.5, n as f64) };
            if span == 0.0 {
                return zeros_like(x);
            }
            let way = (x - low).abs();
            let turns = no_grad(|| (&way / span).floor());
            let rest = &way - &turns * span;
            let even = no_grad(|| turns.remainder(2.0).eq(0.0));
            (even.where_(&rest, span - &rest) + low).clamp(0.0, last)
        }
    }
}

/// The values of `x` [N, C, inner] at integer coordinates (one tensor [N, P] for each
/// dimension, as floats): [N, C, P]; zeros where outside.
#[track_caller]
fn pick(x: &Tensor, at: &[Tensor]) -> Tensor {
    let inner = &x.shape()[2..];
    let (n, c) = (x.shape()[0], x.shape()[1]);
    let points = at[0].shape()[1];
    let (flat, outside) = no_grad(|| {
        let mut flat: Option<Tensor> = None;
        let mut outside: Option<Tensor> = None;
        for (i, &extent) in at.iter().zip(inner) {
            let last = extent as f64 - 1.0;
            let out = i.ge(0.0).logical_and(&i.le(last)).logical_not();
            let i = i.masked_fill(&out, 0.0).to_dtype(DType::I64);
            flat = Some(match flat {
                None => i,
                Some(f) => f * extent as i64 + i,
            });
            outside = Some(match outside {
                None => out,
                Some(o) => o.logical_or(&out),
            });
        }
        (flat.expect("a dimension"), outside.expect("a dimension"))
    });
    let index = flat.unsqueeze(1).broadcast_to([n, c, points]);
    let all: usize = inner.iter().product();
    x.reshape([n, c, all]).gather(2, &index).masked_fill(&outside.unsqueeze(1), 0.0)
}

/// `x` [N, C, H, W] (or [N, C, D, H, W]) at the places of `grid` [N, .., 2] (or 3):
/// coordinates from -1 to 1 across the image, the last dimension's first. The modes are
/// nearest, linear and, of images, cubic. With `align_corners` -1 and 1 are the outermost
/// points, else the edges.
///
/// # Panics
/// If shapes do not fit, or the mode is another.
#[track_caller]
pub fn grid_sample(
    x: &Tensor,
    grid: &Tensor,
    mode: InterpolationMode,
    outside: Outside,
    align_corners: bool,
) -> Tensor {
    let inner = x.rank().saturating_sub(2);
    if !(2..=3).contains(&inner)
        || grid.rank() != inner + 2
        || grid.size(-1) != inner
        || grid.shape()[0] != x.shape()[0]
        || x.shape()[2..].contains(&0)
    {
        panic!("grid_sample: a grid {:?} does not fit {:?}", grid.shape(), x.shape());
    }
    let mut shape = grid.shape().to_vec();
    shape[inner + 1] = x.shape()[1];
    let points: usize = grid.shape()[1..=inner].iter().product();
    let n = x.shape()[0];
    let flat = grid.reshape([n, points, inner]);
    let mut places = Vec::with_capacity(inner);
    for i in 0..inner {
        let extent = x.shape()[2 + i] as f64;
        let g = flat.select(2, (inner - 1 - i) as i64);
        places.push(if align_corners {
            (g + 1.0) * ((extent - 1.0) / 2.0)
        } else {
            ((g + 1.0) * extent - 1.0) / 2.0
        });
    }
    let bounded = |t: &Tensor, i: usize| inside(t, x.shape()[2 + i], outside, align_corners);
    let y = match mode {
        InterpolationMode::Nearest => {
            let mut at = Vec::with_capacity(inner);
            for (i, p) in places.iter().enumerate() {
                at.push(bounded(p, i).round());
            }
            pick(x, &at)
        }
        InterpolationMode::Linear => {
            let mut sides = Vec::with_capacity(inner);
            for (i, p) in places.iter().enumerate() {
                let p = bounded(p, i);
                let low = no_grad(|| p.floor());
                let part = &p - &low;
                sides.push(vec![(low.clone(), 1.0 - &part), (low + 1.0, part)]);
            }
            corners(x, &sides)
        }
        InterpolationMode::Cubic if inner == 2 => {
            let mut sides = Vec::with_capacity(inner);
            for (i, p) in places.iter().enumerate() {
                let low = no_grad(|| p.floor());
                let t = p - &low;
                let mut four = Vec::with_capacity(4);
                for (k, w) in cubic_weights(&t).into_iter().enumerate() {
                    let at = no_grad(|| bounded(&(&low + (k as f64 - 1.0)), i));
                    four.push((at, w));
                }
                sides.push(four);
            }
            corners(x, &sides)
        }
        _ => panic!("grid_sample: no {mode:?} of {inner} dimensions"),
    };
    let mut channels_first = shape[..=inner].to_vec();
    channels_first.insert(1, shape[inner + 1]);
    y.reshape(channels_first)
}

/// [`cubic`], of tensors.
#[track_caller]
fn cubic_weights(t: &Tensor) -> [Tensor; 4] {
    const A: f64 = -0.75;
    let near = |x: &Tensor| (x * (A + 2.0) - (A + 3.0)) * x * x + 1.0;
    let far = |x: &Tensor| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(&(t + 1.0)), near(t), near(&(1.0 - t)), far(&(2.0 - t))]
}

/// The weighted sum over all combinations of what each dimension reads.
#[track_caller]
fn corners(x: &Tensor, sides: &[Vec<(Tensor, Tensor)>]) -> Tensor {
    let mut all: Vec<(Vec<Tensor>, Option<Tensor>)> = vec![(Vec::new(), None)];
    for side in sides {
        let mut next = Vec::with_capacity(all.len() * side.len());
        for (at, weight) in &all {
            for (i, w) in side {
                let mut at = at.clone();
                at.push(i.clone());
                let weight = match weight {
                    None => w.clone(),
                    Some(v) => v * w,
                };
                next.push((at, Some(weight)));
            }
        }
        all = next;
    }
    let mut sum: Option<Tensor> = None;
    for (at, weight) in all {
        let part = pick(x, &at) * weight.expect("a dimension has a weight").unsqueeze(1);
        sum = Some(match sum {
            None => part,
            Some(s) => s + part,
        });
    }
    sum.expect("there is a corner")
}
