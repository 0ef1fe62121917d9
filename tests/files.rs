//! Files: what is written comes back; what is damaged is an error, never a panic.

use proptest::prelude::*;
use sinter::io::{Checkpoint, IoError, idx, npy, safetensors};
use sinter::nn::{Activation, Linear, Module, Sequential};
use sinter::optim::{Adam, Optimizer};
use sinter::{DType, Tensor, from_slice, ones, rand, tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads a file of one of the formats.
type Reader = fn(&Path) -> Result<(), IoError>;

/// A small file of every format, and what reads it.
fn samples(dir: &Path) -> Vec<(PathBuf, Reader)> {
    let x = tensor([[1.0f32, -2.5], [0.0, 7.0]]);
    let named = BTreeMap::from([("x".to_string(), x.clone()), ("y".to_string(), tensor(3i64))]);
    let at = |name: &str| dir.join(name);
    npy::save(at("a.npy"), &x).unwrap();
    npy::save_npz(at("a.npz"), &named).unwrap();
    safetensors::save(at("a.safetensors"), &named, &BTreeMap::new()).unwrap();
    let mut c = Checkpoint::new();
    c.put("model", Linear::new(2, 2).state_dict());
    c.set("step", 7);
    c.save(at("a.checkpoint")).unwrap();
    let image = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 9, 8, 7, 6];
    std::fs::write(at("a.idx"), image).unwrap();
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zip, &image).unwrap();
    std::fs::write(at("a.idx.gz"), zip.finish().unwrap()).unwrap();
    let readers: [(&str, Reader); 6] = [
        ("a.npy", |p| npy::load(p).map(drop)),
        ("a.npz", |p| npy::load_npz(p).map(drop)),
        ("a.safetensors", |p| safetensors::load(p).map(drop)),
        ("a.checkpoint", |p| Checkpoint::load(p).map(drop)),
        ("a.idx", |p| idx::load(p).map(drop)),
        ("a.idx.gz", |p| idx::load(p).map(drop)),
    ];
    readers.into_iter().map(|(name, read)| (at(name), read)).collect()
}

