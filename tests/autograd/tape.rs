//! Recording, running backward, and being freed.

use crate::{grad_of, leaf, panic_of};
use sinter::autograd::{enable_grad, grad_enabled};
use sinter::{
    Backward, DType, NewAxis, Op, Tensor, apply_op, cat, grad, no_grad, ones, randn, tensor, zeros,
};
use std::sync::{Arc, Mutex};

#[test]
fn a_million_ops_deep() {
    // On a small stack: neither the pass nor dropping the tape may recurse.
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let run = || {
        let x = leaf(&[1.0]);
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y = &y * 1.0;
        }
        y.backward();
        assert_eq!(grad_of(&x), [1.0]);
        let mut z = x.clone();
        for _ in 0..1_000_000 {
            z = z.tanh();
        }
        drop(z);
        // Changes in place, through views, too.
        let v = &x * 1.0;
        let view = v.narrow(0, 0, 1);
        for _ in 0..50_000 {
            view.mul_(1.0);
            v.add_(0.0);
        }
        x.zero_grad();
        view.backward();
        assert_eq!(grad_of(&x), [1.0]);
        // A gradient with a deep history.
        let mut w = x.clone();
        for _ in 0..1000 {
            w = &w * &x;
        }
        grad(&[&w], &[&x], true);
    };
    small.spawn(run).expect("a thread").join().expect("no overflow");
}

#[test]
fn mistakes_point_at_the_caller() {
    let a = ones([2, 3]);
    let m = ones([4, 5]);
    let t = ones([2]).to_dtype(DType::I64);
    macro_rules! here {
        ($needle:literal, $e:expr) => {{
            let line = line!();
            let (text, file, at) = panic_of(|| {
                let _ = $e;
            });
            assert!(text.contains($needle), "`{text}` lacks `{}`", $needle);
            assert!(file.ends_with("tape.rs"), "{text}: blamed on {file}:{at}");
            assert!((line..line + 3).contains(&at), "{text}: blamed on line {at}, is {line}");
        }};
    }
    here!("add: shapes [2, 3] and [4, 5] do not broadcast", &a + &m);
    here!("do not broadcast", a.clone() - m.clone());
    here!("matmul: shapes [2, 3] and [4, 5] cannot be multiplied", a.matmul(&m));
    here!("reshape: shape [2, 3] cannot become [4]", a.reshape([4]));
    here!("sum: dimension 2 does not exist", a.sum_dim(2, false));
    here!("mean: dimension -3 does not exist", a.mean_dim(-3, false));
    here!("var: dimension 7", a.var_dim([0, 7], 1, false));
    here!("permute: dimension 4", a.permute([0, 4]));
    here!("permute", a.permute([0, 0]));
    here!("flip: dimension 9", a.flip([9]));
    here!("broadcast", a.broadcast_to([4, 3]));
    here!("broadcast_to: bad extent -1", a.broadcast_to([-1, 2, 3]));
    here!("select: index 5 is out of range", a.select(0, 5));
    here!("index: -4 is out of range", a.i((0, -4)));
    here!("does not fit", a.i((0, 0, NewAxis, 0)));
    here!("slice: 2 element(s) from 2", a.narrow(1, 2, 2));
    here!("concat: shapes [2, 3] and [4, 5] differ", cat(&[&a, &m], 0));
    here!("stack", sinter::stack(&[&a, &m], 0));
    here!("squeeze: dimension 0", a.squeeze(0));
    here!("item: needs exactly one element", a.item::<f32>());
    here!("requires_grad_: only floating-point", t.clone().requires_grad_(true));
    here!("zeros", zeros([-1]));
    here!("extent -1", zeros([-1]));
    here!("backward: the tensor has no history", a.backward());
    here!("needs a gradient to start from", (ones([2]).requires_grad_(true) * 2.0).backward());
    here!("integer division by zero", t.floor_divide(0));
    here!(
        "index_select: index 9 at position 1 is out of range",
        a.index_select(0, &tensor([0i64, 9]))
    );
    here!("mul_: a leaf that requires a gradient", ones([2]).requires_grad_(true).mul_(2.0));
    here!("cannot be stored in a i64 tensor", t.add_(0.5));
    here!("max of an empty dimension", zeros([0, 2]).amax(0, false));
    here!("from_slice", sinter::from_slice(&[1.0f32], [2]));
    here!("ragged", tensor(vec![vec![1.0f32], vec![]]));
    here!("mse_loss", sinter::nn::functional::mse_loss(&a, &m, Default::default()));
    here!(
        "target 5 at position 1 is not one of 3 classes",
        sinter::nn::functional::cross_entropy(&a, &tensor([0i64, 5]), Default::default())
    );
    here!("matmul", sinter::nn::Layer::forward(&sinter::nn::Linear::new(4, 1), &a));
    here!("sort", apply_op(Op::Sort { axis: 5, descending: false }, &[&a]));
    // The name of the parameter is in the message.
    let m = sinter::nn::Sequential::new().add(sinter::nn::Linear::new(4, 1));
    sinter::nn::Module::named_parameters(&m);
    let (text, ..) = panic_of(|| drop(sinter::nn::Layer::forward(&m, &a)));
    assert!(text.contains("`0.bias`"), "{text}");
}

