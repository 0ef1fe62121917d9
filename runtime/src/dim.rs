//! Extents of dimensions: plain numbers when a tensor exists, polynomials in
//! named symbols when a graph is compiled for many sizes.
//!
//! Every shape rule is written once over [`Extent`] and serves both.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::fmt;
use std::hash::Hash;

/// A list of extents, one per dimension.
pub type Dims<D> = SmallVec<[D; 5]>;
/// The shape of a tensor that exists.
pub type Shape = Dims<usize>;

/// What a shape rule needs to know of an extent.
pub trait Extent: Clone + PartialEq + Eq + Ord + Hash + fmt::Debug + fmt::Display {
    /// The extent `n`.
    fn of(n: usize) -> Self;
    /// The number, when it is known.
    fn known(&self) -> Option<usize>;
    /// Sum.
    fn plus(&self, o: &Self) -> Self;
    /// Product.
    fn times(&self, o: &Self) -> Self;
    /// Difference; `None` where it is certainly negative.
    fn minus(&self, o: &Self) -> Option<Self>;
    /// The quotient, when it is exact for all values of the symbols.
    fn exact_div(&self, o: &Self) -> Option<Self>;
    /// Division by a number, rounding down, when that is an extent.
    fn floor_div(&self, n: usize) -> Option<Self>;

    /// Prints with names for symbols.
    fn show(&self, names: &[String]) -> String {
        let _ = names;
        self.to_string()
    }

    /// Whether the extent is certainly `n`.
    fn is(&self, n: usize) -> bool {
        self.known() == Some(n)
    }
}

impl Extent for usize {
    #[inline]
    fn of(n: usize) -> usize {
        n
    }
    #[inline]
    fn known(&self) -> Option<usize> {
        Some(*self)
    }
    fn plus(&self, o: &usize) -> usize {
        self.saturating_add(*o)
    }
    fn times(&self, o: &usize) -> usize {
        self.saturating_mul(*o)
    }
    fn minus(&self, o: &usize) -> Option<usize> {
        self.checked_sub(*o)
    }
    fn exact_div(&self, o: &usize) -> Option<usize> {
        (*o != 0 && self.is_multiple_of(*o)).then(|| self / o)
    }
    fn floor_div(&self, n: usize) -> Option<usize> {
        self.checked_div(n)
    }
}

/// A product of symbols: the power of symbol `i` in bits `4i..4i+4`.
type Monomial = u64;
/// How many symbols one graph may have.
pub const MAX_SYMBOLS: usize = 16;

/// An extent of a graph: a polynomial with integer coefficients in the graph's
/// symbols. Symbols stand for sizes, so they are never negative.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dim {
    /// Terms by ascending monomial; no coefficient is zero; the empty list is 0.
    terms: SmallVec<[(Monomial, i64); 2]>,
}

impl Dim {
    /// The symbol with that number.
    ///
    /// # Panics
    /// If `index` is not below [`MAX_SYMBOLS`].
    pub fn symbol(index: usize) -> Dim {
        assert!(index < MAX_SYMBOLS, "a graph has at most {MAX_SYMBOLS} symbolic dimensions");
        Dim { terms: smallvec![(1 << (4 * index), 1)] }
    }

    /// `constant + coefficient * symbol`.
    pub fn affine(constant: i64, coefficient: i64, index: usize) -> Dim {
        Dim::constant(constant).sum(&Dim::symbol(index), coefficient)
    }

    /// A number, which for strides and offsets may be negative.
    pub fn constant(c: i64) -> Dim {
        Dim { terms: if c == 0 { smallvec![] } else { smallvec![(0, c)] } }
    }

    fn sum(&self, o: &Dim, sign: i64) -> Dim {
        let mut terms = self.terms.clone();
        for &(m, c) in &o.terms {
            match terms.binary_search_by_key(&m, |t| t.0) {
                Ok(i) => {
                    terms[i].1 = terms[i].1.saturating_add(c.saturating_mul(sign));
                    if terms[i].1 == 0 {
                        terms.remove(i);
                    }
                }
                Err(i) if sign != 0 => terms.insert(i, (m, c.saturating_mul(sign))),
                Err(_) => {}
            }
        }
        Dim { terms }
    }

    /// The value for given sizes of the symbols; `None` when it is negative,
    /// overflows or a symbol has no size.
    pub fn eval(&self, sizes: &[usize]) -> Option<usize> {
        usize::try_from(self.eval_signed(sizes)?).ok()
    }

