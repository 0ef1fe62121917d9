//! SVG, laid out in layers by `layout-rs`.

use super::dot::escape;
use super::{Line, Part, Picture, Sort, Steps};
use crate::graph::Graph;
use layout::core::base::Orientation;
use layout::core::format::{ClipHandle, RenderBackend};
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;
use std::fmt::Write;
use thiserror::Error;

/// Why a graph is not drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DrawError {
    /// Laying it out would take too long, and nobody could read it.
    #[error("{boxes} boxes are too many to draw (at most {MOST}); write DOT for Graphviz instead")]
    TooLarge {
        /// How many it has.
        boxes: usize,
    },
}

/// Layout takes time with the square of this.
const MOST: usize = 600;

/// Width of a character at the sizes of names, and of everything else.
const NAME: f64 = 7.9;
const SMALL: f64 = 6.1;
const NAME_HEIGHT: f64 = 20.0;
const SMALL_HEIGHT: f64 = 14.0;
const PAD: f64 = 8.0;

const STYLE: &str = "\
.sg text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:10px;\
fill:#475569}\
.sg .n{font-size:13px;font-weight:600;fill:#0f172a}\
.sg .t{fill:#64748b}\
.sg .b{fill:#fff;stroke:#94a3b8}\
.sg .e{fill:none;stroke:#94a3b8;stroke-width:1.3}\
.sg .l{paint-order:stroke;stroke:#fff;stroke-width:4px;text-anchor:middle}";

/// A graph as an SVG document that can stand alone or inside HTML. With `steps`, ops
/// of one step share a box.
///
/// # Errors
/// When the graph is too large to draw.
pub fn svg(g: &Graph, steps: &Steps) -> Result<String, DrawError> {
    let picture = Picture::of(g, steps);
    if picture.parts.len() > MOST {
        return Err(DrawError::TooLarge { boxes: picture.parts.len() });
    }
    let mut visual = VisualGraph::new(Orientation::TopToBottom);
    let handles: Vec<_> = picture
        .parts
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let mut element = Element::create_with_properties(
                ShapeKind::new_box(""),
                StyleAttr::simple(),
                Orientation::TopToBottom,
                size(p),
                i.to_string(),
            );
            // What the layout keeps free around a box.
            element.pos = layout::core::geometry::Position::new(
                Point::zero(),
                size(p),
                Point::zero(),
                Point::new(28.0, 22.0),
            );
            visual.add_node(element)
        })
        .collect();
    for (from, to, what) in &picture.arrows {
        let mut look = StyleAttr::simple();
        // The layout takes a character to be as wide as the font is high.
        look.font_size = SMALL as usize;
        let arrow = Arrow { text: what.clone(), look, ..Arrow::default() };
        visual.add_edge(arrow, handles[*from], handles[*to]);
    }
    let mut canvas = Canvas { parts: &picture.parts, ..Canvas::default() };
    visual.do_it(false, false, false, &mut canvas);
    Ok(canvas.document(&g.name))
}

/// How large a box must be.
fn size(p: &Part) -> Point {
    let title = p.title.as_ref().map_or(0.0, |t| t.chars().count() as f64 * SMALL);
    let width = |l: &Line| {
        let notes = l.notes.iter().map(|n| n.chars().count() as f64 * SMALL);
        notes.fold(l.name.chars().count() as f64 * NAME, f64::max)
    };
    let widest = p.lines.iter().map(width).fold(title, f64::max);
    let title = if p.title.is_some() { SMALL_HEIGHT + 2.0 } else { 0.0 };
    let height: f64 = p.lines.iter().map(line_height).sum();
    let frame = frame(p);
    Point::new(widest + 2.0 * PAD + 2.0 * frame, title + height + 2.0 * frame)
}

/// The space between a part's edge and its lines: an op alone is its own box.
fn frame(p: &Part) -> f64 {
    if p.title.is_some() { PAD } else { 0.0 }
}

fn line_height(l: &Line) -> f64 {
    NAME_HEIGHT + l.notes.len() as f64 * SMALL_HEIGHT + 4.0
}

/// Takes what the layout has placed.
#[derive(Default)]
struct Canvas<'a> {
    parts: &'a [Part],
    /// Arrows lie under boxes, labels above both.
    arrows: String,
    boxes: String,
    labels: String,
    low: (f64, f64),
    high: (f64, f64),
}