#[test]
fn a_second_pass_names_both_lines() {
    let x = leaf(&[2.0]);
    let recorded = line!() + 1;
    let y = x.exp();
    y.backward();
    let (text, file, line) = panic_of(|| {
        y.backward();
    });
    assert!(text.contains(&format!("tape.rs:{recorded}:")) && text.contains("exp"), "{text}");
    assert!(text.contains("retain_graph"), "{text}");
    assert!(file.ends_with("tape.rs") && line > recorded, "{file}:{line}");
    // Nothing saved, nothing freed.
    let z = &x + 1.0;
    z.backward();
    z.backward();
}

#[test]
fn retained_graphs_serve_again() {
    let x = leaf(&[2.0]);
    let y = x.square();
    Backward::new().retain_graph(true).run(&y);
    Backward::new().retain_graph(true).run(&y);
    assert_eq!(grad_of(&x), [8.0]);
    y.backward();
    assert_eq!(grad_of(&x), [12.0]);
}

#[test]
fn changing_a_saved_value_names_both_lines() {
    let x = leaf(&[1.0, 2.0]);
    let y = &x * 1.0;
    let recorded = line!() + 1;
    let z = y.square().sum();
    let written = line!() + 1;
    y.add_(1.0);
    let (text, ..) = panic_of(|| z.backward());
    for part in [
        format!("tape.rs:{recorded}:"),
        format!("tape.rs:{written}:"),
        "square".into(),
        "add_".into(),
    ] {
        assert!(text.contains(&part), "`{text}` lacks `{part}`");
    }
    // The result, too, is saved.
    let y = x.exp();
    y.mul_(2.0);
    let (text, ..) = panic_of(|| y.sum().backward());
    assert!(text.contains("mul_") && text.contains("exp"), "{text}");
    // What is not needed may change.
    let y = &x + 1.0;
    let z = &y + 2.0;
    no_grad(|| y.mul_(0.0).version());
    z.sum().backward();
    assert_eq!(grad_of(&x), [1.0, 1.0]);
}

#[test]
fn in_place_ops_are_recorded() {
    let x = leaf(&[0.5, -1.5]);
    let y = &x * 2.0;
    y.add_(1.0).mul_(3.0);
    let w = leaf(&[1.0, 4.0]);
    y.sub_(&w);
    y.relu_();
    // relu(3 (2x + 1) - w)
    assert_eq!(y.to_vec::<f64>(), [5.0, 0.0]);
    y.sum().backward();
    assert_eq!((grad_of(&x), grad_of(&w)), (vec![6.0, 0.0], vec![-1.0, 0.0]));
    // Overwritten values have no part in the result.
    let y = &x * 2.0;
    y.fill_(1.0);
    (&y * &x).sum().backward();
    assert_eq!(grad_of(&x), [7.0, 1.0]);
    let y = &x * 2.0;
    y.copy_(&(&w * 10.0));
    x.zero_grad();
    w.zero_grad();
    y.sum().backward();
    assert!(grad_of(&w) == [10.0, 10.0] && x.grad().is_none());
    // An operand of itself: the old value is kept.
    x.zero_grad();
    let y = &x * 1.0;
    y.mul_(&y);
    y.sum().backward();
    assert_eq!(grad_of(&x), [1.0, -3.0]);
}

