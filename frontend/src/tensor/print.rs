//! Printing tensors as NumPy and PyTorch do.

use super::{Tensor, default_dtype};
use sinter_runtime::{Array, Category, DType, Device, Scalar};
use std::fmt;
use std::sync::Mutex;

/// How tensors are printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrintOptions {
    /// Digits after the point.
    pub precision: usize,
    /// Tensors with more elements are summarised.
    pub threshold: usize,
    /// Elements shown at each end of a summarised dimension.
    pub edge_items: usize,
    /// Characters per line.
    pub line_width: usize,
    /// Scientific notation: always, never, or where numbers need it.
    pub sci_mode: Option<bool>,
}

impl Default for PrintOptions {
    fn default() -> PrintOptions {
        DEFAULTS
    }
}

const DEFAULTS: PrintOptions =
    PrintOptions { precision: 4, threshold: 1000, edge_items: 3, line_width: 80, sci_mode: None };
static OPTIONS: Mutex<PrintOptions> = Mutex::new(DEFAULTS);

/// Sets how tensors are printed from now on; returns how they were.
pub fn set_print_options(options: PrintOptions) -> PrintOptions {
    std::mem::replace(&mut *OPTIONS.lock().unwrap_or_else(|e| e.into_inner()), options)
}

/// How tensors are printed now.
pub fn print_options() -> PrintOptions {
    *OPTIONS.lock().unwrap_or_else(|e| e.into_inner())
}

/// One format for every number shown, so that columns line up.
struct Style {
    options: PrintOptions,
    sci: bool,
    /// All floats are whole numbers: print `1.`
    whole: bool,
    width: usize,
}

impl Style {
    fn new(values: &[Scalar], dtype: DType, options: PrintOptions) -> Style {
        let mut style = Style { options, sci: false, whole: true, width: 0 };
        let parts = || values.iter().flat_map(|v| [v.as_f64(), v.imag()]);
        let finite = || parts().filter(|v| v.is_finite());
        if dtype.category() >= Category::Float {
            style.whole = finite().all(|v| v == v.trunc());
            let magnitude = finite().filter(|v| *v != 0.0).map(f64::abs);
            let (low, high) = magnitude.fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
            let needs = if style.whole {
                high > 1e8 || (high > 0.0 && high / low > 1000.0 && high > 1e5)
            } else {
                high > 0.0 && (high / low > 1000.0 || high > 1e8 || low < 1e-4)
            };
            style.sci = options.sci_mode.unwrap_or(needs);
        }
        style.width = values.iter().map(|&v| style.format(v).len()).max().unwrap_or(0);
        style
    }

    fn format(&self, v: Scalar) -> String {
        let v = match v {
            Scalar::Bool(b) => return b.to_string(),
            Scalar::Int(i) => return i.to_string(),
            Scalar::Float(v) => v,
            Scalar::Complex(re, im) => {
                let sign = if im.is_sign_negative() && !im.is_nan() { '-' } else { '+' };
                let part = |v| self.format(Scalar::Float(v));
                return format!("{}{sign}{}j", part(re), part(im.abs()));
            }
        };
        if v.is_nan() {
            "nan".to_string()
        } else if v.is_infinite() {
            if v > 0.0 { "inf" } else { "-inf" }.to_string()
        } else if self.sci {
            let s = format!("{v:.*e}", self.options.precision);
            // Rust writes 1.0e5; the field writes 1.0e+05.
            match s.split_once('e') {
                Some((m, e)) => {
                    let (sign, digits) = match e.strip_prefix('-') {
                        Some(d) => ('-', d),
                        None => ('+', e),
                    };
                    format!("{m}e{sign}{digits:0>2}")
                }
                None => s,
            }
        } else if self.whole {
            format!("{v:.0}.")
        } else {
            format!("{v:.*}", self.options.precision)
        }
    }
}

/// Indices shown along a dimension; `None` stands for the dots.
fn shown(n: usize, summarise: bool, edge: usize) -> Vec<Option<usize>> {
    if summarise && n > 2 * edge {
        (0..edge).map(Some).chain([None]).chain((n - edge..n).map(Some)).collect()
    } else {
        (0..n).map(Some).collect()
    }
}

fn collect(a: &Array, axis: usize, summarise: bool, edge: usize, out: &mut Vec<Scalar>) {
    if axis == a.rank() {
        out.push(a.item());
        return;
    }
    for i in shown(a.shape()[axis], summarise, edge).into_iter().flatten() {
        collect(&a.slice(axis, i, 1, 1), axis + 1, summarise, edge, out);
    }
}

