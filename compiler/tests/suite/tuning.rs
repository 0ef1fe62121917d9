//! Tuning: whatever wins, the results are the same; what loses is dropped; what was
//! measured is measured once. No test looks at a clock: times are made up.

use crate::common::{inputs, normal};
use sinter_compiler::graph::{Graph, text::parse};
use sinter_compiler::tune::{Form, Measure, Problem, Tuned};
use sinter_compiler::{Compiled, Options, Tuning, compile, compile_measured};
use sinter_kernels::conv::ConvKernel;
use sinter_runtime::program::{Packing, RunError, Step};
use sinter_runtime::{Array, artifact};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Says how long forms take, by their labels.
struct Pretend<F> {
    seconds: F,
    /// What was asked for: labels, problem by problem.
    asked: Vec<(String, Vec<String>)>,
}

impl<F: FnMut(&str, &str) -> f64> Pretend<F> {
    fn new(seconds: F) -> Pretend<F> {
        Pretend { seconds, asked: vec![] }
    }
}

impl<F: FnMut(&str, &str) -> f64> Measure for Pretend<F> {
    fn rounds(
        &mut self,
        problem: Problem<'_>,
        forms: &mut [Form<'_>],
    ) -> Result<Vec<Vec<f64>>, RunError> {
        let labels = forms.iter().map(|f| f.label.to_string()).collect();
        self.asked.push((problem.what.to_string(), labels));
        let mut times = vec![];
        for form in forms {
            // Every form can be run.
            (form.run)()?;
            times.push(vec![(self.seconds)(problem.what, form.label); 9]);
        }
        Ok(times)
    }
}

fn tuning(folder: Option<&Path>) -> Tuning {
    let folder = folder.map(Path::to_path_buf);
    Tuning { limit: Duration::from_secs(3600), any_order: false, folder }
}

fn options(folder: Option<&Path>) -> Options {
    Options { tuning: Some(tuning(folder)), ..Options::default() }
}

/// A graph whose constants are drawn.
fn graph(text: &str) -> Graph {
    let mut g = parse(text).unwrap();
    for (i, c) in g.constants.iter_mut().enumerate() {
        c.data = Some(normal(&c.ty.shape, i as u64 + 7).into());
    }
    g
}

/// Products with what follows them, a convolution, softmax by hand, functions twice.
const MODEL: &str = r#"graph "m" {
  %0 = input "x": f32[40, 1100]
  %1 = input "z": f32[40, 96]
  %2 = constant "w": f32[1100, 96]
  %3 = constant "b": f32[96]
  %4 = matmul[act=none](%0, %2, %3): f32[40, 96]
  %5 = tanh(%4): f32[40, 96]
  %6 = exp(%1): f32[40, 96]
  %7 = sin(%1): f32[40, 96]
  %8 = reduce[kind=sum, axes=(1), keep=true](%6): f32[40, 1]
  %9 = reduce[kind=max, axes=(1), keep=true](%7): f32[40, 1]
  %10 = div(%6, %8): f32[40, 96]
  %11 = sub(%7, %9): f32[40, 96]
  %12 = mul(%10, %11): f32[40, 96]
  return %5, %12
}"#;

const IMAGES: &str = r#"graph "c" {
  %0 = input "x": f32[2, 8, 9, 9]
  %1 = constant "w": f32[40, 8, 1, 1]
  %2 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1): f32[2, 40, 9, 9]
  %3 = sigmoid(%2): f32[2, 40, 9, 9]
  %4 = constant "v": f32[16, 40, 3, 3]
  %5 = conv2d[stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, act=none](%3, %4): f32[2, 16, 9, 9]
  return %5
}"#;

fn run(c: &mut Compiled, xs: &[Array]) -> Vec<Vec<u8>> {
    let model = c.load().unwrap();
    let refs: Vec<&Array> = xs.iter().collect();
    model.run(&refs).unwrap().iter().map(|a| a.to_bytes().to_vec()).collect()
}

fn tuned(c: &Compiled) -> &Tuned {
    c.report.tuned.as_ref().expect("it was tuned")
}

/// A file's parts that programs run from.
fn program(c: &mut Compiled) -> (Vec<Step>, Vec<u8>) {
    let constants = c.plan.constants.clone();
    let all =
        Array::from_block(constants.clone(), 0, &[constants.len()], sinter_runtime::DType::U8);
    (c.plan.program.steps.clone(), all.unwrap().to_bytes().to_vec())
}

