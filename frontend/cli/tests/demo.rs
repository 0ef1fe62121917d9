//! The demo from the outside, on a data set small enough for seconds.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SIDE: usize = 8;

/// IDX files of images of four classes: a bright corner on noise.
fn write_data(dir: &Path) {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    };
    for (name, n) in [("train", 48u32), ("t10k", 20)] {
        let mut images = vec![0, 0, 8, 3];
        for d in [n, SIDE as u32, SIDE as u32] {
            images.extend(d.to_be_bytes());
        }
        let mut labels = vec![0, 0, 8, 1];
        labels.extend(n.to_be_bytes());
        for i in 0..n as usize {
            let class = i % 4;
            labels.push(class as u8);
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let corner = 2 * usize::from(y >= SIDE / 2) + usize::from(x >= SIDE / 2);
                    images.push(noise() + if corner == class { 150 } else { 0 });
                }
            }
        }
        fs::write(dir.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        fs::write(dir.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// A folder with a tiny data set, the command, and beside it its small sister, as
/// which it goes by that name.
fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write_data(dir.path());
    for name in ["sinter", "sinter-run"] {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        fs::hard_link(env!("CARGO_BIN_EXE_sinter"), dir.path().join(file)).unwrap();
    }
    dir
}

/// `sinter demo` on the data in `dir`, with results in `dir/NAME`.
fn demo(dir: &Path, name: &str, more: &[&str]) -> Command {
    let mut c = Command::new(dir.join("sinter"));
    c.arg("demo").arg("--data").arg(dir).arg("--out").arg(dir.join(name));
    c.args(["--batch-size", "8", "--threads", "1", "--seed", "3"]).args(more);
    // Nothing is left to build.
    c.env_remove("CARGO");
    c
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(mut c: Command) -> String {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// One line on the standard error, and no success.
fn fails(mut c: Command) -> String {
    let Output { status, stderr, .. } = c.output().unwrap();
    let stderr = text(&stderr);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
    stderr
}

#[test]
fn everything_from_training_to_the_report() {
    let dir = scene();
    let shown = succeeds(demo(dir.path(), "a", &["--epochs", "3"]));
    for part in ["epoch 3/3", "test accuracy", "all outputs match", "images/s", "compiled, unfused"]
    {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    let out = dir.path().join("a");
    let mut files: Vec<String> = fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "checkpoint.safetensors",
        "mnist-cnn-unfused.sinter",
        "mnist-cnn.safetensors",
        "mnist-cnn.sinter",
        "report.html",
    ];
    assert_eq!(files, expected);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.matches("<svg").count() >= 5, "curves and graphs are missing");
    assert!(report.contains("data:image/png;base64,") && report.contains("class=\"confusion\""));
    // Nothing is fetched: the only addresses are the names of SVG's namespaces and
    // places in the page itself.
    let elsewhere = report.replace("http://www.w3.org/", "").replace("url(#", "");
    for outside in ["http://", "https://", "src=\"/", "<link", "<script", "@import", "url("] {
        assert!(!elsewhere.contains(outside), "the report refers to {outside}");
    }
}

#[test]
#[cfg(unix)]
fn a_run_that_was_broken_off_goes_on_to_the_same_numbers() {
    let dir = scene();
    let long = ["--epochs", "40"];
    succeeds(demo(dir.path(), "whole", &long));

    let mut child = demo(dir.path(), "parts", &long)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Past the first epoch, in the midst of another.
    assert!(lines.any(|l| l.unwrap().starts_with("epoch 2/40, step 2/6")), "training ended early");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    lines.for_each(drop);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert!(stderr.contains("--resume"), "{stderr}");

    let more = ["--epochs", "40", "--resume"];
    let shown = succeeds(demo(dir.path(), "parts", &more));
    assert!(shown.contains("going on after step"), "{shown}");
    let weights =
        |name: &str| fs::read(dir.path().join(name).join("mnist-cnn.safetensors")).unwrap();
    assert!(weights("whole") == weights("parts"), "the weights differ");
}

#[test]
fn mistakes_and_damage_are_told_in_one_line() {
    let dir = scene();
    let at = |name: &str| dir.path().join(name);

    fs::write(at("file"), "in the way").unwrap();
    assert!(fails(demo(dir.path(), "file", &[])).contains("file"));
    assert!(fails(demo(dir.path(), "none", &["--resume"])).contains("checkpoint.safetensors"));

    succeeds(demo(dir.path(), "a", &["--limit", "16"]));
    let checkpoint = at("a").join("checkpoint.safetensors");
    let whole = fs::read(&checkpoint).unwrap();
    let resume =
        |more: &[&str]| demo(dir.path(), "a", &[&["--resume", "--limit", "16"], more].concat());
    assert!(fails(resume(&["--epochs", "2"])).contains("--epochs 1"));
    assert!(fails(demo(dir.path(), "a", &["--resume"])).contains("other data"));
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&checkpoint, &bytes).unwrap();
    assert!(fails(resume(&[])).contains("damaged"));
    fs::write(&checkpoint, &whole[..middle]).unwrap();
    assert!(fails(resume(&[])).contains("checkpoint.safetensors"));

    let labels = at("train-labels-idx1-ubyte");
    let intact = fs::read(&labels).unwrap();
    fs::write(&labels, &intact[..intact.len() - 1]).unwrap();
    assert!(fails(demo(dir.path(), "b", &[])).contains("train-labels-idx1-ubyte"));
    fs::remove_file(&labels).unwrap();
    assert!(fails(demo(dir.path(), "b", &[])).contains("train-labels-idx1-ubyte"));
}