#[test]
fn every_truncation_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (path, read) in samples(dir.path()) {
        read(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for n in 0..bytes.len() {
            std::fs::write(&path, &bytes[..n]).unwrap();
            let e = read(&path).expect_err(&format!("{} cut to {n} bytes", path.display()));
            assert!(e.to_string().starts_with(path.to_str().unwrap()), "{e}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(IoError::System { .. })));
        assert!(matches!(read(dir.path()), Err(IoError::System { .. })));
    }
}

/// Formats without a checksum take some damage for other data; none may panic.
#[test]
fn every_flipped_byte_is_an_error_or_other_data() {
    let dir = tempfile::tempdir().unwrap();
    for (path, read) in samples(dir.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let good = std::fs::read(&path).unwrap();
        let mut unnoticed = 0;
        for i in 0..good.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[i] ^= mask;
                std::fs::write(&path, &bytes).unwrap();
                unnoticed += usize::from(read(&path).is_ok());
            }
        }
        if name == "a.checkpoint" {
            // Only blanks of the header, where any other blank is as good.
            assert!(unnoticed <= 24, "{name}: {unnoticed}");
        }
        if name == "a.npz" {
            assert!(unnoticed < good.len(), "{name}: {unnoticed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(
        start in 0usize..6,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let magic: [&[u8]; 6] =
            [b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"", b"\x1f\x8b\x08", &[0, 0, 8], &[40, 0, 0, 0, 0, 0, 0, 0, b'{']];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise");
        std::fs::write(&path, [magic[start], &bytes].concat()).unwrap();
        // Whatever comes out, it comes out.
        let _ = (npy::load(&path).is_ok(), npy::load_npz(&path).is_ok());
        let _ = (safetensors::load(&path).is_ok(), Checkpoint::load(&path).is_ok());
        prop_assert!(idx::load(&path).is_ok() || idx::load(&path).is_err());
    }
}

#[test]
fn headers_that_claim_the_moon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moon");
    let mut cases: Vec<Vec<u8>> = vec![
        [0, 0, 8, 2].iter().copied().chain([0xff; 8]).collect(),
        u64::MAX.to_le_bytes().to_vec(),
    ];
    let header = r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    cases.push([&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    let npy = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }\n";
    cases.push(
        [b"\x93NUMPY\x01\x00", &(npy.len() as u16).to_le_bytes()[..], npy.as_bytes()].concat(),
    );
    for bytes in cases {
        std::fs::write(&path, bytes).unwrap();
        assert!(idx::load(&path).is_err() && safetensors::load(&path).is_err());
        assert!(npy::load(&path).is_err() && npy::load_npz(&path).is_err());
    }
    // A megabyte of zeros, in a kilobyte.
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zip, &vec![0; 1 << 20]).unwrap();
    std::fs::write(&path, zip.finish().unwrap()).unwrap();
    assert!(idx::load(&path).is_err());
}

#[test]
fn every_type_survives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.safetensors");
    let all: BTreeMap<String, Tensor> = DType::ALL
        .into_iter()
        // The format has no complex numbers of f64.
        .filter(|d| *d != DType::C128)
        .map(|d| (d.to_string(), (rand([2, 3]) * 9.0).to_dtype(d).t()))
        .chain([("empty".to_string(), ones([0, 3])), ("single".to_string(), tensor(2.5f64))])
        .collect();
    let notes = BTreeMap::from([("k".to_string(), "“v”\n".to_string())]);
    safetensors::save(&path, &all, &notes).unwrap();
    let wide = BTreeMap::from([("z".to_string(), ones([2]).to_dtype(DType::C128))]);
    let refused = safetensors::save(&path, &wide, &notes).unwrap_err().to_string();
    assert!(refused.contains("`z` is c128") && refused.contains("view_as_real"), "{refused}");
    let (back, meta) = safetensors::load_with_metadata(&path).unwrap();
    assert_eq!(meta, notes);
    assert_eq!(back.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (name, t) in &all {
        let b = &back[name];
        assert_eq!((b.dtype(), b.shape()), (t.dtype(), t.shape()));
        assert_eq!(b.array().to_bytes(), t.array().to_bytes(), "{name}");
    }
}

fn net() -> Sequential {
    Sequential::new().add(Linear::new(3, 8)).add(Activation::Tanh).add(Linear::new(8, 2))
}

fn train(model: &Sequential, opt: &mut Adam, steps: usize) {
    use sinter::nn::Layer;
    for _ in 0..steps {
        opt.zero_grad();
        let y = model.forward(&rand([4, 3]));
        y.square().mean().backward();
        opt.step();
    }
}

#[test]
fn a_resumed_run_is_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    sinter::manual_seed(1);
    let model = net();
    let mut opt = Adam::new(model.parameters(), 0.01);
    train(&model, &mut opt, 3);
    let mut c = Checkpoint::new();
    c.put("model", model.state_dict());
    c.put("optimizer", opt.state_dict());
    let random = sinter::random::state();
    c.set("random", format!("{} {}", random.seed, random.offset));
    c.save(&path).unwrap();
    train(&model, &mut opt, 3);

    let other = net();
    let mut opt = Adam::new(other.parameters(), 0.5);
    let c = Checkpoint::load(&path).unwrap();
    other.load_state_dict(&c.part("model"), true).unwrap();
    opt.load_state_dict(&c.part("optimizer")).unwrap();
    let (seed, offset) = c.get("random").unwrap().split_once(' ').unwrap();
    let random =
        sinter::random::State { seed: seed.parse().unwrap(), offset: offset.parse().unwrap() };
    sinter::random::set_state(random);
    train(&other, &mut opt, 3);
    for (name, t) in model.state_dict() {
        assert_eq!(t.to_vec::<f32>(), other.state_dict()[&name].to_vec::<f32>(), "{name}");
    }
    assert!(c.part("nothing").is_empty() && c.get("nothing").is_none());
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let c = Checkpoint::new();
    c.save(&path).unwrap();
    let old = std::fs::read(&path).unwrap();
    let mut c = Checkpoint::new();
    c.put("x", BTreeMap::from([("y".to_string(), from_slice(&[1.0f32], [1]))]));
    // A full disk.
    if Path::new("/dev/full").exists() {
        assert!(matches!(c.save("/dev/full/x"), Err(IoError::System { .. })));
    }
    assert!(matches!(c.save(dir.path().join("missing/a")), Err(IoError::System { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), old);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // Another program's file is no checkpoint.
    safetensors::save(&path, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("not a checkpoint"));
}
