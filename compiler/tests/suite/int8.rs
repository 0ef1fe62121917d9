//! Programs with integers: as accurate as they say, the same from files, refused where
//! something is missing or damaged.

use super::common::normal;
use sinter_compiler::artifact::report;
use sinter_compiler::graph::{Graph, interpret, text};
use sinter_compiler::plan::PlanError;
use sinter_compiler::quantize::{CalibrationError, Difference};
use sinter_compiler::{
    Calibration, CalibrationMethod, CompileError, Options, Precision, Tuning, compile,
};
use sinter_kernels::isa::Isa;
use sinter_runtime::Array;
use sinter_runtime::artifact::{Artifact, relative_error};
use sinter_runtime::program::{Model, Packing, Place, Step};
use std::sync::Arc;

const MLP: &str = r#"graph "mlp" {
  symbol N in 1..=64 hint 8
  %0 = input "x": f32[N, 37]
  %1 = constant "w1": f32[37, 50]
  %2 = constant "b1": f32[50]
  %3 = matmul[act=relu](%0, %1, %2): f32[N, 50]
  %4 = constant "w2": f32[50, 10]
  %5 = matmul[act=none](%3, %4): f32[N, 10]
  %6 = tanh(%5): f32[N, 10]
  return %6
}
"#;

const CNN: &str = r#"graph "cnn" {
  %0 = input "x": f32[2, 3, 12, 12]
  %1 = constant "w1": f32[16, 3, 3, 3]
  %2 = constant "b1": f32[16]
  %3 = conv2d[stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, act=relu](%0, %1, %2): f32[2, 16, 12, 12]
  %4 = constant "w2": f32[16, 1, 3, 3]
  %5 = conv2d[stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=16, act=none](%3, %4): f32[2, 16, 6, 6]
  %6 = constant "w3": f32[24, 16, 1, 1]
  %7 = conv2d[stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, act=none](%5, %6): f32[2, 24, 6, 6]
  %8 = tanh(%7): f32[2, 24, 6, 6]
  return %8
}
"#;

fn graph(of: &str) -> Graph {
    let mut g = text::parse(of).unwrap();
    for (i, c) in g.constants.iter_mut().enumerate() {
        let fan: usize = c.ty.shape[usize::from(c.ty.shape.len() == 4)..]
            .iter()
            .take(if c.ty.shape.len() == 4 { 3 } else { 1 })
            .product();
        let values: Vec<f32> = normal(&c.ty.shape, i as u64 + 1)
            .to_vec::<f32>()
            .iter()
            .map(|v| v / (fan.max(1) as f32).sqrt())
            .collect();
        c.data = Some(Array::from_slice(&values, &c.ty.shape).unwrap().into());
    }
    g
}

fn runs(shape: &[usize], seeds: std::ops::Range<u64>) -> Vec<Vec<Array>> {
    seeds.map(|s| vec![normal(shape, 100 + s)]).collect()
}

fn options(shape: &[usize]) -> (Calibration, Options) {
    let c = Calibration {
        inputs: runs(shape, 0..4),
        held_out: runs(shape, 10..12),
        ..Calibration::default()
    };
    let o = Options { precision: Precision::Int8, ..Options::default() };
    (c, o)
}

fn with(c: &Calibration, o: &Options) -> Options {
    Options { calibration: Some(Arc::new(c.clone())), ..o.clone() }
}

fn int8_steps(m: &Model) -> usize {
    let int8 = |s: &&Step| matches!(s, Step::Contract { packing: Packing::Int8, .. });
    m.program().steps.iter().filter(int8).count()
}

fn sqnr(got: &[Array], want: &[Array]) -> f64 {
    let (got, want) = (got[0].to_vec::<f32>(), want[0].to_vec::<f32>());
    let square = |v: f32| f64::from(v).powi(2);
    let noise: f64 = got.iter().zip(&want).map(|(g, w)| square(g - w)).sum();
    10.0 * (want.iter().map(|&w| square(w)).sum::<f64>() / noise).log10()
}

#[test]
fn programs_are_as_accurate_as_they_say() {
    for (of, shape, layers, steps) in [(MLP, &[8, 37][..], 2, 2), (CNN, &[2, 3, 12, 12][..], 2, 2)]
    {
        let g = graph(of);
        let (c, o) = options(shape);
        use CalibrationMethod::{MinMax, Mse, Percentile};
        for (method, fusion) in
            [(MinMax, true), (MinMax, false), (Percentile(99.9), true), (Mse, true)]
        {
            let c = Calibration { method, ..c.clone() };
            let mut compiled = compile(&g, &Options { fusion, ..with(&c, &o) }).unwrap();
            let model = compiled.load().unwrap();
            assert_eq!(int8_steps(&model), steps);
            let a = compiled.report.accuracy.clone().unwrap();
            let layered: Vec<Difference> = a.layers.iter().filter_map(|l| l.difference).collect();
            assert_eq!((layered.len(), a.runs), (layers, [4, 2]));
            assert!(layered.iter().all(|d| d.sqnr_db() > 25.0), "{}", a.text());
            let [seen, held] = &a.outputs[..] else { panic!("{}", a.text()) };
            assert!(!seen.held_out && held.held_out);
            assert!(seen.difference.sqnr_db() > 22.0, "{}", a.text());
            assert_eq!(seen.top1.is_some(), shape.len() == 2);
            // What is said is what comes out.
            let mut all = Difference::default();
            for inputs in &c.held_out {
                let want = interpret(&g, inputs).unwrap();
                let got = model.run(&[&inputs[0]]).unwrap();
                let db = sqnr(&got, &want);
                assert!(db > 22.0, "{method:?}: {db} dB");
                all.max_abs = all
                    .max_abs
                    .max(relative_error(&got[0], &want[0]) * f64::from(largest(&want[0])));
            }
            let said = held.difference.max_abs;
            assert!((all.max_abs / said - 1.0).abs() < 0.2, "{} {said}", all.max_abs);
        }
    }
}

