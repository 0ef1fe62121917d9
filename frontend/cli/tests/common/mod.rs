//! Running the commands and looking at what they did.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What a command did.
pub struct Done {
    command: String,
    output: Output,
}

impl Done {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// It succeeded and said nothing on the standard error.
    #[track_caller]
    pub fn succeeds(self) -> Done {
        let quiet = self.output.stderr.is_empty();
        assert!(self.output.status.success() && quiet, "{}: {}", self.command, self.stderr());
        self
    }

    /// It failed with one line that holds all of these.
    #[track_caller]
    pub fn fails(self, want: &[&str]) -> Done {
        let e = self.stderr();
        assert_eq!(self.output.status.code(), Some(1), "{}: {e}", self.command);
        assert!(e.starts_with("error: ") && e.lines().count() == 1, "{}: {e}", self.command);
        for w in want {
            assert!(e.contains(w), "{}: `{w}` is not in: {e}", self.command);
        }
        self
    }

    /// The standard output holds all of these.
    #[track_caller]
    pub fn says(self, want: &[&str]) -> Done {
        let out = self.stdout();
        for w in want {
            assert!(out.contains(w), "{}: `{w}` is not in:\n{out}", self.command);
        }
        self
    }
}

/// A folder with files, removed at the end.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Place {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `sinter` in this folder.
    pub fn sinter(&self, args: &str) -> Done {
        self.run(Path::new(env!("CARGO_BIN_EXE_sinter")), args)
    }

    /// Runs the same file under the name of the small program.
    pub fn sinter_run(&self, args: &str) -> Done {
        let link = self.path("sinter-run");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sinter"), &link).unwrap();
        }
        self.run(&link, args)
    }

    fn run(&self, program: &Path, args: &str) -> Done {
        let mut c = Command::new(program);
        c.args(args.split_whitespace()).current_dir(self.0.path());
        Done { command: args.to_string(), output: c.output().unwrap() }
    }

    /// Runs `sinter` where no file may grow beyond `blocks` of 512 bytes, as on a
    /// full disk.
    pub fn sinter_cramped(&self, blocks: usize, args: &str) -> Done {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {} {args}",
            env!("CARGO_BIN_EXE_sinter")
        );
        let mut c = Command::new("sh");
        c.arg("-c").arg(script).current_dir(self.0.path());
        Done { command: args.to_string(), output: c.output().unwrap() }
    }
}

/// `tanh(x w + b)`, and its weights.
pub fn tiny() -> Place {
    let place = Place::new();
    place.write(
        "tiny.graph",
        r#"graph "tiny" {
  symbol N in 1..=8 hint 2
  %0 = input "x": f32[N, 4]
  %1 = constant "w": f32[4, 3]
  %2 = constant "b": f32[3]
  %3 = matmul[act=none](%0, %1, %2): f32[N, 3]
  %4 = tanh(%3): f32[N, 3]
  return %4
}
"#,
    );
    let w = sinter::arange(0.0, 12.0, 1.0).reshape([4, 3]) / 12.0;
    let b = sinter::tensor([0.5f32, -0.5, 0.0]);
    let all = [("w".to_string(), w), ("b".to_string(), b)];
    let pairs = all.iter().map(|(n, t)| (n, t));
    sinter::io::safetensors::save(place.path("tiny.safetensors"), pairs, &Default::default())
        .unwrap();
    place
}

/// The same, compiled.
pub fn compiled() -> Place {
    let place = tiny();
    place.sinter("compile tiny.graph --weights tiny.safetensors -o tiny.sinter").succeeds();
    place
}
