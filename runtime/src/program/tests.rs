//! Plans that no compiler made: whatever they say, running them ends in a result or
//! an error.

use super::*;
use crate::op::{ReduceKind, UnaryOp};
use crate::{Array, Extent};
use proptest::prelude::*;
use sinter_kernels::mem::Block;

/// Runs every step by the runtime's own kernels, as generated code does.
#[allow(unsafe_code)]
unsafe extern "C" fn every_step(frame: *const Frame) -> i32 {
    // SAFETY: `Model` calls this with a frame that is alive; its first size is the
    // number of steps, by the tests' convention.
    unsafe {
        let frame_ref = &*frame;
        let steps = *frame_ref.sizes;
        (0..steps)
            .find_map(|s| {
                Some(((*frame_ref.table).call)(frame, s as u64, None)).filter(|&r| r != 0)
            })
            .unwrap_or(0)
    }
}

#[allow(unsafe_code)]
fn code() -> Code {
    // SAFETY: the function fits any program whose first symbol is its number of steps.
    unsafe { Code::new(every_step, Box::new(())) }
}

fn constants() -> Block {
    let block = Block::try_new(256).unwrap();
    block.write(&[0.5f32; 64]);
    block
}

fn port(name: &str, len: usize) -> Port {
    Port {
        name: name.into(),
        ty: TensorType { dtype: DType::F32, shape: [Dim::of(len)][..].into() },
    }
}

/// A program whose only symbol is the number of its steps, over an input and an
/// output of 24 elements, 64 constants and two temporaries.
fn program(steps: Vec<Step>, lens: [usize; 2]) -> Program {
    let n = steps.len();
    let temp = Place::Temp { first: 0, last: n.saturating_sub(1) as u32 };
    let buffer = |len: usize, place| Buffer { dtype: DType::F32, len: Dim::of(len), place };
    Program {
        name: "test".into(),
        symbols: vec![Symbol { name: "steps".into(), min: n, max: n, hint: n }],
        inputs: vec![port("x", 24)],
        outputs: vec![port("y", 24)],
        buffers: vec![
            buffer(24, Place::Input(0)),
            buffer(24, Place::Output(0)),
            buffer(64, Place::Constant(0)),
            buffer(lens[0], temp),
            buffer(lens[1], temp),
        ],
        steps,
        written: vec![],
    }
}

fn run(p: Program) -> Result<Vec<Array>, String> {
    let x = Array::from_slice(&[1.0f32; 24], &[24]).unwrap();
    let model = Model::new(p, code(), constants()).map_err(|e| e.to_string())?;
    model.run(&[&x]).map_err(|e| e.to_string())
}

fn dense(buffer: u32, shape: &[usize]) -> View {
    let dense = crate::layout::Layout::dense(shape);
    View {
        buffer,
        offset: Dim::of(0),
        shape: shape.iter().map(|&d| Dim::of(d)).collect(),
        strides: dense.strides().iter().map(|&s| Dim::constant(s as i64)).collect(),
    }
}

/// `y` over the whole of `x`.
fn put(x: View, y: View, result: View) -> Step {
    let op = Op::SliceAssign { axis: 0, step: 1, start: Dim::of(0) };
    Step::Library { op, operands: vec![x, y], results: vec![result] }
}

fn matmul(x: View, w: View, packing: Packing, result: View) -> Step {
    let op = Op::MatMul { act: Act::None };
    Step::Contract {
        op,
        operands: [x, w],
        packing,
        bias: None,
        act: Act::Relu,
        most: None,
        hook: false,
        cut: None,
        result,
    }
}

#[test]
fn sensible_plans_run() {
    let steps = vec![
        put(dense(0, &[24]), dense(2, &[24]), dense(3, &[24])),
        matmul(dense(3, &[4, 6]), dense(2, &[6, 4]), Packing::None, dense(4, &[1, 4, 4])),
        put(dense(3, &[24]), dense(3, &[24]), dense(1, &[24])),
    ];
    let y = run(program(steps, [24, 16])).unwrap();
    assert_eq!(y[0].to_vec::<f32>(), [0.5; 24]);
}

#[test]
fn what_is_generated_is_no_library_step() {
    let op = Op::Unary(UnaryOp::Neg);
    let step =
        Step::Library { op, operands: vec![dense(0, &[24])], results: vec![dense(1, &[24])] };
    let e = run(program(vec![step], [24, 24])).unwrap_err();
    assert!(e.contains("neg") && e.contains("a compiled program generates its code"), "{e}");
}

