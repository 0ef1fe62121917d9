//! Artifacts: what is written is read back, and what is damaged is found.

use proptest::prelude::*;
use sinter_compiler::artifact::{compiled_graph, report, source_graph};
use sinter_compiler::graph::{Graph, text, verify};
use sinter_compiler::{Options, compile};
use sinter_kernels::isa::{self, Isa};
use sinter_runtime::Array;
use sinter_runtime::artifact::{Artifact, ArtifactError, Section, SectionKind};
use sinter_runtime::program::{Place, RunError};
use std::sync::OnceLock;

const GRAPH: &str = r#"graph "tiny" {
  symbol N in 1..=8 hint 2
  %0 = input "x": f32[N, 3]
  %1 = constant "w": f32[3, 2]
  %2 = constant "b": f32[2]
  %3 = matmul[act=none](%0, %1, %2): f32[N, 2]
  %4 = tanh(%3): f32[N, 2]
  return %4
}
"#;

fn graph() -> Graph {
    let mut g = text::parse(GRAPH).unwrap();
    for c in &mut g.constants {
        let n: usize = c.ty.shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| i as f32 / 4.0 - 0.5).collect();
        c.data = Some(Array::from_slice(&values, &c.ty.shape).unwrap().into());
    }
    g
}

fn input() -> Array {
    Array::from_slice(&[1.0f32, -2.0, 0.5, 0.25, 3.0, -1.0], &[2, 3]).unwrap()
}

/// The artifact, made once.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut compiled = compile(&graph(), &Options::default()).unwrap();
        compiled.artifact(&[isa::active()], &[input()]).unwrap()
    })
}

fn open(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    Artifact::from_bytes(bytes.to_vec())
}

#[test]
fn what_is_written_is_read_back() {
    let a = open(bytes()).unwrap();
    let v = a.verify().unwrap();
    assert!(v.passed() && v.samples.len() == 1, "{v:?}");
    assert_eq!(a.program().unwrap().signature(), "tiny(x: f32[N, 3]) -> (y: f32[N, 2])");
    let source = source_graph(&a).unwrap();
    assert_eq!(source.to_string(), GRAPH);
    for (c, want) in source.constants.iter().zip(&graph().constants) {
        let [got, want] = [c, want].map(|c| c.data.as_ref().unwrap().array().unwrap());
        assert_eq!(got.to_vec::<f32>(), want.to_vec::<f32>());
    }
    let (final_graph, report) = (compiled_graph(&a).unwrap(), report(&a).unwrap());
    let names = text::number(&final_graph);
    for d in &report.decisions {
        let (node, _) = names.iter().find(|(_, i)| **i == d.node).unwrap();
        assert!(d.op.starts_with(final_graph.op(*node).unwrap().name()), "{d:?}");
    }
    // Compiled again it is the same program.
    let inputs = a.sample().unwrap().unwrap().inputs().unwrap();
    let again = compile(&source, &Options::default()).unwrap().artifact(&[isa::active()], &inputs);
    let again = Artifact::from_bytes(again.unwrap()).unwrap();
    assert_eq!(again.program().unwrap(), a.program().unwrap());
    let code = |a: &Artifact| a.bytes(a.find(SectionKind::Code).unwrap()).unwrap().to_vec();
    assert_eq!(code(&again), code(&a));
}

#[test]
fn code_for_several_levels_and_none_for_this_machine() {
    let mut compiled = compile(&graph(), &Options::default()).unwrap();
    let levels = Isa::ALL;
    let all = compiled.artifact(&levels, &[input()]).unwrap();
    let a = Artifact::from_bytes(all).unwrap();
    let run: Vec<Isa> = a.verify().unwrap().samples.iter().map(|s| s.level).collect();
    assert_eq!(run, levels.into_iter().filter(|l| *l <= isa::detect()).collect::<Vec<_>>());
    assert!(a.verify().unwrap().passed());

    let wide = compiled.artifact(&[Isa::Avx512], &[input()]).unwrap();
    let e = Artifact::from_bytes(wide).unwrap().model_at(Isa::Baseline).unwrap_err();
    assert!(matches!(&e, ArtifactError::Machine { .. }), "{e}");
    assert!(e.to_string().contains("x86-64-v4") && e.to_string().contains("baseline"), "{e}");
}

/// Whether loading uses a section.
fn is_loaded(s: &Section) -> bool {
    matches!(s.kind, SectionKind::Program | SectionKind::Code | SectionKind::Constants)
}

