//! Files that hold a program's inputs and outputs.

use anyhow::{Context, anyhow, bail, ensure};
use sinter::Tensor;
use sinter::io::{idx, npy};
use sinter_runtime::program::{Port, Program};
use sinter_runtime::{Array, DType, Extent, Op, eager};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// How bytes become floating-point numbers: `(byte / 255 - mean) / std`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Subtracted.
    pub mean: f32,
    /// Divided by.
    pub std: f32,
}

/// What a file holds.
enum Content {
    Array(Array),
    /// By name.
    Arrays(BTreeMap<String, Tensor>),
    Image(Image),
    /// Bytes, one row an item.
    Bytes(idx::Idx),
}

/// Pixels in rows, their channels side by side.
struct Image {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// The lines of a text file.
pub fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_string).collect())
}

/// The program's inputs from `FILE` or `NAME=FILE` arguments.
pub fn inputs(program: &Program, args: &[String], scale: Scale) -> anyhow::Result<Vec<Array>> {
    inputs_of(&program.inputs, &program.signature(), args, scale)
}

/// The inputs of the program of that signature.
pub fn inputs_of(
    ports: &[Port],
    signature: &str,
    args: &[String],
    scale: Scale,
) -> anyhow::Result<Vec<Array>> {
    let is = || format!("the program is {signature}");
    let mut found: Vec<Option<Array>> = vec![None; ports.len()];
    let mut images: Vec<Array> = vec![];
    let place = |name: &str| {
        let i = ports.iter().position(|p| p.name == name);
        i.with_context(|| format!("there is no input `{name}`: {}", is()))
    };
    for arg in args {
        let exists = Path::new(arg).exists();
        let named = arg.split_once('=').filter(|(n, _)| !exists || place(n).is_ok());
        let (name, path) = named.map_or((None, arg.as_str()), |(n, p)| (Some(n), p));
        let path = Path::new(path);
        let at = || path.display().to_string();
        let content = read(path)?;
        if let Content::Arrays(arrays) = content {
            ensure!(name.is_none(), "{}: arrays in an npz have names of their own", at());
            for (name, t) in arrays {
                let i = place(&name).with_context(at)?;
                ensure!(
                    found[i].replace(t.array().clone()).is_none(),
                    "input `{name}` is given twice"
                );
            }
            continue;
        }
        let is_image = matches!(content, Content::Image(_));
        let i = match name {
            Some(n) => place(n)?,
            None => match found.iter().position(Option::is_none) {
                // More images for the only input: a batch.
                Some(_) if is_image && ports.len() == 1 => 0,
                Some(i) => i,
                None => bail!("{} is one input too many: {}", at(), is()),
            },
        };
        let array = fit(content, &ports[i], scale).with_context(at)?;
        if is_image && ports.len() == 1 && name.is_none() {
            images.push(array);
        } else {
            ensure!(found[i].replace(array).is_none(), "input `{}` is given twice", ports[i].name);
        }
    }
    if !images.is_empty() {
        ensure!(found[0].is_none(), "input `{}` is given twice", ports[0].name);
        let refs: Vec<&Array> = images.iter().collect();
        found[0] = Some(eager::run1(&Op::Concat { axis: 0 }, &refs)?);
    }
    let missing = |p: &Port| anyhow!("no file for input `{}`: {}", p.name, is());
    ports.iter().zip(found).map(|(p, a)| a.ok_or_else(|| missing(p))).collect()
}

/// What a file holds, by how it starts.
fn read(path: &Path) -> anyhow::Result<Content> {
    let at = || path.display().to_string();
    let meta = std::fs::metadata(path).with_context(at)?;
    ensure!(meta.is_file(), "{} is no regular file", at());
    let mut start = [0u8; 8];
    let mut file = File::open(path).with_context(at)?;
    let n = file.read(&mut start).with_context(at)?;
    Ok(match &start[..n] {
        s if s.starts_with(b"\x93NUMPY") => {
            let a = sinter_runtime::npy::map(path).map_err(|e| anyhow!("{}: {e}", at()))?;
            Content::Array(a)
        }
        s if s.starts_with(b"PK\x03\x04") || s.starts_with(b"PK\x05\x06") => {
            Content::Arrays(npy::load_npz(path)?)
        }
        s if s.starts_with(b"\x89PNG") => Content::Image(image(path).with_context(at)?),
        [0x1f, 0x8b, ..] | [0, 0, ..] => Content::Bytes(idx::load(path)?),
        _ => bail!("{}: neither npy, npz, PNG nor IDX", at()),
    })
}

/// No image may unpack to more than this.
const MOST_PIXELS: usize = 1 << 28;