#[test]
fn contradictions_are_named() {
    let cases = [
        (put(dense(0, &[25]), dense(0, &[25]), dense(1, &[24])), "leaves buffer 0"),
        (put(dense(0, &[24]), dense(9, &[24]), dense(1, &[24])), "buffer 9, which is none"),
        (put(dense(0, &[24]), dense(0, &[24]), dense(2, &[24])), "buffer 2, which is read-only"),
        (put(dense(0, &[24]), dense(0, &[24]), dense(0, &[24])), "buffer 0, which is read-only"),
        (put(dense(0, &[24]), dense(0, &[24]), dense(1, &[2, 12])), "results are f32 [24]"),
        (
            matmul(dense(3, &[4, 6]), dense(3, &[6, 4]), Packing::None, dense(3, &[1, 4, 4])),
            "writes buffer 3 while it reads it",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(3, &[6, 4]), Packing::Panels, dense(1, &[1, 4, 4])),
            "packed operand that is no constant",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(2, &[5, 4]), Packing::None, dense(1, &[1, 4, 4])),
            "step 0",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(2, &[6, 4]), Packing::None, dense(1, &[1, 4, 5])),
            "do not give [4, 5]",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(2, &[6, 4]), Packing::Panels, dense(1, &[1, 4, 4])),
            "not packed as Panels is",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(2, &[6, 4]), Packing::Int8, dense(1, &[1, 4, 4])),
            "not packed as Int8 is",
        ),
        (
            matmul(dense(0, &[4, 6]), dense(2, &[6, 4]), Packing::Conv(0), dense(1, &[1, 4, 4])),
            "not packed as Conv(0) is",
        ),
    ];
    for (step, want) in cases {
        let e = run(program(vec![step.clone()], [24, 24])).unwrap_err();
        assert!(e.contains(want), "{step:?}: {e}");
    }
    let huge = program(vec![put(dense(0, &[24]), dense(0, &[24]), dense(1, &[24]))], [24, 1 << 62]);
    assert!(run(huge).unwrap_err().contains("buffer 4 has no size"));
    let mut late = program(vec![put(dense(0, &[24]), dense(3, &[24]), dense(1, &[24]))], [24, 24]);
    late.buffers[3].place = Place::Temp { first: 1, last: 1 };
    assert!(run(late).unwrap_err().contains("from step 1 to 1"));
}

/// Mostly within reason: contradictions deep inside are found, too.
fn view() -> impl Strategy<Value = View> {
    let dim = prop_oneof![8 => 0i64..7, 1 => Just(24i64), 1 => any::<i64>()];
    let stride = prop_oneof![8 => -2i64..7, 1 => any::<i64>()];
    (
        0u32..6,
        prop_oneof![6 => 0i64..4, 1 => any::<i64>()],
        prop::collection::vec((dim, stride), 0..4),
    )
        .prop_map(|(buffer, offset, axes)| View {
            buffer,
            offset: Dim::constant(offset),
            shape: axes.iter().map(|a| Dim::constant(a.0)).collect(),
            strides: axes.iter().map(|a| Dim::constant(a.1)).collect(),
        })
}

fn step() -> impl Strategy<Value = Step> {
    let packing = prop_oneof![
        2 => Just(Packing::None),
        1 => Just(Packing::Panels),
        1 => Just(Packing::Bf16Panels),
        1 => Just(Packing::Int8),
        1 => Just(Packing::Bf16x3Panels),
        1 => (0u32..12).prop_map(Packing::Conv)
    ];
    let conv =
        Op::Conv { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, act: Act::None };
    let contract = prop_oneof![Just(Op::MatMul { act: Act::None }), Just(conv)];
    let cut =
        prop::option::of((prop::array::uniform5(prop_oneof![0u32..9, Just(u32::MAX)])).prop_map(
            |[steps, rows, panels, job, in_place]| Cut { steps, rows, panels, job, in_place },
        ));
    let library = prop_oneof![
        Just(Op::Unary(UnaryOp::Neg)),
        Just(Op::SliceAssign { axis: 0, step: 1, start: Dim::of(0) }),
        Just(Op::Reduce { kind: ReduceKind::Sum, axes: [0][..].into(), keep: true }),
        Just(Op::MatMul { act: Act::None }),
        Just(Op::Concat { axis: 1 }),
        (0usize..4).prop_map(|axis| Op::Sort { axis, descending: true }),
        (0usize..4).prop_map(|axis| Op::Softmax { axis, log: false }),
        (0usize..4).prop_map(|a| Op::Permute { perm: [a, 0][..].into() }),
    ];
    prop_oneof![
        (contract, view(), view(), packing, prop::option::of(view()), view(), cut).prop_map(
            |(op, x, w, packing, bias, result, cut)| Step::Contract {
                op,
                operands: [x, w],
                packing,
                bias,
                act: Act::None,
                most: None,
                hook: false,
                cut,
                result
            }
        ),
        (library, prop::collection::vec(view(), 0..4), prop::collection::vec(view(), 0..3))
            .prop_map(|(op, operands, results)| Step::Library { op, operands, results }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_plan_ends(steps in prop::collection::vec(step(), 1..4), lens in [0usize..40, 0usize..40]) {
        let _ = run(program(steps, lens));
    }
}
