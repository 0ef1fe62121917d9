use super::tiles::TILE;
use super::*;
use crate::gemm::units::{self, Units};
use crate::gemm::{pack_b_bf16, pack_b_bf16x3, packed_len_bf16, packed_len_bf16x3};
use crate::testing::noise32;
use crate::view::Src;
use proptest::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

thread_local! {
    static MODELLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the model computes even where the processor could.
pub(super) fn modelled() -> bool {
    MODELLED.get()
}

/// Calls `f` with the model in the place of the processor.
fn by_model<R>(f: impl FnOnce() -> R) -> R {
    MODELLED.set(true);
    let r = f();
    MODELLED.set(false);
    r
}

/// A product of random matrices, both ways of lying.
#[derive(Clone, Debug)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    parts: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    turned: bool,
}

impl Case {
    fn new([m, k, n]: [usize; 3], parts: usize, turned: bool, seed: u64) -> Case {
        let (a, b) = (noise32(m * k, seed), noise32(k * n, seed ^ 1));
        Case { m, k, n, parts, a, b, turned }
    }

    fn packed(&self) -> Vec<f32> {
        let (k, n) = (self.k, self.n);
        let strides = if self.turned { [1, k as isize] } else { [n as isize, 1] };
        let shape = [k, n];
        let b = Src::of(&self.b, &shape, &strides);
        let mut packed = vec![0.0; [packed_len_bf16, packed_len_bf16x3][self.parts - 1](k, n)];
        [pack_b_bf16, pack_b_bf16x3][self.parts - 1](b, &mut packed);
        packed
    }

    /// By `f`, into an output with gaps between its rows, or between all of its numbers.
    fn run(&self, gaps: bool, f: impl FnOnce(Src<f32>, &[f32], Dst<f32>)) -> Vec<f32> {
        let (m, k, n) = (self.m, self.k, self.n);
        let step = if gaps { 2 } else { 1 };
        let row = step * n + 3;
        let mut c = vec![7.0; m * row];
        let (a_shape, c_shape) = ([m, k], [m, n]);
        let (a_strides, c_strides) = ([k as isize, 1], [row as isize, step as isize]);
        let to = Dst::of(&mut c, &c_shape, &c_strides);
        f(Src::of(&self.a, &a_shape, &a_strides), &self.packed(), to);
        (0..m).flat_map(|i| (0..n).map(move |j| i * row + j * step)).map(|i| c[i]).collect()
    }

    /// By rows of units, with a matrix unit or without.
    fn product(&self, gaps: bool, ep: &Epilogue, matrix: bool) -> Vec<f32> {
        let units = [Units::pairs(), Units::split()][self.parts - 1].by_matrix(matrix);
        self.run(gaps, |a, b, c| units::product(units, a, b, self.n, c, ep))
    }

    fn model(&self, gaps: bool, ep: &Epilogue) -> Vec<f32> {
        by_model(|| self.product(gaps, ep, true))
    }

    fn at(&self, i: usize, l: usize, j: usize) -> f64 {
        let b = if self.turned { j * self.k + l } else { l * self.n + j };
        f64::from(self.a[i * self.k + l]) * f64::from(self.b[b])
    }

    /// Sums and sums of magnitudes.
    fn exact(&self) -> Vec<(f64, f64)> {
        let each = |i: usize, j: usize| {
            (0..self.k).map(|l| self.at(i, l, j)).fold((0.0, 0.0), |(s, m), x| (s + x, m + x.abs()))
        };
        (0..self.m).flat_map(|i| (0..self.n).map(move |j| each(i, j))).collect()
    }

    /// Largest error of a term, relative to its magnitude.
    fn allowed(&self) -> f64 {
        let unit = f64::from(f32::EPSILON) / 2.0;
        // Rounding both factors; or what of them is beyond 16 bits, and the product of the
        // rests. And a rounding for each addition.
        let term = if self.parts == 1 { 2.0f64.powi(-7) } else { 3.0 * 2.0f64.powi(-16) };
        1.001 * term + unit * (3 * self.k + 3) as f64
    }

