//! Sums of products by index letters.

use super::{Tensor, apply};
use sinter_runtime::op::Axes;
use sinter_runtime::{Op, Shape};
use std::collections::BTreeMap;

/// An index: a letter, or a dimension that the dots stand for, counted from the right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Dots(usize),
    Letter(char),
}

/// A factor: a tensor with a label for each dimension.
#[derive(Clone)]
struct Term {
    tensor: Tensor,
    labels: Vec<Label>,
}

/// Sums of products of tensors, written with a letter for each index, in NumPy's
/// grammar: letters that the result lacks are summed over; a letter twice in one operand
/// is its diagonal; `...` stands for any number of dimensions, which broadcast; without
/// an arrow the result has the dots and, in alphabetical order, the letters that occur
/// once.
///
/// Several operands are contracted in pairs: in the order that takes the fewest
/// multiplications (up to eight operands; beyond, the cheapest pair next).
///
/// ```
/// use sinter::{arange, einsum};
/// let a = arange(0, 6, 1).reshape([2, 3]);
/// assert_eq!(einsum("ij->ji", &[&a]).shape(), [3, 2]);
/// assert_eq!(einsum("ij,kj->ik", &[&a, &a]).to_vec::<i64>(), [5, 14, 14, 50]);
/// assert_eq!(einsum("...j->...", &[&a]).to_vec::<i64>(), [3, 12]);
/// ```
///
/// # Panics
/// If the equation is malformed, does not fit the operands, or one letter has two
/// extents.
#[track_caller]
pub fn einsum(equation: &str, operands: &[&Tensor]) -> Tensor {
    let (inputs, output) = parse(equation, operands);
    let output = output.unwrap_or_else(|| implicit(&inputs));
    let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
    for (labels, t) in inputs.iter().zip(operands) {
        for (l, &n) in labels.iter().zip(t.shape()) {
            let size = sizes.entry(*l).or_insert(n);
            if *size == 1 {
                *size = n;
            } else if n != 1 && n != *size {
                panic!("einsum: {equation:?}: index {} has extents {size} and {n}", name(*l));
            }
        }
    }
    for (i, l) in output.iter().enumerate() {
        if output[..i].contains(l) {
            panic!("einsum: {equation:?}: index {} occurs twice in the result", name(*l));
        }
        if !sizes.contains_key(l) {
            panic!("einsum: {equation:?}: index {} of the result is in no operand", name(*l));
        }
    }
    let dtype = operands.iter().skip(1).fold(operands[0].dtype(), |d, t| d.promote(t.dtype()));
    let mut terms = Vec::with_capacity(inputs.len());
    for (labels, t) in inputs.into_iter().zip(operands) {
        terms.push(prepared(t.to_dtype(dtype), labels, &sizes));
    }
    while terms.len() > 1 {
        let (i, j) = next_pair(&terms, &output, &sizes);
        let b = terms.remove(j);
        let a = terms.remove(i);
        let kept = |l: &Label| output.contains(l) || terms.iter().any(|t| t.labels.contains(l));
        let product = contract(&a, &b, kept);
        terms.push(product);
    }
    let last = terms.pop().expect("at least one operand");
    let last = summed(last, |l| output.contains(l));
    // Labels of extent 1 may have been dropped on the way; all others are there.
    let mut shape = Shape::new();
    let mut perm = Axes::new();
    for l in &output {
        match last.labels.iter().position(|x| x == l) {
            Some(d) => {
                perm.push(d);
                shape.push(last.tensor.shape()[d]);
            }
            None => shape.push(1),
        }
    }
    let ordered = apply(Op::Permute { perm }, &[&last.tensor]).reshape(shape);
    let full: Shape = output.iter().map(|l| sizes[l]).collect();
    ordered.broadcast_to(full)
}

fn name(l: Label) -> String {
    match l {
        Label::Letter(c) => format!("`{c}`"),
        Label::Dots(i) => format!("{} from the right of `...`", i + 1),
    }
}

