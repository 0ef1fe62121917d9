//! What the commands print, write and refuse.

mod common;

use common::{Place, compiled, tiny};
use sinter::io::npy;
use sinter::{DType, Tensor, tensor};

fn rows(n: usize) -> Tensor {
    sinter::arange(0.0, n as f64 * 4.0, 1.0).reshape([n, 4]) / (n as f64 * 4.0)
}

/// What the tiny model computes.
fn expected(x: &Tensor) -> Tensor {
    let w = sinter::arange(0.0, 12.0, 1.0).reshape([4, 3]) / 12.0;
    (x.matmul(&w) + tensor([0.5f32, -0.5, 0.0])).tanh()
}

#[track_caller]
fn assert_close(got: &Tensor, want: &Tensor) {
    assert_eq!((got.shape(), got.dtype()), (want.shape(), want.dtype()));
    let error = (got - want).abs().max().item::<f32>();
    assert!(error < 1e-5, "{error}");
}

#[test]
fn compile_run_verify() {
    let place = tiny();
    place
        .sinter("compile tiny.graph --weights tiny.safetensors -o a.sinter --report")
        .succeeds()
        .says(&["tiny(x: f32[N, 4]) -> (y: f32[N, 3])", "became 1 steps", "plan", "tanh", "ms"]);
    npy::save(place.path("x.npy"), &rows(5)).unwrap();
    let want = expected(&rows(5));

    place.sinter("run a.sinter x.npy").succeeds().says(&["y: f32 [5, 3]"]);
    for args in ["run a.sinter x.npy -o y.npy", "run a.sinter x=x.npy -b 2 -t 1 -o y.npy"] {
        place.sinter(args).succeeds();
        assert_close(&npy::load(place.path("y.npy")).unwrap(), &want);
    }
    place.sinter("run a.sinter x.npy -o all.npz").succeeds();
    assert_close(&npy::load_npz(place.path("all.npz")).unwrap()["y"], &want);
    npy::save_npz(place.path("in.npz"), &[("x".to_string(), rows(5))].into()).unwrap();
    place.sinter("run a.sinter in.npz -o folder").succeeds();
    assert_close(&npy::load(place.path("folder/y.npy")).unwrap(), &want);

    place.write("labels", "cat\ndog\nbird\n");
    place
        .sinter("run a.sinter x.npy --top 2 --labels labels")
        .succeeds()
        .says(&["class", "bird", "score"]);
    place.sinter("verify a.sinter").succeeds().says(&[
        "every byte of",
        "compiled      right",
        "eager         right",
        "invariants hold",
    ]);
}

#[test]
fn integers_take_examples_and_say_what_they_change() {
    let place = compiled();
    npy::save(place.path("x.npy"), &rows(64)).unwrap();
    npy::save(place.path("other.npy"), &rows(9)).unwrap();
    let int8 = "compile tiny.sinter --precision int8 -o int8.sinter";
    place
        .sinter(&format!("{int8} --calibrate x.npy --held-out other.npy --calibration-method mse"))
        .succeeds()
        .says(&["int8 in 1 of 1 layers; ranges by mse", "held out", "rms", "dB of signal"]);
    place.sinter("verify int8.sinter").succeeds().says(&["compiled      right", "eager  "]);
    place.sinter("inspect int8.sinter").succeeds().says(&[
        "Accuracy",
        "as int8",
        "held-out inputs",
    ]);
    place.sinter("inspect int8.sinter --decisions").succeeds().says(&["int8: its input is"]);
    place.sinter("run int8.sinter other.npy -b 3").succeeds();

    place.sinter(int8).fails(&["int8 needs calibration"]);
    let given = "compile tiny.sinter -o out --calibrate x.npy";
    place.sinter(given).fails(&["--calibrate is for --precision int8, not highest"]);
    place
        .sinter(&format!("{int8} --calibrate x.npy --keep-f32 fc9"))
        .fails(&["there is no layer `fc9`"]);
    place.sinter(&format!("{int8} --calibrate none.npy")).fails(&["none.npy"]);
}

