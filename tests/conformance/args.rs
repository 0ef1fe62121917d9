//! The arguments of a case, as the entries of the registry read them.

use sinter::{DType, Operand, Scalar, Tensor};
use sinter_runtime::Shape;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// An argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A complex number.
    Complex(f64, f64),
    /// Text.
    Str(String),
    /// A tensor, by its place among those of the case.
    Tensor(usize),
    /// An element type, if Sinter has it.
    DType(Option<DType>),
    /// `start:stop:step`.
    Slice(Vec<Value>),
    /// `...`
    Ellipsis,
    /// A list or tuple.
    List(Vec<Value>),
    /// Something else, by its name.
    Other(String),
}

/// Where an argument stands: by position, by name, or either.
pub trait Key: Copy {
    /// Position and name.
    fn place(self) -> (Option<usize>, Option<&'static str>);
}

impl Key for usize {
    fn place(self) -> (Option<usize>, Option<&'static str>) {
        (Some(self), None)
    }
}

impl Key for &'static str {
    fn place(self) -> (Option<usize>, Option<&'static str>) {
        (None, Some(self))
    }
}

impl Key for (usize, &'static str) {
    fn place(self) -> (Option<usize>, Option<&'static str>) {
        (Some(self.0), Some(self.1))
    }
}

/// Ends an entry: the case is one that Sinter deliberately has no counterpart of.
pub fn skip(reason: &'static str) -> ! {
    std::panic::panic_any(Skipped(reason))
}

