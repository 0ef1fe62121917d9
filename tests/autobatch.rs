//! Define-by-run code on many instances, batched by itself: the same numbers.

use sinter::autograd::NextFunction;
use sinter::nn::functional::{self as F, Reduction};
use sinter::nn::{Layer, Linear, Module};
use sinter::optim::{Optimizer, Sgd};
use sinter::{Tensor, autobatch, cat, no_grad, randn, stack, tensor, zeros};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A binary tree with words at its leaves.
enum Tree {
    Word(i64),
    Pair(Box<(Tree, Tree)>),
}

fn tree(words: usize, seed: &mut u64) -> Tree {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    let draw = (*seed >> 33) as usize;
    if words == 1 {
        return Tree::Word((draw % 20) as i64);
    }
    let left = 1 + draw % (words - 1);
    Tree::Pair(Box::new((tree(left, seed), tree(words - left, seed))))
}

struct TreeLstm {
    embedding: Tensor,
    gates: Linear,
    classes: Linear,
}

const HIDDEN: i64 = 6;

impl TreeLstm {
    fn new() -> TreeLstm {
        let h = HIDDEN as usize;
        TreeLstm {
            embedding: randn([20, h]).requires_grad_(true),
            gates: Linear::new(2 * h, 5 * h),
            classes: Linear::new(h, 3),
        }
    }

    fn parameters(&self) -> Vec<Tensor> {
        let mut all = vec![self.embedding.clone()];
        all.extend(self.gates.parameters().iter().map(|p| p.tensor().clone()));
        all.extend(self.classes.parameters().iter().map(|p| p.tensor().clone()));
        all
    }

    fn encode(&self, t: &Tree) -> (Tensor, Tensor) {
        match t {
            Tree::Word(w) => {
                (self.embedding.index_select(0, &tensor([*w])), zeros([1, HIDDEN as usize]))
            }
            Tree::Pair(p) => {
                let ((h1, c1), (h2, c2)) = (self.encode(&p.0), self.encode(&p.1));
                let gates = self.gates.forward(&cat(&[&h1, &h2], 1)).chunk(5, 1);
                let [i, f1, f2, o, u] = &gates[..] else { unreachable!("five chunks") };
                let c = i.sigmoid() * u.tanh() + f1.sigmoid() * c1 + f2.sigmoid() * c2;
                (o.sigmoid() * c.tanh(), c)
            }
        }
    }

    fn loss(&self, trees: &[Tree]) -> Tensor {
        let losses: Vec<Tensor> = trees
            .iter()
            .enumerate()
            .map(|(k, t)| {
                let scores = self.classes.forward(&self.encode(t).0);
                F::cross_entropy(&scores, &tensor([k as i64 % 3]), Reduction::Mean)
            })
            .collect();
        stack(&losses.iter().collect::<Vec<_>>(), 0).sum()
    }
}

fn gradients(parameters: &[Tensor]) -> Vec<Vec<f32>> {
    parameters
        .iter()
        .map(|p| {
            let g = p.grad().expect("every parameter takes part").to_vec::<f32>();
            p.zero_grad();
            g
        })
        .collect()
}

fn assert_close(a: &[Vec<f32>], b: &[Vec<f32>]) {
    for (a, b) in a.iter().zip(b) {
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() <= 1e-5 * y.abs().max(1.0), "{x} {y}");
        }
    }
}

#[test]
fn trees() {
    sinter::manual_seed(3);
    let model = TreeLstm::new();
    let mut seed = 1;
    let trees: Vec<Tree> = (1..14).map(|n| tree(n, &mut seed)).collect();
    let parameters = model.parameters();
    let plain = model.loss(&trees);
    plain.backward();
    let want = gradients(&parameters);
    let batched = autobatch(|| model.loss(&trees));
    assert!((plain.item::<f32>() - batched.item::<f32>()).abs() < 1e-4);
    batched.backward();
    assert_close(&gradients(&parameters), &want);
    // The backward pass inside, too.
    autobatch(|| model.loss(&trees).backward());
    assert_close(&gradients(&parameters), &want);
    // Without recording there is no history to build.
    let bare = no_grad(|| autobatch(|| model.loss(&trees)));
    assert!(!bare.requires_grad());
    assert!((plain.item::<f32>() - bare.item::<f32>()).abs() < 1e-4);
}

/// How many products the history of a tensor has.
fn products(root: &Tensor) -> usize {
    let mut todo = vec![root.grad_fn().expect("it has a history")];
    let mut seen = BTreeSet::new();
    let mut products = 0;
    while let Some(f) = todo.pop() {
        if seen.insert(f.sequence_nr()) {
            products += usize::from(f.name() == "matmul");
            todo.extend(f.next_functions().into_iter().filter_map(|n| match n {
                NextFunction::Node(f, _) => Some(f),
                _ => None,
            }));
        }
    }
    products
}

/// One product for all pairs of a height, and one for all scores.
#[test]
fn the_tape_is_as_short_as_batches_are_few() {
    let model = TreeLstm::new();
    let mut seed = 5;
    let trees: Vec<Tree> = (8..24).map(|n| tree(n, &mut seed)).collect();
    fn height(t: &Tree) -> usize {
        match t {
            Tree::Word(_) => 0,
            Tree::Pair(p) => 1 + height(&p.0).max(height(&p.1)),
        }
    }
    let heights: BTreeSet<usize> = trees.iter().map(height).collect();
    let highest = heights.last().expect("there are trees");
    let batched = products(&autobatch(|| model.loss(&trees)));
    let plain = products(&model.loss(&trees));
    assert_eq!(batched, highest + heights.len());
    assert_eq!(plain, (8..24).map(|n| n - 1).sum::<usize>() + trees.len());
}

