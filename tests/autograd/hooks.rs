//! Functions that see gradients and saved values; looks at the tape.

use crate::{grad_of, leaf, message_of};
use sinter::autograd::{
    MultiGrad, NextFunction, disable_saved_tensors_hooks, gradgradcheck, queue_callback,
    register_multi_grad_hook, save_on_cpu, saved_tensors_hooks,
};
use sinter::{Backward, Tensor, no_grad};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn a_leaf_is_seen_once_a_pass() {
    let x = leaf(&[1.0, 2.0]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let handle = x.register_hook(move |g| {
        log.lock().unwrap().push(g.to_vec::<f64>());
        Some(g * 10.0)
    });
    let after = Arc::new(AtomicUsize::new(0));
    let count = after.clone();
    let _after = x.register_post_accumulate_grad_hook(move |x| {
        assert!(x.grad().is_some());
        count.fetch_add(1, Ordering::Relaxed);
    });
    // Three uses, one of which brings nothing.
    let y = (&x * 2.0).sum() + (&x * &x).sum() + x.gt(0.0).to_dtype(x.dtype()).sum();
    y.backward();
    assert_eq!(*seen.lock().unwrap(), [vec![4.0, 6.0]]);
    assert_eq!((grad_of(&x), after.load(Ordering::Relaxed)), (vec![40.0, 60.0], 1));
    handle.remove();
    x.zero_grad();
    (&x * 2.0).sum().backward();
    assert_eq!((grad_of(&x), after.load(Ordering::Relaxed)), (vec![2.0, 2.0], 2));
}

#[test]
fn nodes_have_hooks_before_and_after() {
    let x = leaf(&[1.0, 2.0]);
    let y = &x * 3.0;
    let f = y.grad_fn().unwrap();
    let before = f.register_prehook(|g| Some(vec![g[0].as_ref().map(|g| g + 1.0)]));
    let after = f.register_hook(|inputs, outputs| {
        assert_eq!(outputs[0].as_ref().unwrap().to_vec::<f64>(), [2.0, 2.0]);
        Some(vec![inputs[0].as_ref().map(|g| g * 10.0), None])
    });
    Backward::new().retain_graph(true).run(&y.sum());
    assert_eq!(grad_of(&x), [60.0, 60.0]);
    before.remove();
    after.remove();
    x.zero_grad();
    y.sum().backward();
    assert_eq!(grad_of(&x), [3.0, 3.0]);
}

#[test]
fn several_tensors_and_the_end_of_the_pass() {
    let (a, b, c) = (leaf(&[1.0]), leaf(&[2.0]), leaf(&[3.0]));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (all, any, end) = (log.clone(), log.clone(), log.clone());
    let _all = register_multi_grad_hook(&[&a, &b, &c], MultiGrad::All, move |g| {
        let g: Vec<_> = g.iter().map(|g| g.as_ref().map(Tensor::item::<f64>)).collect();
        all.lock().unwrap().push(format!("all {g:?}"));
    });
    let _any = register_multi_grad_hook(&[&a, &b], MultiGrad::Any, move |g| {
        any.lock().unwrap().push(format!("any {}", g.iter().flatten().count()));
    });
    let y = &a * &b;
    let _y = y.register_hook(move |_| {
        let end = end.clone();
        queue_callback(move || end.lock().unwrap().push("end".into()));
        None
    });
    y.backward();
    let seen = std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(seen[0], "any 1");
    assert_eq!(seen.len(), 3);
    assert!(seen.contains(&"all [Some(2.0), Some(1.0), None]".to_string()), "{seen:?}");
    (&a * &b * &c).backward();
    let seen = log.lock().unwrap().clone();
    assert!(seen.contains(&"all [Some(6.0), Some(3.0), Some(2.0)]".to_string()), "{seen:?}");
    let text = message_of(|| queue_callback(|| {}));
    assert!(text.contains("no backward pass"), "{text}");
}

#[test]
fn results_keep_gradients_when_asked() {
    let x = leaf(&[1.0, 2.0]);
    let y = &x * 2.0;
    assert!(!y.retains_grad() && y.grad().is_none());
    y.retain_grad();
    y.retain_grad();
    Backward::new().retain_graph(true).run(&(&y * 3.0).sum());
    Backward::new().retain_graph(true).run(&y.sum());
    assert_eq!(y.grad().unwrap().to_vec::<f64>(), [4.0, 4.0]);
    y.zero_grad();
    assert!(y.grad().is_none());
    y.sum().backward();
    assert_eq!(y.grad().unwrap().to_vec::<f64>(), [1.0, 1.0]);
}

#[test]
fn saved_values_go_through_hooks() {
    let x = leaf(&[0.3, -0.8]);
    let packed = Arc::new(AtomicUsize::new(0));
    let count = packed.clone();
    let f = |x: &Tensor| (x.tanh() * x).exp() * x.sin();
    {
        let _guard = saved_tensors_hooks(
            move |t| {
                count.fetch_add(1, Ordering::Relaxed);
                assert!(!t.requires_grad());
                t.to_vec::<f64>()
            },
            |v: &Vec<f64>| sinter::from_slice(v, [v.len()]),
        );
        f(&x).sum().backward();
        gradgradcheck(|x| vec![f(&x[0])], std::slice::from_ref(&x)).unwrap();
    }
    assert!(packed.load(Ordering::Relaxed) > 5);
    let with = grad_of(&x);
    x.zero_grad();
    f(&x).sum().backward();
    assert_eq!(grad_of(&x), with);
    // A copy does not mind changes.
    let y = &x * 1.0;
    let z = {
        let _guard = save_on_cpu();
        y.square()
    };
    no_grad(|| y.zero_().version());
    x.zero_grad();
    z.sum().backward();
    assert_eq!(grad_of(&x), [0.6, -1.6]);
    // Mistakes.
    let text = message_of(|| {
        let _guard = disable_saved_tensors_hooks("not here");
        drop(x.exp());
    });
    assert!(text.contains("not here"), "{text}");
    let bad = {
        let _guard = saved_tensors_hooks(|_| (), |_| sinter::ones([3]));
        x.exp()
    };
    let text = message_of(|| bad.sum().backward());
    assert!(text.contains("[2]") && text.contains("[3]") && text.contains("exp"), "{text}");
}

#[test]
fn the_tape_can_be_read() {
    let x = leaf(&[1.0, 2.0]);
    x.set_name("weights");
    let line = line!() + 1;
    let y = (&x * 2.0).exp();
    let f = y.grad_fn().unwrap();
    assert_eq!((f.name(), f.location().line(), f.saved_bytes()), ("exp", line, 16));
    assert_eq!(f.saved()[0].1, [2]);
    let NextFunction::Node(mul, 0) = &f.next_functions()[0] else { panic!("the product") };
    assert!(mul.sequence_nr() < f.sequence_nr() && mul.op().is_some());
    assert!(matches!(&mul.next_functions()[0], NextFunction::Leaf(t) if t.is_same(&x)));
    assert!(matches!(mul.next_functions()[1], NextFunction::None));
    let dot = f.to_dot();
    for part in ["exp", "mul", "weights", "keeps f64 [2], 16 bytes", "n1 -> n0", "n0 -> l0"] {
        assert!(dot.contains(part), "{dot}");
    }
    assert!(x.grad_fn().is_none());
}