fn write_level(
    f: &mut fmt::Formatter<'_>,
    shape: &[usize],
    indent: usize,
    summarise: bool,
    style: &Style,
    values: &mut impl Iterator<Item = Scalar>,
) -> fmt::Result {
    let Some((&n, inner)) = shape.split_first() else {
        let v = values.next().expect("a value for each place");
        return write!(f, "{}", style.format(v));
    };
    write!(f, "[")?;
    let items = shown(n, summarise, style.options.edge_items);
    if inner.is_empty() {
        let per_line =
            (style.options.line_width.saturating_sub(indent + 1) / (style.width + 2)).max(1);
        for (k, i) in items.iter().enumerate() {
            if k > 0 {
                write!(f, ",")?;
                if k % per_line == 0 {
                    write!(f, "\n{:indent$}", "", indent = indent + 1)?;
                } else {
                    write!(f, " ")?;
                }
            }
            match i {
                Some(_) => {
                    let v = values.next().expect("a value for each place");
                    let s = style.format(v);
                    write!(f, "{s:>width$}", width = style.width)?;
                }
                None => write!(f, "...")?,
            }
        }
    } else {
        for (k, i) in items.iter().enumerate() {
            if k > 0 {
                write!(f, ",{}", "\n".repeat(inner.len()))?;
                write!(f, "{:indent$}", "", indent = indent + 1)?;
            }
            match i {
                Some(_) => write_level(f, inner, indent + 1, summarise, style, values)?,
                None => write!(f, "...")?,
            }
        }
    }
    write!(f, "]")
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((value, level)) = self.as_batched() {
            return write!(
                f,
                "tensor(<one of {} in a batch of level {level}>, shape={:?}, dtype={})",
                value.shape()[0],
                self.shape(),
                self.dtype()
            );
        }
        if self.is_traced() {
            return write!(f, "tensor(<traced>, shape={:?}, dtype={})", self.shape(), self.dtype());
        }
        let options = *OPTIONS.lock().unwrap_or_else(|e| e.into_inner());
        let a = &self.array().here();
        let summarise = self.numel() > options.threshold;
        write!(f, "tensor(")?;
        if self.numel() == 0 {
            write!(f, "[], shape={:?}", self.shape())?;
        } else {
            let mut values = Vec::new();
            collect(a, 0, summarise, options.edge_items, &mut values);
            let style = Style::new(&values, self.dtype(), options);
            write_level(f, self.shape(), 7, summarise, &style, &mut values.into_iter())?;
        }
        let plain = matches!(self.dtype(), DType::I64 | DType::Bool) && self.numel() > 0;
        if self.dtype() != default_dtype() && !plain {
            write!(f, ", dtype={}", self.dtype())?;
        }
        if self.device() != Device::Cpu {
            write!(f, ", device={}", self.device())?;
        }
        if let Some(op) = self.grad_fn_name() {
            write!(f, ", grad_fn=<{op}>")?;
        } else if self.requires_grad() {
            write!(f, ", requires_grad=true")?;
        }
        write!(f, ")")
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use crate::{arange, tensor, zeros};

    #[test]
    fn numbers_line_up() {
        assert_eq!(tensor(1.5f32).to_string(), "tensor(1.5000)");
        assert_eq!(tensor([1.0f32, 2.0]).to_string(), "tensor([1., 2.])");
        assert_eq!(
            tensor([[1.5f32, -2.0], [0.25, 100.0]]).to_string(),
            "tensor([[  1.5000,  -2.0000],\n        [  0.2500, 100.0000]])"
        );
        assert_eq!(tensor([true, false]).to_string(), "tensor([ true, false])");
        assert_eq!(tensor([1i64, -20]).to_string(), "tensor([  1, -20])");
        let z = num_complex::Complex::new(1.5f32, -2.0);
        assert_eq!(tensor([z]).to_string(), "tensor([1.5000-2.0000j], dtype=c64)");
        assert_eq!(tensor([1.5f64]).to_string(), "tensor([1.5000], dtype=f64)");
        assert_eq!(tensor([1e-6f32, 1.0]).to_string(), "tensor([1.0000e-06, 1.0000e+00])");
        assert_eq!(tensor([f32::NAN, f32::INFINITY]).to_string(), "tensor([nan, inf])");
        assert_eq!(zeros([0, 3]).to_string(), "tensor([], shape=[0, 3])");
    }

    #[test]
    fn long_tensors_are_summarised() {
        assert_eq!(
            arange(0, 1001, 1).to_string(),
            "tensor([   0,    1,    2, ...,  998,  999, 1000])"
        );
        let m = zeros([100, 100]).to_string();
        assert_eq!(m.lines().count(), 7);
        assert!(m.contains("\n        ...,\n"));
    }

    #[test]
    fn long_rows_wrap() {
        let s = arange(0, 40, 1).to_string();
        assert!(s.lines().all(|l| l.len() <= 80), "{s}");
        assert!(s.lines().count() > 1);
    }

    #[test]
    fn history_is_shown() {
        let x = tensor([1.0f32]).requires_grad_(true);
        assert_eq!(x.to_string(), "tensor([1.], requires_grad=true)");
        assert_eq!((&x * 2.0).to_string(), "tensor([2.], grad_fn=<mul>)");
    }
}