#[test]
fn versions_count_changes() {
    let x = zeros([2, 2]);
    assert_eq!(x.version(), 0);
    x.add_(1.0);
    let row = x.select(0, 0);
    row.mul_(5.0);
    assert_eq!((x.version(), row.version()), (2, 2));
    assert_eq!(x.to_vec::<f32>(), [5.0, 5.0, 1.0, 1.0]);
    assert_eq!(x.copy().version(), 0);
    let d = x.detach();
    d.zero_();
    assert_eq!((x.version(), x.sum().item::<f32>()), (3, 0.0));
}

#[test]
fn views_carry_gradients() {
    let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).requires_grad_(true);
    let v = x.t().i(1..).reshape([-1]);
    // Strides cannot express it: a copy.
    assert!(x.t().i(1..).is_view() && !v.is_view());
    (&v * tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward();
    assert_eq!(grad_of(&x), [0.0, 1.0, 100.0, 0.0, 10.0, 1000.0]);
    x.zero_grad();
    x.unsqueeze(0).broadcast_to([4, 2, 3]).narrow(2, 0, 1).sum().backward();
    assert_eq!(grad_of(&x), [4.0, 0.0, 0.0, 4.0, 0.0, 0.0]);
}

#[test]
fn gradients_accumulate() {
    let x = leaf(&[3.0]);
    for _ in 0..3 {
        (&x * 2.0).backward();
    }
    assert_eq!(grad_of(&x), [6.0]);
    let held = x.grad().unwrap();
    (&x * 1.0).backward();
    assert_eq!((held.item::<f64>(), grad_of(&x)), (6.0, vec![7.0]));
    x.zero_grad();
    assert!(x.grad().is_none());
    // Used many times, in many ways.
    let y = &x * &x + x.exp() * &x + cat(&[&x, &x], 0).sum();
    y.backward();
    let e = 3f64.exp();
    assert!((grad_of(&x)[0] - (6.0 + e + 3.0 * e + 2.0)).abs() < 1e-12);
}

#[test]
fn modes() {
    let x = leaf(&[1.0]);
    assert!(grad_enabled());
    no_grad(|| {
        assert!(!(&x * 2.0).requires_grad() && !grad_enabled());
        enable_grad(|| assert!((&x * 2.0).requires_grad()));
        assert!(!grad_enabled());
    });
    // Also after a panic.
    panic_of(|| no_grad(|| panic!("out")));
    assert!(grad_enabled());
    std::thread::scope(|s| {
        no_grad(|| s.spawn(|| assert!(grad_enabled())).join().unwrap());
    });
    let frozen = (&x * 2.0).detach();
    assert!(!frozen.requires_grad() && frozen.is_leaf());
    (&frozen * &x).backward();
    assert_eq!(grad_of(&x), [2.0]);
    assert!(!x.gt(0.0).requires_grad() && !x.argmax().requires_grad());
}

#[test]
fn hooks_see_and_change_gradients() {
    let x = leaf(&[1.0, 2.0]);
    let y = &x * 3.0;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let h = y.register_hook(move |g| {
        log.lock().unwrap().push(g.to_vec::<f64>());
        Some(g * 2.0)
    });
    let _on_x = x.register_hook(|g| Some(g + 1.0));
    y.retain_grad();
    // Two uses: the hook sees their sum, once.
    Backward::new().retain_graph(true).run(&(&y * 5.0 + &y).sum());
    assert_eq!(*seen.lock().unwrap(), [vec![6.0, 6.0]]);
    assert_eq!(y.grad().unwrap().to_vec::<f64>(), [12.0, 12.0]);
    assert_eq!(grad_of(&x), [37.0, 37.0]);
    h.remove();
    x.zero_grad();
    y.sum().backward();
    assert_eq!(grad_of(&x), [4.0, 4.0]);
    // After accumulation: an optimizer in the backward pass.
    let w = leaf(&[1.0]);
    let _on_w = w.register_post_accumulate_grad_hook(|w| {
        let g = w.grad().expect("it was accumulated");
        no_grad(|| w.sub_(&(g * 0.5)).version());
        w.zero_grad();
    });
    (&w * 4.0).backward();
    assert_eq!((w.item::<f64>(), w.grad().is_none()), (-1.0, true));
    let (text, ..) = panic_of(|| {
        let x = leaf(&[1.0]);
        let _handle = x.register_hook(|_| Some(ones([3])));
        (&x * 1.0).backward();
    });
    assert!(text.contains("hook"), "{text}");
}

