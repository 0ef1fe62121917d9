//! Suites from the outside.

use serde_json::{Value, json};
use sinter::io::{npy, safetensors};
use sinter::nn::Module;
use sinter::{Tensor, full, manual_seed, no_grad, randint, randn};
use sinter_models::{Method, Net, Task, Training};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn describe(names: &[&str], tensors: &[Tensor]) -> Value {
    let one = |(name, t): (&&str, &Tensor)| {
        let dtype = if t.dtype().is_float() { "float32" } else { "int64" };
        json!({ "name": name, "shape": t.shape(), "dtype": dtype })
    };
    names.iter().zip(tensors).map(one).collect()
}

/// Writes a case with random weights; what it is to give is what it gives eagerly.
fn write_case(suite: &Path, name: &str, inputs: &[Tensor]) {
    let dir = suite.join(name);
    fs::create_dir_all(&dir).unwrap();
    let case = sinter_models::case(name).unwrap();
    let model = (case.build)();
    model.eval();
    let outputs = no_grad(|| model.run(inputs));
    let state = model.state_dict();
    safetensors::save(dir.join("weights.safetensors"), &state, &BTreeMap::new()).unwrap();
    let mut names = [vec![], vec![]];
    for (i, (kind, ports, tensors)) in
        [("input", case.inputs, inputs), ("output", case.outputs, &outputs)].iter().enumerate()
    {
        for (port, t) in ports.iter().zip(*tensors) {
            npy::save(dir.join(format!("{kind}_{}.npy", port.name)), t).unwrap();
            names[i].push(port.name);
        }
    }
    let meta = json!({
        "inputs": describe(&names[0], inputs),
        "outputs": describe(&names[1], &outputs),
        "gflop": null,
    });
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
}

/// Writes a training task, with the losses of its first steps.
fn write_task(suite: &Path, name: &str) {
    let dir = suite.join(name);
    fs::create_dir_all(&dir).unwrap();
    let task = Task::new(Net::Mlp, Method::Adam, false);
    let (model, x, y) = (Net::Mlp.build(false), randn([4, 784]), randint(0, 10, [4]));
    let state = model.state_dict();
    safetensors::save(dir.join("weights.safetensors"), &state, &BTreeMap::new()).unwrap();
    npy::save(dir.join("input.npy"), &x).unwrap();
    npy::save(dir.join("target.npy"), &y).unwrap();
    let mut training = Training::with(&task, &state, (x, y)).unwrap();
    let losses: Vec<f32> = (0..3).map(|_| training.step().item()).collect();
    let meta = json!({
        "net": "mlp", "drop": false, "opt": "adam", "lr": 1e-3, "gflop_step": 0.01,
        "losses_f64": losses,
    });
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
}

fn bench(suite: &Path, more: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_sinter"));
    c.arg("bench").arg("--suite").arg(suite).args(["--threads", "1", "--budget", "0.02"]);
    c.args(more).output().unwrap()
}

#[track_caller]
fn lines(out: &Output) -> Vec<Value> {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[track_caller]
fn refused(out: &Output, because: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && because.iter().all(|b| said.contains(b)), "{said}");
}

