//! The e-graph's language: the op vocabulary itself.
//!
//! There is no second list of ops here. An e-node is an input, a constant, an
//! [`Op`] with its attributes, or one result of an op with several; patterns name
//! ops as graphs print them, and an op named without its attributes matches any.

use crate::cost;
use egg::{Analysis, DidMerge, EGraph, FromOp, FromOpError, Id, Language};
use sinter_runtime::op::{TensorType, TypeRef, infer};
use sinter_runtime::{Array, Dim, Dims, Op, Scalar, eager};
use smallvec::SmallVec;
use std::cmp::Ordering;

/// What an e-node is, apart from its children.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Head {
    /// An input of the graph.
    Input(u32),
    /// A constant of the graph.
    Constant(u32),
    /// An op.
    Op(Op<Dim>),
    /// One result of an op that has several.
    Result(u8),
    /// In patterns only: an op with any attributes.
    Any(String),
    /// In patterns only: a filled array with that value.
    Number(u64),
}

impl Head {
    fn name(&self) -> &str {
        match self {
            Head::Input(_) => "input",
            Head::Constant(_) => "constant",
            Head::Op(op) => op.name(),
            Head::Result(_) => "result",
            Head::Any(name) => name,
            Head::Number(_) => "full",
        }
    }

    /// Order within one name; the attributes decide last.
    fn rank(&self) -> u8 {
        match self {
            Head::Any(_) | Head::Number(_) => 0,
            _ => 1,
        }
    }
}

/// A node of the e-graph.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ENode {
    /// What it is.
    pub head: Head,
    /// Its operands.
    pub children: SmallVec<[Id; 3]>,
}

impl ENode {
    /// An op on classes.
    pub fn op(op: Op<Dim>, children: &[Id]) -> ENode {
        ENode { head: Head::Op(op), children: children.into() }
    }
}

impl PartialOrd for ENode {
    fn partial_cmp(&self, o: &ENode) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}

