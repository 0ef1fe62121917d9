//! The checks of derivatives find what is wrong.

use crate::leaf;
use sinter::autograd::{Function, FunctionCtx, GradCheck, GradCheckError, gradcheck};
use sinter::{DType, Tensor, no_grad, randn, tensor};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `x²` with a derivative that is wrong in a way of its own.
struct Square(Fault);

#[derive(Clone, Copy)]
enum Fault {
    None,
    OneElement,
    Drifts,
    Constant,
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

impl Function for Square {
    fn forward(&self, ctx: &mut FunctionCtx, x: &[&Tensor]) -> Vec<Tensor> {
        ctx.save_for_backward(x);
        vec![x[0] * x[0]]
    }
    fn backward(&self, ctx: &FunctionCtx, g: &[Option<Tensor>]) -> Vec<Option<Tensor>> {
        let (x, g) = (&ctx.saved_tensors()[0], g[0].as_ref().unwrap());
        let right = g * x * 2.0;
        vec![Some(match self.0 {
            Fault::None => right,
            Fault::OneElement => right * tensor([1.0, 1.0, 1.2]),
            Fault::Drifts => right + CALLS.fetch_add(1, Relaxed) as f64 * 1e-9,
            Fault::Constant => right + 1.0,
        })]
    }
}

#[test]
fn faults_are_named() {
    let x = leaf(&[0.5, -1.0, 2.0]);
    let check = |fault, how: GradCheck| {
        how.first(
            |x| vec![x[0].sum(), Square(fault).apply(&[&x[0]]).swap_remove(0)],
            std::slice::from_ref(&x),
        )
    };
    let (slow, fast) = (GradCheck::default(), GradCheck { fast: true, ..GradCheck::default() });
    for how in [slow, fast] {
        assert_eq!(check(Fault::None, how), Ok(()));
        assert!(matches!(
            check(Fault::Drifts, how),
            Err(GradCheckError::Nondeterministic { output: 1, input: 0, .. })
        ));
        let loose = GradCheck { nondet_tol: 1e-6, ..how };
        assert_ne!(check(Fault::Constant, loose), Ok(()));
        assert!(matches!(
            check(Fault::Constant, loose),
            Err(GradCheckError::NotLinear { output: 1, input: 0, .. })
        ));
    }
    assert!(matches!(
        check(Fault::OneElement, slow),
        Err(GradCheckError::Mismatch { output: 1, row: 2, input: 0, column: 2, .. })
    ));
    assert!(matches!(
        check(Fault::OneElement, fast),
        Err(GradCheckError::Direction { output: 1, input: 0, .. })
    ));
    assert_eq!(
        gradcheck(|x| vec![x[0].square()], &[x.detach()]),
        Err(GradCheckError::NothingToCheck)
    );
    let single = tensor([1.0f32]).requires_grad_(true);
    let text = gradcheck(|x| vec![x[0].square()], &[single]).unwrap_err().to_string();
    assert!(text.contains("f32"), "{text}");
}

#[test]
fn inputs_in_any_layout() {
    sinter::manual_seed(11);
    let base = randn([4, 6]).to_dtype(DType::F64);
    let views = [
        base.t(),
        base.slice(1, 0, 6, 2),
        base.flip([0]),
        base.narrow(0, 1, 1).broadcast_to([3, 6]),
        base.narrow(1, 0, 0),
    ];
    for v in views {
        let x = v.detach().requires_grad_(true);
        let w = no_grad(|| randn([x.shape()[1], 2]).to_dtype(DType::F64)).requires_grad_(true);
        gradcheck(|x| vec![x[0].matmul(&x[1]).tanh(), x[0].square()], &[x, w]).unwrap();
    }
    // A random direction is enough for something larger.
    let x = randn([40, 50]).to_dtype(DType::F64).requires_grad_(true);
    let fast = GradCheck { fast: true, ..GradCheck::default() };
    fast.first(|x| vec![x[0].softmax(1).matmul(&x[0].t())], std::slice::from_ref(&x)).unwrap();
    fast.second(|x| vec![x[0].tanh().sum_dim(0, false)], &[x]).unwrap();
}
