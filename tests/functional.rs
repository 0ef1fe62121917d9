//! `nn.functional` beside what PyTorch's operator tests cover: functions that they do
//! not have, what is random, and mistakes.

use sinter::autograd::{gradcheck, gradgradcheck};
use sinter::nn::functional::{self as F, PoolOptions, Reduction};
use sinter::{DType, Tensor, arange, full, manual_seed, ones, tensor};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn counted(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    // Without order, so that windows have their largest anywhere.
    ((arange(0, n as i64, 1) * 7 + 3) % 11).to_dtype(DType::F64).reshape(shape) / 8.0 + 0.1
}

#[test]
fn fold_is_the_transpose_of_unfold() {
    let (kernel, dilation, padding, stride) = ([2, 3], [1, 1], [1, 0], [1, 2]);
    let x = counted(&[2, 2, 4, 5]);
    let columns = F::unfold(&x, kernel, dilation, padding, stride);
    let y = counted(columns.shape());
    let back = F::fold(&y, [4, 5], kernel, dilation, padding, stride);
    // <unfold(x), y> = <x, fold(y)>
    let (left, right) = ((columns * &y).sum(), (&x * back).sum());
    assert!(left.allclose(&right, 1e-12, 0.0), "{left} {right}");
    let f = |x: &[Tensor]| vec![F::fold(&x[0], [4, 5], kernel, dilation, padding, stride)];
    let leaves = [y.requires_grad_(true)];
    gradcheck(f, &leaves).unwrap();
    gradgradcheck(f, &leaves).unwrap();
}

#[test]
fn pooling_by_powers() {
    let x = counted(&[1, 2, 6]).requires_grad_(true);
    let o = PoolOptions::default();
    let f = |x: &[Tensor]| vec![F::lp_pool1d(&x[0], 3.0, [2], &o)];
    // Windows of two, one after the other.
    let cubes = x.detach().pow(3.0).reshape([1, 2, 3, 2]).sum_dim(3, false);
    let want = cubes.pow(1.0 / 3.0);
    assert!(f(std::slice::from_ref(&x))[0].allclose(&want, 1e-12, 0.0));
    gradcheck(f, std::slice::from_ref(&x)).unwrap();
    gradgradcheck(f, &[x]).unwrap();
    let square = counted(&[1, 1, 4, 4]);
    let y = F::lp_pool2d(&square, 2.0, [4, 4], &PoolOptions::default());
    assert!(y.reshape(()).allclose(&square.norm(), 1e-12, 0.0));
    let cube = counted(&[1, 1, 2, 2, 2]);
    let y = F::lp_pool3d(&cube, 1.0, [2, 2, 2], &PoolOptions::default());
    assert!(y.reshape(()).allclose(&cube.sum(), 1e-12, 0.0));
}

/// Mean and standard deviation.
fn moments(x: &Tensor) -> (f64, f64) {
    (x.mean().item(), x.std().item())
}

#[test]
fn dropout_keeps_the_mean() {
    manual_seed(3);
    let x = ones([100, 40, 3, 3]);
    for (name, y) in
        [("dropout", F::dropout(&x, 0.25, true)), ("dropout2d", F::dropout2d(&x, 0.25, true))]
    {
        let (mean, _) = moments(&y);
        assert!((mean - 1.0).abs() < 0.05, "{name}: {mean}");
    }
    // Channels go as a whole.
    let y = F::dropout2d(&x, 0.25, true);
    let (low, high) = (y.amin([2, 3], false), y.amax([2, 3], false));
    assert!(low.equal(&high));
    // Mean and deviation of a standard normal stay.
    let z = sinter::randn([200_000]);
    let (mean, deviation) = moments(&F::alpha_dropout(&z, 0.3, true));
    assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
    for f in [F::dropout, F::dropout2d, F::alpha_dropout, F::feature_alpha_dropout] {
        assert!(f(&x, 0.5, false).equal(&x), "nothing happens where it is not training");
    }
}

#[test]
fn random_slopes_are_drawn_from_their_range() {
    manual_seed(5);
    let x = full([1000], -1.0, DType::F32);
    let slopes = -F::rrelu(&x, 0.1, 0.3, true);
    assert!(
        slopes.ge(0.1).all().item_scalar().as_bool()
            && slopes.lt(0.3).all().item_scalar().as_bool()
    );
    let (mean, _) = moments(&slopes);
    assert!((mean - 0.2).abs() < 0.01);
}

#[test]
fn random_windows_lie_inside() {
    manual_seed(7);
    let x = counted(&[2, 3, 9, 8]);
    let (y, at) = F::fractional_max_pool2d(&x, [2, 3], [4, 3]);
    assert_eq!(y.shape(), [2, 3, 4, 3]);
    let there = x.reshape([2, 3, 72]).gather(2, &at.reshape([2, 3, 12])).reshape([2, 3, 4, 3]);
    assert!(y.equal(&there), "indices point at the values");
    // The windows cover the far edge.
    assert!(at.narrow(2, 3, 1).ge(7 * 8).all().item_scalar().as_bool());
}

#[test]
fn mistakes_are_named() {
    let x = ones([2, 3]);
    let message = |f: &dyn Fn() -> Tensor| {
        let e = catch_unwind(AssertUnwindSafe(f)).expect_err("it is a mistake");
        e.downcast_ref::<String>().expect("a message").clone()
    };
    let target = tensor([0i64, 3]);
    assert_eq!(
        message(&|| F::cross_entropy(&x, &target, Reduction::Mean)),
        "cross_entropy: target 3 at position 1 is not one of 3 classes"
    );
    assert_eq!(
        message(&|| F::glu(&x, 1)),
        "glu: dimension 1 of [2, 3] is odd; it is cut in halves"
    );
    assert_eq!(
        message(&|| F::pixel_shuffle(&ones([1, 3, 2, 2]), 2)),
        "pixel_shuffle: the channels of [1, 3, 2, 2] are not groups of 2 × 2"
    );
    assert_eq!(
        message(&|| F::group_norm(&ones([1, 3, 2]), 2, None, None, 1e-5)),
        "group_norm: 3 channels do not form 2 groups"
    );
    assert_eq!(
        message(&|| F::huber_loss(&x, &ones([3]), 1.0, Reduction::Sum)),
        "huber_loss: shapes [2, 3] and [3] differ"
    );
}
