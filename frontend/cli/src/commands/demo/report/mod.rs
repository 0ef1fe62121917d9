//! `report.html`: one file that needs nothing else.

mod charts;
mod digits;

use super::data::Data;
use super::table::{COLUMNS, Row};
use super::train::Trainer;
use anyhow::Context;
use charts::Chart;
use digits::Guess;
use sinter::data::Dataset;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Mistakes and other images shown.
const SHOWN: usize = 24;

/// What the report tells of.
pub struct Report<'a> {
    /// The data.
    pub data: &'a Data,
    /// The run.
    pub training: &'a Trainer,
    /// Log-probabilities [N, classes] of the test images.
    pub log_probs: &'a [f32],
    /// The comparison.
    pub rows: &'a [Row],
    /// How far each artifact is from eager execution, by name.
    pub errors: &'a [(&'a str, f64)],
    /// The graph before and after fusion, as SVG.
    pub graphs: [&'a str; 2],
    /// What was set and where it ran: name and value.
    pub settings: &'a [(&'a str, String)],
}

impl Report<'_> {
    /// Writes the file.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let page = self.page()?;
        sinter_runtime::file::write_atomic(path, |f| f.write_all(page.as_bytes()))
            .with_context(|| format!("writing {}", path.display()))
    }

    fn page(&self) -> anyhow::Result<String> {
        let classes = self.data.classes();
        let guesses = digits::guesses(self.log_probs, classes, &self.data.test);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Sinter: from eager to compiled</title><style>{}</style></head><body><main>\
             <h1>From eager to compiled</h1>\
             <p class=\"soft\">A convolutional network, trained define-by-run, compiled to one file, \
             run by the runtime alone.</p>",
            include_str!("style.css")
        );
        self.tiles(&mut out, &guesses)?;
        out.push_str("<h2>Training</h2><div class=\"grid\">");
        self.curves(&mut out)?;
        out.push_str("</div><h2>Eager against compiled</h2>");
        self.comparison(&mut out)?;
        let worst = digits::worst(&guesses);
        write!(
            out,
            "<h2>What it gets wrong</h2><p class=\"note\">{} of {} test images, the worst first: what \
             it sees, for what it is. The columns are the probabilities of the classes, in order.</p>{}",
            worst.len(),
            guesses.len(),
            digits::gallery(worst.into_iter().take(SHOWN), &self.data.test)?,
        )?;
        out.push_str("<h2>Which classes it confuses</h2>");
        confusion(&mut out, &guesses, classes)?;
        write!(
            out,
            "<h2>The first test images</h2>{}",
            digits::gallery(guesses.iter().take(SHOWN), &self.data.test)?
        )?;
        let [before, after] = self.graphs;
        write!(
            out,
            "<h2>The graph</h2><div class=\"grid\">\
             <div class=\"card\"><h3>As traced</h3><div class=\"graph\">{before}</div></div>\
             <div class=\"card\"><h3>After fusion</h3><div class=\"graph\">{after}</div></div></div>\
             <h2>Settings and machine</h2><div class=\"card scroll\"><table class=\"settings\">"
        )?;
        for (name, value) in self.settings {
            write!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value))?;
        }
        out.push_str("</table></div></main></body></html>\n");
        Ok(out)
    }

    fn tiles(&self, out: &mut String, guesses: &[Guess]) -> anyhow::Result<()> {
        let right = guesses.iter().filter(|g| g.guess == g.truth).count();
        let h = &self.training.history;
        let [eager, .., fused] = self.rows else { return Ok(()) };
        let speedup =
            eager.figures.latency[0].as_secs_f64() / fused.figures.latency[0].as_secs_f64();
        let trained = self.data.train.len() as f64 * self.training.settings.epochs as f64;
        let worst = self.errors.iter().map(|e| e.1).fold(0.0, f64::max);
        let tiles = [
            (percent(right as f64 / guesses.len() as f64), "test accuracy".to_string()),
            (
                format!("{:.0} s", h.seconds),
                format!("training, {:.0} images/s", trained / h.seconds),
            ),
            (
                format!("{:.3} ms", fused.figures.latency[0].as_secs_f64() * 1e3),
                format!("an image, compiled: {speedup:.1} times as fast as eager"),
            ),
            (format!("{:.0}", fused.figures.rate()), "images/s, compiled, batch 64".to_string()),
            (error(worst), "largest relative error of the artifacts".to_string()),
        ];
        out.push_str("<div class=\"tiles\">");
        for (value, name) in tiles {
            write!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>")?;
        }
        out.push_str("</div>");
        Ok(())
    }

    fn curves(&self, out: &mut String) -> anyhow::Result<()> {
        let h = &self.training.history;
        let numbers = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let percents = |v: &[f32]| v.iter().map(|&x| f64::from(x) * 100.0).collect::<Vec<f64>>();
        let epoch = self.training.steps_per_epoch() as f64;
        let ends = || (1..).map(|e| f64::from(e) * epoch).zip(&h.tests);
        let losses: Vec<_> = ends().map(|(x, t)| (x, t.loss)).collect();
        let accuracies: Vec<_> = ends().map(|(x, t)| (x, t.accuracy * 100.0)).collect();
        let charts = [
            ("Loss", numbers(&h.loss), losses, true, true),
            ("Accuracy in percent", percents(&h.accuracy), accuracies, true, false),
            ("Learning rate", self.training.rates(), vec![], false, false),
        ];
        for (name, values, marks, smooth, log) in charts {
            let svg = Chart { name, values: &values, smooth, log, marks: &marks }.svg()?;
            let dots = if marks.is_empty() { "" } else { "; dots: the test images" };
            let means = if smooth {
                " <span class=\"note\">of each batch and running mean"
            } else {
                "<span>"
            };
            write!(out, "<div class=\"card\"><h3>{name}{means}{dots}</span></h3>{svg}</div>")?;
        }
        Ok(())
    }

    fn comparison(&self, out: &mut String) -> anyhow::Result<()> {
        out.push_str("<div class=\"card scroll\"><table><tr><th></th>");
        for c in &COLUMNS {
            write!(out, "<th>{}</th>", c.name)?;
        }
        out.push_str("</tr>");
        for r in self.rows {
            write!(out, "<tr><td>{}</td>", r.name)?;
            for c in &COLUMNS {
                write!(out, "<td>{}</td>", c.text(r))?;
            }
            out.push_str("</tr>");
        }
        let errors: Vec<String> =
            self.errors.iter().map(|(name, e)| format!("{name} {}", error(*e))).collect();
        write!(
            out,
            "</table></div><p class=\"note\">Medians of runs in fresh processes; memory is the peak of \
             the whole process. Every output for the {} test images was compared with eager execution; \
             the largest difference, relative to the largest output: {}.</p>\
             <div class=\"grid\" style=\"margin-top:1rem\">",
            self.data.test.len(),
            errors.join(", ")
        )?;
        for c in &COLUMNS {
            let values: Vec<(&Row, f64)> =
                self.rows.iter().filter_map(|r| Some((r, (c.value)(r)?))).collect();
            let most = values.iter().map(|v| v.1).fold(0.0, f64::max);
            let best = values.iter().map(|v| v.1).reduce(if c.more { f64::max } else { f64::min });
            let hint = if c.more { "more is better" } else { "less is better" };
            write!(
                out,
                "<div class=\"card\"><h3>{} <span class=\"note\">{hint}</span></h3><div class=\"bars\">",
                c.name
            )?;
            for (r, v) in values {
                let kind = if Some(v) == best { " class=\"best\"" } else { "" };
                let width = v / most * 100.0;
                let text = (c.show)(v);
                write!(
                    out,
                    "<span>{}</span><i{kind} style=\"width:{width:.1}%\"></i><span>{text}</span>",
                    r.name
                )?;
            }
            out.push_str("</div></div>");
        }
        out.push_str("</div>");
        Ok(())
    }
}