    #[track_caller]
    fn check(&self, got: &[f32], ep: &Epilogue) {
        for (at, (&got, (sum, magnitude))) in got.iter().zip(self.exact()).enumerate() {
            let mut want = sum;
            want += ep.bias_col.map_or(0.0, |b| b[at % self.n].into());
            want += ep.bias_row.map_or(0.0, |b| b[at / self.n].into());
            want = if ep.act == Act::Relu { want.max(0.0) } else { want };
            want = want.min(ep.most.map_or(f64::INFINITY, f64::from));
            let error = (f64::from(got) - want).abs();
            assert!(error <= self.allowed() * magnitude + 1e-6, "{got} for {want} at {at}");
        }
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..6, 6usize..40, 40usize..130]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn blocks_give_the_product(
        m in size(), k in size(), n in prop_oneof![size(), 130usize..300], parts in 1usize..3,
        turned in any::<bool>(), gaps in any::<bool>(), relu in any::<bool>(),
        most in prop::option::of(Just(0.5f32)), seed in any::<u64>(),
    ) {
        let case = Case::new([m, k, n], parts, turned, seed);
        let (across, down) = (noise32(n, seed ^ 2), noise32(m, seed ^ 3));
        let act = if relu { Act::Relu } else { Act::None };
        let ep = Epilogue {
            bias_col: Some(&across), bias_row: Some(&down), act, most,
            ..Epilogue::NONE
        };
        case.check(&case.model(gaps, &ep), &ep);
        // What every processor computes is within the same bound.
        let portable = case.product(gaps, &Epilogue { bias_row: None, ..ep }, false);
        case.check(&portable, &Epilogue { bias_row: None, ..ep });
    }
}

#[test]
fn bf16_in_three_products_is_nearly_f32() {
    for k in [64, 512, 3072] {
        let case = Case::new([40, k, 70], 2, false, k as u64);
        let portable = case.product(false, &Epilogue::NONE, false);
        for got in [case.model(false, &Epilogue::NONE), portable] {
            let exact = case.exact();
            let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.0.abs()));
            let error = got.iter().zip(&exact).map(|(&g, w)| (f64::from(g) - w.0).abs());
            let error = error.fold(0.0, f64::max) / largest;
            assert!(error < 5e-6, "{error:e} of the largest with {k} steps");
        }
    }
}

/// Threads and rows around do not matter, and hooks see everything once.
#[test]
fn every_element_is_its_own_chain() {
    let case = Case::new([75, 100, 1000], 2, true, 5);
    let alone = Case { m: 1, a: case.a[40 * case.k..41 * case.k].to_vec(), ..case.clone() };
    let all = case.model(false, &Epilogue::NONE);
    assert!(all[40 * case.n..41 * case.n] == alone.model(false, &Epilogue::NONE));
    let seen: Vec<AtomicU32> = (0..all.len()).map(|_| AtomicU32::new(0)).collect();
    let hook = |t: Tile| {
        for (i, j) in (0..t.rows).flat_map(|i| (0..t.cols).map(move |j| (i, j))) {
            seen[(t.row + i) * case.n + t.col + j].fetch_add(1, Ordering::Relaxed);
            // SAFETY: an element of the finished rectangle.
            unsafe { *t.ptr.offset(i as isize * t.ld).add(j) *= 2.0 };
        }
    };
    let doubled = case.model(false, &Epilogue { hook: Some(&hook), ..Epilogue::NONE });
    assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
    assert!(all.iter().zip(&doubled).all(|(x, y)| 2.0 * x == *y));
}

#[test]
fn what_is_no_number_stays_none() {
    let mut case = Case::new([3, 33, 20], 1, false, 3);
    case.a[32] = f32::NAN;
    case.a[33] = f32::INFINITY;
    for parts in [1, 2] {
        case.parts = parts;
        let y = case.model(false, &Epilogue { act: Act::Relu, ..Epilogue::NONE });
        assert!(y[..20].iter().all(|x| x.is_nan()) && y[40..].iter().all(|x| x.is_finite()));
        assert!(!y[20..40].iter().any(|x| x.is_finite() && *x != 0.0));
    }
}