#[test]
fn cases_are_checked_and_measured() {
    manual_seed(1);
    let suite = tempfile::tempdir().unwrap();
    let dir = suite.path();
    write_case(dir, "mlp_b3", &[randn([3, 784])]);
    write_case(dir, "matmul_9", &[randn([9, 17]), randn([17, 5])]);
    write_task(dir, "train_mlp_adam_b4");

    let all = lines(&bench(dir, &["--json"]));
    let names: Vec<&str> = all.iter().map(|r| r["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["mlp_b3", "matmul_9", "train_mlp_adam_b4"]);
    for r in &all {
        let of = |k: &str| r[k].as_f64().unwrap_or_else(|| panic!("{k}: {r}"));
        assert!(0.0 < of("min_ms") && of("min_ms") <= of("median_ms"), "{r}");
        assert!(of("cpu_min_ms") > 0.0 && of("of_limit") > 0.0 && of("max_error") < 1e-5, "{r}");
        assert_eq!((&r["threads"], &r["precision"]), (&json!(1), &json!("highest")));
    }
    assert!(all.iter().all(|r| r["mode"] == "fused" && r["compile_ms"].as_f64() > Some(0.0)));
    // Weights and both ends, at the least.
    let bytes = 4 * (784 * 512 + 512 * 512 + 5120 + 1034 + 3 * 794);
    assert!(all[0]["planned_bytes"].as_u64().unwrap() >= bytes, "{}", all[0]);

    for mode in ["eager", "unfused"] {
        for case in ["mlp_b3", "train_mlp_adam_b4"] {
            let one = lines(&bench(dir, &["--case", case, "--json", &format!("--{mode}")]));
            assert_eq!((one.len(), &one[0]["mode"]), (1, &json!(mode)));
        }
    }

    // Rounded operands show in the error.
    let medium = ["--case", "mlp_b3", "--precision", "medium", "--json"];
    let one = &lines(&bench(dir, &medium))[0];
    let error = one["max_error"].as_f64().unwrap();
    assert!(one["precision"] == "medium" && 1e-4 < error && error < 2e-2, "{one}");

    let int8 = ["--case", "mlp_b3", "--precision", "int8", "--json"];
    let one = &lines(&bench(dir, &int8))[0];
    let error = one["max_error"].as_f64().unwrap();
    assert!(one["precision"] == "int8" && 1e-3 < error && error < 0.1, "{one}");

    let file = dir.join("results.json");
    let to = file.to_str().unwrap();
    let out = bench(dir, &["--case", "mlp_b3,matmul_9", "--steps", "--json", to]);
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(shown.contains("mlp_b3, fused, compiled: trace ") && shown.contains("planned MB"));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
}

#[test]
fn what_is_wrong_is_said() {
    manual_seed(2);
    let suite = tempfile::tempdir().unwrap();
    let dir = suite.path();
    refused(&bench(dir, &[]), &["no folder in it has a meta.json"]);
    write_case(dir, "mlp_b2", &[randn([2, 784])]);
    write_task(dir, "train_mlp_adam_b4");
    refused(&bench(dir, &["--case", "mlp_b1"]), &["no case `mlp_b1`", "it has mlp_b2, train_"]);
    refused(&bench(dir, &["--precision", "medium", "--eager"]), &["medium is of compiled"]);
    let names = "the precisions are highest, high, medium, int8";
    refused(&bench(dir, &["--precision", "low"]), &[names]);
    refused(&bench(dir, &["--eager", "--fused"]), &["cannot be used with"]);

    let case = dir.join("mlp_b2");
    let only = ["--case", "mlp_b2"];
    let output = case.join("output_y.npy");
    let right = npy::load(&output).unwrap();
    npy::save(&output, &(&right * 1.001)).unwrap();
    refused(&bench(dir, &only), &["`y` is wrong", "highest allows 1e-5"]);
    npy::save(&output, &(&right * f32::NAN)).unwrap();
    refused(&bench(dir, &only), &["`y` is wrong"]);
    npy::save(&output, &full([2, 9], 0.0, right.dtype())).unwrap();
    refused(
        &bench(dir, &only),
        &["output_y.npy: holds f32 [2, 9], meta.json says float32 [2, 10]"],
    );
    // Where several are measured, the others are.
    let out = bench(dir, &["--json"]);
    refused(&out, &["error: mlp_b2: ", "output_y.npy", "1 of 2 cases could not be measured"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 1);
    fs::remove_file(&output).unwrap();
    refused(&bench(dir, &only), &["output_y.npy: No such file"]);
    npy::save(&output, &right).unwrap();

    let weights = case.join("weights.safetensors");
    let one = BTreeMap::from([("fc1.weight".to_string(), right)]);
    safetensors::save(&weights, &one, &BTreeMap::new()).unwrap();
    refused(&bench(dir, &only), &["weights.safetensors: ", "missing", "fc1.bias"]);
    fs::remove_file(&weights).unwrap();
    refused(&bench(dir, &only), &["weights.safetensors: No such file"]);

    fs::write(case.join("meta.json"), "{}").unwrap();
    refused(&bench(dir, &only), &["meta.json: missing field `inputs`"]);
    let other = dir.join("gpt9");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("meta.json"), "{}").unwrap();
    refused(&bench(dir, &["--case", "gpt9"]), &["`gpt9` is a case of no model", "mnist_cnn"]);
}

#[test]
fn a_case_is_measured_whenever_a_line_asks_for_it() {
    let suite = tempfile::tempdir().unwrap();
    write_case(suite.path(), "mlp_b1", &[randn([1, 784])]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sinter"))
        .args(["bench", "--case", "mlp_b1", "--threads", "1", "--serve", "--suite"])
        .arg(suite.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    orders.write_all(b"measure 0.01\nmeasure 0\nrest\n").unwrap();
    drop(orders);
    let out = child.wait_with_output().unwrap();
    let said: Vec<Value> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [ready, first, second] = &said[..] else { panic!("{said:?}") };
    assert!(ready["compile_ms"].as_f64().unwrap() > 0.0);
    assert!(ready["max_error"].as_f64().unwrap() < 1e-5);
    for turn in [first, second] {
        let ms = |name: &str| turn[name].as_f64().unwrap();
        assert!(0.0 < ms("min") && ms("min") <= ms("median") && ms("cpu") > 0.0);
    }
    refused(&out, &["`rest` is no order"]);
}

/// A program that answers as a Python with one engine would, which takes a second a call.
fn python(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("python");
    let script = r#"#!/bin/sh
# Before these are -B, -c and the script.
case "$4 $5" in
    --probe*) echo '{"python": "3.0", "engines": {"onnxruntime": "1.0", "torch": "2.0"}}' ;;
    "--engine torch") echo '{"unfit": "the suite has no models_torch.py"}' ;;
    *)
        echo '{"compile_ms": 7, "max_error": 0}'
        while read -r order; do echo '{"min": 1000, "median": 1000, "cpu": 1000}'; done
        ;;
esac
"#;
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn peers_are_compared_case_by_case() {
    let suite = tempfile::tempdir().unwrap();
    write_case(suite.path(), "mlp_b1", &[randn([1, 784])]);
    let (python, page) = (python(suite.path()), suite.path().join("peers.html"));
    let [python, html] = [&python, &page].map(|p| p.to_str().unwrap());
    let compare = ["--peers", "--python", python, "--rounds", "5"];
    let table = suite.path().join("peers.md");
    let files = ["--html", html, "--markdown", table.to_str().unwrap()];
    let out = bench(suite.path(), &[&compare[..], &files].concat());
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for part in ["onnxruntime", "1000.0000", "the suite has no models_torch.py", "1 won, 0 lost"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<h2>mlp_b1</h2>") && page.contains("class=\"behind\""), "{page}");
    let table = fs::read_to_string(&table).unwrap();
    assert!(table.contains("| mlp_b1 | onnxruntime | 1.00 s |"), "{table}");
    let out = bench(suite.path(), &[&compare[..], &["--json"]].concat());
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    let runs = all["cases"][0]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs[1]["ratio"]["low"].as_f64().unwrap() > 1.0);

    // An own failure is one, and the page says why.
    fs::remove_file(suite.path().join("mlp_b1/weights.safetensors")).unwrap();
    let out = bench(suite.path(), &[&compare[..], &files].concat());
    refused(&out, &["weights.safetensors: No such file", "1 of 1 cases could not be measured"]);
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("weights.safetensors: No such file"), "{page}");

    let out = bench(suite.path(), &[&compare[..], &["--engines", "tvm"]].concat());
    refused(&out, &["`tvm` is none of onnxruntime, torch"]);
    refused(&bench(suite.path(), &["--peers", "--python", "/no/python"]), &["/no/python"]);
    refused(&bench(suite.path(), &["--peers", "--rounds", "2"]), &["--rounds", "5"]);
}
