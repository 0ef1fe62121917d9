//! Short-time transforms: of overlapping frames of a signal.

use super::{Norm, complex, complex_to_real, floating, real_to_complex, transform};
use crate::tensor::{Tensor, apply, from_slice, full, ones};
use sinter_runtime::op::Axes;
use sinter_runtime::{DType, Op, Scalar};

/// How [`stft`] and [`istft`] cut a signal into frames.
///
/// ```
/// use sinter::fft::{Stft, istft, stft};
/// use sinter::signal::windows;
/// let x = sinter::randn([2, 64]);
/// let frames = Stft { window: Some(windows::hann_window(16, true)), ..Stft::new(16) };
/// let y = stft(&x, &frames);
/// assert_eq!(y.shape(), [2, 9, 17]);
/// assert!(istft(&y, &frames, 64, false).allclose(&x, 1e-4, 1e-4));
/// ```
#[derive(Clone)]
pub struct Stft {
    /// Elements of a transform.
    pub n_fft: usize,
    /// From one frame to the next; a quarter of a transform by default.
    pub hop_length: usize,
    /// The window, `[win_length]`, put in the middle of a frame; ones by default.
    pub window: Option<Tensor>,
    /// Elements of the window; those of a transform by default.
    pub win_length: usize,
    /// Frame t lies around sample t · hop_length, instead of beginning there: the signal is
    /// continued on both sides.
    pub center: bool,
    /// How the signal is continued.
    pub pad_mode: PadMode,
    /// Unitary transforms.
    pub normalized: bool,
    /// Only frequencies from 0 up; by default so for real signals.
    pub onesided: Option<bool>,
}

/// How a signal is continued at its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PadMode {
    /// Mirrored, without repeating the end.
    #[default]
    Reflect,
    /// With zeros.
    Constant,
}

impl Stft {
    /// PyTorch's defaults.
    pub fn new(n_fft: usize) -> Stft {
        Stft {
            n_fft,
            hop_length: n_fft / 4,
            window: None,
            win_length: n_fft,
            center: true,
            pad_mode: PadMode::Reflect,
            normalized: false,
            onesided: None,
        }
    }

    fn norm(&self) -> Norm {
        if self.normalized { Norm::Ortho } else { Norm::Backward }
    }

    /// The window, in the middle of a frame.
    #[track_caller]
    fn frame_window(&self, op: &str, dtype: DType) -> Tensor {
        if self.n_fft == 0
            || self.hop_length == 0
            || self.win_length == 0
            || self.win_length > self.n_fft
        {
            panic!(
                "{op}: needs 0 < win_length <= n_fft and 0 < hop_length, got {}, {} and {}",
                self.win_length, self.n_fft, self.hop_length
            );
        }
        let window = match &self.window {
            Some(w) if w.shape() != [self.win_length] => {
                panic!("{op}: the window is {:?}, expected [{}]", w.shape(), self.win_length)
            }
            Some(w) if w.is_complex() => w.to_dtype(dtype.complex()),
            Some(w) => w.to_dtype(dtype.real()),
            None => ones([self.win_length]).to_dtype(dtype.real()),
        };
        let left = (self.n_fft - self.win_length) / 2;
        window.pad(&[(left, self.n_fft - self.win_length - left)], 0.0)
    }
}

/// The transforms of a signal's frames: [.., time] to complex [.., frequency, frame]; `x`
/// has one dimension or two.
///
/// # Panics
/// If the signal is too short, or the sizes do not fit.
#[track_caller]
pub fn stft(x: &Tensor, frames: &Stft) -> Tensor {
    let op = "stft";
    if x.rank() == 0 || x.rank() > 2 {
        panic!("{op}: needs a signal or a batch of them, the shape is {:?}", x.shape());
    }
    let mut x = floating(op, x);
    let window = frames.frame_window(op, x.dtype());
    let n = frames.n_fft;
    if frames.center {
        x = continued(op, &x, n / 2, frames.pad_mode);
    }
    if x.size(-1) < n {
        panic!("{op}: a signal of {} elements is shorter than a frame of {n}", x.size(-1));
    }
    let cut = x.unfold(-1, n, frames.hop_length) * &window;
    let axis = cut.rank() - 1;
    let onesided = frames.onesided.unwrap_or(!cut.is_complex());
    let y = if onesided && !cut.is_complex() {
        real_to_complex(op, &cut, axis, n, false, frames.norm())
    } else if onesided {
        panic!(
            "{op}: a complex signal or window has frequencies of both signs; set `onesided` to false"
        );
    } else {
        transform(op, &complex(op, &cut), axis, n, false, frames.norm())
    };
    y.transpose(-1, -2)
}

