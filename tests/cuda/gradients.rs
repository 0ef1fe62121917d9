//! Gradients of tensors on a device are there, and those of the processor.

use super::{device, finite, same};
use sinter::nn::functional as F;
use sinter::{Device, Tensor};

type Case = (&'static str, Vec<&'static [usize]>, fn(&[Tensor]) -> Tensor);

fn cases() -> Vec<Case> {
    vec![
        ("arithmetic", vec![&[3, 4], &[4]], |x| (&x[0] * &x[1] + 2.0) / (x[1].square() + 1.0)),
        ("functions", vec![&[7]], |x| x[0].exp() + x[0].tanh() + x[0].sigmoid() + x[0].gelu()),
        ("where", vec![&[3, 4], &[3, 4]], |x| x[0].gt(0.0).where_(&x[0], &x[1])),
        ("extremes", vec![&[3, 4], &[3, 4]], |x| x[0].maximum(&x[1]) + x[0].amax(1, true)),
        ("views", vec![&[4, 6]], |x| x[0].t().reshape([3, 8]).narrow(1, 2, 4).flip([0]) * 3.0),
        ("sums", vec![&[3, 4, 5]], |x| x[0].sum_dim(1, false) + x[0].mean_dim(1, false)),
        ("variance", vec![&[3, 9]], |x| x[0].var_dim(1, 1, true)),
        ("products", vec![&[3, 5], &[5, 4], &[4]], |x| F::linear(&x[0], &x[1].t(), Some(&x[2]))),
        ("batched products", vec![&[2, 3, 5], &[5, 4]], |x| x[0].matmul(&x[1])),
        ("softmax", vec![&[3, 5]], |x| x[0].softmax(1) * x[0].log_softmax(1)),
        ("layer_norm", vec![&[3, 5], &[5], &[5]], |x| {
            F::layer_norm(&x[0], 1, Some(&x[1]), Some(&x[2]), 1e-5)
        }),
        ("joined", vec![&[2, 3], &[2, 2]], |x| sinter::cat(&[&x[0], &x[1]], 1).square()),
        ("padded", vec![&[2, 3]], |x| x[0].tril(0) * 2.0),
        ("looked up", vec![&[5, 3]], |x| {
            let at = sinter::tensor([4i64, 0, 4]).to(x[0].device());
            x[0].index_select(0, &at) * x[0].max_dim(1, true).0.narrow(0, 0, 1)
        }),
        ("cross_entropy", vec![&[4, 3]], |x| {
            let class = sinter::tensor([2i64, 0, 1, 1]).to(x[0].device());
            x[0].log_softmax(1).gather(1, &class.unsqueeze(1))
        }),
        ("conv2d", vec![&[2, 3, 5, 4], &[2, 3, 3, 3]], |x| {
            let o = ([1, 2], [1, 1], [1, 1], 1);
            let (stride, padding, dilation, groups) = o;
            let act = sinter::op::Act::None;
            let op = sinter::Op::Conv { stride, padding, dilation, groups, act };
            sinter::apply_op(op, &[&x[0], &x[1]]).swap_remove(0)
        }),
        ("parts", vec![&[6, 4]], |x| {
            let parts = x[0].chunk(3, 0);
            &parts[0] * &parts[1] + x[0].narrow(0, 1, 2)
        }),
    ]
}

#[test]
fn gradients_of_the_processor() {
    let mut wrong = vec![];
    for (name, shapes, f) in cases() {
        let run = |on: Device| {
            let leaf = |(i, s): (usize, &&[usize])| finite(s, i).to(on).requires_grad_(true);
            let x: Vec<Tensor> = shapes.iter().enumerate().map(leaf).collect();
            let y = f(&x);
            assert_eq!(y.device(), on, "{name}");
            (&y * &finite(y.shape(), 9).to(on)).sum().backward();
            let grads = x.iter().map(|x| x.grad().expect("it plays a part"));
            let grads: Vec<Tensor> = grads.collect();
            assert!(grads.iter().all(|g| g.device() == on), "{name}");
            (y.detach(), grads)
        };
        let (y, grads) = run(Device::Cpu);
        let there = super::caught(|| run(device()));
        let compared = there.and_then(|(y2, grads2)| {
            same(&y2, &y, 1e-5)?;
            grads2.iter().zip(&grads).try_for_each(|(a, b)| same(a, b, 1e-5))
        });
        if let Err(e) = compared {
            wrong.push(format!("{name}: {e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn gradients_of_gradients() {
    let run = |on: Device| {
        let x = finite(&[5], 1).to(on).requires_grad_(true);
        let y = (x.tanh() * &x).sum();
        let g = sinter::autograd::Backward::new().create_graph(true).grad(&[&y], &[&x]);
        let g = g[0].clone().expect("it plays a part");
        (&g * &g).sum().backward();
        x.grad().expect("it plays a part")
    };
    same(&run(device()), &run(Device::Cpu), 1e-5).expect("the second derivative");
}

#[test]
fn a_copy_hands_gradients_back() {
    let x = finite(&[3, 2], 1).requires_grad_(true);
    let w = finite(&[], 2).requires_grad_(true);
    let y = (x.to(device()) * &w).sum().to(Device::Cpu);
    y.backward();
    assert_eq!(x.grad().unwrap().device(), Device::Cpu);
    same(&x.grad().unwrap(), &(sinter::ones_like(&x.detach()) * w.detach()), 0.0).unwrap();
    same(&w.grad().unwrap(), &x.detach().sum(), 1e-6).unwrap();
}
