//! Gradients that are put together from parts are those that a recorded pass makes op
//! by op.

use sinter::autograd::Backward;
use sinter::{Tensor, cat, from_slice, no_grad, randn, tensor};

type Loss = Box<dyn Fn(&[Tensor]) -> Tensor>;

fn leaves(shapes: &[&[usize]]) -> Vec<Tensor> {
    let leaf = |s: &&[usize]| randn(*s).to_dtype(sinter::DType::F64).requires_grad_(true);
    shapes.iter().map(leaf).collect()
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    let scale = 1.0 + b.abs().max().item::<f64>();
    a.shape() == b.shape() && (a - b).abs().max().item::<f64>() < 1e-12 * scale
}

/// The loss by name, the shapes of its leaves, and how it is made of them.
fn losses() -> Vec<(&'static str, Vec<&'static [usize]>, Loss)> {
    let over_rows = |x: &Tensor, f: &dyn Fn(&Tensor) -> Tensor| {
        let rows: Vec<Tensor> = (0..x.size(0)).map(|i| f(&x.narrow(0, i, 1))).collect();
        cat(&rows.iter().collect::<Vec<_>>(), 0)
    };
    vec![
        (
            "pieces that cover",
            vec![&[3, 8]],
            Box::new(|l| {
                let p = (&l[0] * 2.0).chunk(4, 1);
                (&p[0] * &p[3] + p[1].tanh() * &p[2]).sum()
            }),
        ),
        (
            "pieces of a leaf, out of order, with gaps",
            vec![&[7, 2]],
            Box::new(|l| (l[0].narrow(0, 4, 2).exp() * l[0].narrow(0, 1, 2)).sum()),
        ),
        (
            "pieces that overlap and leap",
            vec![&[6, 5]],
            Box::new(|l| {
                let y = l[0].tanh();
                let (a, b) = (y.slice(1, 0, 5, 2), y.slice(1, 1, 4, 1));
                (a.square() * b.exp()).sum()
                    + (y.narrow(0, 2, 3) * y.narrow(0, 1, 3)).sum()
                    + y.sum()
            }),
        ),
        (
            "rows of a table, some of them twice, and its whole",
            vec![&[40, 3]],
            Box::new(|l| {
                let pick = |i: &[i64]| l[0].index_select(0, &from_slice(i, [i.len()]));
                (pick(&[3, 5]) * pick(&[5, 7])).sum() + pick(&[0]).exp().sum() + l[0].square().sum()
            }),
        ),
        (
            "rows, pieces and columns of one tensor",
            vec![&[30, 20]],
            Box::new(|l| {
                let y = &l[0] * &l[0];
                let rows = y.index_select(0, &tensor([4i64, 4, 9]));
                let columns = y.index_select(1, &tensor([1i64]));
                rows.exp().sum() + columns.sin().sum() + y.narrow(1, 3, 2).square().sum()
            }),
        ),
        (
            "a weight for one row at a time",
            vec![&[9, 10], &[12, 10], &[12]],
            Box::new(move |l| {
                let w = l[1].t();
                over_rows(&l[0], &|x| (x.matmul(&l[1].t()) + &l[2] + x.matmul(&w)).tanh())
                    .square()
                    .sum()
            }),
        ),
        (
            "a weight made of others, and used whole",
            vec![&[5, 10], &[10, 12]],
            Box::new(move |l| {
                let w = l[1].exp();
                over_rows(&l[0], &|x| x.matmul(&w).sigmoid()).sum()
                    + w.sum()
                    + l[1].matmul(&l[1].t()).sum()
            }),
        ),
        (
            "rows in several dimensions",
            vec![&[2, 1, 16], &[16, 17]],
            Box::new(|l| {
                let y = l[0].matmul(&l[1]).tanh();
                y.matmul(&l[1].t()).square().sum()
            }),
        ),
        (
            "so many uses that some are put together before the end",
            vec![&[60, 10], &[10, 8]],
            Box::new(move |l| over_rows(&l[0], &|x| x.matmul(&l[1]).tanh()).square().sum()),
        ),
    ]
}

#[test]
fn parts_make_the_whole() {
    for (name, shapes, loss) in losses() {
        let l = leaves(&shapes);
        let refs: Vec<&Tensor> = l.iter().collect();
        let want = Backward::new().create_graph(true).grad(&[&loss(&l)], &refs);
        let asked = Backward::new().grad(&[&loss(&l)], &refs);
        // Twice: into nothing, and onto what is there.
        loss(&l).backward();
        let once: Vec<Tensor> = l.iter().map(|t| t.grad().unwrap().copy()).collect();
        loss(&l).backward();
        for (i, t) in l.iter().enumerate() {
            let want = want[i].as_ref().unwrap().detach();
            assert!(close(asked[i].as_ref().unwrap(), &want), "{name}: leaf {i}, asked for");
            assert!(close(&once[i], &want), "{name}: leaf {i}");
            assert!(close(&t.grad().unwrap(), &(want * 2.0)), "{name}: leaf {i}, twice");
        }
    }
}

/// Hooks see whole gradients, and what they make of them counts.
#[test]
fn hooks_see_the_whole() {
    for (name, shapes, loss) in losses() {
        let l = leaves(&shapes);
        loss(&l).backward();
        let want: Vec<Tensor> = l.iter().map(|t| t.grad().unwrap().copy()).collect();
        l.iter().for_each(Tensor::zero_grad);
        for t in &l {
            t.register_hook(|g| Some(g * 3.0));
        }
        loss(&l).backward();
        for (t, w) in l.iter().zip(want) {
            assert!(close(&t.grad().unwrap(), &(w * 3.0)), "{name}");
        }
    }
    let l = leaves(&[&[2, 10], &[12, 10]]);
    let w = l[1].t();
    w.retain_grad();
    (l[0].narrow(0, 0, 1).matmul(&w).sum() + l[0].narrow(0, 1, 1).matmul(&w).sum()).backward();
    assert!(close(&w.grad().unwrap(), &l[1].grad().unwrap().t()));
}

/// What waits is put together before a hook may change what it is made of.
#[test]
fn hooks_may_change_what_parts_are_made_of() {
    let l = leaves(&[&[1, 10], &[10, 12]]);
    let loss = || l[0].matmul(&l[1]).tanh().sum();
    loss().backward();
    let want = l[1].grad().unwrap().copy();
    l.iter().for_each(Tensor::zero_grad);
    l[0].register_post_accumulate_grad_hook(|t| {
        no_grad(|| t.mul_(0.0).version());
    });
    loss().backward();
    assert_eq!(l[0].abs().max().item::<f64>(), 0.0);
    assert!(close(&l[1].grad().unwrap(), &want));
    // The same where the gradient waits for a result, and another result has the hook.
    let l = leaves(&[&[1, 10], &[10, 12]]);
    let loss = |hooked: bool| {
        let (x, w) = (&l[0] * 1.0, &l[1] * 1.0);
        let y = x.matmul(&w).tanh().sum();
        if hooked {
            let x_too = x.detach();
            x.register_hook(move |_| {
                no_grad(|| x_too.mul_(0.0).version());
                None
            });
        }
        y
    };
    loss(false).backward();
    let want = l[1].grad().unwrap().copy();
    l.iter().for_each(Tensor::zero_grad);
    loss(true).backward();
    assert!(close(&l[1].grad().unwrap(), &want));
}
