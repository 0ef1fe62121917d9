//! Each element-wise op on each type, alone: the results of eager execution, bit for
//! bit.

use super::{assemble, compile, launch};
use sinter_compiler::codegen::cuda::{Arch, CudaError};
use sinter_compiler::kernel::{Arg, Inst, Kernel, Level, Manner, Stage};
use sinter_ptx::Memory;
use sinter_runtime::op::{BinaryOp, CompareOp, UnaryOp};
use sinter_runtime::{Array, DType, Dim, Extent, Op, eager};

/// Neither a multiple of a warp nor of a block.
const N: usize = 301;

/// Numbers that functions treat specially, then others.
fn values(dtype: DType, seed: u64) -> Array {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        -2.5,
        2.0,
        3.0,
        8.0,
        31.0,
        32.0,
        63.0,
        64.0,
        127.0,
        255.0,
        256.0,
        -128.0,
        1e-8,
        -1e-8,
        88.5,
        -88.5,
        100.0,
        -104.5,
        700.0,
        1e-39,
        -1e-45,
        65504.0,
        65520.0,
        16_777_217.0,
        2_147_483_647.0,
        -2_147_483_648.0,
        4e9,
        9.3e18,
        -9.3e18,
        1e38,
        -1e38,
        1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let normal = crate::common::normal(&[N], seed).to_vec::<f32>();
    let all: Vec<f64> = (0..N)
        .map(|i| match special.get((i + 7 * seed as usize) % N) {
            Some(&v) => v,
            None => f64::from(normal[i]) * [1.0, 10.0, 1e4, 1e-3][i % 4],
        })
        .collect();
    let x = Array::from_slice(&all, &[N]).expect("an array");
    // Integers near the ends of their range come from integers.
    let x = if dtype == DType::I64 || dtype == DType::I32 {
        let ends = all.iter().enumerate().map(|(i, &v)| match i % 9 {
            0 => i64::MAX - i as i64,
            1 => i64::MIN + i as i64,
            2 => (1 << 31) - i as i64,
            _ => v as i64,
        });
        Array::from_slice(&ends.collect::<Vec<_>>(), &[N]).expect("an array")
    } else {
        x
    };
    eager::run1(&Op::Cast { dtype }, &[&x]).expect("a cast")
}

/// `y[i] = inst(x0[i], x1[i], …)`
fn kernel(name: String, inst: Inst, operands: &[DType], to: DType) -> Kernel {
    let n = operands.len() as u32;
    let arg = |(i, &dtype): (usize, &DType)| Arg {
        buffer: i as u32,
        dtype,
        offset: Dim::of(0),
        strides: vec![Dim::of(1)],
        written: i as u32 == n,
    };
    let mut stage = Stage::new(Level::Element);
    stage.insts = operands.iter().enumerate().map(|(i, &d)| (Inst::Load(i as u32), d)).collect();
    stage.insts.push((inst, to));
    stage.stores.push((n, n));
    let args = [operands, &[to]].concat().iter().enumerate().map(arg).collect();
    Kernel {
        name,
        extents: vec![Dim::symbol(0)],
        parallel: 1,
        args,
        stages: vec![stage],
        hook: false,
        manner: Manner::RULE,
    }
}

#[derive(Default)]
struct Outcome {
    ran: usize,
    wrong: Vec<String>,
    refused: Vec<String>,
}

impl Outcome {
    /// Compiles the kernel, runs it and compares; where the eager op does not take the
    /// types, there is nothing to do.
    fn check(&mut self, op: &Op, inst: Inst, operands: &[DType]) {
        let xs: Vec<Array> =
            operands.iter().enumerate().map(|(i, &d)| values(d, 3 + i as u64)).collect();
        let refs: Vec<&Array> = xs.iter().collect();
        let what = format!("{} on {}", op, operands.last().expect("an operand"));
        let k = match eager::run1(op, &refs) {
            Ok(y) => (kernel(what.clone(), inst, operands, y.dtype()), Some(y)),
            // Integers were divided by zero: still an op of this type.
            Err(sinter_runtime::OpError::Value { .. }) => {
                (kernel(what.clone(), inst, operands, operands[0]), None)
            }
            Err(_) => return,
        };
        let (k, want) = k;
        for arch in ["sm_80", "sm_90"] {
            let arch: Arch = arch.parse().expect("an architecture");
            match (compile(&k, arch), &want) {
                (Err(e @ CudaError::Op { .. }), _) => {
                    let e = e.to_string();
                    if !self.refused.contains(&e) {
                        self.refused.push(e);
                    }
                }
                (Ok(code), Some(want)) => {
                    let mut memory = Memory::default();
                    let mut addresses: Vec<u64> =
                        xs.iter().map(|x| memory.add(x.to_bytes())).collect();
                    addresses.push(memory.add(vec![0xaa; N * want.dtype().size()]));
                    let result = assemble(&code, arch)
                        .and_then(|()| launch(&code, &memory, &addresses, &[N]))
                        .and_then(|m| {
                            let y = m.bytes(addresses[xs.len()]);
                            let y = Array::from_bytes(y, &[N], want.dtype()).expect("an array");
                            crate::common::compare(&y, want, 0.0)
                        });
                    self.ran += 1;
                    if let Err(e) = result {
                        self.wrong.push(format!("{what}, {arch}: {e}"));
                    }
                }
                (other, _) => self.wrong.push(format!("{what}, {arch}: {:?}", other.err())),
            }
        }
    }
}

#[test]
fn every_op_on_every_type() {
    let mut o = Outcome::default();
    // Complex numbers are refused before there are kernels, and the other types are
    // converted before anything is computed.
    let real = || DType::ALL.into_iter().filter(|d| !d.is_complex());
    for d in real() {
        for dtype in real() {
            o.check(&Op::Cast { dtype }, Inst::Cast(0), &[d]);
        }
        if d.computed_in() != d && !d.is_half() {
            continue;
        }
        for &op in UnaryOp::ALL {
            o.check(&Op::Unary(op), Inst::Unary(op, 0), &[d]);
        }
        for &op in BinaryOp::ALL {
            o.check(&Op::Binary(op), Inst::Binary(op, 0, 1), &[d, d]);
        }
        for &op in CompareOp::ALL {
            o.check(&Op::Compare(op), Inst::Compare(op, 0, 1), &[d, d]);
        }
        o.check(&Op::Select {}, Inst::Select(0, 1, 2), &[DType::Bool, d, d]);
    }
    assert!(o.wrong.is_empty(), "{} wrong:\n{}", o.wrong.len(), o.wrong.join("\n"));
    assert!(o.ran > 500, "{}", o.ran);
    insta::assert_snapshot!("without_device_code", o.refused.join("\n"));
}