/// The labels of the operands and, after an arrow, of the result.
#[track_caller]
fn parse(equation: &str, operands: &[&Tensor]) -> (Vec<Vec<Label>>, Option<Vec<Label>>) {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != operands.len() {
        panic!(
            "einsum: {equation:?} names {} operand(s), {} are given",
            parts.len(),
            operands.len()
        );
    }
    let mut dots = 0;
    let mut inputs = Vec::with_capacity(parts.len());
    for (part, t) in parts.iter().zip(operands) {
        let letters = part.chars().filter(|c| *c != '.').count();
        let has_dots = part.contains("...");
        if letters > t.rank() || (!has_dots && letters != t.rank()) {
            panic!(
                "einsum: {equation:?}: `{part}` does not fit an operand of shape {:?}",
                t.shape()
            );
        }
        let n = t.rank() - letters;
        dots = dots.max(if has_dots { n } else { 0 });
        inputs.push(labels(equation, part, n));
    }
    // No closure: a panic in one would name its line, not the caller's.
    let Some(right) = right else { return (inputs, None) };
    (inputs, Some(labels(equation, right, dots)))
}

/// The labels of one part, in which dots stand for `n` dimensions.
#[track_caller]
fn labels(equation: &str, part: &str, n: usize) -> Vec<Label> {
    let mut out = Vec::new();
    let (before, after) = match part.split_once("...") {
        Some((b, a)) => (b, Some(a)),
        None => (part, None),
    };
    for piece in [Some(before), after].into_iter().flatten() {
        if let Some(c) = piece.chars().find(|c| !c.is_ascii_alphabetic()) {
            panic!("einsum: {equation:?}: `{c}` in `{part}` is no index");
        }
    }
    out.extend(before.chars().map(Label::Letter));
    if let Some(after) = after {
        out.extend((0..n).rev().map(Label::Dots));
        out.extend(after.chars().map(Label::Letter));
    }
    out
}

/// The result's labels where there is no arrow.
fn implicit(inputs: &[Vec<Label>]) -> Vec<Label> {
    let mut count: BTreeMap<Label, usize> = BTreeMap::new();
    for l in inputs.iter().flatten() {
        *count.entry(*l).or_default() += 1;
    }
    let dots = count.keys().rev().filter(|l| matches!(l, Label::Dots(_)));
    let once = count.iter().filter(|(l, n)| matches!(l, Label::Letter(_)) && **n == 1);
    dots.copied().chain(once.map(|(l, _)| *l)).collect()
}

/// Repeated labels made one, and those dropped that are 1 here but more elsewhere: they
/// broadcast by being absent.
#[track_caller]
fn prepared(tensor: Tensor, labels: Vec<Label>, sizes: &BTreeMap<Label, usize>) -> Term {
    let mut t = Term { tensor, labels };
    let mut d = 0;
    while d < t.labels.len() {
        let l = t.labels[d];
        if t.tensor.shape()[d] == 1 && sizes[&l] != 1 {
            t.tensor = t.tensor.squeeze(d as i64);
            t.labels.remove(d);
            continue;
        }
        d += 1;
    }
    let mut d = 0;
    while d < t.labels.len() {
        let l = t.labels[d];
        match t.labels[d + 1..].iter().position(|x| *x == l) {
            Some(i) => {
                t.tensor = t.tensor.diagonal(0, d as i64, (d + 1 + i) as i64);
                t.labels.remove(d + 1 + i);
                t.labels.remove(d);
                t.labels.push(l);
            }
            None => d += 1,
        }
    }
    t
}

/// Summed over the labels that are not to be kept.
#[track_caller]
fn summed(t: Term, keep: impl Fn(&Label) -> bool) -> Term {
    let gone: Vec<usize> = (0..t.labels.len()).filter(|&d| !keep(&t.labels[d])).collect();
    if gone.is_empty() {
        return t;
    }
    let dtype = t.tensor.dtype();
    // Small integers add up in i64; the result is of the operands' type.
    let tensor = t.tensor.sum_dim(gone, false).to_dtype(dtype);
    Term { tensor, labels: t.labels.into_iter().filter(keep).collect() }
}

