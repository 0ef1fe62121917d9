//! Memory comes back: nothing that autograd links together keeps itself alive.

use sinter::autograd::{MultiGrad, checkpoint, register_multi_grad_hook};
use sinter::nn::{Layer, Linear, Module};
use sinter::{Backward, Tensor, cat, grad, randn, zeros};
use sinter_kernels::mem;

/// A step of training with about everything that hangs on a graph, for `n` rows.
fn step(model: &Linear, n: usize) {
    model.zero_grad();
    let x = randn([n, 16]);
    let h = model.forward(&x).relu();
    // Changes in place, through views and of bases.
    let buffer = zeros([2, n, 16]);
    let early = buffer.select(0, 1);
    buffer.select(0, 0).copy_(&h);
    buffer.select(0, 1).copy_(&h.tanh()).mul_(h.detach());
    buffer.mul_(0.5);
    let (m, weight) = (model.parameters()[0].tensor().clone(), model.parameters()[0].clone());
    let again = checkpoint(move |x| vec![x[0].matmul(&m.t()).sigmoid()], &[&h]).swap_remove(0);
    let y = cat(&[&buffer.reshape([2 * n, 16]), &early, &again], 0);
    y.retain_grad();
    let handle = y.register_hook(|g| Some(g * 1.0));
    let both = register_multi_grad_hook(&[&y, &weight], MultiGrad::All, |_| {});
    let loss = y.square().mean();
    // Derivatives of derivatives, some of which nobody goes through.
    let g = grad(&[&loss], &[&weight], true)[0].clone().expect("it plays a part");
    let kept = &g * 2.0;
    kept.set_grad(Some(g.clone()));
    Backward::new().run(&(loss + g.square().sum()));
    both.remove();
    handle.remove();
    if n.is_multiple_of(3) {
        // A mistake in the middle of a pass leaves nothing behind, either.
        let z: Tensor = h.exp();
        no_noise(|| z.add_(1.0).sum().backward());
    }
}

fn no_noise(f: impl FnOnce()) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    std::panic::set_hook(hook);
    assert!(failed);
}

#[test]
fn steps_of_varying_shapes_need_no_more() {
    sinter_kernels::par::set_threads(1);
    let model = Linear::new(16, 16);
    let size = |i: usize| 1 + i * 37 % 50;
    for i in 0..100 {
        step(&model, size(i));
    }
    model.zero_grad();
    let before = mem::stats();
    for i in 0..900 {
        step(&model, size(i));
    }
    model.zero_grad();
    let after = mem::stats();
    // A thread keeps up to 1 MiB of small blocks, which count as used.
    assert!(after.in_use <= before.in_use + (1 << 20), "{before:?} {after:?}");
    assert!(after.fresh <= before.fresh + 16, "{before:?} {after:?}");
    assert!(after.peak <= before.peak + (1 << 20), "{before:?} {after:?}");
}
