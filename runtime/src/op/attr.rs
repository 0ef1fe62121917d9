//! Attributes of ops as text: what graphs print and parse back.

use super::*;
use crate::dim::{Dim, Dims, Extent, checked_count};

/// A value that stands in an op's attribute list.
pub trait Attr: Sized {
    /// Writes the value.
    fn print(&self) -> String;
    /// Reads what [`Attr::print`] wrote.
    fn parse(text: &str) -> Result<Self, String>;
}

/// The items of `(a, b, c)`.
fn items(text: &str) -> Result<Vec<&str>, String> {
    let inner = text
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'))
        .ok_or_else(|| format!("`{text}` is not a list in parentheses"))?;
    Ok(inner.split(',').map(str::trim).filter(|s| !s.is_empty()).collect())
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("({})", items.collect::<Vec<_>>().join(", "))
}

pub(super) fn print_dims<D: Extent>(dims: &[D], names: &[String]) -> String {
    list(dims.iter().map(|d| d.show(names)))
}

pub(super) fn parse_dims(text: &str, names: &[String]) -> Result<Dims<Dim>, String> {
    let dims: Dims<Dim> =
        items(text)?.into_iter().map(|t| Dim::parse(t, names)).collect::<Result<_, _>>()?;
    checked_count(&dims).ok_or_else(|| format!("`{text}` has more elements than memory"))?;
    Ok(dims)
}

macro_rules! attr_by_str {
    ($($t:ty),*) => {$(
        impl Attr for $t {
            fn print(&self) -> String {
                self.to_string()
            }
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("`{text}` is not a valid {}", stringify!($t)))
            }
        }
    )*};
}
attr_by_str!(usize, u64, i64, bool, Scalar);

macro_rules! attr_by_name {
    ($($t:ty),*) => {$(
        impl Attr for $t {
            fn print(&self) -> String {
                self.name().to_string()
            }
            fn parse(text: &str) -> Result<Self, String> {
                <$t>::ALL
                    .iter()
                    .copied()
                    .find(|v| v.name() == text)
                    .ok_or_else(|| format!("`{text}` is not a {}", stringify!($t)))
            }
        }
    )*};
}
attr_by_name!(
    DType,
    ReduceKind,
    ArgKind,
    ScanKind,
    ScatterKind,
    PoolKind,
    RandomKind,
    SampleKind,
    CellKind,
    Act
);

impl Attr for Axes {
    fn print(&self) -> String {
        list(self.iter().map(usize::to_string))
    }
    fn parse(text: &str) -> Result<Self, String> {
        items(text)?.into_iter().map(usize::parse).collect()
    }
}

impl Attr for [usize; 2] {
    fn print(&self) -> String {
        list(self.iter().map(usize::to_string))
    }
    fn parse(text: &str) -> Result<Self, String> {
        match items(text)?.as_slice() {
            [a, b] => Ok([usize::parse(a)?, usize::parse(b)?]),
            _ => Err(format!("`{text}` is not a pair")),
        }
    }
}

impl Attr for Real {
    fn print(&self) -> String {
        format!("{:?}", self.get())
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<f64>().map(Real::new).map_err(|_| format!("`{text}` is not a number"))
    }
}

/// The `key=value` pairs of an attribute list, read in order.
pub struct AttrReader<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    names: &'a [String],
}

impl<'a> AttrReader<'a> {
    /// Splits `a=1, b=(2, 3)`.
    pub fn new(text: &'a str, names: &'a [String]) -> Result<AttrReader<'a>, String> {
        let mut pairs = Vec::new();
        let mut depth = 0usize;
        let mut start = 0;
        let mut push = |piece: &'a str| -> Result<(), String> {
            let piece = piece.trim();
            if piece.is_empty() {
                return Ok(());
            }
            let (k, v) =
                piece.split_once('=').ok_or_else(|| format!("`{piece}` is not key=value"))?;
            pairs.push((k.trim(), v.trim()));
            Ok(())
        };
        for (i, c) in text.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.checked_sub(1).ok_or("unbalanced parentheses")?,
                ',' if depth == 0 => {
                    push(&text[start..i])?;
                    start = i + 1;
                }
                _ => {}
            }
        }
        push(&text[start..])?;
        Ok(AttrReader { pairs, names })
    }

    fn take(&mut self, key: &str) -> Result<&'a str, String> {
        let i = self
            .pairs
            .iter()
            .position(|(k, _)| *k == key)
            .ok_or_else(|| format!("attribute `{key}` is missing"))?;
        Ok(self.pairs.remove(i).1)
    }

    pub(super) fn attr<T: Attr>(&mut self, key: &str) -> Result<T, String> {
        T::parse(self.take(key)?)
    }
    pub(super) fn dims(&mut self, key: &str) -> Result<Dims<Dim>, String> {
        let text = self.take(key)?;
        parse_dims(text, self.names)
    }
    pub(super) fn dim(&mut self, key: &str) -> Result<Dim, String> {
        let text = self.take(key)?;
        Dim::parse(text, self.names)
    }

    /// Fails when an attribute was left unread.
    pub fn finish(self) -> Result<(), String> {
        match self.pairs.first() {
            None => Ok(()),
            Some((k, _)) => Err(format!("unknown attribute `{k}`")),
        }
    }
}
