use super::*;
use crate::isa::{self, Isa};

/// Numbers that look random, within one.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (s >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

struct Case {
    s: Sequence,
    gates: Vec<f64>,
    w: Vec<f64>,
    h0: Vec<f64>,
    c0: Vec<f64>,
    bias: Vec<f64>,
}

impl Case {
    fn new(cell: Cell, reverse: bool, [steps, rows, units]: [usize; 3]) -> Case {
        let g = cell.gates() * units;
        Case {
            s: Sequence { cell, reverse, steps, rows, units },
            gates: numbers(steps * rows * g, 1),
            w: numbers(g * units, 2).iter().map(|v| v / (units as f64).sqrt()).collect(),
            h0: numbers(rows * units, 3),
            c0: numbers(rows * units, 4),
            bias: numbers(units, 5),
        }
    }

    /// By the definition: results and cells.
    fn plain(&self) -> (Vec<f64>, Vec<f64>) {
        self.plain_of(|v| v)
    }

    /// With the product of what `round` leaves of weights and states.
    fn plain_of(&self, round: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<f64>) {
        let Sequence { cell, reverse, steps, rows, units } = self.s;
        let g = cell.gates();
        let mut y = vec![0.0; steps * rows * units];
        let mut cells = y.clone();
        for row in 0..rows {
            let mut h = self.h0[row * units..][..units].to_vec();
            let mut c = self.c0[row * units..][..units].to_vec();
            for s in 0..steps {
                let t = if reverse { steps - 1 - s } else { s };
                let sum = |gate: usize, u: usize| -> f64 {
                    (0..units)
                        .map(|k| round(self.w[(gate * units + u) * units + k]) * round(h[k]))
                        .sum()
                };
                let x =
                    |gate: usize, u: usize| self.gates[((t * rows + row) * g + gate) * units + u];
                let both = |gate: usize, u: usize| x(gate, u) + sum(gate, u);
                let next: Vec<f64> = (0..units)
                    .map(|u| match cell {
                        Cell::Tanh => both(0, u).tanh(),
                        Cell::Relu => both(0, u).max(0.0),
                        Cell::Gru => {
                            let (r, z) = (sigmoid(both(0, u)), sigmoid(both(1, u)));
                            let n = (x(2, u) + r * (sum(2, u) + self.bias[u])).tanh();
                            (1.0 - z) * n + z * h[u]
                        }
                        Cell::Lstm => {
                            let (i, f) = (sigmoid(both(0, u)), sigmoid(both(1, u)));
                            c[u] = f * c[u] + i * both(2, u).tanh();
                            sigmoid(both(3, u)) * c[u].tanh()
                        }
                    })
                    .collect();
                h = next;
                y[(t * rows + row) * units..][..units].copy_from_slice(&h);
                cells[(t * rows + row) * units..][..units].copy_from_slice(&c);
            }
        }
        (y, cells)
    }

    fn kernel<T: Panels>(&self, packed: bool) -> (Vec<T>, Vec<T>, Vec<T>) {
        let Sequence { cell, units, .. } = self.s;
        let w: Vec<T> = self.w.iter().map(|&v| T::of(v)).collect();
        let (shape, flat) = ([cell.gates() * units, units], [units as isize, 1]);
        let weight = Src::of(&w, &shape, &flat);
        let mut panels = vec![T::ZERO; packed_len(cell, units)];
        if packed {
            pack(cell, weight, &mut panels);
        }
        self.with(if packed { Weight::Packed(&panels) } else { Weight::Plain(weight) })
    }

    fn kernel_bf16(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Sequence { cell, units, .. } = self.s;
        let w: Vec<f32> = self.w.iter().map(|&v| v as f32).collect();
        let (shape, flat) = ([cell.gates() * units, units], [units as isize, 1]);
        let mut panels = vec![0.0; packed_len_bf16(cell, units)];
        pack_bf16(cell, Src::of(&w, &shape, &flat), &mut panels);
        self.with(Weight::Bf16(&panels))
    }