/// The signal with `by` more elements on both sides.
#[track_caller]
fn continued(op: &str, x: &Tensor, by: usize, mode: PadMode) -> Tensor {
    let (n, axis) = (x.size(-1), x.rank() - 1);
    if mode == PadMode::Constant {
        let mut width: Axes = (0..x.rank()).map(|_| 0).collect();
        width[axis] = by;
        return apply(Op::Pad { low: width.clone(), high: width, value: Scalar::Float(0.0) }, &[x]);
    }
    if by >= n {
        panic!("{op}: a signal of {n} elements cannot be mirrored for {by}");
    }
    let (n, by) = (n as i64, by as i64);
    let index: Vec<i64> = (-by..n + by)
        .map(|i| {
            if i < 0 {
                -i
            } else if i >= n {
                2 * (n - 1) - i
            } else {
                i
            }
        })
        .collect();
    x.index_select(-1, &from_slice(&index, [index.len()]))
}

/// The signal of `length` samples (as many as the frames cover by default) whose frames have
/// the transforms `y`, complex [.., frequency, frame]: the least-squares inverse of [`stft`]
/// (Griffin & Lim 1984). Real, of the frequencies from 0 up, unless `return_complex`.
///
/// # Panics
/// If the sizes do not fit, or the window leaves a sample out.
#[track_caller]
pub fn istft(
    y: &Tensor,
    frames: &Stft,
    length: impl Into<Option<usize>>,
    return_complex: bool,
) -> Tensor {
    let op = "istft";
    if y.rank() < 2 || y.rank() > 3 || !y.is_complex() {
        panic!("{op}: needs complex [.., frequency, frame], got {} {:?}", y.dtype(), y.shape());
    }
    let n = frames.n_fft;
    let onesided = frames.onesided.unwrap_or(y.size(-2) != n || n == 1);
    let bins = if onesided { n / 2 + 1 } else { n };
    if y.size(-2) != bins {
        panic!("{op}: {} frequencies, expected {bins} of a transform of {n}", y.size(-2));
    }
    let window = frames.frame_window(op, y.dtype());
    let count = y.size(-1);
    let y = y.transpose(-1, -2);
    let axis = y.rank() - 1;
    let cut = if !return_complex {
        complex_to_real(op, &y, axis, n, true, frames.norm())
    } else if onesided {
        panic!("{op}: a complex signal has frequencies of both signs; there are {bins} of {n}");
    } else {
        transform(op, &y, axis, n, true, frames.norm())
    };
    let total = n + frames.hop_length * count.saturating_sub(1);
    // Element j of frame t is sample t · hop + j.
    let places: Vec<i64> =
        (0..count).flat_map(|t| (0..n).map(move |j| (t * frames.hop_length + j) as i64)).collect();
    let places = from_slice(&places, [count * n]);
    let add = |parts: &Tensor| {
        let mut shape = parts.shape()[..parts.rank() - 2].to_vec();
        let flat = parts.reshape([&shape[..], &[count * n]].concat());
        shape.push(total);
        full(shape, 0.0, parts.dtype()).index_add(-1, &places, &flat)
    };
    let sum = add(&(cut * &window));
    let weight = add(&window.abs().square().unsqueeze(0).broadcast_to([count, n]));
    let start = if frames.center { n / 2 } else { 0 };
    let length = length.into();
    let end = match length {
        Some(l) => start + l,
        None if frames.center => total - n / 2,
        None => total,
    };
    let kept = end.min(total).saturating_sub(start);
    let (sum, weight) = (sum.narrow(-1, start, kept), weight.narrow(-1, start, kept));
    if kept > 0 && crate::no_grad(|| weight.detach().min().item::<f64>()) < 1e-11 {
        panic!("{op}: the window overlaps with itself so little that samples are left out");
    }
    let x = sum / weight;
    let missing = length.map_or(0, |l| l - kept.min(l));
    if missing == 0 {
        return x;
    }
    let mut high: Axes = (0..x.rank()).map(|_| 0).collect();
    let low = high.clone();
    high[x.rank() - 1] = missing;
    apply(Op::Pad { low, high, value: Scalar::Float(0.0) }, &[&x])
}
