//! Fourier transforms and windows.

use crate::args::Args;
use crate::registry::Registry;
use sinter::fft::{self, Norm, Stft};
use sinter::signal::windows;
use sinter::{DType, Tensor};

fn norm(a: &Args) -> Norm {
    match a.str_or((3, "norm"), "backward") {
        "ortho" => Norm::Ortho,
        "forward" => Norm::Forward,
        _ => Norm::Backward,
    }
}

fn frames(a: &Args, n: usize) -> Stft {
    let win_length = a.opt_i64((3, "win_length")).map_or(n, |w| w as usize);
    Stft {
        hop_length: a.opt_i64((2, "hop_length")).map_or(n / 4, |h| h as usize),
        win_length,
        window: a.opt_t((4, "window")),
        center: a.bool_or("center", true),
        normalized: a.bool_or("normalized", false),
        onesided: a.has("onesided").then(|| a.bool_or("onesided", true)),
        ..Stft::new(n)
    }
}

pub fn register(r: &mut Registry) {
    let near = sinter_tests::Tolerance { own: 64.0, largest: 64.0, one: 64.0 };
    type One = fn(&Tensor, Option<usize>, i64, Norm) -> Tensor;
    let one: [(&'static str, One); 6] = [
        ("fft.fft", |x, n, d, norm| fft::fft(x, n, d, norm)),
        ("fft.ifft", |x, n, d, norm| fft::ifft(x, n, d, norm)),
        ("fft.rfft", |x, n, d, norm| fft::rfft(x, n, d, norm)),
        ("fft.irfft", |x, n, d, norm| fft::irfft(x, n, d, norm)),
        ("fft.hfft", |x, n, d, norm| fft::hfft(x, n, d, norm)),
        ("fft.ihfft", |x, n, d, norm| fft::ihfft(x, n, d, norm)),
    ];
    for (name, f) in one {
        r.op(name, move |a| {
            let n = a.opt_i64((1, "n")).map(|n| n as usize);
            f(&a.t(0), n, a.i64_or((2, "dim"), -1), norm(a))
        })
        .within(near);
    }
    type Several = fn(&Tensor, Option<&[usize]>, Option<&[i64]>, Norm) -> Tensor;
    let several: [(&'static str, &'static str, Several); 6] = [
        ("fft.fftn", "fft.fft2", fft::fftn),
        ("fft.ifftn", "fft.ifft2", fft::ifftn),
        ("fft.rfftn", "fft.rfft2", fft::rfftn),
        ("fft.irfftn", "fft.irfft2", fft::irfftn),
        ("fft.hfftn", "fft.hfft2", fft::hfftn),
        ("fft.ihfftn", "fft.ihfft2", fft::ihfftn),
    ];
    for (name, two, f) in several {
        let extents =
            |a: &Args| -> Option<Vec<usize>> { a.has((1, "s")).then(|| a.sizes((1, "s"))) };
        r.op(name, move |a| {
            let (s, d) = (extents(a), a.opt_ints((2, "dim")));
            f(&a.t(0), s.as_deref(), d.as_deref(), norm(a))
        })
        .within(near);
        r.op(two, move |a| {
            let (s, d) = (extents(a), a.opt_ints((2, "dim")).unwrap_or(vec![-2, -1]));
            f(&a.t(0), s.as_deref(), Some(&d), norm(a))
        })
        .within(near);
    }
    r.op("fft.fftshift", |a| fft::fftshift(&a.t(0), a.opt_ints((1, "dim")).unwrap_or_default()));
    r.op("fft.ifftshift", |a| fft::ifftshift(&a.t(0), a.opt_ints((1, "dim")).unwrap_or_default()));
    r.op("stft", |a| {
        let n = a.usize((1, "n_fft"));
        let frames = frames(a, n);
        let y = fft::stft(&a.t(0), &frames);
        if a.bool_or("return_complex", false) { y } else { y.view_as_real() }
    })
    .within(near);
    r.op("istft", |a| {
        let n = a.usize((1, "n_fft"));
        let frames = frames(a, n);
        let length = a.opt_i64("length").map(|n| n as usize);
        fft::istft(&a.t(0), &frames, length, a.bool_or("return_complex", false))
    })
    .within(near);
    let mut add = |name: &'static str, f: fn(&Args, usize, bool, Option<DType>) -> Tensor| {
        let entry = move |a: &Args| f(a, a.usize(0), a.bool_or("sym", true), a.opt_dtype("dtype"));
        r.op(name, entry).within(near);
    };
    add("signal.windows.bartlett", |_, m, sym, d| windows::bartlett(m, sym, d));
    add("signal.windows.blackman", |_, m, sym, d| windows::blackman(m, sym, d));
    add("signal.windows.cosine", |_, m, sym, d| windows::cosine(m, sym, d));
    add("signal.windows.exponential", |a, m, sym, d| {
        windows::exponential(m, a.opt_f64("center"), a.f64_or("tau", 1.0), sym, d)
    });
    add("signal.windows.gaussian", |a, m, sym, d| {
        windows::gaussian(m, a.f64_or("std", 1.0), sym, d)
    });
    add("signal.windows.general_cosine", |a, m, sym, d| {
        windows::general_cosine(m, &a.opt_floats("a").expect("the weights"), sym, d)
    });
    add("signal.windows.general_hamming", |a, m, sym, d| {
        windows::general_hamming(m, a.f64_or("alpha", 0.54), sym, d)
    });
    add("signal.windows.hamming", |_, m, sym, d| windows::hamming(m, sym, d));
    add("signal.windows.hann", |_, m, sym, d| windows::hann(m, sym, d));
    add("signal.windows.kaiser", |a, m, sym, d| windows::kaiser(m, a.f64_or("beta", 12.0), sym, d));
    add("signal.windows.nuttall", |_, m, sym, d| windows::nuttall(m, sym, d));
}
