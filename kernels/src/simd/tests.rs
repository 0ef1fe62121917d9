use super::row::{for_vectors, join_row, read, write};
use super::*;
use crate::testing::{noise, same_everywhere};

/// Every operation on rows of every small length, one result after another.
struct AllReal<'a, T> {
    a: &'a [T],
    b: &'a [T],
    out: &'a mut Vec<T>,
}

impl<T: Real> RealTask<T> for AllReal<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<V: RealVector<Elem = T>>(self) {
        let AllReal { a, b, out } = self;
        let n = a.len();
        let mut buffer = vec![T::ZERO; n];
        for op in 0..9 {
            for_vectors(
                n,
                #[inline(always)]
                |i, k| {
                    // SAFETY: both rows and the buffer have `n` elements.
                    unsafe {
                        let x = read::<V>(a.as_ptr(), i, k, T::ONE);
                        let y = read::<V>(b.as_ptr(), i, k, T::ONE);
                        let v = match op {
                            0 => x.add(y),
                            1 => x.sub(y),
                            2 => x.mul(y),
                            3 => x.div(y),
                            4 => x.max(y),
                            5 => x.min(y),
                            6 => x.fma(y, x),
                            7 => x.mul(x).sqrt(),
                            _ => x.exp(),
                        };
                        write(v, buffer.as_mut_ptr(), i, k);
                    }
                },
            );
            out.extend_from_slice(&buffer);
        }
        for join in [V::add as fn(V, V) -> V, V::mul, V::max, V::min] {
            let [v] = join_row::<V, 1>(n, b[0], join, |i, k| {
                // SAFETY: the row has `n` elements.
                [unsafe { read(a.as_ptr(), i, k, b[0]) }]
            });
            out.push(v);
        }
    }
}

fn all_levels_agree<T: Real>(odd: [T; 4]) {
    for n in (0..70).chain([127, 128, 129, 1000]) {
        let mut a: Vec<T> = noise(n, 1).into_iter().map(T::of).collect();
        let mut b: Vec<T> = noise(n + 1, 2).into_iter().map(T::of).collect();
        b.truncate(n.max(1));
        b.resize(n.max(1), T::ONE);
        for (i, &v) in odd.iter().enumerate() {
            // Every pairing of the odd ones, spread over the row.
            if n > 40 {
                for j in 0..4 {
                    (a[i * 4 + j], b[i * 4 + j + 1]) = (v, odd[j]);
                }
            }
        }
        let out = same_everywhere(|| {
            let mut out = Vec::new();
            run_real(AllReal { a: &a, b: &b[..n.max(1)], out: &mut out });
            out
        });
        assert_eq!(out.len(), 9 * n + 4);
        for i in 0..n {
            let (x, y) = (a[i].f64(), b[i].f64());
            let max = if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) };
            let got = out[4 * n + i].f64();
            assert!(got == max || (got.is_nan() && max.is_nan()), "max({x}, {y}) is not {got}");
        }
    }
}

#[test]
fn every_level_computes_the_same() {
    all_levels_agree::<f32>([f32::NAN, f32::INFINITY, -f32::INFINITY, -0.0]);
    all_levels_agree::<f64>([f64::NAN, f64::INFINITY, -f64::INFINITY, -0.0]);
}

#[test]
fn sums_follow_the_tree_of_64_lanes() {
    for n in [0usize, 1, 5, 63, 64, 65, 200, 4096] {
        let x: Vec<f32> = crate::testing::noise32(n, 3);
        let mut lanes = [0f32; 64];
        for (i, v) in x.iter().enumerate() {
            lanes[i % 64] += v;
        }
        for half in [32, 16, 8, 4, 2, 1] {
            for j in 0..half {
                lanes[j] += lanes[j + half];
            }
        }
        struct Sum<'a>(&'a [f32]);
        impl Task<f32> for Sum<'_> {
            type Out = f32;
            #[inline(always)]
            fn run<V: Vector<Elem = f32>>(self) -> f32 {
                let [v] = row::sum_row::<V, 1>(
                    self.0.len(),
                    #[inline(always)]
                    |i, k| {
                        // SAFETY: within the slice.
                        [unsafe { read(self.0.as_ptr(), i, k, 0.0) }]
                    },
                );
                v
            }
        }
        let got = same_everywhere(|| vec![run(Sum(&x))]);
        assert_eq!(got[0].to_bits(), lanes[0].to_bits(), "{n}");
    }
}

#[test]
fn pairs_join_as_a_balanced_tree() {
    for n in 0..40usize {
        let mut p = row::Pairwise::new();
        let join = |a: String, b: String| format!("({a}{b})");
        (0..n).for_each(|i| p.push(i.to_string(), join));
        let whole = p.finish(join);
        // The largest power of two that leaves something forms the left subtree.
        fn tree(r: std::ops::Range<usize>) -> String {
            match r.len() {
                1 => r.start.to_string(),
                n => {
                    let left = 1 << (n - 1).ilog2();
                    let (a, b) = (r.start..r.start + left, r.start + left..r.end);
                    format!("({}{})", tree(a), tree(b))
                }
            }
        }
        assert_eq!(whole, (n > 0).then(|| tree(0..n)));
    }
}