/// What [`skip`] panics with.
pub struct Skipped(pub &'static str);

/// The arguments of a case. Which were read is noted: an entry that ignores one fails.
pub struct Args {
    /// Positional ones.
    pub list: Vec<Value>,
    /// Those with names.
    pub named: BTreeMap<String, Value>,
    /// The tensors among them.
    pub tensors: Vec<Tensor>,
    /// The type that the case is made for.
    pub dtype: Option<DType>,
    /// What has been read.
    pub read: RefCell<BTreeSet<String>>,
}

/// Arguments without meaning for Sinter: where tensors lie, how memory is laid out.
const WITHOUT_MEANING: [&str; 7] =
    ["device", "layout", "requires_grad", "pin_memory", "memory_format", "non_blocking", "copy"];

impl Args {
    /// The argument; `None` when it is not there.
    pub fn get(&self, key: impl Key) -> &Value {
        let (at, name) = key.place();
        if let Some((i, v)) = at.and_then(|i| Some((i, self.list.get(i)?))) {
            self.read.borrow_mut().insert(i.to_string());
            return v;
        }
        if let Some((n, v)) = name.and_then(|n| Some((n, self.named.get(n)?))) {
            self.read.borrow_mut().insert(n.to_string());
            return v;
        }
        &Value::None
    }

    /// Arguments that are there, mean something, and were not read.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let places = self.list.iter().enumerate().map(|(i, v)| (i.to_string(), v));
        let names = self.named.iter().map(|(n, v)| (n.clone(), v));
        places
            .chain(names)
            .filter(|(n, v)| {
                **v != Value::None && !read.contains(n) && !WITHOUT_MEANING.contains(&n.as_str())
            })
            .map(|(n, v)| format!("{n}={v:?}"))
            .collect()
    }

    /// Says that an argument changes nothing here.
    pub fn ignore(&self, key: impl Key) {
        self.get(key);
    }

    /// Whether the argument is there and not `None`.
    pub fn has(&self, key: impl Key) -> bool {
        *self.get(key) != Value::None
    }

    /// Number of positional arguments.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn as_tensor(&self, v: &Value) -> Tensor {
        match v {
            Value::Tensor(i) => self.tensors[*i].clone(),
            v => panic!("{v:?} is no tensor"),
        }
    }

    /// A tensor.
    pub fn t(&self, key: impl Key) -> Tensor {
        self.as_tensor(self.get(key))
    }

    /// A tensor that may be missing.
    pub fn opt_t(&self, key: impl Key) -> Option<Tensor> {
        self.has(key).then(|| self.t(key))
    }

    /// A list of tensors.
    pub fn ts(&self, key: impl Key) -> Vec<Tensor> {
        match self.get(key) {
            Value::List(l) => l.iter().map(|v| self.as_tensor(v)).collect(),
            v => vec![self.as_tensor(v)],
        }
    }

    /// All positional arguments, which are tensors or lists of them.
    pub fn all_ts(&self) -> Vec<Tensor> {
        (0..self.list.len()).flat_map(|i| self.ts(i)).collect()
    }

    /// A number.
    pub fn scalar(&self, key: impl Key) -> Scalar {
        match self.get(key) {
            Value::Bool(b) => Scalar::Bool(*b),
            Value::Int(i) => Scalar::Int(*i),
            Value::Float(f) => Scalar::Float(*f),
            Value::Complex(re, im) => Scalar::Complex(*re, *im),
            v => panic!("{v:?} is no number"),
        }
    }

    /// A number or tensor.
    pub fn operand(&self, key: impl Key) -> Either {
        match self.get(key) {
            Value::Tensor(i) => Either::Tensor(self.tensors[*i].clone()),
            _ => Either::Number(self.scalar(key)),
        }
    }

    /// A number, if it is there.
    pub fn opt_scalar(&self, key: impl Key) -> Option<Scalar> {
        self.has(key).then(|| self.scalar(key))
    }

    /// An integer, if it is there.
    pub fn opt_i64(&self, key: impl Key) -> Option<i64> {
        match self.get(key) {
            Value::None => None,
            Value::Int(i) => Some(*i),
            Value::Bool(b) => Some(i64::from(*b)),
            Value::Tensor(i) => Some(self.tensors[*i].item::<i64>()),
            Value::List(l) => match l.as_slice() {
                [Value::Int(i)] => Some(*i),
                l => panic!("{l:?} is not one integer"),
            },
            v => panic!("{v:?} is no integer"),
        }
    }

    /// An integer.
    pub fn i64(&self, key: impl Key) -> i64 {
        self.opt_i64(key).expect("the integer is there")
    }

    /// An integer, or else another.
    pub fn i64_or(&self, key: impl Key, or: i64) -> i64 {
        self.opt_i64(key).unwrap_or(or)
    }

    /// An integer that is not negative.
    pub fn usize(&self, key: impl Key) -> usize {
        usize::try_from(self.i64(key)).expect("not negative")
    }

    /// A number, if it is there.
    pub fn opt_f64(&self, key: impl Key) -> Option<f64> {
        match self.get(key) {
            Value::None => None,
            Value::Tensor(i) => Some(self.tensors[*i].item::<f64>()),
            _ => Some(self.scalar(key).as_f64()),
        }
    }

    /// A number.
    pub fn f64(&self, key: impl Key) -> f64 {
        self.opt_f64(key).expect("the number is there")
    }

    /// A number, or else another.
    pub fn f64_or(&self, key: impl Key, or: f64) -> f64 {
        self.opt_f64(key).unwrap_or(or)
    }

    /// A truth value, or else another.
    pub fn bool_or(&self, key: impl Key, or: bool) -> bool {
        match self.get(key) {
            Value::None => or,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            v => panic!("{v:?} is no truth value"),
        }
    }

    /// Text, if it is there.
    pub fn opt_str(&self, key: impl Key) -> Option<&str> {
        match self.get(key) {
            Value::None => None,
            Value::Str(s) => Some(s),
            v => panic!("{v:?} is no text"),
        }
    }

    /// Text, or else another.
    pub fn str_or<'a>(&'a self, key: impl Key, or: &'a str) -> &'a str {
        self.opt_str(key).unwrap_or(or)
    }

    /// Integers, if they are there; one stands for a list of one.
    pub fn opt_ints(&self, key: impl Key) -> Option<Vec<i64>> {
        let one = |v: &Value| match v {
            Value::Int(i) => *i,
            Value::Tensor(i) => self.tensors[*i].item::<i64>(),
            v => panic!("{v:?} is no integer"),
        };
        match self.get(key) {
            Value::None => None,
            Value::List(l) => Some(l.iter().map(one).collect()),
            v => Some(vec![one(v)]),
        }
    }

    /// Integers; one stands for a list of one.
    pub fn ints(&self, key: impl Key) -> Vec<i64> {
        self.opt_ints(key).expect("the integers are there")
    }

    /// Integers as separate arguments from `from` on, or as one list.
    pub fn rest_ints(&self, from: usize) -> Vec<i64> {
        match self.list.get(from) {
            Some(Value::List(_)) => self.ints(from),
            _ => (from..self.list.len()).map(|i| self.i64(i)).collect(),
        }
    }

    /// Extents; one stands for a list of one.
    pub fn sizes(&self, key: impl Key) -> Vec<usize> {
        self.ints(key).into_iter().map(|i| usize::try_from(i).expect("not negative")).collect()
    }

    /// `N` extents; one stands for all.
    pub fn extents<const N: usize>(&self, key: impl Key, or: usize) -> [usize; N] {
        let all = self.opt_ints(key).unwrap_or_default();
        match all.len() {
            0 => [or; N],
            1 => [all[0] as usize; N],
            n if n == N => std::array::from_fn(|i| all[i] as usize),
            _ => panic!("{all:?} are not {N} extents"),
        }
    }

    /// Numbers, if they are there.
    pub fn opt_floats(&self, key: impl Key) -> Option<Vec<f64>> {
        let one = |v: &Value| match v {
            Value::Int(i) => *i as f64,
            Value::Float(f) => *f,
            v => panic!("{v:?} is no number"),
        };
        match self.get(key) {
            Value::None => None,
            Value::List(l) => Some(l.iter().map(one).collect()),
            v => Some(vec![one(v)]),
        }
    }

    /// An element type, if it is there.
    pub fn opt_dtype(&self, key: impl Key) -> Option<DType> {
        match self.get(key) {
            Value::None => None,
            Value::DType(Some(d)) => Some(*d),
            Value::DType(None) => skip("an element type that Sinter lacks"),
            v => panic!("{v:?} is no element type"),
        }
    }

    /// The type that the case is made for.
    pub fn dtype(&self) -> DType {
        self.dtype.expect("cases of other types are not run")
    }
}