#[test]
fn control_flow_may_look_at_values() {
    sinter::manual_seed(4);
    let layer = Linear::new(3, 3);
    let x = randn([5, 3]);
    let run = || -> Vec<Tensor> {
        (0..5)
            .map(|i| {
                let mut h = x.narrow(0, i, 1);
                for _ in 0..4 {
                    h = layer.forward(&h).tanh();
                    if h.sum().item::<f32>() > 0.0 {
                        break;
                    }
                }
                h
            })
            .collect()
    };
    let (plain, batched) = (run(), autobatch(run));
    for (a, b) in plain.iter().zip(&batched) {
        assert!(a.allclose(b, 1e-5, 1e-6), "{a} {b}");
        assert!(b.requires_grad() && !b.is_leaf());
    }
}

/// What was written before a change in place does not see it.
#[test]
fn parameters_may_change_on_the_way() {
    let w = tensor([[1.0f64, 2.0]]).requires_grad_(true);
    let (before, after) = autobatch(|| {
        let x = tensor([[3.0f64, 4.0]]);
        let before = x.matmul(&w.t());
        no_grad(|| w.mul_(2.0));
        (before, x.matmul(&w.t()))
    });
    assert_eq!((before.item::<f64>(), after.item::<f64>()), (11.0, 22.0));
    let layer = Linear::new(2, 1);
    let mut sgd = Sgd::new(layer.parameters(), 0.5);
    let train = |sgd: &mut Sgd| {
        for _ in 0..3 {
            layer.forward(&zeros([1, 2])).square().sum().backward();
            sgd.step();
            sgd.zero_grad();
        }
    };
    autobatch(|| train(&mut sgd));
    // y = b: each step halves it (lr · 2 b = b) to zero at once.
    assert_eq!(layer.forward(&zeros([1, 2])).item::<f32>(), 0.0);
}

#[test]
fn values_that_leave_are_whole() {
    let w = tensor([1.0f64, -2.0]).requires_grad_(true);
    let mut kept = Vec::new();
    let (a, b) = autobatch(|| {
        let rows: Vec<Tensor> = (0..3).map(|i| &w * f64::from(i)).collect();
        kept.extend(rows.iter().cloned());
        let changed = &rows[2] * 1.0;
        changed.add_(1.0);
        (rows[1].exp(), changed)
    });
    assert_eq!(b.to_vec::<f64>(), [3.0, -3.0]);
    assert_eq!(kept[2].to_vec::<f64>(), [2.0, -4.0]);
    assert!((a.to_vec::<f64>()[0] - 1f64.exp()).abs() < 1e-15);
    (&kept[2] + &kept[1]).sum().backward();
    assert_eq!(w.grad().unwrap().to_vec::<f64>(), [3.0, 3.0]);
    assert_eq!(kept[0].shape(), [2]);
    let (rows, sum) = kept[2].sort(0, true);
    assert_eq!((rows.to_vec::<f64>(), sum.to_vec::<i64>()), (vec![2.0, -4.0], vec![0, 1]));
}

#[test]
#[should_panic(expected = "matmul: shapes [1, 2] and [3, 3] cannot be multiplied")]
fn mistakes_are_found_where_they_are_made() {
    let w = zeros([3, 3]).requires_grad_(true);
    autobatch(|| zeros([1, 2]).matmul(&w));
}

#[test]
fn joining_many_tensors() {
    let x = tensor([2.0f64]).requires_grad_(true);
    let parts: Vec<Tensor> = (0..100).map(|i| &x * f64::from(i)).collect();
    cat(&parts.iter().collect::<Vec<_>>(), 0).sum().backward();
    assert_eq!(x.grad().unwrap().item::<f64>(), 4950.0);
}

/// A result that waits is a tensor as any other: hooks, kept gradients, `detach_`.
#[test]
fn results_that_wait_have_all_that_tensors_have() {
    let w = tensor([1.0f64, 2.0]).requires_grad_(true);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = seen.clone();
    let rows = autobatch(|| {
        let rows: Vec<Tensor> = (1..4).map(|i| &w * f64::from(i)).collect();
        rows[0].retain_grad();
        rows[1].register_hook(move |g| {
            see.lock().unwrap().extend(g.to_vec::<f64>());
            None
        });
        assert_eq!(rows[2].grad_fn_name(), Some("reshape"));
        stack(&rows.iter().collect::<Vec<_>>(), 0).square().sum().backward();
        rows
    });
    assert_eq!(rows[0].grad().unwrap().to_vec::<f64>(), [2.0, 4.0]);
    assert_eq!(*seen.lock().unwrap(), [4.0, 8.0]);
    assert_eq!(w.grad().unwrap().to_vec::<f64>(), [28.0, 56.0]);
    let constant = autobatch(|| {
        let y = &w * 3.0;
        y.detach_();
        assert!(!y.requires_grad() && y.is_leaf());
        y
    });
    assert!(!constant.requires_grad());
}
