//! The textual form of a graph: prints, and parses back to the same graph.
//!
//! ```text
//! graph "mlp" {
//!   symbol N in 1..=1024 hint 64
//!   %0 = input "x": f32[N, 784]
//!   %1 = constant "fc.weight": f32[10, 784]
//!   %2 = permute[perm=(1, 0)](%1): f32[784, 10]  ; fc
//!   %3 = matmul[act=none](%0, %2): f32[N, 10]
//!   return %3
//! }
//! ```
//!
//! An output `%n -> %m` is the new value of input `%m`.
//! A use of result `k > 0` of a node is `%n.k`. What follows `;` is a comment:
//! where the node comes from. Constants print without their elements.

use super::{Constant, Graph, Kind, NodeId, Origin, Symbol, Value};
use rustc_hash::FxHashMap;
use sinter_runtime::dim::checked_count;
use sinter_runtime::op::TensorType;
use sinter_runtime::{DType, Dim, Dims, Extent, Op};
use std::fmt::{self, Write};
use thiserror::Error;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.symbol_names();
        writeln!(f, "graph {:?} {{", self.name)?;
        for s in &self.symbols {
            writeln!(f, "  symbol {} in {}..={} hint {}", s.name, s.min, s.max, s.hint)?;
        }
        let numbers = number(self);
        let show = |v: &Value| match v.output {
            0 => format!("%{}", numbers[&v.node]),
            k => format!("%{}.{k}", numbers[&v.node]),
        };
        for id in order(self) {
            let node = self.node(id);
            let mut line = format!("  %{} = ", numbers[&id]);
            match &node.kind {
                Kind::Input { name } => write!(line, "input {name:?}")?,
                Kind::Constant(i) => write!(line, "constant {:?}", self.constants[*i].name)?,
                Kind::Op(op) => {
                    let operands: Vec<String> = self.operands(id).iter().map(show).collect();
                    write!(line, "{}({})", op.text(&names), operands.join(", "))?;
                }
            }
            let types: Vec<String> = node.types.iter().map(|t| t.text(&names)).collect();
            write!(line, ": {}", types.join(", "))?;
            let origin = node.origin.to_string();
            if !origin.is_empty() {
                write!(line, "  ; {origin}")?;
            }
            writeln!(f, "{line}")?;
        }
        let out = |(i, v): (usize, &Value)| match self.updates(i) {
            Some(input) => format!("{} -> %{}", show(v), numbers[&self.inputs()[input]]),
            None => show(v),
        };
        let outs: Vec<String> = self.outputs().iter().enumerate().map(out).collect();
        writeln!(f, "  return {}", outs.join(", "))?;
        writeln!(f, "}}")
    }
}

/// Inputs first, then everything in topological order.
fn order(g: &Graph) -> Vec<NodeId> {
    let rest = g.topological().into_iter().filter(|n| !g.inputs().contains(n));
    g.inputs().iter().copied().chain(rest).collect()
}

/// The constants that print, by their places in [`Graph::constants`], in the order
/// of the text.
pub fn constants(g: &Graph) -> Vec<usize> {
    let constant = |n: NodeId| match g.node(n).kind {
        Kind::Constant(i) => Some(i),
        _ => None,
    };
    order(g).into_iter().filter_map(constant).collect()
}

/// The number each node prints under.
pub fn number(g: &Graph) -> FxHashMap<NodeId, usize> {
    order(g).into_iter().enumerate().map(|(i, n)| (n, i)).collect()
}

/// Text that is no graph.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Parses the textual form. Constants have no elements.
///
/// # Errors
/// The first line that is not understood or breaks a rule.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut g = Graph::new("");
    let mut names: Vec<String> = Vec::new();
    let mut values: Vec<NodeId> = Vec::new();
    let mut state = State::Before;
    for (i, raw) in text.lines().enumerate() {
        let err = |reason: String| ParseError { line: i + 1, reason };
        let line = strip_comment(raw).trim();
        if line.is_empty() {
            continue;
        }
        match state {
            State::Before => {
                let name = line
                    .strip_prefix("graph ")
                    .and_then(|l| l.strip_suffix('{'))
                    .ok_or_else(|| err("expected `graph \"name\" {`".into()))?;
                g.name = unquote(name.trim()).map_err(err)?;
                state = State::Inside;
            }
            State::Inside if line == "}" => return Err(err("there is no `return`".into())),
            State::Inside => {
                if let Some(rest) = line.strip_prefix("symbol ") {
                    let s = symbol(rest).map_err(err)?;
                    names.push(s.name.clone());
                    g.symbols.push(s);
                } else if let Some(rest) = line.strip_prefix("return") {
                    for v in rest.split(',').map(str::trim).filter(|v| !v.is_empty()) {
                        let (v, to) = v.split_once("->").unwrap_or((v, ""));
                        let v = value(v.trim(), &values, &g).map_err(err)?;
                        if to.is_empty() {
                            g.add_output(v);
                            continue;
                        }
                        let to = value(to.trim(), &values, &g).map_err(err)?;
                        let input = g.inputs().iter().position(|n| *n == to.node);
                        let input = input.ok_or_else(|| err("only inputs are updated".into()))?;
                        g.add_update(input, v);
                    }
                    state = State::Returned;
                } else {
                    let n = statement(line, &mut g, &names, &values).map_err(err)?;
                    values.push(n);
                }
            }
            State::Returned if line == "}" => state = State::After,
            State::Returned | State::After => {
                return Err(err(format!("`{line}` after the end of the graph")));
            }
        }
    }
    if matches!(state, State::After) {
        Ok(g)
    } else {
        Err(ParseError { line: text.lines().count(), reason: "the graph does not end".into() })
    }
}

