//! Modes: inference, the search for NaN, options of a pass.

use crate::{grad_of, leaf, message_of, panic_of};
use sinter::autograd::{
    detect_anomaly, detect_forward_nan, enable_grad, grad_enabled, inference_mode,
    set_detect_anomaly, set_grad_enabled,
};
use sinter::{Backward, grad, no_grad, tensor};

#[test]
fn inference() {
    let w = leaf(&[1.0, 2.0]);
    let (y, view) = inference_mode(|| {
        assert!(!grad_enabled());
        let y = &w * 2.0;
        // Inside, everything is allowed, and nothing is recorded.
        enable_grad(|| assert!(!(&w * 2.0).requires_grad()));
        y.add_(1.0);
        let view = y.narrow(0, 0, 1);
        view.mul_(1.0);
        // What was made outside stays what it is.
        assert!(!w.is_inference() && !w.narrow(0, 0, 1).is_inference());
        (y, view)
    });
    assert!(y.is_inference() && view.is_inference() && y.detach().is_inference());
    assert!(!y.copy().is_inference());
    // Reading and ops that keep nothing of it.
    assert_eq!((&y + 1.0).to_vec::<f64>(), [4.0, 6.0]);
    (&y + &w).sum().backward();
    assert_eq!(grad_of(&w), [1.0, 1.0]);
    let refused = |needle: &str, f: &dyn Fn()| {
        let text = message_of(f);
        assert!(text.contains(needle), "`{text}` lacks `{needle}`");
    };
    refused("add_: the f64 [2] tensor was made in inference mode", &|| {
        y.add_(1.0);
    });
    refused("mul_", &|| {
        view.mul_(1.0);
    });
    refused("mul: operand 0, f64 [2], was made in inference mode", &|| drop(&y * &w));
    refused("version", &|| {
        y.version();
    });
    refused("requires_grad_", &|| drop(y.clone().requires_grad_(true)));
    (y.copy() * &w).sum().backward();
}

#[test]
fn switches() {
    let x = leaf(&[1.0]);
    for on in [true, false] {
        let _guard = set_grad_enabled(on);
        assert_eq!((&x * 1.0).requires_grad(), on);
    }
    assert!(grad_enabled());
}

#[test]
fn anomalies_are_found_where_they_are_made() {
    let x = leaf(&[0.0, 4.0]);
    let run = || {
        let y = x.sqrt();
        (y * tensor([0.0, 1.0])).sum().backward();
    };
    no_grad(|| x.zero_grad());
    run();
    assert!(grad_of(&x)[0].is_nan());
    let _guard = detect_anomaly();
    let (text, file, _) = panic_of(run);
    for part in ["sqrt", "modes.rs:", "f64 [2]", "operand 0", "NaN"] {
        assert!(text.contains(part), "`{text}` lacks `{part}`");
    }
    assert!(file.ends_with("modes.rs"), "{file}");
    let _off = set_detect_anomaly(false, false);
    run();
}

#[test]
fn forward_nan() {
    let _guard = detect_forward_nan();
    let (text, file, line) = panic_of(|| drop(tensor([-1.0f32, 1.0]).ln()));
    assert!(text.contains("log") && text.contains("f32 [2]"), "{text}");
    assert!(file.ends_with("modes.rs") && line + 3 > line!() - 2, "{file}:{line}");
    // One that came in goes through.
    assert!((tensor([f32::NAN]) * 2.0).isnan().to_vec::<u8>() == [1]);
}

#[test]
fn options_of_a_pass() {
    let (a, b) = (leaf(&[2.0]), leaf(&[3.0]));
    let y = &a * &b;
    Backward::new().retain_graph(true).inputs(&[&a]).run(&y);
    assert!(grad_of(&a) == [3.0] && b.grad().is_none());
    // A result as well as a leaf.
    let mid = &a * 2.0;
    Backward::new().inputs(&[&mid, &b]).run(&(&mid * &b));
    assert_eq!(grad_of(&mid), [3.0]);
    assert_eq!((grad_of(&a), grad_of(&b)), (vec![3.0], vec![4.0]));
    // Several results, with gradients of their own.
    let (u, v) = (&a * tensor([1.0, 2.0]), &b * 2.0);
    let seed = tensor([10.0, 100.0]);
    let g = Backward::new().gradients(&[Some(&seed), None]).grad(&[&u, &v], &[&a, &b]);
    let g: Vec<f64> = g.iter().map(|g| g.as_ref().unwrap().item()).collect();
    assert_eq!(g, [210.0, 2.0]);
    a.zero_grad();
    b.zero_grad();
    Backward::new()
        .gradients(&[Some(&seed), None])
        .run_all(&[&(&a * tensor([1.0, 2.0])), &(&b * 2.0)]);
    assert_eq!((grad_of(&a), grad_of(&b)), (vec![210.0], vec![2.0]));
    // Inputs without a part.
    let unused = leaf(&[1.0, 1.0]);
    let y = || &a * 2.0;
    assert!(grad(&[&y()], &[&unused], false)[0].is_none());
    let zeros = Backward::new().materialize_grads(true).grad(&[&y()], &[&unused]);
    assert_eq!(zeros[0].as_ref().unwrap().to_vec::<f64>(), [0.0, 0.0]);
    let text =
        message_of(|| drop(Backward::new().allow_unused(false).grad(&[&y()], &[&a, &unused])));
    assert!(text.contains("input 1, f64 [2], played no part"), "{text}");
    let text = message_of(|| drop(Backward::new().gradients(&[]).grad(&[&y()], &[&a])));
    assert!(text.contains("0 gradients for 1 results"), "{text}");
}