#[test]
fn an_artifact_is_compiled_again() {
    let place = compiled();
    place
        .sinter("compile tiny.sinter --unfused --isa baseline,x86-64-v3 -o again.sinter")
        .succeeds()
        .says(&["became 2 steps"]);
    place.sinter("verify again.sinter").succeeds().says(&["code for baseline"]);
    place.sinter("compile tiny.sinter --without matmul-tanh -o plain.sinter").succeeds();
    place.sinter("verify plain.sinter").succeeds();
}

#[test]
fn kernels_for_devices() {
    let place = tiny();
    place.write(
        "rows.graph",
        r#"graph "rows" {
  symbol N in 1..=8 hint 2
  %0 = input "x": f32[N, 100]
  %1 = softmax[axis=1, log=false](%0): f32[N, 100]
  return %1
}
"#,
    );
    place.sinter("compile rows.graph -o rows.sinter").succeeds();
    let ptx = place.sinter("inspect rows.sinter --ptx sm_90");
    if cfg!(feature = "mlir") {
        ptx.succeeds().says(&["32 thread(s) a row", ".target sm_90", ".visible .entry"]);
        place.sinter("inspect rows.sinter --ptx sm_20").fails(&["`sm_20`", "sm_80, "]);
    } else {
        ptx.fails(&["`mlir`", "--features mlir"]);
    }
}

#[test]
fn inspect_shows_everything() {
    let place = compiled();
    place.sinter("inspect tiny.sinter").succeeds().says(&[
        "tiny(x: f32[N, 4]) -> (y: f32[N, 3])",
        "N in 1..=8, planned for 2",
        "source constants",
        "compiled in",
        "matmul",
        "Memory",
        "sinter_main",
    ]);
    let source = place.sinter("inspect tiny.sinter --graph --source").succeeds().stdout();
    assert_eq!(source, std::fs::read_to_string(place.path("tiny.graph")).unwrap());
    place.sinter("inspect tiny.sinter --plan --memory").succeeds().says(&["b0: f32[4*N] input x"]);
    place.sinter("inspect tiny.sinter --decisions").succeeds().says(&["matmul-tanh", "why"]);
    place.sinter("inspect tiny.sinter --kernels --asm").succeeds().says(&[
        "element:",
        "tanh %0",
        "sinter_main",
    ]);
    if cfg!(target_arch = "x86_64") {
        place.sinter("inspect tiny.sinter --kernels --asm").succeeds().says(&["ret"]);
    }
    place.sinter("inspect tiny.sinter --dot -").succeeds().says(&["digraph \"tiny\"", "step 0"]);
    place.sinter("inspect tiny.sinter --svg a.svg").succeeds();
    place.sinter("inspect tiny.sinter --svg b.svg --source").succeeds();
    for (file, step) in [("a.svg", true), ("b.svg", false)] {
        let svg = std::fs::read_to_string(place.path(file)).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("matmul") && svg.contains("f32[N, 4]"));
        assert_eq!(svg.contains("step 0"), step);
    }
    let json = place.sinter("inspect tiny.sinter --json").succeeds().stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["inputs"][0]["shape"], serde_json::json!(["N", "4"]));
    assert_eq!(json["report"]["decisions"][1]["step"], 0);
}

