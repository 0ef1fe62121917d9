//! Integers of eight bits in the place of numbers: which layers, which ranges, and what
//! it costs in accuracy.
//!
//! After Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference" (2018, arXiv:1712.05877): weights are quantized
//! symmetrically, with a scale for each output channel; the left operands of layers with
//! one scale and zero point each, from the range they have on examples. Between layers
//! everything is f32.
//!
//! Ranges are taken from the graph that is planned, by running it eagerly; so is the
//! accuracy, with the library's integer kernels in the place of the layers': what the
//! report says is what the program computes.

mod accuracy;
mod range;

pub use accuracy::{Accuracy, Difference, LayerAccuracy, OutputAccuracy};
pub use range::CalibrationMethod;

use crate::graph::{Data, Graph, InterpretError, Kind, NodeId, Value, interpret, interpret_with};
use range::Observer;
use rustc_hash::FxHashMap;
use sinter_kernels::conv::{self, ConvParams};
use sinter_kernels::gemm::{self, Affine, Epilogue};
use sinter_runtime::op::Act;
use sinter_runtime::{Array, DType, Op, OpError, eager};
use smallvec::SmallVec;
use std::sync::Arc;
use thiserror::Error;

/// What layers' ranges are taken from, and which layers stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// Inputs of the program, run after run: typical ones, some hundred of them.
    pub inputs: Vec<Vec<Array>>,
    /// Others, on which the accuracy is measured, too.
    pub held_out: Vec<Vec<Array>>,
    /// How a range comes from what was seen.
    pub method: CalibrationMethod,
    /// Layers that stay in f32, by their names or the names of modules they belong to.
    pub keep: Vec<String>,
}

// By identity: whether options changed.
impl PartialEq for Calibration {
    fn eq(&self, o: &Calibration) -> bool {
        let same = |a: &[Vec<Array>], b: &[Vec<Array>]| {
            let alike = |(a, b): (&Vec<Array>, &Vec<Array>)| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same_view(b))
            };
            a.len() == b.len() && a.iter().zip(b).all(alike)
        };
        same(&self.inputs, &o.inputs)
            && same(&self.held_out, &o.held_out)
            && (self.method, &self.keep) == (o.method, &o.keep)
    }
}

/// Why a graph could not be calibrated.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// There is nothing to calibrate with.
    #[error(
        "precision int8 needs calibration: inputs of the kind the program will see, from \
         which the ranges of layers are taken"
    )]
    Missing,
    /// An input that cannot be run.
    #[error("calibration input {index}: {source}")]
    Run {
        /// Its number; held-out ones come after the others.
        index: usize,
        /// Why.
        source: InterpretError,
    },
    /// A layer to be kept that is none.
    #[error("there is no layer `{name}` to keep in f32; those that could be int8 are {known}")]
    Layer {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Tuning measures kernels of numbers.
    #[error("tuning has nothing to choose from with integers: leave out one of the two")]
    Tuning,
    /// A method without a sense.
    #[error("{0}")]
    Method(String),
}

/// A layer that is computed with integers.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Its weight as the kernels want it, which holds what its input's integers stand for.
    pub(crate) packed: Arc<[f32]>,
}

/// What was decided for the products and convolutions of a graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quantized {
    pub(crate) layers: FxHashMap<NodeId, Layer>,
    /// Why each is int8 or not.
    pub(crate) reasons: FxHashMap<NodeId, String>,
    pub(crate) accuracy: Accuracy,
}

/// The parameters of a convolution.
fn params<D: sinter_runtime::Extent>(op: &Op<D>) -> Option<ConvParams> {
    let &Op::Conv { stride, padding, dilation, groups, .. } = op else { return None };
    Some(ConvParams { stride, padding, dilation, groups })
}

/// The values of a constant.
fn constant(g: &Graph, v: Value) -> Option<&Data> {
    match &g.node(v.node).kind {
        Kind::Constant(i) => g.constants[*i].data.as_ref(),
        _ => None,
    }
}

