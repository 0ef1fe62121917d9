use super::*;
use crate::testing::{FAR, Operand, index_of, noise32, same_everywhere};
use proptest::prelude::*;

/// Sizes and strides of a case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) lead: Vec<usize>,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) e: usize,
    pub(super) f: usize,
    pub(super) causal: bool,
    /// Shape of the mask before it is broadcast, if there is one.
    pub(super) mask: Option<[bool; 3]>,
}

impl Case {
    pub(super) fn shape(&self, rows: usize, cols: usize) -> Vec<usize> {
        [&self.lead[..], &[rows, cols]].concat()
    }
}

/// In double precision.
fn plain(c: &Case, q: &[f32], k: &[f32], v: &[f32], mask: &[f32], scale: f32) -> Vec<f64> {
    let items: usize = c.lead.iter().product();
    let mut out = vec![0.0; items * c.t * c.f];
    for (item, i) in (0..items).flat_map(|n| (0..c.t).map(move |i| (n, i))) {
        let seen = if c.causal { c.s.min(i + 1) } else { c.s };
        let scores: Vec<f64> = (0..seen)
            .map(|j| {
                let dot: f64 = (0..c.e)
                    .map(|x| {
                        let (a, b) = (q[(item * c.t + i) * c.e + x], k[(item * c.s + j) * c.e + x]);
                        f64::from(a * scale) * f64::from(b)
                    })
                    .sum();
                dot + f64::from(mask.get((item * c.t + i) * c.s + j).copied().unwrap_or(0.0))
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for x in 0..c.f {
            let y: f64 = (0..seen)
                .map(|j| weights[j] / sum * f64::from(v[(item * c.s + j) * c.f + x]))
                .sum();
            out[(item * c.t + i) * c.f + x] = y;
        }
    }
    out
}

/// The mask of a case, its strides as it is repeated, and its values for all scores.
pub(super) fn masked(c: &Case, style: u64) -> (Option<Operand<f32>>, Option<Vec<isize>>, Vec<f32>) {
    // A mask of fewer elements, repeated along what is left out.
    let full = c.shape(c.t, c.s);
    let mask = c.mask.map(|keep| {
        let mut shape = vec![1; c.lead.len()];
        if keep[0] {
            shape.clone_from(&c.lead);
        }
        shape.extend([if keep[1] { c.t } else { 1 }, if keep[2] { c.s } else { 1 }]);
        let values = noise32(numel(&shape), style + 9);
        // Some keys are hidden; not the first, so that every query sees one.
        let hide = |(i, m): (usize, f32)| {
            let key = shape.last().map_or(0, |n| i % n);
            if key > 0 && m > 1.0 { f32::NEG_INFINITY } else { m }
        };
        let values: Vec<f32> = values.into_iter().enumerate().map(hide).collect();
        Operand::new(&shape, style, &values)
    });
    let strides: Option<Vec<isize>> = mask.as_ref().map(|m| {
        let m = m.src();
        let wide = |i: usize| if m.shape[i] == full[i] { m.strides[i] } else { 0 };
        (0..full.len()).map(wide).collect()
    });
    let dense: Vec<f32> = match &mask {
        None => vec![],
        Some(m) => {
            let at = |p: usize| {
                let index = index_of(p, &full);
                let least = |(i, &x): (usize, &usize)| if m.shape[i] == 1 { 0 } else { x };
                m.src().at(&index.iter().enumerate().map(least).collect::<Vec<_>>())
            };
            (0..numel(&full)).map(at).collect()
        }
    };
    (mask, strides, dense)
}

fn check(c: &Case, style: u64) {
    let shapes = [(c.t, c.e), (c.s, c.e), (c.s, c.f)].map(|(r, n)| c.shape(r, n));
    let [q, k, v] = [1, 2, 3].map(|i| noise32(numel(&shapes[i - 1]), style + i as u64));
    let [oq, ok, ov] = [(&q, 0), (&k, 1), (&v, 2)].map(|(x, i)| Operand::new(&shapes[i], style, x));
    let scale = 1.0 / (c.e.max(1) as f32).sqrt();
    let (mask, strides, dense) = masked(c, style);
    let full = c.shape(c.t, c.s);
    let want = plain(c, &q, &k, &v, &dense, scale);
    let wide = mask.as_ref().map(|m| m.wide(&full, strides.as_ref().unwrap()));
    let out_shape = c.shape(c.t, c.f);
    let got = same_everywhere(|| {
        let out = Operand::zeros(&out_shape, style);
        let scores = Scores { scale, causal: c.causal, mask: wide };
        attention(oq.src(), ok.src(), ov.src(), &scores, out.dst());
        out.values()
    });
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= 4e-6, "{c:?}: {g} for {w} at {i}");
    }
}

