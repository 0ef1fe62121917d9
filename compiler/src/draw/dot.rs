//! DOT, the language of Graphviz.

use super::{Picture, Sort, Steps};
use crate::graph::Graph;

/// A graph in DOT. With `steps`, ops of one step share a box.
pub fn dot(g: &Graph, steps: &Steps) -> String {
    let picture = Picture::of(g, steps);
    let mut out = format!("digraph {} {{\n", quoted(&g.name));
    out += "  node [shape=plain, fontname=\"monospace\", fontsize=11];\n";
    out += "  edge [fontname=\"monospace\", fontsize=9, color=\"#64748b\"];\n";
    for (i, part) in picture.parts.iter().enumerate() {
        let mut rows = String::new();
        if let Some(t) = &part.title {
            rows += &format!("<tr><td><font point-size=\"9\">{}</font></td></tr>", escape(t));
        }
        for l in &part.lines {
            let (fill, edge) = l.sort.colours();
            let mut text = format!("<b>{}</b>", escape(&l.name));
            for n in &l.notes {
                text += &format!("<br/><font point-size=\"9\">{}</font>", escape(n));
            }
            rows += &format!("<tr><td bgcolor=\"{fill}\" color=\"{edge}\">{text}</td></tr>");
        }
        let round = part.lines.iter().all(|l| l.sort == Sort::Port);
        let style = if round { " style=\"rounded\"" } else { "" };
        out += &format!(
            "  n{i} [label=<<table border=\"1\" cellborder=\"0\" cellspacing=\"2\" color=\"#64748b\"{style}>{rows}</table>>];\n"
        );
    }
    for (from, to, what) in &picture.arrows {
        out += &format!("  n{from} -> n{to} [label={}];\n", quoted(what));
    }
    out + "}\n"
}

fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{text}\"")
}

/// Text inside markup.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            // No control character may stand in XML.
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
