//! Values known when compiling.

use sinter_runtime::op::TensorType;
use sinter_runtime::{Array, Op, OpError, eager};
use smallvec::SmallVec;
use std::sync::Arc;

/// A value known when compiling: a weight, or something computed from weights.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Its name in text, unique in the graph.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Its elements; graphs parsed from text may lack them.
    pub data: Option<Data>,
}

/// The elements of a constant. What is large and computed from weights is computed where
/// it is needed: a model's weights are not in memory a second time all at once.
#[derive(Clone, Debug)]
pub enum Data {
    /// As they are.
    Array(Array),
    /// The result of an op on other elements.
    Computed(Arc<Computed>),
}

/// One result of an op on elements known when compiling.
#[derive(Debug)]
pub struct Computed {
    op: Op,
    operands: SmallVec<[Data; 3]>,
    output: usize,
    ty: TensorType,
    depth: usize,
}

/// Computed results of at least so many bytes wait until they are needed.
const LARGE: usize = 1 << 20;
/// So many ops in a chain are not computed again each time.
const LONG: usize = 8;

impl Data {
    /// The results of an op, of these types; `shared` says that several read them.
    ///
    /// # Errors
    /// When the op fails, for example because memory runs out.
    pub(crate) fn of(
        op: Op,
        operands: SmallVec<[Data; 3]>,
        types: Vec<TensorType>,
        shared: bool,
    ) -> Result<Vec<Data>, OpError> {
        let depth = 1 + operands.iter().map(Data::depth).max().unwrap_or(0);
        let bytes = |t: &TensorType| t.shape.iter().product::<usize>() * t.dtype.size();
        let bytes: usize = types.iter().map(bytes).sum();
        let plain = operands.iter().all(|d| matches!(d, Data::Array(_)));
        if (op.is_view() && plain) || bytes < LARGE || shared || depth > LONG {
            return Ok(run(&op, &operands)?.into_iter().map(Data::Array).collect());
        }
        let one = |(output, ty)| {
            let (op, operands) = (op.clone(), operands.clone());
            Data::Computed(Arc::new(Computed { op, operands, output, ty, depth }))
        };
        Ok(types.into_iter().enumerate().map(one).collect())
    }

    fn depth(&self) -> usize {
        match self {
            Data::Array(_) => 0,
            Data::Computed(c) => c.depth,
        }
    }

    /// Their type.
    pub fn ty(&self) -> TensorType {
        match self {
            Data::Array(a) => TensorType { dtype: a.dtype(), shape: a.shape().into() },
            Data::Computed(c) => c.ty.clone(),
        }
    }

    /// The elements, computed if they have to be.
    ///
    /// # Errors
    /// When an op fails, for example because memory runs out.
    pub fn array(&self) -> Result<Array, OpError> {
        match self {
            Data::Array(a) => Ok(a.clone()),
            Data::Computed(c) => Ok(run(&c.op, &c.operands)?.swap_remove(c.output)),
        }
    }
}

impl From<Array> for Data {
    fn from(a: Array) -> Data {
        Data::Array(a)
    }
}

fn run(op: &Op, operands: &[Data]) -> Result<Vec<Array>, OpError> {
    let arrays = operands.iter().map(Data::array).collect::<Result<SmallVec<[Array; 3]>, _>>()?;
    let refs: SmallVec<[&Array; 3]> = arrays.iter().collect();
    Ok(eager::run(op, &refs)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinter_runtime::op::{BinaryOp, infer};

    fn twice(d: Data, shared: bool) -> Data {
        let op = Op::Binary(BinaryOp::Add);
        let ty = d.ty();
        let types = infer(&op, &[ty.as_ref(), ty.as_ref()]).unwrap();
        let operands = SmallVec::from_iter([d.clone(), d]);
        Data::of(op, operands, types.to_vec(), shared).unwrap().remove(0)
    }

    #[test]
    fn what_is_large_is_computed_where_it_is_needed() {
        let few = Array::from_slice(&[1.5f32; 16], &[4, 4]).unwrap();
        assert!(matches!(twice(few.into(), false), Data::Array(_)));
        let many: Data = Array::from_slice(&vec![1.5f32; LARGE / 4], &[LARGE / 4]).unwrap().into();
        assert!(matches!(twice(many.clone(), true), Data::Array(_)));
        let mut d = many;
        for _ in 0..LONG {
            d = twice(d, false);
            assert!(matches!(d, Data::Computed(_)));
            assert_eq!(d.ty().shape.as_slice(), [LARGE / 4]);
        }
        assert_eq!(d.array().unwrap().to_vec::<f32>(), vec![1.5 * 256.0; LARGE / 4]);
        // A chain ends somewhere.
        assert!(matches!(twice(d, false), Data::Array(_)));
    }
}