/// The weight of a product or convolution that could be computed with integers, or why
/// it cannot; `None` for other ops.
fn candidate(g: &Graph, n: NodeId) -> Option<Result<Array, String>> {
    let op = g.op(n)?;
    if !matches!(op, Op::MatMul { .. } | Op::Conv { .. }) {
        return None;
    }
    let operands = g.operands(n);
    let Some(w) = constant(g, operands[1]) else {
        return Some(Err("its right operand is no constant".into()));
    };
    let ty = w.ty();
    if constant(g, operands[0]).is_some() || ty.dtype != DType::F32 {
        return Some(Err("it is no product of f32 numbers by constants".into()));
    }
    let per_output: usize = match (params(op), ty.shape.as_slice()) {
        (None, &[k, _]) => k,
        (Some(_), &[_, 1, ..]) => {
            return Some(Err("its groups have one channel: there is nothing to sum up".into()));
        }
        (Some(_), &[_, 2, ..]) => {
            return Some(Err("its groups have two channels, where integers come in fours".into()));
        }
        (Some(_), &[_, c, kh, kw]) => c * kh * kw,
        _ => return Some(Err("its weight is no matrix".into())),
    };
    if per_output > gemm::LONGEST_INT8 {
        return Some(Err(format!("sums of {per_output} products may leave 32 bits")));
    }
    let w = match w.array() {
        Ok(w) => w,
        Err(e) => return Some(Err(e.to_string())),
    };
    if w.to_vec::<f32>().iter().any(|v| !v.is_finite()) {
        return Some(Err("its weight is not finite".into()));
    }
    Some(Ok(w))
}

/// What a layer is called: by the module whose parameters it uses, or by its constants.
fn name(g: &Graph, n: NodeId) -> String {
    if let Some(module) = &g.node(n).origin.module {
        return module.to_string();
    }
    let named = |v: &Value| match &g.node(v.node).kind {
        Kind::Constant(i) => Some(g.constants[*i].name.trim_end_matches(".folded")),
        _ => None,
    };
    let operands = g.operands(n);
    let names: SmallVec<[&str; 2]> = operands[1..].iter().filter_map(named).collect();
    // A weight's view has no name of its own, but the bias beside it may have.
    match names.iter().find_map(|n| n.rsplit_once('.')) {
        Some((module, _)) => module.to_string(),
        None => names.first().copied().unwrap_or("product").to_string(),
    }
}

