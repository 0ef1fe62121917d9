//! Discrete Fourier transforms along one axis.

use num_complex::Complex;
use rustfft::{Fft, FftDirection, FftNum, FftPlanner};
use sinter_kernels::par;
use sinter_kernels::view::{Dst, Element, Src};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

type Plans<T> = Mutex<HashMap<(usize, bool), Arc<dyn Fft<T>>>>;

/// Plans that are kept; with one more, all are forgotten. A plan of size n holds
/// about n numbers.
const KEPT: usize = 64;

/// The real type of numbers that are transformed.
pub trait FourierReal: FftNum {
    #[doc(hidden)]
    fn plans() -> &'static Plans<Self>;
}

macro_rules! reals {
    ($($t:ty),*) => {$(
        impl FourierReal for $t {
            fn plans() -> &'static Plans<$t> {
                static PLANS: LazyLock<Plans<$t>> = LazyLock::new(Mutex::default);
                &PLANS
            }
        }
    )*};
}
reals!(f32, f64);

fn plan<T: FourierReal>(n: usize, inverse: bool) -> Arc<dyn Fft<T>> {
    let mut plans = T::plans().lock().unwrap_or_else(|e| e.into_inner());
    if let Some(plan) = plans.get(&(n, inverse)) {
        return plan.clone();
    }
    if plans.len() >= KEPT {
        plans.clear();
    }
    let direction = if inverse { FftDirection::Inverse } else { FftDirection::Forward };
    let plan = FftPlanner::new().plan_fft(n, direction);
    plans.insert((n, inverse), plan.clone());
    plan
}

/// `y[k] = Σ x[j] e^(∓2πi jk/n)` along `axis`, with the positive sign when `inverse`.
/// Nothing is divided by n.
pub fn fourier<T: FourierReal>(x: Src<Complex<T>>, axis: usize, inverse: bool, y: Dst<Complex<T>>)
where
    Complex<T>: Element,
{
    let n = x.shape[axis];
    let lines: usize =
        x.shape.iter().enumerate().filter(|(d, _)| *d != axis).map(|(_, &n)| n).product();
    if n == 0 || lines == 0 {
        return;
    }
    let plan = plan::<T>(n, inverse);
    let start = |strides: &[isize], mut line: usize| -> isize {
        let mut at = 0;
        for d in (0..x.shape.len()).rev().filter(|&d| d != axis) {
            at += (line % x.shape[d]) as isize * strides[d];
            line /= x.shape[d];
        }
        at
    };
    // About a nanosecond per element and doubling.
    let cost = n * (n.ilog2() as usize + 4);
    par::for_range(lines, (par::SHARE_NS / cost).max(1), |range| {
        let mut line = vec![Complex::<T>::ZERO; n];
        let mut scratch = vec![Complex::<T>::ZERO; plan.get_inplace_scratch_len()];
        for l in range {
            let (from, to) = (start(x.strides, l), start(y.strides, l));
            for (i, v) in line.iter_mut().enumerate() {
                // SAFETY: within the view, which was checked when it was made.
                *v = unsafe { *x.ptr().offset(from + i as isize * x.strides[axis]) };
            }
            // One line a call: several at once would go through other loops.
            plan.process_with_scratch(&mut line, &mut scratch);
            for (i, v) in line.iter().enumerate() {
                // SAFETY: within the view; lines are distinct, and this one is ours.
                unsafe { *y.ptr().offset(to + i as isize * y.strides[axis]) = *v };
            }
        }
    });
}
