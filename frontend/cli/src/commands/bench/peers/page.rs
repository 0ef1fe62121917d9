//! The comparison as a page: for each case, how many times Sinter's time each engine
//! takes, with the interval that noise leaves.

use super::{Compared, Comparison, Run, time, verdict};
use anyhow::Context;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Writes the page.
pub fn write(all: &Comparison, path: &Path) -> anyhow::Result<()> {
    let page = page(all)?;
    sinter_runtime::file::write_atomic(path, |f| f.write_all(page.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

fn page(all: &Comparison) -> Result<String, std::fmt::Error> {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Sinter beside its peers</title><style>{}</style></head><body><main>\
         <h1>Sinter beside its peers</h1><p>{}</p>",
        include_str!("page.css"),
        escape(&all.overall()),
    );
    write!(
        out,
        "<p class=\"soft\">{} Bars are medians over rounds, lines the interval of 95 %. The mark \
         at 1 is Sinter.</p>",
        escape(&all.conditions()),
    )?;
    for c in &all.cases {
        case(&mut out, c, all.precision)?;
    }
    out.push_str("</main></body></html>\n");
    Ok(out)
}

fn case(out: &mut String, c: &Compared, precision: &str) -> std::fmt::Result {
    write!(out, "<section><h2>{}</h2>", escape(&c.case))?;
    let Some(ours) = c.ours() else {
        for (_, why) in &c.without {
            write!(out, "<p class=\"lost\">{}</p>", escape(why))?;
        }
        return out.write_str("</section>");
    };
    // Times of Sinter's: the longest bar takes the whole width.
    let of = |r: &Run| r.ratio.map_or(1.0, |e| e.high.max(e.value));
    let most = c.runs.iter().map(of).fold(1.0, f64::max) * 1.02;
    let percent = |v: f64| 100.0 * v / most;
    let fastest = c.fastest(precision).map(|r| r.engine.as_str());
    out.push_str("<table>");
    for r in &c.runs {
        let one = r.time.low / ours.time.value..r.time.high / ours.time.value;
        let (value, low, high) = match r.ratio {
            Some(e) => (e.value, e.low, e.high),
            None => (1.0, one.start, one.end),
        };
        let class = match r.ratio {
            None => "ours",
            Some(e) if e.high < 1.0 => "ahead",
            Some(e) if !e.differs() => "even",
            Some(_) => "behind",
        };
        write!(
            out,
            "<tr{}><th>{}</th><td class=\"bar\"><div class=\"{class}\" style=\"width:{:.2}%\"></div>\
             <i style=\"left:{:.2}%;width:{:.2}%\"></i><b style=\"left:{:.2}%\"></b></td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>",
            if fastest == Some(&r.engine) { " class=\"fastest\"" } else { "" },
            escape(&r.engine),
            percent(value),
            percent(low),
            percent(high.min(most) - low),
            percent(1.0),
            time(r.time.value),
            r.ratio.as_ref().map_or(String::new(), verdict),
            r.compile_ms.map_or(String::new(), |t| format!("compiled in {}", time(t))),
        )?;
    }
    for (engine, why) in &c.without {
        write!(
            out,
            "<tr class=\"soft\"><th>{}</th><td colspan=\"4\">{}</td></tr>",
            escape(engine),
            escape(why)
        )?;
    }
    out.write_str("</table></section>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