#[test]
fn every_form_wins_once_and_gives_the_same_bits() {
    for text in [MODEL, IMAGES] {
        let g = graph(text);
        let xs = inputs(&g, &[], 3);
        let want = run(&mut compile(&g, &Options::default()).unwrap(), &xs);
        // What there is to choose from.
        let mut all = Pretend::new(|_: &str, _: &str| 1.0);
        let c = compile_measured(&g, &options(None), &mut all).unwrap();
        assert!(tuned(&c).kernels.iter().all(|f| f.choice.is_empty()));
        assert!(tuned(&c).program.is_none(), "nothing was chosen");
        assert_eq!(c.plan.program, compile(&g, &Options::default()).unwrap().plan.program);
        let labels: Vec<(String, String)> = all
            .asked
            .iter()
            .flat_map(|(what, forms)| forms[1..].iter().map(move |f| (what.clone(), f.clone())))
            .collect();
        assert!(labels.len() > 4, "{labels:?}");
        for (what, label) in labels {
            let mut clock = Pretend::new(|w: &str, f: &str| match f {
                "tuned" => 0.5,
                _ if w == what && f == label => 0.5,
                _ => 1.0,
            });
            let mut c = compile_measured(&g, &options(None), &mut clock).unwrap();
            let found = &tuned(&c).kernels;
            let won: Vec<_> = found.iter().filter(|f| !f.choice.is_empty()).collect();
            assert!(won.iter().all(|f| f.what == what && f.choice == label), "{won:?}");
            assert_eq!(won.len(), 1, "{what}: {label}: {found:?}");
            assert_eq!(tuned(&c).program.as_ref().unwrap().choice, "tuned");
            let rule = compile(&g, &Options::default()).unwrap().plan;
            let differs = c.plan.program != rule.program
                || c.plan.generated.iter().zip(&rule.generated).any(|(a, b)| a.kernel != b.kernel);
            assert!(differs, "{label} changes nothing");
            assert!(run(&mut c, &xs) == want, "{label} changes bits");
        }
    }
}

/// What is fused at a loss, as far as times say, is taken apart, and that is said.
#[test]
fn ops_that_are_slower_together_are_apart() {
    let g = graph(MODEL);
    let rule = compile(&g, &Options::default()).unwrap();
    let mut clock = Pretend::new(|_: &str, f: &str| match f {
        "each pass apart" | "what follows apart" => 0.6,
        "tuned" => 0.9,
        _ => 1.0,
    });
    let c = compile_measured(&g, &options(None), &mut clock).unwrap();
    assert!(c.plan.program.steps.len() > rule.plan.program.steps.len());
    let said = c.report.decisions.iter().any(|d| d.reason.contains("apart they are faster"));
    assert!(said, "{:?}", c.report.decisions);
    assert!(tuned(&c).kernels.iter().any(|f| f.uncertain.is_some()), "{:?}", tuned(&c));
    // The same kernels, where the whole turns out to be slower: the rule's.
    let mut clock = Pretend::new(|_: &str, f: &str| match f {
        "each pass apart" | "what follows apart" => 0.6,
        "tuned" => 1.1,
        _ => 1.0,
    });
    let c = compile_measured(&g, &options(None), &mut clock).unwrap();
    assert_eq!(c.plan.program, rule.plan.program);
    assert_eq!(tuned(&c).program.as_ref().unwrap().choice, "");
}

#[test]
fn a_little_faster_is_noise() {
    let g = graph(MODEL);
    let mut clock = Pretend::new(|_: &str, f: &str| if f.is_empty() { 1.0 } else { 0.98 });
    let c = compile_measured(&g, &options(None), &mut clock).unwrap();
    assert!(tuned(&c).kernels.iter().all(|f| f.choice.is_empty()));
}

/// Two numbers of a cut that are better each are tried together.
#[test]
fn the_best_two_cuts_are_one() {
    let g = graph(MODEL);
    let time = |_: &str, f: &str| match f {
        "256 steps a pass" => 0.8,
        "16384 numbers of rows" => 0.9,
        f if f.contains("256 steps a pass") && f.contains("16384 numbers of rows") => 0.7,
        "tuned" => 0.5,
        _ => 1.0,
    };
    let dir = tempfile::tempdir().unwrap();
    for known in [false, true] {
        let mut clock = Pretend::new(time);
        let c = compile_measured(&g, &options(Some(dir.path())), &mut clock).unwrap();
        let cut = c.plan.program.steps.iter().find_map(|s| match s {
            Step::Contract { cut, .. } => *cut,
            _ => None,
        });
        let cut = cut.expect("a product is cut");
        assert_eq!((cut.steps, cut.rows), (256, 16384));
        assert!(tuned(&c).kernels.iter().all(|f| f.known == known));
        assert_eq!(clock.asked.is_empty(), known, "what is known is not measured");
    }
}

