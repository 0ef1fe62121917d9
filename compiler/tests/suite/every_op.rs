//! Each op of the vocabulary, compiled alone: fused, unfused and eager agree.

use sinter_compiler::graph::text::parse_type;
use sinter_compiler::graph::{Graph, Origin, Symbol, Value};
use sinter_compiler::{Options, compile};
use sinter_runtime::Op;
use sinter_runtime::op::{BinaryOp, CompareOp, UnaryOp};

/// `op(type, type, …)`; a type may be preceded by the name of its input, and is a
/// constant when that name is in capitals.
fn graph(case: &str) -> Graph {
    let mut depth = 0;
    let open = case
        .char_indices()
        .find(|(_, c)| {
            depth += i32::from(*c == '[') - i32::from(*c == ']');
            *c == '(' && depth == 0
        })
        .unwrap_or_else(|| panic!("{case}: no operands"))
        .0;
    let mut g = Graph::new("case");
    g.symbols.push(Symbol { name: "N".into(), min: 0, max: 4096, hint: 16 });
    let names = g.symbol_names();
    let op = Op::parse(&case[..open], &names).unwrap_or_else(|e| panic!("{case}: {e}"));
    let operands = case[open + 1..].strip_suffix(')').unwrap_or_else(|| panic!("{case}: no )"));
    let operands: Vec<Value> = operands
        .split(';')
        .map(str::trim)
        .filter(|o| !o.is_empty())
        .enumerate()
        .map(|(i, o)| {
            let (name, ty) = match o.split_once(' ') {
                Some((name, ty)) if !name.contains('[') => (name.to_string(), ty),
                _ => (format!("x{i}"), o),
            };
            let ty = parse_type(ty, &names).unwrap_or_else(|e| panic!("{case}: {e}"));
            if name.starts_with(|c: char| c.is_uppercase()) {
                let shape = ty.eval(&[]).expect("constants have a size").shape;
                let data = crate::common::sample(&shape, ty.dtype, None, 7 + i as u64);
                return g.add_constant(name, data);
            }
            g.add_input(name, ty)
        })
        .collect();
    let node = g.add_op(op, &operands, Origin::default()).unwrap_or_else(|e| panic!("{case}: {e}"));
    for output in 0..g.node(node).types.len() as u8 {
        g.add_output(Value { node, output });
    }
    g
}

