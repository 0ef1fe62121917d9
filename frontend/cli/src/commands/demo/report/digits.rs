//! Images with what the network made of them.

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sinter::data::Mnist;
use std::fmt::Write;

/// An image with the probability of each class.
pub struct Guess {
    /// Number of the image.
    pub image: usize,
    /// Its class.
    pub truth: usize,
    /// The most probable class.
    pub guess: usize,
    /// Of each class.
    pub odds: Vec<f64>,
}

/// What log-probabilities [N, classes] say of each image.
pub fn guesses(log_probs: &[f32], classes: usize, images: &Mnist) -> Vec<Guess> {
    let guess = |(image, row): (usize, &[f32])| {
        let best = (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        let odds = row.iter().map(|&l| f64::from(l).exp()).collect();
        let truth = usize::from(images.label(image));
        Guess { image, truth, guess: best.unwrap_or(0), odds }
    };
    log_probs.chunks(classes).enumerate().map(guess).collect()
}

/// The mistakes, those first that gave the truth the least.
pub fn worst(guesses: &[Guess]) -> Vec<&Guess> {
    let mut wrong: Vec<&Guess> = guesses.iter().filter(|g| g.guess != g.truth).collect();
    wrong.sort_by(|a, b| a.odds[a.truth].total_cmp(&b.odds[b.truth]).then(a.image.cmp(&b.image)));
    wrong
}

/// A row of pictures with captions.
pub fn gallery<'a>(
    guesses: impl IntoIterator<Item = &'a Guess>,
    images: &Mnist,
) -> anyhow::Result<String> {
    let mut out = String::from("<div class=\"digits\">");
    for g in guesses {
        let picture = BASE64_STANDARD.encode(png(images.pixels(g.image), images.size())?);
        let caption = if g.guess == g.truth {
            format!("{} · {}", g.guess, percent(g.odds[g.guess]))
        } else {
            format!("{} for {} · {}", g.guess, g.truth, percent(g.odds[g.guess]))
        };
        write!(
            out,
            "<figure title=\"test image {}\"><img alt=\"a {}\" src=\"data:image/png;base64,{picture}\">\
             <div class=\"odds\">",
            g.image, g.truth
        )?;
        for (class, &p) in g.odds.iter().enumerate() {
            let kind = match class {
                c if c == g.truth => " class=\"truth\"",
                c if c == g.guess => " class=\"guess\"",
                _ => "",
            };
            let height = (p * 100.0).round();
            let title = format!("{class}: {}", percent(p));
            write!(out, "<i{kind} style=\"height:{height}%\" title=\"{title}\"></i>")?;
        }
        write!(out, "</div><figcaption>{caption}</figcaption></figure>")?;
    }
    out.push_str("</div>");
    Ok(out)
}

fn percent(p: f64) -> String {
    format!("{:.1}\u{2009}%", p * 100.0)
}

/// A grey picture as a PNG file.
fn png(pixels: &[u8], [height, width]: [usize; 2]) -> anyhow::Result<Vec<u8>> {
    let size = |n: usize| u32::try_from(n).context("an image is too large");
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, size(width)?, size(height)?);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(out)
}