#[derive(Clone, Copy)]
enum State {
    Before,
    Inside,
    Returned,
    After,
}

/// The line without what follows a `;` outside quotes.
fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..i],
            _ => {}
        }
    }
    line
}

/// Undoes Rust's `{:?}` of a string.
fn unquote(text: &str) -> Result<String, String> {
    let bad = || format!("`{text}` is not a quoted name");
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(bad)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next().ok_or_else(bad)? {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '0' => out.push('\0'),
            'u' => {
                let code: String =
                    chars.by_ref().skip_while(|c| *c == '{').take_while(|c| *c != '}').collect();
                let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                out.push(c.ok_or_else(bad)?);
            }
            c @ ('"' | '\'' | '\\') => out.push(c),
            _ => return Err(bad()),
        }
    }
    Ok(out)
}

fn symbol(text: &str) -> Result<Symbol, String> {
    let bad = || format!("`{text}` is not `name in min..=max hint size`");
    let (name, rest) = text.split_once(" in ").ok_or_else(bad)?;
    let (range, hint) = rest.split_once(" hint ").ok_or_else(bad)?;
    let (min, max) = range.split_once("..=").ok_or_else(bad)?;
    let size = |t: &str| t.trim().parse::<usize>().map_err(|_| bad());
    Ok(Symbol {
        name: name.trim().to_string(),
        min: size(min)?,
        max: size(max)?,
        hint: size(hint)?,
    })
}

fn value(text: &str, values: &[NodeId], g: &Graph) -> Result<Value, String> {
    let bad = || format!("`{text}` is not a value defined above");
    let t = text.strip_prefix('%').ok_or_else(bad)?;
    let (n, k) = t.split_once('.').unwrap_or((t, "0"));
    let node = *values.get(n.parse::<usize>().map_err(|_| bad())?).ok_or_else(bad)?;
    let output: u8 = k.parse().map_err(|_| bad())?;
    if output as usize >= g.node(node).types.len() {
        return Err(bad());
    }
    Ok(Value { node, output })
}

/// Parses a type such as `f32[N, 28]`; `names` are those of the symbols.
///
/// # Errors
/// When the text is no type.
pub fn parse_type(text: &str, names: &[String]) -> Result<TensorType<Dim>, String> {
    let bad = || format!("`{text}` is not a type such as f32[2, N]");
    let (dtype, rest) = text.trim().split_once('[').ok_or_else(bad)?;
    let dims = rest.strip_suffix(']').ok_or_else(bad)?;
    let dtype = DType::from_name(dtype).ok_or_else(bad)?;
    let shape = dims
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .map(|d| Dim::parse(d, names))
        .collect::<Result<Dims<Dim>, String>>()?;
    checked_count(&shape).ok_or_else(|| format!("`{text}` has more elements than memory"))?;
    Ok(TensorType { dtype, shape })
}