fn check_all(cases: &[String]) {
    let sizes: &[&[usize]] = &[&[16], &[1], &[7], &[0], &[131]];
    let wrong: Vec<String> = cases
        .iter()
        .enumerate()
        .filter_map(|(i, c)| {
            let g = graph(c);
            // Nothing has no largest element.
            let sizes = if c.contains("max") || c.contains("min") { &sizes[..3] } else { sizes };
            crate::common::check(&g, sizes, 100 + i as u64).err().map(|e| format!("{c}: {e}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn owned(cases: &[&str]) -> Vec<String> {
    cases.iter().map(|c| c.to_string()).collect()
}

const FLOATS: [&str; 4] = ["f32", "f64", "f16", "bf16"];
const INTS: [&str; 4] = ["i64", "i32", "u8", "bool"];

/// Cases of every type that the op takes.
fn typed(case: impl Fn(&str) -> String) -> Vec<String> {
    let takes = |c: &String| std::panic::catch_unwind(|| graph(c)).is_ok();
    FLOATS.iter().chain(&INTS).map(|t| case(t)).filter(takes).collect()
}

#[test]
fn unary() {
    let mut cases = vec![];
    for op in UnaryOp::ALL {
        let of_op = typed(|t| format!("{}({t}[N, 5])", op.name()));
        assert!(!of_op.is_empty(), "{} takes no type", op.name());
        cases.extend(of_op);
    }
    check_all(&cases);
}

#[test]
fn binary() {
    let mut cases = vec![];
    for op in BinaryOp::ALL {
        let of_op = typed(|t| format!("{}({t}[N, 3, 5]; nonzero {t}[3, 1])", op.name()));
        assert!(!of_op.is_empty(), "{} takes no type", op.name());
        cases.extend(of_op);
        cases.push(format!("{}(f32[N, 19]; f32[N, 19])", op.name()));
    }
    cases.retain(|c| std::panic::catch_unwind(|| graph(c)).is_ok());
    check_all(&cases);
}

#[test]
fn comparisons_choices_and_casts() {
    let mut cases = vec![];
    for op in CompareOp::ALL {
        cases.extend(typed(|t| format!("{}({t}[N, 4]; {t}[N, 4])", op.name())));
    }
    cases.extend(typed(|t| format!("select(bool[N, 5]; {t}[N, 5]; {t}[5])")));
    cases.extend(typed(|t| format!("select(bool[N, 1]; {t}[]; {t}[1, 17])")));
    for from in FLOATS.iter().chain(&INTS) {
        for to in FLOATS.iter().chain(&INTS) {
            // From negative numbers to u8, machines differ.
            let name = if to == &"u8" && from != &"bool" { "positive" } else { "x" };
            cases.push(format!("cast[dtype={to}]({name} {from}[N, 5])"));
        }
    }
    check_all(&cases);
}

#[test]
fn along_axes() {
    let mut cases = owned(&[
        "full[value=1.5, dtype=f32, shape=(N, 3)]()",
        "full[value=3, dtype=i64, shape=(2, 3)]()",
        "iota[dtype=i64, axis=0, shape=(N, 3)]()",
        "iota[dtype=f32, axis=1, shape=(2, N)]()",
        "random[kind=uniform, dtype=f32, seed=3, offset=5, shape=(N, 9)]()",
        "random[kind=normal, dtype=f64, seed=3, offset=0, shape=(N)]()",
        "sort[axis=1, descending=true](f32[N, 33])",
        "sort[axis=0, descending=false](f32[N, 3])",
        "topk[k=3, axis=1, largest=true](f32[N, 12])",
        "scan[kind=sum, axis=1, reverse=false](f32[N, 21])",
        "scan[kind=prod, axis=0, reverse=true](f32[N, 3])",
        "scan[kind=sum, axis=0, reverse=true](i64[5, N])",
        "scan[kind=max, axis=1, reverse=false](f32[N, 21])",
        "scan[kind=min, axis=0, reverse=false](i64[N, 3])",
        "scan[kind=max, axis=1, reverse=false](bf16[N, 5])",
        "scan[kind=logsumexp, axis=1, reverse=true](f32[N, 21])",
        "searchsorted[right=false](f32[N, 9]; f32[N, 4])",
        "searchsorted[right=true](i64[9]; i64[N, 4])",
        "dropout[p=0.25, seed=1, offset=64](f32[N, 10])",
    ]);
    for kind in ["sum", "prod", "max", "min", "any", "all"] {
        for (axes, ty) in [
            ("(1)", "[N, 37]"),
            ("(0)", "[N, 5]"),
            ("(0, 2)", "[N, 3, 20]"),
            ("(0, 1)", "[N, 130]"),
            ("(1)", "[2, N, 3]"),
        ] {
            for keep in [true, false] {
                cases.extend(typed(|t| {
                    format!("reduce[kind={kind}, axes={axes}, keep={keep}]({t}{ty})")
                }));
            }
        }
    }
    for kind in ["max", "min"] {
        for axis in [0, 1] {
            cases.push(format!("arg_reduce[kind={kind}, axis={axis}, keep=false](f32[N, 9])"));
            cases.push(format!("arg_reduce[kind={kind}, axis={axis}, keep=true](i64[N, 9])"));
        }
    }
    check_all(&cases);
}

#[test]
fn layout() {
    let mut cases = vec![];
    for t in ["f32", "f64", "i64", "bool", "bf16"] {
        cases.extend([
            format!("reshape[shape=(2*N, 6)]({t}[N, 3, 4])"),
            format!("permute[perm=(2, 0, 1)]({t}[N, 3, 4])"),
            format!("permute[perm=(1, 0)]({t}[N, 65])"),
            format!("broadcast[shape=(3, N, 4)]({t}[N, 1])"),
            format!("slice[axis=1, step=2, start=1, len=3]({t}[N, 7])"),
            format!("slice[axis=0, step=1, start=0, len=N]({t}[N, 7])"),
            format!("slice_assign[axis=1, step=3, start=1]({t}[N, 9]; {t}[N, 2])"),
            format!("flip[axes=(0, 1)]({t}[N, 7])"),
            format!("diagonal[axis1=1, axis2=0, row=2, col=0, len=1]({t}[1, 5, N])"),
            format!("diagonal[axis1=2, axis2=1, row=0, col=1, len=3]({t}[N, 4, 3])"),
            format!("unfold[axis=1, size=3, step=2, count=3]({t}[N, 8])"),
            format!("unfold[axis=0, size=1, step=1, count=N]({t}[N, 3])"),
            format!("as_strided[shape=(N, 2, 3), strides=(7, 3, 1), offset=1]({t}[N, 7])"),
            format!("pad[low=(0, 1), high=(2, 3), value=1]({t}[N, 7])"),
            format!("concat[axis=1]({t}[N, 3]; {t}[N, 1]; {t}[N, 16])"),
            format!("concat[axis=0]({t}[N, 3]; {t}[2, 3])"),
        ]);
    }
    cases.retain(|c| !(c.starts_with("pad") && c.contains("bool")));
    check_all(&cases);
}

#[test]
fn by_index() {
    check_all(&owned(&[
        "gather[axis=1](f32[N, 9]; index9 i64[N, 4])",
        "gather[axis=0](f64[9, N]; index9 i64[3, N])",
        "scatter[axis=1, kind=set](f32[N, 1]; index1 i64[N, 1]; f32[N, 1])",
        "scatter[axis=1, kind=add](f32[N, 9]; index9 i64[N, 4]; f32[N, 4])",
        "scatter[axis=1, kind=prod](f32[N, 9]; index9 i64[N, 4]; f32[N, 4])",
        "scatter[axis=1, kind=max](i64[N, 9]; index9 i64[N, 4]; i64[N, 4])",
        "scatter[axis=1, kind=min](f64[N, 9]; index9 i64[N, 4]; f64[N, 4])",
        "index_select[axis=0](f32[9, 5]; index9 i64[N])",
        "index_select[axis=0](Table f32[9, 5]; index9 i64[N])",
        "index_select[axis=1](f32[N, 9]; index9 i64[3])",
        "index_add[axis=0](f32[9, 5]; index9 i64[N]; f32[N, 5])",
    ]));
}

#[test]
fn contractions() {
    let mut cases = owned(&[
        "matmul[act=none](f32[N, 9]; f32[9, 5])",
        "matmul[act=none](f32[N, 9]; W f32[9, 5])",
        "matmul[act=none](f32[N, 784]; W f32[784, 100]; B f32[100])",
        "matmul[act=none](f32[3, N, 9]; f32[3, 9, 5])",
        "matmul[act=none](f32[3, N, 9]; f32[9, 5])",
        "matmul[act=none](f32[2, 1, 4, N]; f32[3, N, 5])",
        "matmul[act=none](f64[N, 9]; f64[9, 5])",
        "matmul[act=none](i64[N, 9]; i64[9, 5])",
        "matmul[act=none](bf16[N, 9]; bf16[9, 5])",
        "attention[scale=0.35, causal=false](f32[N, 2, 9, 8]; f32[N, 2, 7, 8]; f32[N, 2, 7, 8])",
        "attention[scale=0.35, causal=true](f32[2, N, 8]; f32[2, N, 8]; f32[2, N, 8])",
        "attention[scale=0.35, causal=false](f32[N, 2, 9, 8]; f32[N, 2, 7, 8]; f32[N, 2, 7, 8]; f32[9, 7])",
        "attention_grad[scale=0.35, causal=false](f32[N, 2, 9, 8]; f32[N, 2, 7, 8]; f32[N, 2, 7, 6]; f32[N, 2, 9, 6])",
        "attention_grad[scale=0.35, causal=true](f32[2, N, 8]; f32[2, N, 8]; f32[2, N, 8]; f32[2, N, 8]; f32[N, N])",
        "attention_grad[scale=0.35, causal=true](f64[N, 5, 4]; f64[N, 6, 4]; f64[N, 6, 3]; f64[N, 5, 3])",
        "attention_grad[scale=0.35, causal=false](bf16[N, 5, 4]; bf16[N, 6, 4]; bf16[N, 6, 3]; bf16[N, 5, 3])",
        "softmax[axis=1, log=false](f32[N, 33])",
        "softmax[axis=1, log=true](f32[N, 10])",
        "softmax[axis=0, log=false](f32[5, N])",
        "softmax[axis=1, log=true](f64[N, 4])",
        "softmax_grad[axis=1, log=false](f32[N, 33]; f32[N, 33])",
        "softmax_grad[axis=1, log=true](f32[N, 10]; f32[N, 10])",
        "layer_norm[dims=1, eps=1e-5](f32[N, 40])",
        "layer_norm[dims=1, eps=1e-5](f32[N, 40]; W f32[40]; B f32[40])",
        "layer_norm[dims=2, eps=1e-5](f32[N, 4, 5]; f32[4, 5])",
        "layer_norm_grad[dims=1, eps=1e-5](f32[N, 40]; f32[N, 40])",
        "layer_norm_grad[dims=1, eps=1e-5](f32[N, 40]; f32[N, 40]; f32[40])",
    ]);
    for act in sinter_runtime::op::Act::ALL {
        let act = act.name();
        cases.push(format!("matmul[act={act}](f32[N, 17]; W f32[17, 50]; B f32[50])"));
        cases.push(format!("matmul[act={act}](f32[2, N, 17]; f32[2, 17, 5])"));
    }
    check_all(&cases);
}

#[test]
fn sequences() {
    let mut cases = owned(&[
        "recurrent[kind=lstm, reverse=false, keep=false](f32[N, 3, 20]; W f32[20, 5]; f32[3, 5]; f32[3, 5])",
        "recurrent[kind=lstm, reverse=true, keep=true](f32[3, N, 76]; W f32[76, 19]; f32[N, 19]; f32[N, 19])",
        "recurrent[kind=gru, reverse=false, keep=false](f32[2, N, 51]; W f32[51, 17]; f32[N, 17]; B f32[17])",
        "recurrent[kind=gru, reverse=true, keep=true](f32[N, 1, 6]; f32[6, 2]; f32[1, 2])",
        "recurrent[kind=tanh, reverse=true, keep=false](f64[N, 2, 3]; W f64[3, 3]; f64[2, 3])",
        "recurrent[kind=relu, reverse=false, keep=false](f32[3, 2, N]; f32[N, N]; f32[2, N])",
        "recurrent[kind=lstm, reverse=false, keep=false](bf16[N, 3, 4]; W bf16[4, 1]; bf16[3, 1]; bf16[3, 1])",
    ]);
    for (kind, g) in [("tanh", 1), ("gru", 3), ("lstm", 4)] {
        let kept = if g == 1 { "" } else { "; f32[N, 3]; f32[2, N, 12]" };
        let w = 3 * g;
        cases.push(format!(
            "recurrent_grad[kind={kind}, reverse=true](f32[{w}, 3]; f32[2, N, 3]; f32[2, N, 3]{kept})"
        ));
    }
    check_all(&cases);
}

#[test]
fn convolutions_and_windows() {
    let mut cases = vec![];
    for (attrs, x, w) in [
        ("stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1", "1, 9, 8", "4, 1, 3, 3"),
        ("stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=1", "3, 9, 8", "5, 3, 3, 2"),
        ("stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=4", "4, 6, 7", "8, 1, 3, 3"),
        ("stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1", "16, 11, 13", "16, 16, 3, 3"),
        ("stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1", "5, 3, 3", "7, 5, 1, 1"),
    ] {
        for act in ["none", "relu", "gelu"] {
            cases.push(format!("conv2d[{attrs}, act={act}](f32[N, {x}]; f32[{w}])"));
            let o: usize = w.split(',').next().and_then(|o| o.parse().ok()).expect("a number");
            cases.push(format!("conv2d[{attrs}, act={act}](f32[N, {x}]; W f32[{w}]; B f32[{o}])"));
        }
    }
    let plain = "stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1";
    cases.extend([
        format!("conv2d[{plain}, act=none](f64[N, 2, 4, 4]; f64[3, 2, 3, 3])"),
        format!("conv2d_input_grad[{plain}, height=5, width=6](f32[N, 3, 5, 6]; f32[3, 2, 3, 3])"),
        format!("conv2d_weight_grad[{plain}, kernel=(3, 3)](f32[N, 2, 5, 6]; f32[N, 3, 5, 6])"),
    ]);
    for kind in ["max", "avg", "avg_inside"] {
        for attrs in [
            "window=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil=false",
            "window=(3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 1), ceil=true",
        ] {
            cases.push(format!("pool2d[kind={kind}, {attrs}](f32[N, 2, 8, 7])"));
        }
        cases.push(format!(
            "pool2d_grad[kind={kind}, window=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1), ceil=false](f32[N, 2, 8, 6]; f32[N, 2, 4, 3])"
        ));
    }
    check_all(&cases);
}

/// Ops that only eager execution has are refused by name, with the reason.
#[test]
fn eager_only() {
    for case in [
        "cholesky(f32[N, 3, 3])",
        "lu(f64[N, 4, 3])",
        "qr[full=false](f32[N, 3, 2])",
        "svd[full=true](f32[N, 3, 2])",
        "eigh(f64[N, 3, 3])",
        "eig(f32[N, 2, 2])",
        "fft[axis=1, inverse=false](c64[N, 4])",
        "view_as_real(c64[N, 4])",
        "view_as_complex(f32[N, 2])",
        "sample[kind=gamma, seed=1, offset=0](f32[N, 3])",
        "triangular_solve[upper=true, unit=false](f32[N, 3, 3]; f32[N, 3, 1])",
    ] {
        let name = case.split(['[', '(']).next().expect("a case begins with its op");
        let e = compile(&graph(case), &Options::default()).expect_err(case).to_string();
        let refused = e.contains(&format!("`{name}` cannot be part of a compiled program: "))
            || e.contains(&format!("{name}: not supported: compiled programs hold no complex"));
        assert!(refused, "{case}: {e}");
    }
}

#[test]
fn the_list_is_complete() {
    let source = include_str!("every_op.rs");
    let vocabulary = include_str!("../../../runtime/src/op/mod.rs");
    let ops = vocabulary.split("ops! {").nth(1).expect("the vocabulary");
    let names: Vec<&str> = ops
        .lines()
        .take_while(|l| *l != "}")
        .filter_map(|l| l.split_once("= \"")?.1.split('"').next())
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let used = [format!("\"{name}["), format!("\"{name}(")].iter().any(|p| source.contains(p));
        assert!(used, "`{name}` is not compiled here");
    }
}