fn image(path: &Path) -> anyhow::Result<Image> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().filter(|&n| n <= MOST_PIXELS);
    let mut pixels = vec![0; size.context("the image is too large")?];
    let info = reader.next_frame(&mut pixels)?;
    pixels.truncate(info.buffer_size());
    let (width, height) = (info.width as usize, info.height as usize);
    let samples = info.color_type.samples();
    // Opacity is no colour.
    let channels = if samples > 2 { 3 } else { 1 };
    let pixels = pixels.chunks_exact(samples).flat_map(|p| p[..channels].iter().copied()).collect();
    Ok(Image { width, height, channels, pixels })
}

impl Image {
    /// One plane for each of `channels` (1 or 3), the rows of each one after the other.
    fn planes(&self, channels: usize) -> Vec<u8> {
        let n = self.width * self.height;
        let pixel = |i: usize| &self.pixels[i * self.channels..(i + 1) * self.channels];
        // ITU-R BT.601, as most tools turn colour into gray.
        let gray = |p: &[u8]| {
            let [r, g, b] = [0, 1, 2].map(|i| u32::from(p[i]));
            ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
        };
        match (self.channels, channels) {
            (3, 1) => (0..n).map(|i| gray(pixel(i))).collect(),
            (have, want) => {
                (0..want).flat_map(|c| (0..n).map(move |i| pixel(i)[c.min(have - 1)])).collect()
            }
        }
    }
}

/// The array an input takes.
fn fit(content: Content, port: &Port, scale: Scale) -> anyhow::Result<Array> {
    match content {
        Content::Array(a) => Ok(a),
        Content::Arrays(_) => unreachable!("arrays by name are placed by name"),
        Content::Bytes(b) => {
            let rows = b.shape.first().copied().unwrap_or(1);
            bytes(b.data, &b.shape, rows, port, scale)
        }
        Content::Image(i) => {
            let row = row_shape(port)?;
            let area = i.width * i.height;
            let wanted: usize = row.iter().product();
            // Channels are a dimension of their own, or one image is a row of numbers.
            let channels = if area > 0 && wanted == 3 * area { 3 } else { 1 };
            let shape = [1, channels, i.height, i.width];
            bytes(i.planes(channels), &shape, 1, port, scale)
        }
    }
}

/// What one row of an input looks like.
fn row_shape(port: &Port) -> anyhow::Result<Vec<usize>> {
    let row = port.ty.shape.get(1..).and_then(|d| d.iter().map(Extent::known).collect());
    row.with_context(|| format!("input `{}` has no rows of a fixed shape", port.name))
}

/// Bytes as rows of an input.
fn bytes(
    data: Vec<u8>,
    have: &[usize],
    rows: usize,
    port: &Port,
    scale: Scale,
) -> anyhow::Result<Array> {
    // Labels and the like: one number a row.
    let row = if port.ty.shape.len() == 1 { vec![] } else { row_shape(port)? };
    let numel = |s: &[usize]| s.iter().product::<usize>();
    let fits = numel(have.get(1..).unwrap_or(&[])) == numel(&row);
    ensure!(
        fits && dims_agree(&have[1.min(have.len())..], &row),
        "it holds {have:?}, input `{}` takes rows of {row:?}",
        port.name
    );
    let mut shape = vec![rows];
    shape.extend(row);
    if port.ty.dtype.is_float() {
        let scaled: Vec<f32> =
            data.iter().map(|&b| (f32::from(b) / 255.0 - scale.mean) / scale.std).collect();
        let a = Array::from_slice(&scaled, &shape)?;
        return cast(a, port.ty.dtype);
    }
    cast(Array::from_slice(&data, &shape)?, port.ty.dtype)
}

/// Whether two shapes of one size describe the same picture: dimensions of one
/// aside, they are equal, or one of them is flat.
fn dims_agree(a: &[usize], b: &[usize]) -> bool {
    let squeeze = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    let (a, b) = (squeeze(a), squeeze(b));
    a == b || a.len() <= 1 || b.len() <= 1
}

fn cast(a: Array, dtype: DType) -> anyhow::Result<Array> {
    if a.dtype() == dtype {
        return Ok(a);
    }
    Ok(eager::run1(&Op::Cast { dtype }, &[&a])?)
}

/// Writes outputs to an npy file, an npz file, or npy files in a folder.
pub fn write_outputs(path: &Path, program: &Program, outputs: &[Array]) -> anyhow::Result<()> {
    let tensors = || outputs.iter().map(|a| Tensor::from_array(a.clone()));
    let named = || program.outputs.iter().map(|p| p.name.clone()).zip(tensors());
    let extension = path.extension().and_then(|e| e.to_str()).filter(|_| !path.is_dir());
    match extension {
        Some("npz") => Ok(npy::save_npz(path, &named().collect())?),
        Some("npy") => {
            ensure!(
                outputs.len() == 1,
                "the program has {} outputs: --output must be an npz file or a folder",
                outputs.len()
            );
            Ok(npy::save(path, &tensors().next().expect("one output"))?)
        }
        _ => {
            std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
            for (name, t) in named() {
                let file: PathBuf = path.join(format!("{name}.npy"));
                npy::save(&file, &t)?;
            }
            Ok(())
        }
    }
}