/// The product of two factors, summed over what neither the result nor another factor
/// needs: one batched matrix product.
#[track_caller]
fn contract(a: &Term, b: &Term, kept: impl Fn(&Label) -> bool) -> Term {
    // What only one of them has need not wait.
    let a = summed(a.clone(), |l| kept(l) || b.labels.contains(l));
    let b = summed(b.clone(), |l| kept(l) || a.labels.contains(l));
    let pick = |t: &Term, f: &dyn Fn(&Label) -> bool| -> Vec<Label> {
        t.labels.iter().copied().filter(|l| f(l)).collect()
    };
    let batch = pick(&a, &|l| b.labels.contains(l) && kept(l));
    let inner = pick(&a, &|l| b.labels.contains(l) && !kept(l));
    let rows = pick(&a, &|l| !b.labels.contains(l));
    let cols = pick(&b, &|l| !a.labels.contains(l));
    let size = |t: &Term, ls: &[Label]| -> Vec<usize> {
        ls.iter()
            .map(|l| t.tensor.shape()[t.labels.iter().position(|x| x == l).expect("its own")])
            .collect()
    };
    let arranged = |t: &Term, groups: [&[Label]; 3]| -> Tensor {
        let perm: Axes = groups
            .iter()
            .flat_map(|g| g.iter())
            .map(|l| t.labels.iter().position(|x| x == l).expect("its own"))
            .collect();
        let shape: Shape = groups.iter().map(|g| size(t, g).iter().product::<usize>()).collect();
        apply(Op::Permute { perm }, &[&t.tensor]).reshape(shape)
    };
    let mut shape: Shape = size(&a, &batch).into();
    shape.extend(size(&a, &rows));
    shape.extend(size(&b, &cols));
    let product = if inner.is_empty() {
        arranged(&a, [&batch, &rows, &[]]) * arranged(&b, [&batch, &[], &cols])
    } else {
        let x = arranged(&a, [&batch, &rows, &inner]);
        let y = arranged(&b, [&batch, &inner, &cols]);
        if x.dtype() == sinter_runtime::DType::Bool {
            (x.int().matmul(&y.int())).to_bool()
        } else {
            x.matmul(&y)
        }
    };
    let labels = batch.into_iter().chain(rows).chain(cols).collect();
    Term { tensor: product.reshape(shape), labels }
}

/// The multiplications of contracting what has these labels.
fn work(labels: u64, sizes: &[f64]) -> f64 {
    sizes.iter().enumerate().filter(|(i, _)| labels >> i & 1 == 1).map(|(_, n)| n).product()
}

/// Operands up to which the best order is searched for.
const SEARCHED: usize = 8;

/// Which two factors to contract next.
fn next_pair(terms: &[Term], output: &[Label], sizes: &BTreeMap<Label, usize>) -> (usize, usize) {
    let n = terms.len();
    if n == 2 {
        return (0, 1);
    }
    let all: Vec<Label> = sizes.keys().copied().collect();
    let extents: Vec<f64> = sizes.values().map(|&n| n as f64).collect();
    if all.len() > 64 {
        return (0, 1);
    }
    let set = |labels: &[Label]| -> u64 {
        labels.iter().filter_map(|l| all.binary_search(l).ok()).fold(0, |s, i| s | 1 << i)
    };
    let own: Vec<u64> = terms.iter().map(|t| set(&t.labels)).collect();
    let result = set(output);
    if n > SEARCHED {
        let cost = |&(i, j): &(usize, usize)| work(own[i] | own[j], &extents);
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        return pairs.min_by(|x, y| cost(x).total_cmp(&cost(y))).expect("at least two factors");
    }
    // Dynamic programming over sets of factors: the labels that a set's product has do not
    // depend on the order in which it was made.
    let full = (1usize << n) - 1;
    let needed =
        |of: usize| -> u64 { (0..n).filter(|i| of >> i & 1 == 0).fold(result, |s, i| s | own[i]) };
    let has = |of: usize| -> u64 {
        (0..n).filter(|i| of >> i & 1 == 1).fold(0, |s, i| s | own[i]) & needed(of)
    };
    let mut best: Vec<(f64, usize)> = vec![(f64::INFINITY, 0); full + 1];
    for of in 1..=full {
        if of.count_ones() == 1 {
            best[of].0 = 0.0;
            continue;
        }
        let mut part = (of - 1) & of;
        while part > 0 {
            let rest = of & !part;
            if part < rest {
                let cost = best[part].0 + best[rest].0 + work(has(part) | has(rest), &extents);
                if cost < best[of].0 {
                    best[of] = (cost, part);
                }
            }
            part = (part - 1) & of;
        }
    }
    // The innermost pair of the best tree.
    let mut of = full;
    loop {
        let (x, y) = (best[of].1, of & !best[of].1);
        if x.count_ones() == 1 && y.count_ones() == 1 {
            let (i, j) = (x.trailing_zeros() as usize, y.trailing_zeros() as usize);
            return (i.min(j), i.max(j));
        }
        of = if x.count_ones() > 1 { x } else { y };
    }
}
