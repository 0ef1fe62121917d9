//! Random programs of views and changes in place, whose derivatives are compared with
//! differences.

use crate::leaf;
use sinter::autograd::GradCheck;
use sinter::{Tensor, no_grad};

/// Numbers that look random (Knuth's 64-bit linear congruential generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// A view of some kind, where the shape allows it.
fn view(t: &Tensor, dice: &mut Dice) -> Tensor {
    let rank = t.rank();
    if rank == 0 || t.numel() < 2 {
        return t.unsqueeze(0);
    }
    let dim = dice.roll(rank);
    let (d, n) = (dim as i64, t.shape()[dim]);
    match dice.roll(9) {
        0 => t.select(d, dice.roll(n) as i64),
        1 => {
            let start = dice.roll(n);
            t.narrow(d, start, 1 + dice.roll(n - start))
        }
        2 => t.slice(d, dice.roll(n), n, 2),
        3 => t.transpose(d, dice.roll(rank) as i64),
        4 => t.flip([d]),
        5 if t.is_contiguous() => t.reshape([-1]),
        6 if rank == 2 => t.diagonal(0, 0, 1),
        7 if rank < 4 => t.unsqueeze(d).broadcast_to([vec![-1; rank + 1]].concat()),
        // Part of something repeated.
        8 if rank < 3 => {
            let wide: Vec<i64> = std::iter::once(3).chain(vec![-1; rank]).collect();
            t.unsqueeze(0).broadcast_to(wide).select(0, 1)
        }
        _ => t.narrow(d, 0, n),
    }
}

/// A change of `t` that keeps nothing a later change could spoil.
fn change(t: &Tensor, w: &Tensor, others: &[Tensor], dice: &mut Dice) {
    let factor = w.select(0, dice.roll(4) as i64);
    match dice.roll(8) {
        0 => t.mul_(&factor),
        1 => t.add_(&factor),
        2 => t.sin_(),
        3 => t.atan_(),
        4 => t.copy_(&factor),
        5 => t.fill_(0.5),
        6 => {
            // Another view's values, as they are now.
            let same: Vec<&Tensor> = others.iter().filter(|o| o.shape() == t.shape()).collect();
            match same.is_empty() {
                true => t.neg_(),
                false => t.mul_(same[dice.roll(same.len())].copy()),
            }
        }
        _ => t.sub_(t.copy() * 0.25),
    };
}

fn program(seed: u64, x: &Tensor, w: &Tensor) -> Vec<Tensor> {
    let mut dice = Dice(seed);
    let base = x.reshape([3, 4]) * 1.5;
    let base = if dice.roll(3) == 0 {
        // Memory in another order.
        let other = no_grad(|| base.t().copy()).t().detach();
        other.copy_(&base);
        other
    } else {
        base
    };
    let mut all = vec![base];
    for _ in 0..3 + dice.roll(6) {
        if dice.roll(2) == 0 {
            let of = dice.roll(all.len());
            let v = view(&all[of], &mut dice);
            if v.is_view() {
                all.push(v);
            }
        } else {
            let at = dice.roll(all.len());
            change(&all[at], w, &all, &mut dice);
        }
    }
    all.iter().enumerate().map(|(i, t)| (t * (i + 1) as f64).cos().sum()).collect()
}

#[test]
fn derivatives_are_right() {
    let values: Vec<f64> = (0..12).map(|i| 0.3 + 0.11 * f64::from(i * 7 % 12)).collect();
    let (x, w) = (leaf(&values), leaf(&[0.7, -1.2, 0.4, 1.1]));
    let how = GradCheck { fast: true, ..GradCheck::default() };
    for seed in 0..400 {
        let f =
            |t: &[Tensor]| vec![program(seed, &t[0], &t[1]).iter().fold(t[0].sum(), |a, b| a + b)];
        how.first(f, &[x.clone(), w.clone()]).unwrap_or_else(|e| panic!("program {seed}: {e}"));
        if seed % 8 == 0 {
            how.second(f, &[x.clone(), w.clone()])
                .unwrap_or_else(|e| panic!("program {seed}: {e}"));
        }
    }
}
