//! The bench from the outside.

use sinter::nn::{Activation, Linear, Sequential};
use sinter::{Compiler, rand};
use std::path::Path;
use std::process::Command;

fn bench(model: &Path, more: &[&str]) -> std::process::Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_sinter"));
    c.arg("bench").arg(model).args(["--threads", "1", "--repeat", "5"]).args(more);
    c.output().unwrap()
}

#[test]
fn forms_and_steps_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mlp.sinter");
    let json = dir.path().join("bench.json");
    let net = Sequential::new()
        .add(Linear::new(64, 96))
        .add(Activation::Gelu)
        .add(Linear::new(96, 10))
        .add(Activation::LogSoftmax(-1));
    let compiler = Compiler::new().name("mlp").dynamic_batch("N", 1..=64);
    compiler.compile(&net, &rand([4, 64])).unwrap().save(&file).unwrap();

    let out = bench(&file, &["--batch", "1,32", "--json", json.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(shown.contains("N = 32") && shown.contains("unfused, step by step"), "{shown}");

    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(results["machine"]["flops"].as_f64().unwrap() > 1e8);
    let sizes = results["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 2);
    for (size, n) in sizes.iter().zip([1.0, 32.0]) {
        for form in size["forms"].as_array().unwrap() {
            let e = &form[1];
            let of = |k: &str| e[k].as_f64().unwrap();
            assert!(0.0 < of("low") && of("low") <= of("value") && of("value") <= of("high"));
        }
        // Both products, whatever else is fused with them.
        let products = 2.0 * n * (64.0 * 96.0 + 96.0 * 10.0);
        for program in size["steps"].as_array().unwrap() {
            let flops = |s: &serde_json::Value| s["work"]["flops"].as_f64().unwrap();
            let total: f64 = program[1].as_array().unwrap().iter().map(flops).sum();
            assert!((products..1.5 * products + 1e4 * n).contains(&total), "{program}");
        }
    }

    let out = bench(&file, &["--batch", "65"]);
    let why = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && why.contains("N = 65 is outside 1..=64"), "{why}");
    let out = bench(&dir.path().join("missing"), &[]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("missing"));
}