fn statement(
    line: &str,
    g: &mut Graph,
    names: &[String],
    values: &[NodeId],
) -> Result<NodeId, String> {
    let (left, right) = line.split_once(" = ").ok_or("expected `%n = …`")?;
    let n: usize = left
        .trim()
        .strip_prefix('%')
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("`{left}` is not `%n`"))?;
    if n != values.len() {
        return Err(format!("values are numbered in order: expected %{}", values.len()));
    }
    let right = right.trim();
    if let Some(rest) = right.strip_prefix("input ") {
        let (name, ty) = rest.rsplit_once("\":").ok_or("expected `input \"name\": type`")?;
        let name = unquote(&format!("{}\"", name.trim()))?;
        return Ok(g.add_input(name, parse_type(ty, names)?).node);
    }
    if let Some(rest) = right.strip_prefix("constant ") {
        let (name, ty) = rest.rsplit_once("\":").ok_or("expected `constant \"name\": type`")?;
        let name = unquote(&format!("{}\"", name.trim()))?;
        let ty = parse_type(ty, names)?;
        let shape = ty
            .shape
            .iter()
            .map(Extent::known)
            .collect::<Option<Dims<usize>>>()
            .ok_or("the extents of a constant are numbers")?;
        if g.constants.iter().any(|c| c.name == name) {
            return Err(format!("constant {name:?} is defined twice"));
        }
        g.constants.push(Constant { name, ty: TensorType { dtype: ty.dtype, shape }, data: None });
        return Ok(g.constant_node(g.constants.len() - 1).node);
    }
    // op[attributes](operands): types
    let close = right.rfind("):").ok_or("expected `op(operands): types`")?;
    let (call, types) = (&right[..close], &right[close + 2..]);
    let open = matching_open(call).ok_or("unbalanced parentheses")?;
    let op = Op::parse(call[..open].trim(), names)?;
    let operands = call[open + 1..]
        .split(',')
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .map(|v| value(v, values, g))
        .collect::<Result<Vec<Value>, String>>()?;
    let node = g.add_op(op, &operands, Origin::default()).map_err(|e| e.to_string())?;
    let have: Vec<String> = g.node(node).types.iter().map(|t| t.text(names)).collect();
    let want = split_types(types)
        .into_iter()
        .map(|t| parse_type(t, names).map(|t| t.text(names)))
        .collect::<Result<Vec<_>, _>>()?;
    if have != want {
        return Err(format!("the results are {}, not {}", have.join(", "), want.join(", ")));
    }
    Ok(node)
}

/// The parenthesis that the end of the call closes.
fn matching_open(call: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (i, c) in call.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return Some(i),
            '(' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `f32[2], i64[2, 3]` at the commas outside brackets.
fn split_types(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut depth, mut start) = (0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::verify;

    const TEXT: &str = r#"graph "a \"b\"" {
  symbol N in 1..=64 hint 8
  %0 = input "x": f32[N, 4]
  %1 = constant "w;1": f32[4, 3]
  %2 = matmul[act=none](%0, %1): f32[N, 3]
  %3 = full[value=0.5, dtype=f32, shape=()](): f32[]
  %4 = mul(%2, %3): f32[N, 3]
  %5 = topk[k=2, axis=1, largest=true](%4): f32[N, 2], i64[N, 2]
  %6 = add(%5, %5): f32[N, 2]
  %7 = reshape[shape=(2*N)](%6): f32[2*N]
  return %7, %5.1
}
"#;

    const UPDATE: &str = r#"graph "step" {
  %0 = input "w": f32[4]
  %1 = input "g": f32[4]
  %2 = sub(%0, %1): f32[4]
  return %1, %2 -> %0
}
"#;

    #[test]
    fn prints_what_it_parses() {
        for text in [TEXT, UPDATE] {
            let g = parse(text).unwrap();
            verify(&g).unwrap();
            assert_eq!(g.to_string(), text);
        }
    }

    #[test]
    fn mistakes_name_their_line() {
        let cases = [
            ("", "does not end"),
            ("graph x {", "quoted name"),
            ("graph \"x\" {\n}", "no `return`"),
            ("graph \"x\" {\n  %0 = nope(): f32[]\n", "unknown op"),
            ("graph \"x\" {\n  %1 = input \"a\": f32[]\n", "expected %0"),
            ("graph \"x\" {\n  %0 = input \"a\": f33[]\n", "not a type"),
            ("graph \"x\" {\n  %0 = input \"a\": f32[M]\n", "not an extent"),
            ("graph \"x\" {\n  %0 = exp(%0): f32[]\n", "not a value"),
            (
                "graph \"x\" {\n  %0 = input \"a\": i64[2]\n  %1 = exp(%0): i64[2]\n",
                "does not take i64",
            ),
            (
                "graph \"x\" {\n  %0 = input \"a\": f32[2]\n  %1 = exp(%0): f32[3]\n",
                "the results are",
            ),
            (
                "graph \"x\" {\n  %0 = input \"a\": f32[99999999999, 99999999999]\n",
                "more elements than memory",
            ),
            ("graph \"x\" {\n  return %0\n}", "not a value"),
            ("graph \"x\" {\n  return\n}\nx", "after the end"),
        ];
        for (text, want) in cases {
            let e = parse(text).unwrap_err();
            assert!(e.to_string().contains(want), "{text:?}: {e}");
        }
    }

    #[test]
    fn truncations_are_errors_not_panics() {
        for i in 0..TEXT.len() - 2 {
            if TEXT.is_char_boundary(i) {
                assert!(parse(&TEXT[..i]).is_err(), "{i}");
            }
        }
    }
}