fn largest(a: &Array) -> f32 {
    a.to_vec::<f32>().iter().fold(0.0, |m, v| m.max(v.abs()))
}

#[test]
fn layers_are_kept_and_reasons_are_told() {
    let g = graph(CNN);
    let (c, o) = options(&[2, 3, 12, 12]);
    let c = Calibration { keep: vec!["w3".into()], ..c };
    let mut compiled = compile(&g, &with(&c, &o)).unwrap();
    assert_eq!(int8_steps(&compiled.load().unwrap()), 1);
    let reasons: Vec<&str> = compiled.report.decisions.iter().map(|d| d.reason.as_str()).collect();
    for wanted in ["f32: it is to be kept", "groups have one channel", "int8: its input is -"] {
        assert!(reasons.iter().any(|r| r.contains(wanted)), "{wanted}: {reasons:?}");
    }
    let bad = Calibration { keep: vec!["w9".into()], ..c };
    let e = compile(&g, &with(&bad, &o)).unwrap_err().to_string();
    assert!(e.contains("no layer `w9`") && e.contains("`w1`, `w3`"), "{e}");
}

#[test]
fn what_is_missing_is_named() {
    let g = graph(MLP);
    let (c, o) = options(&[8, 37]);
    for o in [o.clone(), with(&Calibration { inputs: vec![], ..c.clone() }, &o)] {
        let e = compile(&g, &o).unwrap_err();
        let missing = CompileError::Plan(PlanError::Calibration(CalibrationError::Missing));
        assert_eq!(e, missing);
        assert!(e.to_string().contains("int8 needs calibration"), "{e}");
    }
    let wrong = Calibration { held_out: runs(&[8, 36], 0..1), ..c.clone() };
    let e = compile(&g, &with(&wrong, &o)).unwrap_err().to_string();
    assert!(e.starts_with("calibration input 4: "), "{e}");
    let tuned = Options { tuning: Some(Tuning::default()), ..with(&c, &o) };
    let e = compile(&g, &tuned).unwrap_err().to_string();
    assert!(e.contains("tuning has nothing to choose from"), "{e}");
    let method = CalibrationMethod::Percentile(0.0);
    let e = compile(&g, &with(&Calibration { method, ..c }, &o)).unwrap_err().to_string();
    assert!(e.contains("0 is no percentage"), "{e}");
}

#[test]
fn numbers_that_are_none_leave_a_layer_as_it_is() {
    let g = graph(MLP);
    let (mut c, o) = options(&[8, 37]);
    let mut x = c.inputs[0][0].to_vec::<f32>();
    x[5] = f32::INFINITY;
    c.inputs[0][0] = Array::from_slice(&x, &[8, 37]).unwrap();
    let mut compiled = compile(&g, &with(&c, &o)).unwrap();
    assert_eq!(int8_steps(&compiled.load().unwrap()), 0);
    let a = compiled.report.accuracy.unwrap();
    assert!(a.layers[0].why.contains("not finite"), "{}", a.text());
}

#[test]
fn artifacts_hold_integers() {
    let g = graph(CNN);
    let (c, o) = options(&[2, 3, 12, 12]);
    let mut compiled = compile(&g, &with(&c, &o)).unwrap();
    let model = compiled.load().unwrap();
    let want = model.run(&[&c.held_out[0][0]]).unwrap();
    let bytes = compiled.artifact(&Isa::ALL, &c.held_out[1]).unwrap();
    let a = Artifact::from_bytes(bytes).unwrap();
    let v = a.verify().unwrap();
    assert!(v.passed() && !v.samples.is_empty(), "{v:?}");
    assert!(v.samples.iter().all(|s| s.error > 1e-4 && s.tolerance < 0.2), "{v:?}");
    let said = |r: &sinter_compiler::Report| r.accuracy.as_ref().unwrap().text();
    assert_eq!(said(&report(&a).unwrap()), said(&compiled.report));
    let loaded = a.model().unwrap();
    let got = loaded.run(&[&c.held_out[0][0]]).unwrap();
    assert_eq!(got[0].to_bytes(), want[0].to_bytes());

    // A weight that is shorter than its shape says is no weight.
    let mut program = loaded.program().clone();
    let weight = program.steps.iter().find_map(|s| match s {
        Step::Contract { operands, packing: Packing::Int8, .. } => Some(operands[1].buffer),
        _ => None,
    });
    let b = &mut program.buffers[weight.unwrap() as usize];
    assert!(matches!(b.place, Place::Constant(_)));
    let len = b.len.eval(&[]).unwrap() - 1;
    b.len = sinter_runtime::Dim::constant(len as i64);
    compiled.plan.program = program;
    let damaged = compiled.load().unwrap().run(&[&c.held_out[0][0]]).unwrap_err().to_string();
    assert!(damaged.contains("not packed as Int8 is"), "{damaged}");
}

#[test]
fn weights_take_a_quarter() {
    let text = MLP.replace("37", "512").replace("50", "512");
    let g = graph(&text);
    let (c, o) = options(&[8, 512]);
    let size = |o: &Options| compile(&g, o).unwrap().plan.constants.len();
    let (int8, f32) = (size(&with(&c, &o)), size(&Options::default()));
    assert!(int8 as f64 <= 0.27 * f32 as f64, "{int8} {f32}");
}