    /// The value for given sizes of the symbols, which may be negative; `None` when
    /// it overflows or a symbol has no size.
    pub fn eval_signed(&self, sizes: &[usize]) -> Option<i64> {
        let mut sum = 0i64;
        for &(m, c) in &self.terms {
            let mut t = c;
            for i in 0..MAX_SYMBOLS {
                for _ in 0..(m >> (4 * i)) & 15 {
                    t = t.checked_mul(i64::try_from(*sizes.get(i)?).ok()?)?;
                }
            }
            sum = sum.checked_add(t)?;
        }
        Some(sum)
    }

    /// The terms: a coefficient and the power of each symbol.
    pub fn terms(&self) -> impl Iterator<Item = (i64, [u8; MAX_SYMBOLS])> + '_ {
        self.terms.iter().map(|&(m, c)| (c, std::array::from_fn(|i| ((m >> (4 * i)) & 15) as u8)))
    }

    /// Prints with the graph's names for its symbols.
    pub fn display<'a>(&'a self, names: &'a [String]) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.write(f, names))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
        if self.terms.is_empty() {
            return write!(f, "0");
        }
        // Highest monomial first, the constant last, as mathematicians write.
        for (k, &(m, c)) in self.terms.iter().rev().enumerate() {
            match (k, c < 0) {
                (0, true) => write!(f, "-")?,
                (0, false) => {}
                (_, true) => write!(f, "-")?,
                (_, false) => write!(f, "+")?,
            }
            let a = c.unsigned_abs();
            let mut first = true;
            if a != 1 || m == 0 {
                write!(f, "{a}")?;
                first = false;
            }
            for i in 0..MAX_SYMBOLS {
                for _ in 0..(m >> (4 * i)) & 15 {
                    if !first {
                        write!(f, "*")?;
                    }
                    first = false;
                    match names.get(i) {
                        Some(n) => write!(f, "{n}")?,
                        None => write!(f, "s{i}")?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Parses what [`Dim::display`] prints.
    pub fn parse(text: &str, names: &[String]) -> Result<Dim, String> {
        let bad = || format!("`{text}` is not an extent");
        let mut total = Dim::constant(0);
        let mut rest = text.trim();
        let mut first = true;
        while !rest.is_empty() {
            let sign = match rest.as_bytes()[0] {
                b'-' => -1,
                b'+' if !first => 1,
                _ if first => 1,
                _ => return Err(bad()),
            };
            if matches!(rest.as_bytes()[0], b'-' | b'+') {
                rest = &rest[1..];
            }
            let end = rest.find(['+', '-']).unwrap_or(rest.len());
            let mut term = Dim::constant(sign);
            for factor in rest[..end].split('*') {
                let factor = factor.trim();
                let d = if let Ok(n) = factor.parse::<i64>() {
                    Dim::constant(n)
                } else {
                    let i = names.iter().position(|n| n == factor).or_else(|| {
                        factor.strip_prefix('s')?.parse().ok().filter(|&i| i < MAX_SYMBOLS)
                    });
                    Dim::symbol(i.ok_or_else(bad)?)
                };
                term = term.checked_times(&d).ok_or_else(bad)?;
            }
            total = total.sum(&term, 1);
            rest = &rest[end..];
            first = false;
        }
        if first { Err(bad()) } else { Ok(total) }
    }

    fn checked_times(&self, o: &Dim) -> Option<Dim> {
        let mut out = Dim::constant(0);
        for &(a, x) in &self.terms {
            for &(b, y) in &o.terms {
                for i in 0..MAX_SYMBOLS {
                    if ((a >> (4 * i)) & 15) + ((b >> (4 * i)) & 15) > 15 {
                        return None;
                    }
                }
                let term = Dim { terms: smallvec![(a + b, x.checked_mul(y)?)] };
                out = out.sum(&term, 1);
            }
        }
        Some(out)
    }
}

impl Extent for Dim {
    fn show(&self, names: &[String]) -> String {
        self.display(names).to_string()
    }
    fn of(n: usize) -> Dim {
        Dim::constant(i64::try_from(n).unwrap_or(i64::MAX))
    }
    fn known(&self) -> Option<usize> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(0, c)] => usize::try_from(*c).ok(),
            _ => None,
        }
    }
    fn plus(&self, o: &Dim) -> Dim {
        self.sum(o, 1)
    }
    fn times(&self, o: &Dim) -> Dim {
        self.checked_times(o).expect("the degree or coefficient of an extent is too large")
    }
    fn minus(&self, o: &Dim) -> Option<Dim> {
        let d = self.sum(o, -1);
        let negative = matches!(d.terms.as_slice(), [(0, c)] if *c < 0);
        (!negative).then_some(d)
    }
    fn exact_div(&self, o: &Dim) -> Option<Dim> {
        // Long division by the leading term; exact or nothing.
        let &(lead, lc) = o.terms.last()?;
        let mut rest = self.clone();
        let mut quotient = Dim::constant(0);
        while let Some(&(m, c)) = rest.terms.last() {
            let divides = (0..MAX_SYMBOLS).all(|i| (m >> (4 * i)) & 15 >= (lead >> (4 * i)) & 15)
                && c % lc == 0;
            if !divides {
                return None;
            }
            let q = Dim { terms: smallvec![(m - lead, c / lc)] };
            rest = rest.sum(&q.checked_times(o)?, -1);
            quotient = quotient.sum(&q, 1);
        }
        Some(quotient)
    }
    fn floor_div(&self, n: usize) -> Option<Dim> {
        let n = i64::try_from(n).ok().filter(|&n| n > 0)?;
        let mut out = self.clone();
        for (m, c) in &mut out.terms {
            if *m != 0 && *c % n != 0 {
                return None;
            }
            *c = c.div_euclid(n);
        }
        out.terms.retain(|t| t.1 != 0);
        Some(out)
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::of(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &[])
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &[])
    }
}

