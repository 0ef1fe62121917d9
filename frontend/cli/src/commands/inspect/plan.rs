//! The steps of a program as text.

use sinter_kernels::conv::ConvKernel;
use sinter_runtime::op::Act;
use sinter_runtime::program::{Cut, Packing, Place, Program, Step, View};
use sinter_runtime::{Dim, Extent};

/// One line a buffer, one line a step.
pub fn listing(p: &Program) -> String {
    let names = p.symbol_names();
    let mut out = String::new();
    for (i, b) in p.buffers.iter().enumerate() {
        let place = match b.place {
            Place::Input(k) => format!("input {}", p.inputs[k as usize].name),
            Place::Output(k) => format!("output {}", p.outputs[k as usize].name),
            Place::Constant(at) => format!("constant at byte {at}"),
            Place::Temp { first, last } => format!("temporary of steps {first}..={last}"),
        };
        out += &format!("b{i}: {}[{}] {place}\n", b.dtype, b.len.show(&names));
    }
    for (i, s) in p.steps.iter().enumerate() {
        out += &format!("{i:>3}  {}\n", text(p, s, &names));
    }
    out
}

/// A step in one line.
pub fn text(p: &Program, step: &Step, names: &[String]) -> String {
    let view = |v: &View| view(p, v, names);
    let list = |vs: &[View]| vs.iter().map(view).collect::<Vec<_>>().join(", ");
    match step {
        Step::Generated { name } => format!("generated {name}"),
        Step::Library { op, operands, results } => {
            format!("{} = library {}({})", list(results), op.text(names), list(operands))
        }
        Step::Sequence { op, packing, operands, results } => {
            let panels = match packing {
                Packing::Bf16Panels => "panels of bf16",
                _ => "panels",
            };
            let operand = |(i, v): (usize, &View)| match i {
                1 => format!("b{}[{}] in {panels}", v.buffer, dims(&v.shape, names)),
                _ => view(v),
            };
            let operands: Vec<String> = operands.iter().enumerate().map(operand).collect();
            format!("{} = {}({})", list(results), op.text(names), operands.join(", "))
        }
        Step::Contract { op, operands: [x, w], packing, bias, act, most, hook, cut, result } => {
            let packed = || format!("b{}[{}]", w.buffer, dims(&w.shape, names));
            let w = match packing {
                Packing::None => view(w),
                Packing::Panels => format!("{} in panels", packed()),
                Packing::Bf16Panels => format!("{} in panels of bf16", packed()),
                Packing::Int8 => format!("{} as int8", packed()),
                Packing::Bf16x3Panels => format!("{} in panels of bf16, in two parts", packed()),
                Packing::Conv(kind)
                    if ConvKernel::from_number(*kind).is_some_and(ConvKernel::integers) =>
                {
                    format!("{} as int8, packed for kernel {kind}", packed())
                }
                Packing::Conv(kind) => format!("{} packed for kernel {kind}", packed()),
            };
            let mut t = format!("{} = {}({}, {w})", view(result), op.text(names), view(x));
            if let Some(b) = bias {
                t += &format!(" + {}", view(b));
            }
            if *act != Act::None {
                t += &format!(", {}", act.name());
            }
            if let Some(most) = most {
                t += &format!(", at most {most}");
            }
            if *hook {
                t += ", each tile finished by generated code";
            }
            if let Some(Cut { steps, rows, panels, job, in_place }) = cut {
                t += &format!(
                    ", cut {steps} steps, {rows} in rows, {panels} in panels, {job} a piece, \
                     {in_place} rows in place"
                );
            }
            t
        }
    }
}

/// `b3[N, 10]`, with offset and strides where it is not the whole buffer in order.
fn view(p: &Program, v: &View, names: &[String]) -> String {
    let mut t = format!("b{}[{}]", v.buffer, dims(&v.shape, names));
    // The number of elements, where they lie in row-major order.
    let dense = v
        .strides
        .iter()
        .zip(&v.shape)
        .rev()
        .try_fold(Dim::of(1), |n, (s, d)| (d.is(1) || *s == n).then(|| n.times(d)));
    if dense.is_none() {
        t += &format!(" strides [{}]", dims(&v.strides, names));
    }
    if !v.offset.is(0) {
        t += &format!(" from {}", v.offset.show(names));
    } else if dense.is_some_and(|n| p.buffers[v.buffer as usize].len != n) {
        t += " in part";
    }
    t
}

fn dims(d: &[Dim], names: &[String]) -> String {
    d.iter().map(|d| d.show(names)).collect::<Vec<_>>().join(", ")
}