#[test]
fn forms_that_add_in_another_order_have_to_be_asked_for() {
    let text = r#"graph "c" {
  %0 = input "x": f32[1, 16, 16, 16]
  %1 = constant "w": f32[16, 16, 3, 3]
  %2 = conv2d[stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, act=none](%0, %1): f32[1, 16, 16, 16]
  %3 = softmax[axis=3, log=false](%2): f32[1, 16, 16, 16]
  return %3
}"#;
    let g = graph(text);
    let mut clock = Pretend::new(|_: &str, f: &str| match f {
        "direct" | "by the library's kernel" | "tuned" => 0.5,
        _ => 1.0,
    });
    let c = compile_measured(&g, &options(None), &mut clock).unwrap();
    let said = |c: &Compiled, label: &str| tuned(c).kernels.iter().any(|f| f.choice == label);
    assert!(!said(&c, "direct") && !said(&c, "by the library's kernel"));
    let mut any = options(None);
    any.tuning.as_mut().unwrap().any_order = true;
    let mut c = compile_measured(&g, &any, &mut clock).unwrap();
    assert!(said(&c, "direct") && said(&c, "by the library's kernel"), "{:?}", tuned(&c));
    let library = |s: &Step| matches!(s, Step::Library { op, .. } if op.name() == "softmax");
    assert!(c.plan.program.steps.iter().any(library));
    let xs = inputs(&g, &[], 1);
    let refs: Vec<&Array> = xs.iter().collect();
    let got = c.load().unwrap().run(&refs).unwrap();
    let want = sinter_compiler::graph::interpret(&g, &xs).unwrap();
    crate::common::compare(&got[0], &want[0], 1e-5).unwrap();
}

/// A part of a graph, measured alone, would have its images in planes.
#[test]
fn kernels_of_images_with_channels_last_are_left_to_rules() {
    let text = r#"graph "c" {
  %0 = input "x": f32[1, 64, 28, 28]
  %1 = constant "w": f32[384, 64, 1, 1]
  %2 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%0, %1): f32[1, 384, 28, 28]
  %3 = constant "d": f32[384, 1, 3, 3]
  %4 = conv2d[stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=384, act=none](%2, %3): f32[1, 384, 28, 28]
  %5 = constant "v": f32[64, 384, 1, 1]
  %6 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%4, %5): f32[1, 64, 28, 28]
  %7 = reduce[kind=sum, axes=(2, 3), keep=false](%6): f32[1, 64]
  %8 = constant "f": f32[64, 600]
  %9 = matmul[act=none](%7, %8): f32[1, 600]
  return %9
}"#;
    let g = graph(text);
    let rule = compile(&g, &Options::default()).unwrap();
    let last = |s: &&Step| match s {
        Step::Contract { packing: Packing::Conv(kernel), .. } => {
            ConvKernel::from_number(*kernel).unwrap().channels_last()
        }
        _ => false,
    };
    assert_eq!(rule.plan.program.steps.iter().filter(last).count(), 3);
    let mut clock = Pretend::new(|_: &str, f: &str| if f.is_empty() { 1.0 } else { 0.5 });
    let c = compile_measured(&g, &options(None), &mut clock).unwrap();
    assert!(!clock.asked.is_empty() && clock.asked.iter().all(|(what, _)| !what.contains("conv")));
    let convolutions = |c: &Compiled| -> Vec<Step> {
        let of = |s: &&Step| matches!(s, Step::Contract { packing: Packing::Conv(_), .. });
        c.plan.program.steps.iter().filter(of).cloned().collect()
    };
    assert_eq!(convolutions(&c), convolutions(&rule));
}

/// Where nothing is tuned, and where the same is known, programs are the same each time;
/// what was chosen is in the file.
#[test]
fn programs_are_the_same_every_time() {
    let g = graph(MODEL);
    let plain = || program(&mut compile(&g, &Options::default()).unwrap());
    assert!(plain() == plain());
    let dir = tempfile::tempdir().unwrap();
    let mut first = Pretend::new(|_: &str, f: &str| match f {
        "512 steps a pass" | "1 vectors at once" | "tuned" => 0.5,
        _ => 1.0,
    });
    let a = program(&mut compile_measured(&g, &options(Some(dir.path())), &mut first).unwrap());
    // Another opinion comes too late.
    let mut second = Pretend::new(|_: &str, f: &str| if f.is_empty() { 1.0 } else { 0.1 });
    let mut c = compile_measured(&g, &options(Some(dir.path())), &mut second).unwrap();
    assert!(second.asked.is_empty() && program(&mut c) == a && plain() != a);
    let xs = inputs(&g, &[], 5);
    let bytes = c.artifact(&[c.options.isa], &xs).unwrap();
    let file = artifact::Artifact::from_bytes(bytes).unwrap();
    assert_eq!(file.program().unwrap().steps, a.0);
    let refs: Vec<&Array> = xs.iter().collect();
    let got = file.model().unwrap().run(&refs).unwrap();
    let want = run(&mut compile(&g, &Options::default()).unwrap(), &xs);
    assert!(got.iter().map(|a| a.to_bytes().to_vec()).collect::<Vec<_>>() == want);
    let report = sinter_compiler::artifact::report(&file).unwrap();
    assert_eq!(report.tuned, c.report.tuned);
}