/// Highest power of a symbol in the number of elements of a shape that comes from
/// text, so that what ops make of two such shapes is still an extent.
const MOST_POWER: u8 = 7;

/// The number of elements of a shape that comes from text; `None` where it is not
/// known to be one that memory can hold.
pub fn checked_count(shape: &[Dim]) -> Option<Dim> {
    let n = shape.iter().try_fold(Dim::of(1), |n, d| n.checked_times(d))?;
    let fits = n.terms().all(|(c, powers)| {
        c.unsigned_abs() <= isize::MAX as u64 / 16 && powers.iter().all(|&p| p <= MOST_POWER)
    });
    fits.then_some(n)
}

/// The number of elements of a shape.
pub fn count<D: Extent>(shape: &[D]) -> D {
    shape.iter().fold(D::of(1), |n, d| n.times(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn n() -> Dim {
        Dim::symbol(0)
    }
    fn k(v: usize) -> Dim {
        Dim::of(v)
    }

    #[test]
    fn arithmetic() {
        let d = n().times(&k(3)).plus(&k(5));
        assert_eq!(d.to_string(), "3*s0+5");
        assert_eq!(d.eval(&[4]), Some(17));
        assert_eq!(d.eval(&[]), None);
        assert_eq!(n().times(&k(784)).exact_div(&k(28)), Some(n().times(&k(28))));
        assert_eq!(n().times(&k(784)).exact_div(&n()), Some(k(784)));
        assert_eq!(d.exact_div(&k(3)), None);
        assert_eq!(k(12).exact_div(&k(0)), None);
        assert_eq!(n().times(&k(4)).plus(&k(3)).floor_div(2), Some(n().times(&k(2)).plus(&k(1))));
        assert_eq!(n().floor_div(2), None);
        assert_eq!(k(2).minus(&k(3)), None);
        assert_eq!(n().minus(&n()), Some(k(0)));
    }

    #[test]
    fn text() {
        let names = ["N".to_string(), "T".to_string()];
        for t in ["0", "7", "N", "3*N+5", "N*T", "2*N*T*T-4", "-N+3"] {
            let d = Dim::parse(t, &names).unwrap();
            assert_eq!(Dim::parse(&d.display(&names).to_string(), &names).unwrap(), d, "{t}");
        }
        assert_eq!(Dim::parse("T*N+1", &names).unwrap().display(&names).to_string(), "N*T+1");
        for t in ["", "M", "3**", "N N", "+", "99999999999999999999"] {
            assert!(Dim::parse(t, &names).is_err(), "{t}");
        }
    }

    proptest! {
        #[test]
        fn polynomials_follow_numbers(a in 0i64..9, b in 0i64..9, c in 0i64..9, s in 1usize..20) {
            let p = Dim::affine(a, b, 0);
            let q = Dim::affine(c, 1, 0);
            let (pv, qv) = (p.eval(&[s]).unwrap(), q.eval(&[s]).unwrap());
            prop_assert_eq!(p.plus(&q).eval(&[s]), Some(pv + qv));
            prop_assert_eq!(p.times(&q).eval(&[s]), Some(pv * qv));
            prop_assert_eq!(p.times(&q).exact_div(&q), Some(p.clone()));
            if let Some(h) = p.floor_div(3) {
                prop_assert_eq!(h.eval(&[s]), Some(pv / 3));
            }
        }
    }
}
