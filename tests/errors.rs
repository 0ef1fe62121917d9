//! What mistakes are told: every message names the op, the operands, the rule, and where
//! recorded history is concerned the line that recorded it. The texts are kept in
//! snapshots; lines of this file stand there as `errors.rs:LINE`.

use sinter::autograd::{Function, FunctionCtx, detect_anomaly, inference_mode};
use sinter::nn::functional as F;
use sinter::{
    Backward, Device, NewAxis, Tensor, arange, cat, from_slice, grad, no_grad, ones, stack, tensor,
    zeros,
};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// What is done, as it is written, and how.
type Case = (&'static str, Box<dyn FnOnce()>);

/// The messages of the panics that the cases end in.
fn told(cases: Vec<Case>) -> String {
    // The hook is the process's: one table at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = String::new();
    for (what, f) in cases {
        let text = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(()) => "nothing".to_string(),
            Err(e) => match e.downcast::<String>() {
                Ok(s) => *s,
                Err(e) => e.downcast::<&str>().map_or("no text".into(), |s| s.to_string()),
            },
        };
        writeln!(out, "{what}\n    {}", without_lines(&text)).unwrap();
    }
    std::panic::set_hook(usual);
    out
}

/// `tests/errors.rs:12:34` as `errors.rs:LINE`.
fn without_lines(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("errors.rs:") {
        let start = rest[..at].rfind([' ', '(']).map_or(0, |i| i + 1);
        out.push_str(&rest[..start]);
        out.push_str("errors.rs:LINE");
        rest = rest[at + "errors.rs:".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        rest = rest.strip_prefix(':').unwrap_or(rest);
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

/// A table of mistakes, each as it is written.
macro_rules! table {
    ($($e:expr;)*) => {
        told(vec![$((stringify!($e), Box::new(move || { let _ = $e; }) as Box<dyn FnOnce()>)),*])
    };
}

fn a() -> Tensor {
    ones([2, 3])
}
fn m() -> Tensor {
    ones([4, 5])
}
fn ints() -> Tensor {
    tensor([1i64, 2])
}
fn leaf() -> Tensor {
    tensor([1.0f64, 2.0]).requires_grad_(true)
}

#[test]
fn shapes() {
    insta::assert_snapshot!(table! {
        a() + m();
        a().maximum(m());
        a().where_(&a(), m());
        a().gt(0.0).where_(&a(), m());
        a().matmul(&m());
        ones([3]).matmul(&ones([4]));
        a().reshape([4]);
        a().reshape([-1, -1]);
        a().broadcast_to([4, 3]);
        a().permute([0]);
        a().t().t().unsqueeze(0).t();
        a().squeeze(0);
        a().narrow(1, 2, 2);
        cat(&[&a(), &m()], 0);
        stack(&[&a(), &m()], 0);
        cat(&[], 0);
        a().item::<f32>();
        from_slice(&[1.0f32], [2]);
        zeros([-1]);
        zeros([0, 2]).amax(0, false);
        a().gather(1, &tensor([0i64]));
        a().as_strided([9, 9], [3, 1], 0);
        F::mse_loss(&a(), &m(), F::Reduction::Mean);
        F::cross_entropy(&a(), &tensor([0i64]), F::Reduction::Mean);
        F::layer_norm(&a(), 5, None, None, 1e-5);
    });
}

#[test]
fn dtypes() {
    insta::assert_snapshot!(table! {
        ints().bitwise_and(1.5);
        a().bitwise_not();
        a().index_select(0, &a());
        ints().requires_grad_(true);
        ints().add_(0.5);
        ints().div_(2i64);
        a().bitwise_left_shift(1i64);
        cat(&[&a(), &ints().unsqueeze(0)], 0);
        a().where_(&a(), a());
    });
}

#[test]
fn devices() {
    let text = match Device::cuda(7) {
        Err(e) => e.to_string(),
        Ok(d) => panic!("{d} is not expected"),
    };
    // A build with the feature says what else is missing.
    if text.contains("built without") {
        insta::assert_snapshot!(text);
    }
}

#[test]
fn indices() {
    insta::assert_snapshot!(table! {
        a().select(0, 5);
        a().i((0, -4));
        a().i((0, 0, NewAxis, 0));
        a().size(2);
        a().sum_dim(2, false);
        a().mean_dim(-3, false);
        a().transpose(0, 2);
        a().index_select(0, &tensor([0i64, 9]));
        a().gather(1, &tensor([[0i64], [7]]));
        a().scatter(1, &tensor([[0i64], [-9]]), &ones([2, 1]));
        a().index_add(0, &tensor([5i64]), &ones([1, 3]));
        a().topk(9, 1, true);
        F::cross_entropy(&a(), &tensor([0i64, 5]), Default::default());
        F::embedding(&tensor([4i64]), &a());
        ints().floor_divide(0i64);
    });
}

#[test]
fn in_place() {
    insta::assert_snapshot!(table! {
        leaf().mul_(2.0).clone();
        leaf().narrow(0, 0, 1).mul_(2.0).clone();
        {
            let y = leaf() * 1.0;
            let v = no_grad(|| y.narrow(0, 0, 1));
            v.add_(1.0).clone()
        };
        {
            let v = no_grad(|| leaf().narrow(0, 0, 1));
            v.mul_(2.0).clone()
        };
        {
            let y = leaf() * 1.0;
            let v = no_grad(|| y.narrow(0, 0, 1));
            y.add_(1.0);
            v * leaf()
        };
        ones([3]).broadcast_to([2, 3]).add_(1.0).clone();
        {
            let v = arange(0, 5, 1);
            v.narrow(0, 1, 4).copy_(&v.narrow(0, 0, 4)).clone()
        };
        {
            let s = ones([3, 3]);
            s.mul_(s.t()).clone()
        };
        a().add_(m()).clone();
        a().copy_(&m()).clone();
        ones([3]).add_(a()).clone();
        a().scatter_(1, &tensor([[7i64], [0]]), &ones([2, 1])).clone();
        inference_mode(a).add_(1.0).clone();
        (leaf() * 1.0).narrow(0, 0, 1).detach_().clone();
    });
}

struct Short;
impl Function for Short {
    fn forward(&self, _: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        vec![x[0] * 1.0]
    }
    fn backward(&self, _: &FunctionCtx, _: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        vec![]
    }
}

#[test]
fn autograd() {
    insta::assert_snapshot!(table! {
        a().backward();
        (leaf() * 2.0).backward();
        Backward::new().gradient(&ones([3])).run(&(leaf() * 2.0));
        (leaf() * 2.0).requires_grad_(false);
        {
            let y = leaf().exp().sum();
            let z = y.exp();
            z.backward();
            z.backward()
        };
        {
            let x = leaf();
            let y = x * 1.0;
            let z = y.square().sum();
            y.add_(1.0);
            z.backward()
        };
        {
            let y = leaf().exp();
            y.mul_(2.0);
            y.sum().backward()
        };
        grad(&[&leaf().sum()], &[&a()], false);
        Backward::new().allow_unused(false).grad(&[&leaf().sum()], &[&leaf()]);
        a().register_hook(|_| None);
        a().retain_grad();
        {
            let x = leaf();
            let _handle = x.register_hook(|_| Some(ones([3])));
            (&x * 1.0).sum().backward()
        };
        inference_mode(a) * a().requires_grad_(true);
        inference_mode(a).version();
        inference_mode(a).requires_grad_(true);
        Short.apply(&[&leaf()])[0].sum().backward();
        {
            let _guard = detect_anomaly();
            let x = tensor([0.0f64, 1.0]).requires_grad_(true);
            (x.sqrt() * tensor([0.0f64, 1.0])).sum().backward()
        };
    });
}
