//! What the command `sinter-run` does, for programs that want to be it.

#![deny(unsafe_code)]

mod args;

use args::{Action, Args};
use sinter_kernels::{isa, mem, par};
use sinter_runtime::artifact::{Artifact, Verification};
use sinter_runtime::program::{Port, Program, RunError};
use sinter_runtime::{Array, Scalar, file, npy};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Elements of an output that are shown when it goes to no file.
const SHOWN: usize = 16;

/// Does what the arguments say (without the program's name). Results go to the
/// standard output, one line about an error to the standard error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = args::parse(args).and_then(|action| match action {
        Action::Print(text) => Ok(text.to_string()),
        Action::Info(model) => info(&model),
        Action::Verify(model) => verify(&model),
        Action::Run(args) => run(&args),
    });
    // Whoever reads the output may leave early: that is no error of ours.
    match done {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn info(path: &Path) -> Result<String, String> {
    let artifact = Artifact::open(path).map_err(text)?;
    let program = artifact.program().map_err(text)?;
    let mut out = format!("{}\n", program.signature());
    for s in &program.symbols {
        let _ = writeln!(out, "{} in {}..={}", s.name, s.min, s.max);
    }
    let _ = writeln!(
        out,
        "{} steps, {} buffers, {} bytes",
        program.steps.len(),
        program.buffers.len(),
        artifact.len()
    );
    for s in artifact.sections() {
        let level = s.level().map_or(String::new(), |l| format!(" for {}", l.name()));
        let _ = writeln!(out, "{:>12} bytes  {}{level}", s.len, s.kind.name());
    }
    let machine = isa::active().name();
    let _ = writeln!(
        out,
        "code is for {}; this machine is {} ({machine})",
        artifact.architecture().map_err(text)?,
        std::env::consts::ARCH
    );
    Ok(out)
}

fn verify(path: &Path) -> Result<String, String> {
    let artifact = Artifact::open(path).map_err(text)?;
    let v = artifact.verify().map_err(text)?;
    let report = report(&v);
    if v.passed() {
        Ok(report)
    } else {
        Err(format!("{}: wrong outputs\n{report}", path.display()))
    }
}

/// What was checked, one line each.
fn report(v: &Verification) -> String {
    let mut out = format!("{} sections intact, {} bytes\n", v.sections, v.bytes);
    for s in &v.samples {
        let verdict = if s.passed() { "right" } else { "WRONG" };
        let _ = writeln!(
            out,
            "sample on {}: {verdict}, {} elements, relative error {:.1e} of {:.0e} allowed",
            s.level.name(),
            s.elements,
            s.error,
            s.tolerance
        );
    }
    if v.samples.is_empty() {
        out.push_str("there is no sample to run\n");
    }
    out
}

fn run(args: &Args) -> Result<String, String> {
    if let Some(n) = args.threads {
        par::set_threads(n);
    }
    let start = Instant::now();
    let artifact = Artifact::open(&args.model).map_err(text)?;
    let model = artifact.model().map_err(text)?;
    let loaded = start.elapsed();
    let program = model.program();
    let inputs = read_inputs(program, args)?;
    let files = output_files(program, args)?;

    let inputs: Vec<&Array> = inputs.iter().collect();
    let once = || {
        let began = Instant::now();
        let outputs = match args.batch {
            Some(rows) => model.run_rows(&inputs, rows),
            None => model.run(&inputs),
        };
        let hint = |e: RunError| match e {
            RunError::Range { .. } => format!("{e}; --batch N feeds the inputs N rows at a time"),
            e => e.to_string(),
        };
        Ok::<_, String>((outputs.map_err(hint)?, began.elapsed()))
    };
    let (outputs, first) = once()?;
    let mut times = (1..args.repeat).map(|_| Ok(once()?.1)).collect::<Result<Vec<_>, String>>()?;

    let mut out = String::new();
    for (i, (port, a)) in program.outputs.iter().zip(&outputs).enumerate() {
        match files.get(i) {
            Some(path) => {
                file::write_atomic(path, |f| f.write_all(&npy::encode(a)))
                    .map_err(|e| format!("{}: {e}", path.display()))?;
            }
            None => show(&mut out, port, a),
        }
    }
    if args.time {
        let _ = writeln!(out, "load   {}", milliseconds(loaded));
        let _ = writeln!(out, "first  {}", milliseconds(first));
        times.sort_unstable();
        if let (Some(min), Some(median)) = (times.first(), times.get(times.len() / 2)) {
            let _ = writeln!(out, "min    {}", milliseconds(*min));
            let _ = writeln!(out, "median {}", milliseconds(*median));
        }
        if let Some(bytes) = mem::peak_resident() {
            let _ = writeln!(out, "peak   {bytes} bytes");
        }
    }
    Ok(out)
}

fn milliseconds(t: Duration) -> String {
    format!("{:.4} ms", t.as_secs_f64() * 1e3)
}

/// The inputs in the program's order, from the files given by name or in order.
fn read_inputs(program: &Program, args: &Args) -> Result<Vec<Array>, String> {
    let mut files: Vec<Option<&PathBuf>> = vec![None; program.inputs.len()];
    for (name, path) in &args.named {
        let i = program.inputs.iter().position(|p| p.name == *name).ok_or_else(|| {
            format!("the program has no input `{name}`: it is {}", program.signature())
        })?;
        if files[i].replace(path).is_some() {
            return Err(format!("input `{name}` is given twice"));
        }
    }
    for path in &args.unnamed {
        let free = files.iter_mut().find(|f| f.is_none());
        *free.ok_or_else(|| {
            format!(
                "{} is one input too many: the program is {}",
                path.display(),
                program.signature()
            )
        })? = Some(path);
    }
    let read = |(port, path): (&Port, Option<&PathBuf>)| {
        let path = path.ok_or_else(|| {
            format!("no file for input `{}`: the program is {}", port.name, program.signature())
        })?;
        npy::map(path).map_err(|e| format!("{}: {e}", path.display()))
    };
    program.inputs.iter().zip(files).map(read).collect()
}

/// The file of each output; none when they are to be shown.
fn output_files(program: &Program, args: &Args) -> Result<Vec<PathBuf>, String> {
    let Some(path) = &args.output else { return Ok(vec![]) };
    if path.extension().is_some_and(|e| e == "npy") && !path.is_dir() {
        return match program.outputs.len() {
            1 => Ok(vec![path.clone()]),
            n => Err(format!("the program has {n} outputs: --output must be a folder")),
        };
    }
    std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(program.outputs.iter().map(|p| path.join(format!("{}.npy", p.name))).collect())
}

/// `y: f32 [2, 10] = 0.5, -1, …`
fn show(out: &mut String, port: &Port, a: &Array) {
    let _ = write!(out, "{}: {} {:?} =", port.name, a.dtype(), a.shape());
    let flat = a.view(&[a.numel()]).expect("results are dense");
    for i in 0..a.numel().min(SHOWN) {
        let comma = if i > 0 { "," } else { "" };
        let _ = match flat.slice(0, i, 1, 1).item() {
            Scalar::Float(v) => write!(out, "{comma} {}", v as f32),
            v => write!(out, "{comma} {v}"),
        };
    }
    out.push_str(if a.numel() > SHOWN { ", …\n" } else { "\n" });
}