    fn with<T: Panels>(&self, weight: Weight<T>) -> (Vec<T>, Vec<T>, Vec<T>) {
        let Sequence { cell, steps, rows, units, .. } = self.s;
        let g = cell.gates() * units;
        let of = |v: &[f64]| -> Vec<T> { v.iter().map(|&v| T::of(v)).collect() };
        let (gates, h0, c0) = (of(&self.gates), of(&self.h0), of(&self.c0));
        let bias = of(&self.bias);
        let mut y = vec![T::ZERO; steps * rows * units];
        let (mut c, mut kept) = (y.clone(), vec![T::ZERO; steps * rows * cell.kept() * units]);
        let strides = |n: usize| [(rows * n) as isize, n as isize, 1];
        let (shape, state) = ([steps, rows, units], [rows, units]);
        let (flat, lstm) = ([units as isize, 1], cell == Cell::Lstm);
        let (one, of_units) = ([1], [units]);
        let (of_state, of_kept) = (strides(units), strides(cell.kept() * units));
        let keeps = [steps, rows, cell.kept() * units];
        forward(
            &self.s,
            &Forward {
                gates: Src::of(&gates, &[steps, rows, g], &strides(g)),
                weight,
                h0: Src::of(&h0, &state, &flat),
                c0: lstm.then(|| Src::of(&c0, &state, &flat)),
                bias: (cell == Cell::Gru).then(|| Src::of(&bias, &of_units, &one)),
                y: Dst::of(&mut y, &shape, &strides(units)),
                c: lstm.then(|| Dst::of(&mut c, &shape, &of_state)),
                kept: (cell.kept() > 0).then(|| Dst::of(&mut kept, &keeps, &of_kept)),
            },
        );
        (y, c, kept)
    }
}

const CELLS: [Cell; 4] = [Cell::Tanh, Cell::Relu, Cell::Gru, Cell::Lstm];
const SIZES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [3, 2, 5],
    [2, 1, 16],
    [4, 3, 17],
    [2, 9, 48],
    [3, 1, 67],
    [2, 2, 53],
    [2, 35, 19],
    [5, 7, 130],
];

#[test]
fn as_defined() {
    for cell in CELLS {
        for size in SIZES {
            for reverse in [false, true] {
                let case = Case::new(cell, reverse, size);
                let (y, c) = case.plain();
                let near = |got: f64, want: f64, by: f64| (got - want).abs() <= by;
                let (y32, c32, _) = case.kernel::<f32>(true);
                let (y64, c64, _) = case.kernel::<f64>(false);
                for i in 0..y.len() {
                    let at = format!("{cell:?} {size:?} {reverse} {i}");
                    assert!(near(y64[i], y[i], 1e-12), "{at}: {} {}", y64[i], y[i]);
                    assert!(near(f64::from(y32[i]), y[i], 2e-5), "{at}: {} {}", y32[i], y[i]);
                    if cell == Cell::Lstm {
                        assert!(near(c64[i], c[i], 1e-12) && near(f64::from(c32[i]), c[i], 2e-5));
                    }
                }
            }
        }
    }
}

/// What rounding weights and states to bf16 gives, for any threads and instructions.
#[test]
fn in_bf16() {
    let round = |v: f64| half::bf16::from_f32(v as f32).to_f64();
    for cell in CELLS {
        for size in SIZES {
            let case = Case::new(cell, false, size);
            let (rounded, _) = case.plain_of(round);
            let (exact, _) = case.plain();
            let all = case.kernel_bf16();
            for i in 0..rounded.len() {
                let (got, at) = (f64::from(all.0[i]), format!("{cell:?} {size:?} {i}"));
                // A state that is nearly halfway between two numbers may round to either.
                assert!((got - rounded[i]).abs() <= 4e-3, "{at}: {got} {}", rounded[i]);
                assert!((got - exact[i]).abs() <= 4e-2, "{at}: {got} {}", exact[i]);
            }
            let (threads, best) = (par::threads(), isa::active());
            par::set_threads(3);
            for level in Isa::ALL {
                isa::limit(level);
                assert_eq!(all, case.kernel_bf16(), "{cell:?} {size:?} {level:?}");
            }
            isa::limit(best);
            par::set_threads(threads);
        }
    }
}