#[test]
fn every_flipped_byte_is_found() {
    let good = open(bytes()).unwrap();
    let mut bad = bytes().to_vec();
    let mut after = 32 + 32 * good.sections().len();
    let mut loaded = vec![true; bad.len()];
    for s in good.sections() {
        // The padding before a section counts as the section's.
        loaded[after..s.offset + s.len].fill(is_loaded(s));
        after = s.offset + s.len;
    }
    for i in 0..bad.len() {
        for flip in [0xff, 1 << (i % 8)] {
            bad[i] ^= flip;
            let a = open(&bad);
            let verified = a.as_ref().map_err(ToString::to_string).map(|a| a.verify().is_ok());
            assert!(!matches!(verified, Ok(true)), "byte {i} ^ {flip:#x} is not found");
            let model = a.and_then(|a| a.model());
            assert_eq!(model.is_err(), loaded[i], "byte {i} ^ {flip:#x}");
            bad[i] ^= flip;
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for n in 0..bytes().len() {
        let e = open(&bytes()[..n]).unwrap_err();
        assert!(matches!(e, ArtifactError::Format { .. }), "{n}: {e}");
    }
    let mut long = bytes().to_vec();
    long.push(0);
    assert!(open(&long).unwrap_err().to_string().contains("should have"));
}

#[test]
fn other_versions_are_named() {
    for (at, what) in [(8, "format version 9"), (12, "ABI version 9")] {
        let mut newer = bytes().to_vec();
        newer[at] = 9;
        let e = open(&summed(newer)).unwrap_err();
        assert!(matches!(e, ArtifactError::Version { .. }), "{e}");
        assert!(e.to_string().contains(what), "{e}");
    }
}

#[test]
fn files_that_are_none() {
    let dir = std::env::temp_dir().join(format!("sinter-artifacts-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let missing = Artifact::open(dir.join("missing")).unwrap_err();
    assert!(
        matches!(missing, ArtifactError::System { .. }) && missing.to_string().contains("missing")
    );
    let folder = Artifact::open(&dir).unwrap_err();
    assert!(folder.to_string().contains("no regular file"), "{folder}");
    for (name, content) in [("empty", ""), ("text", "hello, this is certainly no artifact at all")]
    {
        std::fs::write(dir.join(name), content).unwrap();
        let e = Artifact::open(dir.join(name)).unwrap_err().to_string();
        assert!(e.contains(name) && e.contains("not a valid artifact"), "{e}");
    }
    std::fs::write(dir.join("good"), bytes()).unwrap();
    assert!(Artifact::open(dir.join("good")).unwrap().verify().unwrap().passed());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let model = open(bytes()).unwrap().model().unwrap();
    let of =
        |shape: &[usize]| Array::from_slice(&vec![0f32; shape.iter().product()], shape).unwrap();
    let fails = |inputs: &[&Array], want: &str| {
        let e = model.run(inputs).unwrap_err().to_string();
        assert!(e.contains(want), "{e}");
    };
    fails(&[], "1 inputs, got 0");
    fails(&[&of(&[2, 4])], "`x` has shape [2, 4], expected [N, 3] with N = 2");
    fails(&[&of(&[6])], "`x` has shape [6], expected [N, 3]");
    fails(&[&of(&[9, 3])], "size 9 of `N` is outside 1..=8");
    fails(&[&of(&[0, 3])], "size 0 of `N` is outside 1..=8");
    let wide = Array::from_slice(&[0f64; 3], &[1, 3]).unwrap();
    fails(&[&wide], "`x` is f64, expected f32");
    // By rows, any number goes through.
    let many: Vec<f32> = (0..57).map(|i| i as f32 / 10.0 - 2.0).collect();
    let many = Array::from_slice(&many, &[19, 3]).unwrap();
    let whole = model.run_rows(&[&many], 8).unwrap();
    assert_eq!(whole[0].shape(), [19, 2]);
    for r in 0..19 {
        let one = model.run(&[&many.slice(0, r, 1, 1)]).unwrap();
        assert_eq!(one[0].to_vec::<f32>(), whole[0].slice(0, r, 1, 1).to_vec::<f32>());
    }
    assert!(matches!(model.run_rows(&[&of(&[0, 3])], 8), Err(RunError::Rows(_))));
}

/// The file with checksums that fit whatever it holds.
fn summed(mut b: Vec<u8>) -> Vec<u8> {
    let count = u32::from_le_bytes(b[24..28].try_into().unwrap()) as usize;
    for e in (0..count).map(|i| 32 + 32 * i) {
        let number = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap()) as usize;
        let (offset, len) = (number(e + 8), number(e + 16));
        let crc = crc32fast::hash(&b[offset..offset + len]);
        b[e + 4..e + 8].copy_from_slice(&crc.to_le_bytes());
    }
    b[28..32].fill(0);
    let crc = crc32fast::hash(&b[..32 + 32 * count]);
    b[28..32].copy_from_slice(&crc.to_le_bytes());
    b
}

/// A place in a section, and what becomes of the byte there.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
}

fn damaged(kind: SectionKind, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut b = bytes().to_vec();
    let a = open(&b).unwrap();
    let s = a.find(kind).unwrap();
    for (at, byte) in changes {
        b[s.offset + at.index(s.len)] = *byte;
    }
    summed(b)
}

/// The message blames the file, not the system.
fn refused(e: &ArtifactError) -> Result<(), TestCaseError> {
    prop_assert!(!matches!(e, ArtifactError::System { .. }), "{e}");
    Ok(())
}

proptest! {
    // Checksums find accidents. Should they fit nevertheless, everything that is
    // parsed is either refused or makes sense: nothing panics, hangs or takes
    // memory that is not there. (Code is code: it is not executed here.)
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn programs_are_not_believed(changes in damage()) {
        let a = Artifact::from_bytes(damaged(SectionKind::Program, &changes)).unwrap();
        match a.model() {
            Ok(model) => {
                let p = model.program();
                let sizes: Vec<usize> = p.symbols.iter().map(|s| s.min).collect();
                prop_assert!(p.symbols.iter().all(|s| s.min <= s.max), "{:?}", p.symbols);
                let _ = (p.signature(), p.memory(&sizes));
            }
            Err(e) => refused(&e)?,
        }
    }

    #[test]
    fn objects_are_not_believed(changes in damage()) {
        let a = Artifact::from_bytes(damaged(SectionKind::Code, &changes)).unwrap();
        if let Err(e) = a.model() {
            refused(&e)?;
        }
        let s = a.find(SectionKind::Code).unwrap();
        let _ = sinter_compiler::codegen::cpu::disassemble(a.bytes(s).unwrap());
    }

    #[test]
    fn samples_graphs_and_reports_are_not_believed(changes in damage()) {
        let a = Artifact::from_bytes(damaged(SectionKind::Sample, &changes)).unwrap();
        match a.sample() {
            Ok(Some(s)) => {
                let arrays = s.inputs().into_iter().chain(s.outputs()).flatten();
                let bytes_of = |x: &Array| x.numel() * x.dtype().size();
                prop_assert!(arrays.map(|x| bytes_of(&x)).all(|n| n <= bytes().len()));
            }
            Ok(None) => {}
            Err(e) => refused(&e)?,
        }
        let a = Artifact::from_bytes(damaged(SectionKind::Source, &changes)).unwrap();
        let source = source_graph(&a);
        let a = Artifact::from_bytes(damaged(SectionKind::Graph, &changes)).unwrap();
        for g in [source, compiled_graph(&a)].into_iter().flatten() {
            prop_assert!(verify(&g).is_ok(), "a graph that is read breaks a rule:\n{g}");
        }
        let a = Artifact::from_bytes(damaged(SectionKind::Report, &changes)).unwrap();
        let _ = report(&a);
    }
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    let good = open(bytes()).unwrap();
    let code = good.bytes(good.find(SectionKind::Code).unwrap()).unwrap().to_vec();
    let constants = good.bytes(good.find(SectionKind::Constants).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut sinter_runtime::program::Program), want: &str| {
        let mut p = good.program().unwrap().clone();
        change(&mut p);
        let code = [(isa::active(), code.clone())];
        let file = Artifact::assemble(&p, &code, constants, None, &[]);
        let e = match Artifact::from_bytes(file).unwrap().model() {
            Err(e) => e.to_string(),
            Ok(m) => m.run(&[&input()]).unwrap_err().to_string(),
        };
        assert!(e.contains(want), "{e}");
    };
    refused(&|p| p.symbols[0].max = 0, "range 1..=0");
    refused(&|p| p.inputs.clear(), "which is none");
    refused(&|p| p.outputs[0].ty.dtype = sinter_runtime::DType::I64, "differ in type");
    refused(&|p| p.outputs[0].ty.shape[1] = 3usize.into(), "differ in size");
    let constant = |p: &mut sinter_runtime::program::Program| {
        p.buffers.iter().position(|b| matches!(b.place, Place::Constant(_))).unwrap()
    };
    refused(
        &|p| {
            let c = constant(p);
            p.buffers[c].place = Place::Constant(1 << 40);
        },
        "leaves the constants",
    );
    refused(
        &|p| {
            let c = constant(p);
            p.buffers[c].place = Place::Temp { first: 3, last: 99 };
        },
        "lives from step 3 to 99",
    );
    refused(
        &|p| {
            for b in &mut p.buffers {
                if matches!(b.place, Place::Output(_)) {
                    b.place = Place::Input(0);
                }
            }
        },
        "read-only",
    );
}
