use super::*;
use crate::op::{Act, BinaryOp, UnaryOp};
use crate::{DType, Scalar};

const ADD: Op = Op::Binary(BinaryOp::Add);

fn array(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len()]).unwrap()
}

#[test]
fn results_go_where_they_should() {
    let (a, b) = (array(&[1.0, 2.0]), array(&[10.0, 20.0]));
    // Into an operand, and into every other element of a larger array.
    run_into(&ADD, &[&a, &b], &[&a]).unwrap();
    assert_eq!(a.to_vec::<f32>(), [11.0, 22.0]);
    let wide = array(&[0.0; 4]);
    run_into(&ADD, &[&a, &b], &[&wide.slice(0, 1, 2, 2)]).unwrap();
    assert_eq!(wide.to_vec::<f32>(), [0.0, 21.0, 0.0, 42.0]);
    // A product needs dense memory inside; its result may lie anywhere.
    let m = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    let out = array(&[0.0; 4]).view(&[2, 2]).unwrap();
    run_into(&Op::MatMul { act: Act::None }, &[&m, &m], &[&out.permute(&[1, 0])]).unwrap();
    assert_eq!(out.to_vec::<f32>(), [7.0, 15.0, 10.0, 22.0]);
    run_into(&Op::Permute { perm: [1, 0].into_iter().collect() }, &[&m], &[&out]).unwrap();
    assert_eq!(out.to_vec::<f32>(), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn operands_are_read_before_they_are_overwritten() {
    let a = array(&[1.0, 2.0, 3.0, 4.0]);
    let (low, high) = (a.slice(0, 0, 3, 1), a.slice(0, 1, 3, 1));
    run_into(&ADD, &[&low, &high], &[&high]).unwrap();
    assert_eq!(a.to_vec::<f32>(), [1.0, 3.0, 5.0, 7.0]);
    run_into(&Op::Unary(UnaryOp::Neg), &[&a.flip(&[0])], &[&a]).unwrap();
    assert_eq!(a.to_vec::<f32>(), [-7.0, -5.0, -3.0, -1.0]);
    let m = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    run_into(&Op::MatMul { act: Act::None }, &[&m, &m], &[&m]).unwrap();
    assert_eq!(m.to_vec::<f32>(), [7.0, 10.0, 15.0, 22.0]);
}

#[test]
fn outputs_that_cannot_be_written_are_errors() {
    let a = array(&[1.0, 2.0]);
    let repeated = array(&[0.0]).broadcast_to(&[2]).unwrap();
    let e = run_into(&ADD, &[&a, &a], &[&repeated]).unwrap_err();
    assert!(matches!(e, OpError::Value { .. }), "{e}");
    let e = run_into(&ADD, &[&a, &a], &[&array(&[0.0; 3])]).unwrap_err();
    assert!(e.to_string().contains("f32 [2]") && e.to_string().contains("f32 [3]"), "{e}");
    let doubles = Array::from_slice(&[0.0f64, 0.0], &[2]).unwrap();
    assert!(run_into(&ADD, &[&a, &a], &[&doubles]).is_err());
    assert!(run_into(&ADD, &[&a, &a], &[]).is_err());
}

#[test]
fn half_precision_rounds_once() {
    // 2048 + 1 is no f16; with the 1 added twice in f32 it would be seen.
    let half = |v: f64| Array::scalar(Scalar::Float(v), DType::F16).unwrap().view(&[1]).unwrap();
    let parts = [half(2048.0), half(1.0), half(1.0)];
    let all = run1(&Op::Concat { axis: 0 }, &parts.iter().collect::<Vec<_>>()).unwrap();
    let sum = Op::Reduce {
        kind: crate::op::ReduceKind::Sum,
        axes: [0].into_iter().collect(),
        keep: false,
    };
    assert_eq!(run1(&sum, &[&all]).unwrap().item().as_f64(), 2050.0);
}