#[test]
fn open_sizes_are_measured_at_their_hints() {
    let text = r#"graph "m" {
  symbol N in 1..=200 hint 50
  %0 = input "x": f32[N, 1200]
  %1 = constant "w": f32[1200, 64]
  %2 = matmul[act=none](%0, %1): f32[N, 64]
  %3 = tanh(%2): f32[N, 64]
  return %3
}"#;
    let g = graph(text);
    let mut clock = Pretend::new(|_: &str, f: &str| match f {
        "512 steps a pass" | "tuned" => 0.5,
        _ => 1.0,
    });
    let mut c = compile_measured(&g, &options(None), &mut clock).unwrap();
    assert!(tuned(&c).kernels.iter().any(|f| f.choice == "512 steps a pass"), "{:?}", tuned(&c));
    let mut plain = compile(&g, &Options::default()).unwrap();
    for n in [1, 7, 50, 200] {
        let xs = inputs(&g, &[n], 2);
        assert!(run(&mut c, &xs) == run(&mut plain, &xs));
    }
}

/// Large results that are written past the caches, at rows that do and do not begin with
/// a whole vector.
#[test]
fn results_past_the_caches_are_the_same() {
    for (rows, n) in [(1, 1 << 19), (1000, 512), (1111, 391), (3, 200_003)] {
        let text = format!(
            r#"graph "e" {{
  %0 = input "x": f32[{rows}, {n}]
  %1 = input "row": f32[{n}]
  %2 = broadcast[shape=({rows}, {n})](%1): f32[{rows}, {n}]
  %3 = mul(%0, %2): f32[{rows}, {n}]
  %4 = exp(%3): f32[{rows}, {n}]
  return %3, %4
}}"#
        );
        let g = graph(&text);
        let xs = inputs(&g, &[], 4);
        let want = run(&mut compile(&g, &Options::default()).unwrap(), &xs);
        let mut clock = Pretend::new(|_: &str, f: &str| match f {
            "past the caches" | "tuned" => 0.5,
            _ => 1.0,
        });
        let mut c = compile_measured(&g, &options(None), &mut clock).unwrap();
        assert!(c.plan.generated.iter().any(|k| k.kernel.manner.stream), "{:?}", tuned(&c));
        assert!(run(&mut c, &xs) == want, "{rows} x {n}");
    }
}

/// Several processes that tune at once, on one folder.
#[test]
fn processes_share_a_folder() {
    const FOLDER: &str = "SINTER_TEST_TUNE_FOLDER";
    let g = graph(MODEL);
    let pretend = || {
        Pretend::new(|_: &str, f: &str| match f {
            "512 steps a pass" | "tuned" => 0.5,
            _ => 1.0,
        })
    };
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = PathBuf::from(folder);
        for _ in 0..5 {
            let c = compile_measured(&g, &options(Some(&folder)), &mut pretend()).unwrap();
            assert!(tuned(&c).complaints.is_empty(), "{:?}", tuned(&c).complaints);
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let start = || {
        std::process::Command::new(&own)
            .args(["--exact", "tuning::processes_share_a_folder"])
            .env(FOLDER, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let all: Vec<_> = (0..4).map(|_| start()).collect();
    for mut p in all {
        assert!(p.wait().unwrap().success());
    }
    let mut clock = pretend();
    let c = compile_measured(&g, &options(Some(dir.path())), &mut clock).unwrap();
    assert!(clock.asked.is_empty() && tuned(&c).kernels.iter().all(|f| f.known));
}

#[test]
fn a_damaged_file_is_a_complaint() {
    let dir = tempfile::tempdir().unwrap();
    let g = graph(MODEL);
    let once = || {
        let mut clock = Pretend::new(|_: &str, _: &str| 1.0);
        compile_measured(&g, &options(Some(dir.path())), &mut clock).unwrap()
    };
    assert!(tuned(&once()).complaints.is_empty());
    let json = |p: &PathBuf| p.extension().is_some_and(|e| e == "json");
    let files = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path());
    let file = files.into_iter().find(json).unwrap();
    std::fs::write(&file, b"{\"format\": 1, \"machine\": [").unwrap();
    let c = once();
    assert_eq!(tuned(&c).complaints.len(), 1, "{:?}", tuned(&c).complaints);
    assert!(tuned(&c).kernels.iter().all(|f| !f.known));
    assert!(tuned(&once()).complaints.is_empty(), "it was replaced");
}
