//! Line charts as SVG whose colours are the page's.

use anyhow::anyhow;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

const SIZE: (u32, u32) = (440, 250);
/// A line has at most so many points; more are averaged.
const POINTS: usize = 600;

/// Stand-ins for the page's colours, replaced in the text of the image.
const COLORS: [(RGBColor, &str, &str); 4] = [
    (RGBColor(1, 1, 1), "#010101", "var(--ink)"),
    (RGBColor(2, 2, 2), "#020202", "var(--line)"),
    (RGBColor(3, 3, 3), "#030303", "var(--faint)"),
    (RGBColor(4, 4, 4), "#040404", "var(--accent)"),
];
const INK: RGBColor = COLORS[0].0;
const LINE: RGBColor = COLORS[1].0;
const FAINT: RGBColor = COLORS[2].0;
const ACCENT: RGBColor = COLORS[3].0;

/// A curve over the steps of training.
pub struct Chart<'a> {
    /// What the values are.
    pub name: &'a str,
    /// A value for each step.
    pub values: &'a [f64],
    /// Whether a running mean is drawn over them.
    pub smooth: bool,
    /// Whether the axis is logarithmic.
    pub log: bool,
    /// Values with a mark of their own: (step, value).
    pub marks: &'a [(f64, f64)],
}

impl Chart<'_> {
    /// The image.
    pub fn svg(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|e| anyhow!("drawing {}: {e}", self.name))?;
        for (_, stand_in, color) in COLORS {
            text = text.replace(stand_in, color);
        }
        let label = format!("<svg role=\"img\" aria-label=\"{} over the steps\" ", self.name);
        Ok(text.replacen("<svg ", &label, 1))
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let all = self.values.iter().chain(self.marks.iter().map(|m| &m.1));
        let (low, high) = all.fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        let steps = 0.0..self.values.len().max(1) as f64;
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        let mut builder = ChartBuilder::on(&root);
        builder.margin(8).x_label_area_size(30).y_label_area_size(48);
        if self.log {
            let low = low.max(high * 1e-4);
            let chart = builder.build_cartesian_2d(steps, (low * 0.8..high * 1.2).log_scale())?;
            self.lines(chart, low)?;
        } else {
            let space = (high - low).max(1e-9) * 0.05;
            let chart = builder.build_cartesian_2d(steps, low - space..high + space)?;
            self.lines(chart, f64::MIN)?;
        }
        root.present()?;
        Ok(())
    }

    fn lines<Y>(
        &self,
        mut chart: ChartContext<
            '_,
            SVGBackend<'_>,
            Cartesian2d<plotters::coord::types::RangedCoordf64, Y>,
        >,
        floor: f64,
    ) -> Result<(), Box<dyn std::error::Error + '_>>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let font = ("sans-serif", 13).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .axis_style(LINE)
            .label_style(font)
            .x_labels(5)
            .y_labels(6)
            .x_desc("step")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()
            .map_err(|e| e.to_string())?;
        let points = |values: &[f64]| -> Vec<(f64, f64)> {
            let size = values.len().div_ceil(POINTS).max(1);
            let mean = |(i, c): (usize, &[f64])| {
                let n = c.len() as f64;
                ((i * size) as f64 + n / 2.0, (c.iter().sum::<f64>() / n).max(floor))
            };
            values.chunks(size).enumerate().map(mean).collect()
        };
        let line = |points, color, width| {
            LineSeries::new(points, Into::<ShapeStyle>::into(color).stroke_width(width))
        };
        if self.smooth {
            chart.draw_series(line(points(self.values), &FAINT, 1)).map_err(|e| e.to_string())?;
            let smooth = running_mean(self.values);
            chart.draw_series(line(points(&smooth), &ACCENT, 2)).map_err(|e| e.to_string())?;
        } else {
            chart.draw_series(line(points(self.values), &ACCENT, 2)).map_err(|e| e.to_string())?;
        }
        let dots = self.marks.iter().map(|&m| Circle::new(m, 5, ACCENT.filled()));
        chart.draw_series(dots).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// The exponentially weighted mean of the values up to each, without the bias of
/// its beginning.
fn running_mean(values: &[f64]) -> Vec<f64> {
    const KEEP: f64 = 0.96;
    let (mut sum, mut weight) = (0.0, 0.0);
    values
        .iter()
        .map(|v| {
            sum = KEEP * sum + (1.0 - KEEP) * v;
            weight = KEEP * weight + (1.0 - KEEP);
            sum / weight
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_have_the_colors_of_the_page() {
        let values: Vec<f64> = (1..2000).map(|i| 2.0 / f64::from(i)).collect();
        for log in [false, true] {
            let chart =
                Chart { name: "loss", values: &values, smooth: true, log, marks: &[(9.0, 0.1)] };
            let svg = chart.svg().unwrap();
            assert!(svg.contains("var(--accent)") && !svg.contains("#0"), "{svg}");
            assert!(svg.len() < 60_000, "{}", svg.len());
        }
    }

    #[test]
    fn the_mean_of_equal_values_is_that_value() {
        assert!(running_mean(&[3.0; 5]).iter().all(|m| (m - 3.0).abs() < 1e-12));
    }
}