impl Canvas<'_> {
    fn cover(&mut self, p: Point) {
        self.low = (self.low.0.min(p.x), self.low.1.min(p.y));
        self.high = (self.high.0.max(p.x), self.high.1.max(p.y));
    }

    /// A box with its lines, its top left corner at `at`.
    fn part(&mut self, p: &Part, at: Point, size: Point) {
        let out = &mut self.boxes;
        let frame = frame(p);
        if p.title.is_some() {
            put(
                out,
                format_args!(
                    "<rect class=\"b\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"7\"/>",
                    at.x, at.y, size.x, size.y
                ),
            );
        }
        let mut y = at.y + frame;
        if let Some(t) = &p.title {
            y += SMALL_HEIGHT + 2.0;
            let (x, y) = (at.x + PAD, y - 5.0);
            put(
                out,
                format_args!("<text class=\"t\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(t)),
            );
        }
        for l in &p.lines {
            let (fill, edge) = l.sort.colours();
            let height = line_height(l);
            let radius = if l.sort == Sort::Port { height / 2.0 } else { 4.0 };
            put(
                out,
                format_args!(
                    "<g><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 rx=\"{radius:.0}\" fill=\"{fill}\" stroke=\"{edge}\"/>",
                    escape(&l.tooltip),
                    at.x + frame,
                    y + 1.0,
                    size.x - 2.0 * frame,
                    height - 2.0
                ),
            );
            let x = at.x + frame + PAD;
            put(
                out,
                format_args!(
                    "<text class=\"n\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                    y + NAME_HEIGHT - 4.0,
                    escape(&l.name)
                ),
            );
            for (i, n) in l.notes.iter().enumerate() {
                put(
                    out,
                    format_args!(
                        "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                        y + NAME_HEIGHT + (i as f64 + 0.7) * SMALL_HEIGHT,
                        escape(n)
                    ),
                );
            }
            out.push_str("</g>\n");
            y += height;
        }
    }

    fn document(&self, name: &str) -> String {
        let (x, y) = (self.low.0 - 10.0, self.low.1 - 10.0);
        let (w, h) = (self.high.0 - x + 10.0, self.high.1 - y + 10.0);
        format!(
            "<svg class=\"sg\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{x:.0} {y:.0} {w:.0} {h:.0}\" \
             width=\"{w:.0}\" height=\"{h:.0}\" role=\"img\"><title>{}</title>\n<style>{STYLE}</style>\n\
             <defs><marker id=\"sg-head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" \
             markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#94a3b8\"/></marker></defs>\n\
             {}{}{}</svg>\n",
            escape(name),
            self.arrows,
            self.boxes,
            self.labels
        )
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("writing to a string does not fail");
}

impl RenderBackend for Canvas<'_> {
    fn draw_rect(
        &mut self,
        xy: Point,
        size: Point,
        _look: &StyleAttr,
        properties: Option<String>,
        _clip: Option<ClipHandle>,
    ) {
        let parts = self.parts;
        if let Some(p) = properties.and_then(|i| parts.get(i.parse::<usize>().ok()?)) {
            self.cover(xy);
            self.cover(xy.add(size));
            self.part(p, xy, size);
        }
    }

    fn draw_text(&mut self, xy: Point, text: &str, _look: &StyleAttr) {
        let lines: Vec<&str> = text.lines().collect();
        for (i, l) in lines.iter().enumerate() {
            let half = l.chars().count() as f64 * SMALL / 2.0;
            let y = xy.y + (i as f64 - (lines.len() as f64 - 1.0) / 2.0) * 12.0 + 3.5;
            self.cover(Point::new(xy.x - half, y - 10.0));
            self.cover(Point::new(xy.x + half, y));
            put(
                &mut self.labels,
                format_args!(
                    "<text class=\"l\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>\n",
                    xy.x,
                    escape(l)
                ),
            );
        }
    }

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        _dashed: bool,
        _head: (bool, bool),
        _look: &StyleAttr,
        _properties: Option<String>,
        _text: &str,
    ) {
        let [(start, leave), (arrive, end), rest @ ..] = path else { return };
        let mut d = format!(
            "M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}",
            start.x, start.y, leave.x, leave.y, arrive.x, arrive.y, end.x, end.y
        );
        for (arrive, end) in rest {
            d += &format!("S{:.1} {:.1} {:.1} {:.1}", arrive.x, arrive.y, end.x, end.y);
        }
        for p in path {
            self.cover(p.0);
            self.cover(p.1);
        }
        put(
            &mut self.arrows,
            format_args!("<path class=\"e\" d=\"{d}\" marker-end=\"url(#sg-head)\"/>\n"),
        );
    }

    // Boxes and arrows are all there is.
    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
