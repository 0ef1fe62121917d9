//! The command line.

use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Runs artifacts of Sinter.

Usage: sinter-run MODEL [FILE.npy]... [options]
       sinter-run --verify MODEL
       sinter-run --info MODEL

Inputs are npy files, in the program's order or by name.

  -i, --input NAME=FILE   the file of an input
  -o, --output PATH       FILE.npy for the only output, or a folder for all;
                          without it outputs are shown
  -b, --batch N           feed the inputs N rows at a time
  -t, --threads N         use at most N threads
      --repeat N          run N times
      --time              show how long loading and running took, and the peak of
                          resident memory
      --verify            check every byte and run the sample
      --info              show what the artifact holds
  -h, --help              show this
  -V, --version           show the version
";

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    Print(&'static str),
    Info(PathBuf),
    Verify(PathBuf),
    Run(Args),
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Args {
    pub(crate) model: PathBuf,
    pub(crate) named: Vec<(String, PathBuf)>,
    pub(crate) unnamed: Vec<PathBuf>,
    pub(crate) output: Option<PathBuf>,
    pub(crate) batch: Option<usize>,
    pub(crate) threads: Option<usize>,
    pub(crate) repeat: usize,
    pub(crate) time: bool,
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, String> {
    understand(args).map_err(|e| format!("{e} (sinter-run --help shows the options)"))
}

fn understand(args: impl IntoIterator<Item = OsString>) -> Result<Action, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut files: Vec<PathBuf> = vec![];
    let mut a = Args { repeat: 1, ..Args::default() };
    let (mut verify, mut info) = (false, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Action::Print(HELP)),
            Short('V') | Long("version") => {
                return Ok(Action::Print(concat!("sinter-run ", env!("CARGO_PKG_VERSION"), "\n")));
            }
            Short('i') | Long("input") => {
                let value = parser.value()?.string()?;
                let (name, file) = value
                    .split_once('=')
                    .ok_or_else(|| format!("--input takes NAME=FILE, not `{value}`"))?;
                a.named.push((name.to_string(), file.into()));
            }
            Short('o') | Long("output") => a.output = Some(parser.value()?.into()),
            Short('b') | Long("batch") => a.batch = Some(positive(&mut parser)?),
            Short('t') | Long("threads") => a.threads = Some(positive(&mut parser)?),
            Long("repeat") => a.repeat = positive(&mut parser)?,
            Long("time") => a.time = true,
            Long("verify") => verify = true,
            Long("info") => info = true,
            Value(file) => files.push(file.into()),
            other => return Err(other.unexpected()),
        }
    }
    if files.is_empty() {
        return Err("the artifact is missing".into());
    }
    a.model = files.remove(0);
    a.unnamed = files;
    if !(verify || info) {
        return Ok(Action::Run(a));
    }
    let plain = Args { model: a.model.clone(), repeat: 1, ..Args::default() };
    if a != plain || (verify && info) {
        return Err("--verify and --info take an artifact and nothing else".into());
    }
    Ok(if verify { Action::Verify(a.model) } else { Action::Info(a.model) })
}

fn positive(parser: &mut lexopt::Parser) -> Result<usize, lexopt::Error> {
    parser.value()?.parse_with(|t| match t.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_string()),
        Ok(n) => Ok(n),
        Err(e) => Err(e.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Action, String> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_users_type() {
        let all = "m x.npy -i h=h.npy --output=o.npy -b 64 --threads 2 --repeat=3 --time y.npy";
        let want = Args {
            model: "m".into(),
            named: vec![("h".into(), "h.npy".into())],
            unnamed: vec!["x.npy".into(), "y.npy".into()],
            output: Some("o.npy".into()),
            batch: Some(64),
            threads: Some(2),
            repeat: 3,
            time: true,
        };
        assert_eq!(of(all), Ok(Action::Run(want)));
        assert_eq!(of("--verify m"), Ok(Action::Verify("m".into())));
        assert_eq!(of("m --info"), Ok(Action::Info("m".into())));
        assert!(matches!(of("--help"), Ok(Action::Print(HELP))));
        assert!(matches!(of("m -V"), Ok(Action::Print(v)) if v.starts_with("sinter-run 0")));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, want) in [
            ("", "the artifact is missing"),
            ("m --nope", "'--nope'"),
            ("m -b 0", "at least 1"),
            ("m --repeat many", "many"),
            ("m --batch", "missing argument"),
            ("m -i x", "NAME=FILE"),
            ("m --verify x.npy", "nothing else"),
            ("m --verify --info", "nothing else"),
        ] {
            let e = of(line).unwrap_err();
            assert!(e.contains(want) && e.contains("--help"), "{line}: {e}");
        }
    }
}