#[test]
fn the_same_for_any_threads_instructions_and_neighbours() {
    for cell in CELLS {
        let case = Case::new(cell, false, [3, 11, 70]);
        let all = case.kernel::<f32>(false);
        assert_eq!(all, case.kernel::<f32>(true));
        let threads = par::threads();
        par::set_threads(3);
        assert_eq!(all, case.kernel::<f32>(false));
        par::set_threads(threads);
        let best = isa::active();
        for level in Isa::ALL {
            isa::limit(level);
            assert_eq!(all, case.kernel::<f32>(false), "{cell:?} {level:?}");
        }
        isa::limit(best);
        // A row alone.
        let (g, units) = (cell.gates() * 70, 70);
        let mut one = Case::new(cell, false, [3, 1, 70]);
        let row = 8;
        one.w = case.w.clone();
        one.h0 = case.h0[row * units..][..units].to_vec();
        one.c0 = case.c0[row * units..][..units].to_vec();
        one.gates = (0..3).flat_map(|t| case.gates[(t * 11 + row) * g..][..g].to_vec()).collect();
        let alone = one.kernel::<f32>(false).0;
        for t in 0..3 {
            assert_eq!(alone[t * units..][..units], all.0[(t * 11 + row) * units..][..units]);
        }
    }
}

/// The derivative of `sum(y gy) + sum(c gc)` against differences, in f64.
#[test]
fn derivatives() {
    for cell in CELLS {
        for (reverse, size) in [(false, [3, 2, 3]), (true, [2, 1, 18]), (false, [1, 3, 2])] {
            let case = Case::new(cell, reverse, size);
            let [steps, rows, units] = size;
            let g = cell.gates() * units;
            let lstm = cell == Cell::Lstm;
            let n = steps * rows * units;
            let (gy, gc) = (numbers(n, 6), numbers(n, 7));
            let loss = |case: &Case| -> f64 {
                let (y, c) = case.plain();
                let of_y: f64 = y.iter().zip(&gy).map(|(a, b)| a * b).sum();
                let of_c: f64 = c.iter().zip(&gc).map(|(a, b)| a * b).sum();
                if lstm { of_y + of_c } else { of_y }
            };
            let (y, c, kept) = case.kernel::<f64>(false);
            let mut gates = vec![0.0; steps * rows * g];
            let (mut hidden, mut h0) = (gates.clone(), vec![0.0; rows * units]);
            let mut c0 = h0.clone();
            let strides = |n: usize| [(rows * n) as isize, n as isize, 1];
            let (shape, state, flat) = ([steps, rows, units], [rows, units], [units as isize, 1]);
            let wide = [steps, rows, g];
            let keeps = [steps, rows, cell.kept() * units];
            let (of_state, of_wide, of_kept) = (strides(units), strides(g), strides(4 * units));
            let start = if lstm { &case.c0 } else { &case.h0 };
            backward(
                &case.s,
                &Saved {
                    weight: Src::of(&case.w, &[g, units], &flat),
                    start: (cell.kept() > 0).then(|| Src::of(start, &state, &flat)),
                    states: Src::of(if lstm { &c } else { &y }, &shape, &strides(units)),
                    kept: (cell.kept() > 0).then(|| Src::of(&kept, &keeps, &of_kept)),
                    gy: Src::of(&gy, &shape, &strides(units)),
                    gc: lstm.then(|| Src::of(&gc, &shape, &of_state)),
                    gkept: None,
                },
                &Wanted {
                    gates: Dst::of(&mut gates, &wide, &strides(g)),
                    hidden: (cell == Cell::Gru).then(|| Dst::of(&mut hidden, &wide, &of_wide)),
                    h0: Dst::of(&mut h0, &state, &flat),
                    c0: lstm.then(|| Dst::of(&mut c0, &state, &flat)),
                },
            );
            let check = |got: &[f64], field: fn(&mut Case) -> &mut Vec<f64>| {
                for (i, got) in got.iter().enumerate() {
                    let mut moved = Case::new(cell, reverse, size);
                    field(&mut moved)[i] += 1e-6;
                    let up = loss(&moved);
                    field(&mut moved)[i] -= 2e-6;
                    let want = (up - loss(&moved)) / 2e-6;
                    assert!((got - want).abs() < 1e-6, "{cell:?} {size:?} {i}: {got} {want}");
                }
            };
            check(&gates, |c| &mut c.gates);
            check(&h0, |c| &mut c.h0);
            if lstm {
                check(&c0, |c| &mut c.c0);
            }
            if cell == Cell::Gru {
                // The bias is added to what the states contribute.
                let sums: Vec<f64> = (0..units)
                    .map(|u| (0..steps * rows).map(|r| hidden[r * g + 2 * units + u]).sum())
                    .collect();
                check(&sums, |c| &mut c.bias);
            }
        }
    }
}