/// Whether `kept` names the layer or what it belongs to.
fn belongs(name: &str, kept: &str) -> bool {
    name.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Chooses layers and ranges, and measures.
///
/// # Errors
/// When there is nothing to calibrate with, or it cannot be run.
pub(crate) fn quantize(g: &Graph, c: Option<&Calibration>) -> Result<Quantized, CalibrationError> {
    let c = c.filter(|c| !c.inputs.is_empty()).ok_or(CalibrationError::Missing)?;
    c.method.check().map_err(CalibrationError::Method)?;
    let mut out = Quantized::default();
    let mut weights: FxHashMap<NodeId, Array> = FxHashMap::default();
    let mut all: Vec<(NodeId, String)> = vec![];
    for n in g.topological() {
        match candidate(g, n) {
            Some(Ok(w)) => {
                all.push((n, name(g, n)));
                weights.insert(n, w);
            }
            Some(Err(why)) => {
                out.reasons.insert(n, format!("f32: {why}"));
            }
            None => {}
        }
    }
    for kept in &c.keep {
        if !all.iter().any(|(_, name)| belongs(name, kept)) {
            let known: Vec<String> = all.iter().map(|(_, n)| format!("`{n}`")).collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            return Err(CalibrationError::Layer { name: kept.clone(), known });
        }
    }
    let mut observers: FxHashMap<NodeId, Observer> = FxHashMap::default();
    for (n, name) in &all {
        if c.keep.iter().any(|k| belongs(name, k)) {
            out.reasons.insert(*n, "f32: it is to be kept".into());
        } else {
            observers.insert(*n, Observer::default());
        }
    }
    for pass in 0..c.method.passes() {
        for (index, inputs) in c.inputs.iter().enumerate() {
            let done = interpret_with(g, inputs, &mut |n, op, args| {
                if let Some(o) = observers.get_mut(&n) {
                    o.see(pass, &args[0].to_vec::<f32>());
                }
                eager::run(op, args)
            });
            done.map_err(|source| CalibrationError::Run { index, source })?;
        }
    }
    for (n, name) in &all {
        let Some(o) = observers.get(n) else { continue };
        match o.range(c.method) {
            Ok((low, high)) => {
                let input = Affine::covering(low, high);
                let packed = pack(&weights[n], params(g.op(*n).expect("a layer")), input);
                out.layers.insert(*n, Layer { packed: packed.into() });
                let why = format!("int8: its input is {low:.4} to {high:.4}");
                out.reasons.insert(*n, why);
            }
            Err(why) => {
                out.reasons.insert(*n, format!("f32: {why}"));
            }
        }
        out.accuracy.layers.push(LayerAccuracy {
            name: name.clone(),
            op: g.op(*n).map_or("", |op| op.name()).to_string(),
            why: out.reasons[n].clone(),
            difference: None,
        });
    }
    accuracy::measure(g, c, &all, &mut out)?;
    Ok(out)
}

/// A weight as the kernels want it.
fn pack(w: &Array, params: Option<ConvParams>, input: Affine) -> Vec<f32> {
    match (params, w.shape()) {
        (Some(p), &[o, c, kh, kw]) => {
            let mut out = vec![0.0; conv::packed_filters_len_int8([o, c, kh, kw])];
            conv::pack_filters_int8(w.src(), input, p, &mut out);
            out
        }
        (_, &[k, n]) => {
            let mut out = vec![0.0; gemm::packed_len_int8(k, n)];
            gemm::pack_b_int8(w.src(), input, &mut out);
            out
        }
        _ => unreachable!("candidates are matrices and filters"),
    }
}

/// A layer's result with integers.
fn run_layer(layer: &Layer, op: &Op, args: &[&Array], shape: &[usize]) -> Result<Array, OpError> {
    let x = eager::dense(args[0])?;
    let bias = args.get(2).map(|b| b.to_vec::<f32>());
    let act = match op {
        Op::MatMul { act: Act::Relu } | Op::Conv { act: Act::Relu, .. } => gemm::Act::Relu,
        _ => gemm::Act::None,
    };
    let out = Array::empty(shape, DType::F32)?;
    match params(op) {
        Some(p) => {
            let ep = Epilogue { bias_row: bias.as_deref(), act, ..Epilogue::NONE };
            let w = args[1].shape();
            conv::conv2d_packed_int8(x.src(), &layer.packed, w, out.dst(), p, &ep);
        }
        None => {
            let ep = Epilogue { bias_col: bias.as_deref(), act, ..Epilogue::NONE };
            let &[k, n] = args[1].shape() else { unreachable!("candidates are matrices") };
            let m = x.shape()[..x.rank() - 1].iter().product();
            let rows = x.view(&[m, k]).expect("it is dense");
            let to = out.view(&[m, n]).expect("it is dense");
            gemm::gemm_packed_int8(rows.src(), &layer.packed, n, to.dst(), &ep);
        }
    }
    Ok(out)
}

/// The shape of a product's or convolution's result.
fn result_shape(op: &Op, args: &[&Array]) -> Result<SmallVec<[usize; 4]>, OpError> {
    let refs: SmallVec<[_; 3]> = args
        .iter()
        .map(|a| sinter_runtime::op::TypeRef { dtype: a.dtype(), shape: a.shape() })
        .collect();
    Ok(sinter_runtime::op::infer(op, &refs)?[0].shape.iter().copied().collect())
}

impl Quantized {
    /// What the program gives for these inputs.
    ///
    /// # Errors
    /// As [`interpret`].
    pub(crate) fn interpret(
        &self,
        g: &Graph,
        inputs: &[Array],
    ) -> Result<Vec<Array>, InterpretError> {
        if self.layers.is_empty() {
            return interpret(g, inputs);
        }
        interpret_with(g, inputs, &mut |n, op, args| match self.layers.get(&n) {
            Some(layer) => {
                let shape = result_shape(op, args)?;
                Ok(smallvec::smallvec![run_layer(layer, op, args, &shape)?])
            }
            None => eager::run(op, args),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_kept_by_their_names_and_their_modules() {
        let cases = [("encoder.1.fc", true), ("encoder.1", true), ("encoder", true)];
        for (kept, is) in cases.into_iter().chain([("encoder.1.f", false), ("fc", false)]) {
            assert_eq!(belongs("encoder.1.fc", kept), is, "{kept}");
        }
    }
}