#[test]
fn higher_derivatives() {
    // x⁴ at 2: 32, 48, 48, 24.
    let x = leaf(&[2.0]);
    let mut y = x.square().square();
    for want in [32.0, 48.0, 48.0, 24.0] {
        y = grad(&[&y], &[&x], true)[0].clone().expect("it depends on x");
        assert_eq!(y.item::<f64>(), want);
    }
    assert!(x.grad().is_none());
    // Through `backward`, a gradient is itself on the tape.
    let y = (&x * &x * &x).sum();
    Backward::new().create_graph(true).run(&y);
    let g = x.grad().unwrap();
    assert!(g.requires_grad());
    x.zero_grad();
    g.sum().backward();
    assert_eq!(grad_of(&x), [12.0]);
}

#[test]
fn gradients_by_request() {
    let (a, b, c) = (leaf(&[2.0]), leaf(&[3.0]), leaf(&[5.0]));
    let mid = &a * &b;
    let y = &mid * &c;
    let g = grad(&[&y], &[&mid, &a, &b], false);
    let g: Vec<f64> = g.into_iter().map(|g| g.expect("used").item()).collect();
    assert_eq!(g, [5.0, 15.0, 10.0]);
    assert!([&a, &b, &c].iter().all(|t| t.grad().is_none()));
    // No part in it.
    let other = leaf(&[1.0]);
    assert!(grad(&[&(&a * 2.0)], &[&other], false)[0].is_none());
    // Of itself; several outputs; one input twice.
    assert_eq!(grad(&[&a], &[&a], false)[0].as_ref().unwrap().item::<f64>(), 1.0);
    let (u, v) = (&a * 2.0, &a * 5.0);
    let g = grad(&[&u, &v], &[&a, &a], false);
    assert!(g.iter().all(|g| g.as_ref().unwrap().item::<f64>() == 7.0));
}

#[test]
fn control_flow_may_depend_on_data() {
    let f = |x: &Tensor| {
        let mut y = x.clone();
        let mut steps = 0;
        while y.norm().item::<f64>() < 100.0 {
            y = if y.sum().item::<f64>() > 0.0 { &y * 2.0 } else { &y * -3.0 };
            steps += 1;
        }
        (y.sum(), steps)
    };
    let x = leaf(&[1.0, 1.0]);
    let (y, steps) = f(&x);
    y.backward();
    assert_eq!(grad_of(&x), vec![2f64.powi(steps); 2]);
    let x = leaf(&[-1.0, -1.0]);
    let (y, steps) = f(&x);
    y.backward();
    assert_eq!(grad_of(&x), vec![-3.0 * 2f64.powi(steps - 1); 2]);
}

#[test]
fn recursion_over_trees() {
    enum Tree {
        Leaf(f64),
        Node(Box<Tree>, Box<Tree>),
    }
    fn sum(t: &Tree, w: &Tensor) -> Tensor {
        match t {
            Tree::Leaf(v) => w * *v,
            Tree::Node(l, r) => (sum(l, w) + sum(r, w)).tanh(),
        }
    }
    use Tree::*;
    let t = Node(Box::new(Leaf(1.0)), Box::new(Node(Box::new(Leaf(0.5)), Box::new(Leaf(-2.0)))));
    let w = leaf(&[0.3]);
    sinter::autograd::gradcheck(|x| vec![sum(&t, &x[0])], &[w]).unwrap();
}

#[test]
fn graphs_are_freed() {
    let x = randn([64]).requires_grad_(true);
    let y = &x * 2.0;
    let saved = y.array().block().clone();
    let before = saved.handles();
    let z = y.square().sum();
    assert!(saved.handles() >= before);
    z.backward();
    drop((y, z));
    assert_eq!(saved.handles(), 1);
}