#[test]
fn bytes_become_inputs() {
    let place = Place::new();
    place.write(
        "id.graph",
        "graph \"id\" {\n  symbol N in 1..=8 hint 1\n  %0 = input \"x\": f32[N, 1, 2, 3]\n  %1 = neg(%0): f32[N, 1, 2, 3]\n  return %1\n}\n",
    );
    place.sinter("compile id.graph -o id.sinter").succeeds();
    let image = |name: &str, color: png::ColorType, pixels: &[u8]| {
        let file = std::fs::File::create(place.path(name)).unwrap();
        let mut encoder = png::Encoder::new(file, 3, 2);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    };
    let gray = [0u8, 51, 102, 153, 204, 255];
    image("gray.png", png::ColorType::Grayscale, &gray);
    let rgba: Vec<u8> = gray.iter().flat_map(|&g| [g, g, g, 128]).collect();
    image("colour.png", png::ColorType::Rgba, &rgba);
    let want = |scale: f32| -> Vec<f32> { gray.map(|g| -f32::from(g) / 255.0 * scale).into() };
    place.sinter("run id.sinter gray.png colour.png -o y.npy").succeeds();
    let y = npy::load(place.path("y.npy")).unwrap();
    assert_eq!(y.shape(), [2, 1, 2, 3]);
    assert_close(&y.reshape([12]), &tensor([want(1.0), want(1.0)].concat()));
    place.sinter("run id.sinter x=gray.png --std 0.5 -o y.npy").succeeds();
    assert_close(&npy::load(place.path("y.npy")).unwrap().reshape([6]), &tensor(want(2.0)));

    let mut idx = vec![0u8, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    idx.extend(gray);
    place.write("images.idx", &idx);
    place.sinter("run id.sinter images.idx -o y.npy").succeeds();
    assert_close(&npy::load(place.path("y.npy")).unwrap().reshape([6]), &tensor(want(1.0)));

    idx[11] = 3;
    idx.extend([0; 3]);
    place.write("images.idx", &idx);
    place.sinter("run id.sinter images.idx").fails(&[
        "images.idx",
        "[1, 3, 3]",
        "rows of [1, 2, 3]",
    ]);
    place.write("broken.png", &b"\x89PNG\r\n\x1a\nnothing"[..]);
    place.sinter("run id.sinter broken.png").fails(&["broken.png"]);
}

#[test]
fn wrong_inputs_are_named() {
    let place = compiled();
    npy::save(place.path("x.npy"), &rows(5)).unwrap();
    npy::save(place.path("wide.npy"), &rows(5).to_dtype(DType::F64)).unwrap();
    npy::save(place.path("flat.npy"), &rows(5).reshape([20])).unwrap();
    npy::save(place.path("many.npy"), &rows(50)).unwrap();
    place.write("noise", "neither this nor that");
    for (args, want) in [
        ("", vec!["no file for input `x`", "tiny(x: f32[N, 4])"]),
        ("x.npy x.npy", vec!["x.npy is one input too many"]),
        ("z=x.npy", vec!["no input `z`"]),
        ("x=x.npy x=x.npy", vec!["`x` is given twice"]),
        ("missing.npy", vec!["missing.npy", "No such file"]),
        ("noise", vec!["noise", "neither npy"]),
        (".", vec!["no regular file"]),
        ("wide.npy", vec!["`x` is f64, expected f32"]),
        ("flat.npy", vec!["`x` has shape [20], expected [N, 4]"]),
        ("many.npy", vec!["size 50 of `N` is outside 1..=8", "--batch"]),
        ("x.npy --top 1 --labels noise", vec!["1 labels for 3 classes"]),
        ("x.npy -o missing/dir.npy", vec!["missing/dir.npy", "No such file"]),
    ] {
        place.sinter(&format!("run tiny.sinter {args}")).fails(&want);
    }
    place.sinter("run tiny.sinter many.npy --batch 8 -o y.npy").succeeds();
    assert_close(&npy::load(place.path("y.npy")).unwrap(), &expected(&rows(50)));
}

#[test]
fn damaged_files_are_refused() {
    let place = compiled();
    npy::save(place.path("x.npy"), &rows(5)).unwrap();
    let good = std::fs::read(place.path("tiny.sinter")).unwrap();
    for (name, bytes) in [("empty", vec![]), ("cut", good[..good.len() / 2].to_vec())] {
        place.write(name, bytes);
        for command in ["run NAME x.npy", "verify NAME", "inspect NAME", "compile NAME -o out"] {
            place.sinter(&command.replace("NAME", name)).fails(&[name]);
        }
    }
    // A weight changes: nothing is computed with it.
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    place.write("bent", &bad);
    place.sinter("verify bent").fails(&["bent", "source constants is damaged"]);
    place.sinter("compile bent -o out").fails(&["bent", "source constants is damaged"]);
    place.sinter("run bent x.npy").succeeds();
    for command in
        ["run missing x.npy", "verify missing", "inspect missing", "compile missing -o out"]
    {
        place.sinter(command).fails(&["missing: No such file"]);
    }
    for command in ["run . x.npy", "verify .", "inspect ."] {
        place.sinter(command).fails(&["no regular file"]);
    }
    assert!(!place.names().contains(&"out".to_string()));
}

#[test]
fn bad_graphs_and_weights_are_named() {
    let place = tiny();
    place.write("text", "graph \"x\" {\n  %0 = input \"a\": f32[2]\n  %1 = exp(%7): f32[2]\n}\n");
    place.write("binary", [0xff, 0xfe, 0x00, 0x9f]);
    let other = [("w".to_string(), tensor([1.0f32]))];
    let pairs = other.iter().map(|(n, t)| (n, t));
    sinter::io::safetensors::save(place.path("other"), pairs, &Default::default()).unwrap();
    for (args, want) in [
        ("text", vec!["text", "line 3", "%7"]),
        ("binary", vec!["binary", "no graph"]),
        ("tiny.graph", vec!["constants (w, b)", "--weights"]),
        ("tiny.graph --weights other", vec!["`w` is f32 [1]", "expects f32 [4, 3]"]),
        ("tiny.graph --weights text", vec!["text", "safetensors"]),
        ("tiny.graph --weights tiny.safetensors --without nonsense", vec!["nonsense"]),
    ] {
        place.sinter(&format!("compile {args} -o out")).fails(&want);
    }
    assert!(!place.names().contains(&"out".to_string()));
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let place = compiled();
    let old = std::fs::read(place.path("tiny.sinter")).unwrap();
    let before = place.names();
    place
        .sinter_cramped(2, "compile tiny.graph --weights tiny.safetensors -o tiny.sinter")
        .fails(&["tiny.sinter", "large"]);
    assert_eq!(std::fs::read(place.path("tiny.sinter")).unwrap(), old);
    assert_eq!(place.names(), before, "no debris");
    place.sinter("compile tiny.sinter -o missing/a.sinter").fails(&["missing/a.sinter", "No such"]);
    place.sinter("compile tiny.sinter -o .").fails(&["error: ."]);
    assert_eq!(place.names(), before);
}

#[test]
fn the_small_program() {
    let place = compiled();
    npy::save(place.path("x.npy"), &rows(50)).unwrap();
    place.sinter_run("--info tiny.sinter").succeeds().says(&["tiny(x", "source constants"]);
    place.sinter_run("--verify tiny.sinter").succeeds().says(&["sections intact", "right"]);
    place
        .sinter_run("tiny.sinter x.npy --batch 8 --output y.npy --time --repeat 3 --threads 2")
        .succeeds()
        .says(&["load", "first", "median"]);
    assert_close(&npy::load(place.path("y.npy")).unwrap(), &expected(&rows(50)));
    place.sinter_run("tiny.sinter -i x=x.npy -b 7 -o out").succeeds();
    assert_close(&npy::load(place.path("out/y.npy")).unwrap(), &expected(&rows(50)));
    npy::save(place.path("one.npy"), &rows(1)).unwrap();
    place.sinter_run("tiny.sinter one.npy").succeeds().says(&["y: f32 [1, 3] = "]);
    for (args, want) in [
        ("tiny.sinter", vec!["no file for input `x`"]),
        ("tiny.sinter x.npy", vec!["outside 1..=8", "--batch"]),
        ("tiny.sinter x.npy x.npy", vec!["too many"]),
        ("tiny.sinter -i z=x.npy", vec!["no input `z`"]),
        ("tiny.sinter missing.npy", vec!["missing.npy: No such file"]),
        ("tiny.sinter tiny.graph", vec!["tiny.graph: not an npy file"]),
        ("missing one.npy", vec!["missing: No such file"]),
        ("--verify tiny.graph", vec!["tiny.graph is not a valid artifact"]),
        ("--nonsense", vec!["--nonsense", "--help"]),
        ("tiny.sinter one.npy -o missing/y.npy", vec!["missing/y.npy: No such file"]),
    ] {
        place.sinter_run(args).fails(&want);
    }
}