/// A tensor or a number, beside a tensor.
#[derive(Clone)]
pub enum Either {
    /// A tensor.
    Tensor(Tensor),
    /// A number.
    Number(Scalar),
}

impl Either {
    /// As a tensor; a number becomes one of 0 dimensions.
    pub fn tensor(&self) -> Tensor {
        match self {
            Either::Tensor(t) => t.clone(),
            Either::Number(s @ Scalar::Bool(_)) => sinter::scalar(*s, DType::Bool),
            Either::Number(s @ Scalar::Int(_)) => sinter::scalar(*s, DType::I64),
            Either::Number(s) => sinter::scalar(*s, DType::F32),
        }
    }
}

impl Operand for Either {
    fn meet(&self, beside: &Tensor) -> DType {
        match self {
            Either::Tensor(t) => t.meet(beside),
            Either::Number(s) => s.meet(beside),
        }
    }
    fn as_tensor(&self, dtype: DType) -> Cow<'_, Tensor> {
        match self {
            Either::Tensor(t) => t.as_tensor(dtype),
            Either::Number(s) => s.as_tensor(dtype),
        }
    }
}

/// What an entry gives back.
pub trait Outputs {
    /// As a list.
    fn list(self) -> Vec<Tensor>;
}

impl Outputs for Tensor {
    fn list(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Outputs for Vec<Tensor> {
    fn list(self) -> Vec<Tensor> {
        self
    }
}

impl Outputs for (Tensor, Tensor) {
    fn list(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

impl Outputs for (Tensor, Tensor, Tensor) {
    fn list(self) -> Vec<Tensor> {
        vec![self.0, self.1, self.2]
    }
}

impl<const N: usize> Outputs for [Tensor; N] {
    fn list(self) -> Vec<Tensor> {
        self.into()
    }
}

impl Outputs for bool {
    fn list(self) -> Vec<Tensor> {
        vec![sinter::scalar(self, DType::Bool)]
    }
}

impl Outputs for Shape {
    fn list(self) -> Vec<Tensor> {
        vec![sinter::tensor(self.iter().map(|&d| d as i64).collect::<Vec<_>>())]
    }
}