/// The matrix of truth (rows) and guess (columns).
fn confusion(out: &mut String, guesses: &[Guess], classes: usize) -> anyhow::Result<()> {
    let mut counts = vec![vec![0u32; classes]; classes];
    for g in guesses {
        counts[g.truth][g.guess] += 1;
    }
    let most = |right: bool| {
        let all = counts.iter().enumerate().flat_map(|(t, row)| {
            row.iter().enumerate().filter(move |(g, _)| (*g == t) == right).map(|(_, &n)| n)
        });
        f64::from(all.max().unwrap_or(0).max(1))
    };
    let (right, wrong) = (most(true), most(false));
    out.push_str(
        "<p class=\"note\">Rows: what it is. Columns: what the network says. Shades of right and \
         wrong each have their own scale.</p><div class=\"card scroll\"><table class=\"confusion\"><tr><th></th>",
    );
    for g in 0..classes {
        write!(out, "<th>{g}</th>")?;
    }
    out.push_str("</tr>");
    for (t, row) in counts.iter().enumerate() {
        write!(out, "<tr><th>{t}</th>")?;
        for (g, &n) in row.iter().enumerate() {
            let (kind, most) = if g == t { ("right", right) } else { ("wrong", wrong) };
            let share = f64::from(n) / most;
            let text = if n == 0 { String::new() } else { n.to_string() };
            write!(out, "<td class=\"{kind}\" style=\"--share:{share:.3}\">{text}</td>")?;
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    Ok(())
}

fn percent(p: f64) -> String {
    format!("{:.2} %", p * 100.0)
}

fn error(e: f64) -> String {
    if e == 0.0 { "none".to_string() } else { format!("{e:.1e}") }
}

/// Text that HTML takes as text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