/// The model adds up as the manual says: even and odd products apart.
#[test]
fn the_model_adds_up_as_the_manual_says() {
    let bits =
        |low: f32, high: f32| f32::from_bits(low.to_bits() >> 16 | high.to_bits() & 0xffff_0000);
    let (mut a, mut b, mut c) = ([0.0f32; TILE], [0.0f32; TILE], [0.0f32; TILE]);
    // Even products 2^24 and 1 in that order, odd ones -2^24: 1 is lost among the even.
    a[0] = bits(4096.0, -4096.0);
    b[0] = bits(4096.0, 4096.0);
    a[1] = bits(1.0, 0.0);
    b[WIDE] = bits(1.0, 0.0);
    // A subnormal operand counts for nothing.
    a[WIDE] = bits(f32::from_bits(1 << 16), 0.0);
    b[1] = bits(1.0, 1.0);
    c[0] = 0.5;
    let mut t = Model::default();
    // SAFETY: tiles lie densely; the model needs no processor.
    unsafe {
        t.configure();
        t.load::<4>(a.as_ptr(), 64);
        t.load::<6>(b.as_ptr(), 64);
        t.load::<0>(c.as_ptr(), 64);
        t.pairs::<0, 4, 6>();
        t.store::<0>(c.as_mut_ptr(), 64);
        t.release();
    }
    assert_eq!(c[0], 0.5);
    assert!(c[1..].iter().skip(WIDE).all(|x| *x == 0.0));
}

/// Where the processor has the registers, it computes what the model does.
#[test]
fn the_processor_agrees_with_the_model() {
    if !available() {
        eprintln!("not run: this processor has no AMX");
        return;
    }
    for (i, shape) in
        [[1, 1, 1], [5, 40, 17], [33, 70, 100], [64, 768, 200]].into_iter().enumerate()
    {
        for parts in [1, 2] {
            let case = Case::new(shape, parts, false, i as u64);
            let got = case.product(false, &Epilogue::NONE, true);
            assert!(got == case.model(false, &Epilogue::NONE), "{shape:?} in {parts}");
        }
    }
}

/// The instructions in a function, up to its return.
fn instructions(f: *const u8) -> Vec<String> {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter, Mnemonic};
    // SAFETY: code of this program, which goes on for a while after so short a function.
    let code = unsafe { std::slice::from_raw_parts(f, 400) };
    let mut text = IntelFormatter::new();
    Decoder::with_ip(64, code, f as u64, DecoderOptions::NONE)
        .into_iter()
        .take_while(|i| i.mnemonic() != Mnemonic::Ret)
        .filter(|i| {
            let tiles = i.op_registers().iter().any(|r| r.is_tmm());
            tiles || matches!(i.mnemonic(), Mnemonic::Ldtilecfg | Mnemonic::Tilerelease)
        })
        .map(|i| {
            let mut line = String::new();
            text.format(&i, &mut line);
            line
        })
        .collect()
}

trait Operands {
    fn op_registers(&self) -> Vec<iced_x86::Register>;
}

impl Operands for iced_x86::Instruction {
    fn op_registers(&self) -> Vec<iced_x86::Register> {
        (0..self.op_count()).map(|i| self.op_register(i)).collect()
    }
}

#[test]
fn the_assembler_says_what_is_meant() {
    #[inline(never)]
    unsafe fn all(p: *mut f32, ld: usize) {
        // SAFETY: never called.
        unsafe {
            let mut t = Amx;
            t.configure();
            t.zero::<3>();
            t.load::<6>(p, ld);
            t.pairs::<1, 4, 7>();
            t.quads::<0, 5, 6>();
            t.store::<2>(p, ld);
            t.release();
        }
    }
    let lines = instructions(all as *const u8);
    let expected = [
        "ldtilecfg [",
        "tilezero tmm3",
        "tileloadd tmm6,[",
        "tdpbf16ps tmm1,tmm4,tmm7",
        "tdpbusd tmm0,tmm5,tmm6",
        "tilestored [",
        "tilerelease",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    assert!(lines.iter().zip(expected).all(|(l, e)| l.starts_with(e)), "{lines:?}");
    assert!(lines[5].ends_with("],tmm2") && lines[2].contains('+'), "{lines:?}");
}
