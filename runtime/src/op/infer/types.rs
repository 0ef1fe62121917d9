//! What ops take and give.

use super::*;

/// Element type and shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TensorType<D = usize> {
    /// Element type.
    pub dtype: DType,
    /// Extent of each dimension.
    pub shape: Dims<D>,
}

impl<D: Extent> TensorType<D> {
    /// A type of that element type and shape.
    pub fn new(dtype: DType, shape: impl Into<Dims<D>>) -> TensorType<D> {
        TensorType { dtype, shape: shape.into() }
    }

    /// Borrows it.
    pub fn as_ref(&self) -> TypeRef<'_, D> {
        TypeRef { dtype: self.dtype, shape: &self.shape }
    }

    /// `f32[2, 3]`, with the graph's names for symbols.
    pub fn text(&self, names: &[String]) -> String {
        let dims: Vec<String> = self.shape.iter().map(|d| d.show(names)).collect();
        format!("{}[{}]", self.dtype, dims.join(", "))
    }
}

impl TensorType<Dim> {
    /// The type for given sizes of the symbols.
    pub fn eval(&self, sizes: &[usize]) -> Option<TensorType> {
        let shape = self.shape.iter().map(|d| d.eval(sizes)).collect::<Option<Dims<usize>>>()?;
        Some(TensorType { dtype: self.dtype, shape })
    }
}

/// A borrowed [`TensorType`].
#[derive(Debug)]
pub struct TypeRef<'a, D = usize> {
    /// Element type.
    pub dtype: DType,
    /// Extent of each dimension.
    pub shape: &'a [D],
}

// Not derived: a derive would ask `D` to be `Copy`.
impl<D> Clone for TypeRef<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D> Copy for TypeRef<'_, D> {}