impl Ord for ENode {
    /// By name first: egg finds the nodes a pattern may match by binary search.
    fn cmp(&self, o: &ENode) -> Ordering {
        let attributes = || match (&self.head, &o.head) {
            (Head::Input(a), Head::Input(b)) | (Head::Constant(a), Head::Constant(b)) => a.cmp(b),
            (Head::Op(a), Head::Op(b)) => a.cmp(b),
            (Head::Result(a), Head::Result(b)) => a.cmp(b),
            (Head::Number(a), Head::Number(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        (self.head.name().cmp(o.head.name()))
            .then_with(|| self.head.rank().cmp(&o.head.rank()))
            .then_with(attributes)
            .then_with(|| self.children.cmp(&o.children))
    }
}

impl Language for ENode {
    type Discriminant = String;

    fn discriminant(&self) -> String {
        self.head.name().to_string()
    }

    fn matches(&self, other: &ENode) -> bool {
        let number = |bits: u64, h: &Head| matches!(h, Head::Op(Op::Full { value, .. }) if value.as_f64() == f64::from_bits(bits));
        match (&self.head, &other.head) {
            (Head::Any(n), h) | (h, Head::Any(n)) => {
                h.name() == n && self.children.len() == other.children.len()
            }
            (Head::Number(v), h) | (h, Head::Number(v)) => number(*v, h),
            (a, b) => a == b && self.children.len() == other.children.len(),
        }
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl std::fmt::Display for ENode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.head {
            Head::Input(i) => write!(f, "input{i}"),
            Head::Constant(i) => write!(f, "constant{i}"),
            Head::Op(op) => write!(f, "{op}"),
            Head::Result(i) => write!(f, "result{i}"),
            Head::Any(n) => f.write_str(n),
            Head::Number(v) => write!(f, "{:?}", f64::from_bits(*v)),
        }
    }
}

impl FromOp for ENode {
    type Error = FromOpError;

    /// A number, an op without attributes, or the bare name of an op with some.
    fn from_op(op: &str, children: Vec<Id>) -> Result<ENode, FromOpError> {
        if let Ok(v) = op.parse::<f64>()
            && children.is_empty()
        {
            return Ok(ENode { head: Head::Number(v.to_bits()), children: SmallVec::new() });
        }
        let head = match Op::parse(op, &[]) {
            Ok(op) => Head::Op(op),
            Err(_) if !op.contains('[') => Head::Any(op.to_string()),
            Err(_) => return Err(FromOpError::new(op, children)),
        };
        Ok(ENode { head, children: children.into() })
    }
}

/// What is known of every member of a class.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Types of the results (one, unless the op has several).
    pub types: SmallVec<[TensorType<Dim>; 1]>,
    /// Every element has this value.
    pub value: Option<Scalar>,
    /// Depends on constants alone: computed when compiling.
    pub weight: bool,
    /// The graph's node it was first seen as.
    pub node: Option<u32>,
    /// The rules that added members.
    pub rules: SmallVec<[&'static str; 2]>,
}

/// The analysis: types, constants, and which rule made what.
#[derive(Default)]
pub struct Known {
    /// Types of inputs and constants.
    pub inputs: Vec<TensorType<Dim>>,
    /// Types of constants.
    pub constants: Vec<TensorType<Dim>>,
    /// Estimated sizes of symbols.
    pub hints: Vec<usize>,
    /// The rule being applied.
    pub rule: Option<&'static str>,
    /// The graph's node being added.
    pub adding: Option<u32>,
}

/// The e-graph of a graph.
pub type Graph = EGraph<ENode, Known>;

impl Analysis<ENode> for Known {
    type Data = Facts;

    fn make(g: &mut Graph, n: &ENode, _: Id) -> Facts {
        let mut facts = Facts {
            types: SmallVec::new(),
            value: None,
            weight: false,
            node: g.analysis.adding,
            rules: g.analysis.rule.into_iter().collect(),
        };
        match &n.head {
            Head::Input(i) => facts.types.push(g.analysis.inputs[*i as usize].clone()),
            Head::Constant(i) => {
                facts.types.push(g.analysis.constants[*i as usize].clone());
                facts.weight = true;
            }
            Head::Result(k) => {
                let of = &g[n.children[0]].data;
                facts.types.push(of.types[*k as usize].clone());
                facts.weight = of.weight;
            }
            Head::Op(op) => {
                let operands: SmallVec<[&Facts; 3]> =
                    n.children.iter().map(|c| &g[*c].data).collect();
                let refs: SmallVec<[TypeRef<'_, Dim>; 3]> =
                    operands.iter().map(|f| f.types[0].as_ref()).collect();
                // Rules build only what type-checks (`Rewriter::add`).
                facts.types = infer(op, &refs).unwrap_or_default();
                facts.weight = operands.iter().all(|f| f.weight)
                    && !matches!(op, Op::Random { .. } | Op::Sample { .. } | Op::Dropout { .. });
                facts.value = fold(op, &operands, &facts.types);
            }
            Head::Any(_) | Head::Number(_) => {}
        }
        facts
    }

    fn merge(&mut self, a: &mut Facts, b: Facts) -> DidMerge {
        debug_assert!(a.types == b.types, "a rule united {:?} and {:?}", a.types, b.types);
        let (mut from_b, mut from_a) = (false, false);
        match (a.value, b.value) {
            (None, Some(v)) => {
                a.value = Some(v);
                from_b = true;
            }
            (Some(_), None) => from_a = true,
            _ => {}
        }
        if a.weight != b.weight {
            if b.weight {
                from_b = true;
            } else {
                from_a = true;
            }
            a.weight = true;
        }
        // An original node's identity survives; the older the better.
        a.node = match (a.node, b.node) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        for r in b.rules {
            if !a.rules.contains(&r) {
                a.rules.push(r);
            }
        }
        DidMerge(from_b, from_a)
    }

    fn modify(g: &mut Graph, id: Id) {
        let facts = &g[id].data;
        let Some(value) = facts.value else { return };
        let ty = facts.types[0].clone();
        let full = Op::Full { value, dtype: ty.dtype, shape: ty.shape };
        let c = g.add(ENode::op(full, &[]));
        g.union(id, c);
    }
}

/// The value of every element, where it follows from the operands'.
fn fold(op: &Op<Dim>, operands: &[&Facts], types: &[TensorType<Dim>]) -> Option<Scalar> {
    let values: SmallVec<[Scalar; 3]> = operands.iter().map(|f| f.value).collect::<Option<_>>()?;
    match op {
        Op::Full { value, dtype, .. } => Some(value.cast(*dtype)),
        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Broadcast { .. }
        | Op::Flip { .. }
        | Op::Diagonal { .. }
        | Op::Unfold { .. }
        | Op::AsStrided { .. }
        | Op::Slice { .. } => values.first().copied(),
        _ if op.is_pointwise() && types.len() == 1 => {
            // One element of each, through the very kernels that would run.
            let arrays: SmallVec<[Array; 3]> = operands
                .iter()
                .zip(&values)
                .map(|(f, v)| Array::scalar(*v, f.types[0].dtype).ok())
                .collect::<Option<_>>()?;
            let refs: SmallVec<[&Array; 3]> = arrays.iter().collect();
            let op = op.map_dims(&mut |_| Some(0usize))?;
            eager::run1(&op, &refs).ok().map(|a| a.item())
        }
        _ => None,
    }
}

/// The estimated cost of a node, children not counted.
pub fn node_cost(g: &Graph, n: &ENode, of: Id) -> f64 {
    let facts = &g[of].data;
    if facts.weight {
        return 0.0;
    }
    match &n.head {
        Head::Op(op) => {
            let operands: SmallVec<[&TensorType<Dim>; 3]> =
                n.children.iter().map(|c| &g[*c].data.types[0]).collect();
            cost::estimate(op, &operands, &facts.types, &g.analysis.hints)
        }
        _ => 0.0,
    }
}

/// Extents as an op's attribute.
pub fn dims(shape: &[Dim]) -> Dims<Dim> {
    shape.iter().cloned().collect()
}