pub(super) fn case(lead: &[usize], [t, s, e, f]: [usize; 4], causal: bool) -> Case {
    Case { lead: lead.to_vec(), t, s, e, f, causal, mask: None }
}

/// Sizes that kernels meet, each with and without masks, and how its operands lie.
pub(super) fn typical() -> impl Iterator<Item = (Case, u64)> {
    let cases = [
        // An encoder, a decoder's first pass and its next token, several blocks of keys.
        case(&[1, 3], [128, 128, 32, 32], false),
        case(&[2], [128, 128, 64, 64], true),
        case(&[3], [1, 129, 64, 64], false),
        case(&[2], [200, 150, 64, 64], true),
        case(&[1], [150, 200, 24, 40], true),
        case(&[2], [5, 1300, 24, 40], false),
        case(&[1], [700, 700, 16, 80], true),
        case(&[1], [150, 1100, 4, 3], false),
        // Nothing.
        case(&[2], [3, 0, 4, 5], false),
        case(&[2], [0, 3, 4, 5], true),
        case(&[0], [3, 3, 4, 5], false),
        case(&[], [3, 4, 0, 5], false),
        case(&[], [3, 4, 5, 0], false),
        case(&[], [1, 1, 1, 1], true),
    ];
    let masks =
        [(0, None), (FAR, None), (5, Some([false, true, true])), (6, Some([true, false, true]))];
    let with = move |c: Case| masks.map(|(style, mask)| (Case { mask, ..c.clone() }, style));
    cases.into_iter().flat_map(with)
}

/// Any sizes that are not empty.
pub(super) fn any_case() -> impl Strategy<Value = (Case, u64)> {
    let lead = proptest::collection::vec(1usize..4, 0..3);
    let sizes = [1usize..40, 1usize..120, 1usize..70, 1usize..70];
    let mask = (any::<bool>(), any::<[bool; 3]>()).prop_map(|(has, keep)| has.then_some(keep));
    (lead, sizes, any::<bool>(), mask, 0u64..16).prop_map(|(lead, sizes, causal, mask, style)| {
        (Case { mask, ..case(&lead, sizes, causal) }, style)
    })
}

#[test]
fn typical_attention() {
    typical().for_each(|(c, style)| check(&c, style));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_attention((c, style) in any_case()) {
        check(&c, style);
    }
}

/// One query, keys and values of two numbers.
fn one(k: &[f32], v: &[f32], mask: &[f32]) -> [f32; 2] {
    let n = mask.len();
    let q = Operand::new(&[1, 2], 0, &[1.0, 0.0]);
    let (k, v) = (Operand::new(&[n, 2], 0, k), Operand::new(&[n, 2], 0, v));
    let (m, out) = (Operand::new(&[1, n], 0, mask), Operand::zeros(&[1, 2], 0));
    let scores = Scores { scale: 1.0, causal: false, mask: Some(m.src()) };
    attention(q.src(), k.src(), v.src(), &scores, out.dst());
    out.values().try_into().unwrap()
}

#[test]
fn infinities_and_nan_are_those_of_the_softmax() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let v = [1.0, 2.0, 3.0, 4.0];
    // A query that sees nothing, a score without bound, a score that is no number.
    assert!(one(&[1.0; 4], &v, &[-inf, -inf]).iter().all(|y| y.is_nan()));
    assert!(one(&[inf, 0.0, 1.0, 1.0], &v, &[0.0, 0.0]).iter().all(|y| y.is_nan()));
    assert!(one(&[nan, 0.0, 1.0, 1.0], &v, &[0.0, 0.0]).iter().all(|y| y.is_nan()));
    // A key that is hidden counts nothing.
    assert_eq!(one(&[1.0; 4], &v, &[-inf, 0.0]), [3.0, 4.0]);
    assert_eq!(one(&[1.0; 4], &[inf, 1.0, inf, 2.0], &[0.0, 0.0])[0], inf);
    // The first block of keys is hidden as a whole.
    let n = 2 * KEYS + 3;
    let mask: Vec<f32> = (0..n).map(|j| if j < KEYS + 1 { -inf } else { 0.0 }).collect();
    let v: Vec<f32> = (0..2 * n).map(|i| if i / 2 <= KEYS { 7.0 } else { 3.0 }).collect();
    let [a, b] = one(&vec![1.0; 2 * n], &v, &mask);
    assert!((a - 3.0).abs() < 1e-5 && (b - 3.0).abs() < 1e-5, "{a} {b}");
}

#[test]
#[should_panic(expected = "must fit")]
fn shapes_are_checked() {
    let [q, k] = [[2, 3], [4, 2]].map(|s| Operand::zeros(&s, 0));
    let out = Operand::zeros(&[2, 2], 0);
    let scores = Scores { scale: 1.0, causal: false, mask: None };
    attention(q.src(), k.src(), k.src(), &scores, out.dst());
}
