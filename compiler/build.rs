//! Lets the feature `mlir` link MLIR as a shared library. Does nothing without it.
//!
//! A static link takes minutes and 230 MB. Debian ships `libMLIR.so`, but the C
//! interface, which the bindings look for in `libMLIR-C.so`, only as archives. A
//! linker script of that name that groups the archives closes the gap.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// What the bindings read, too.
const PREFIX: &str = "MLIR_SYS_220_PREFIX";
const PACKAGES: &str = "g++ libmlir-22-dev llvm-22-dev libpolly-22-dev libclang1-22 \
    libclang-common-22-dev zlib1g-dev libzstd-dev";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={PREFIX}");
    if env::var_os("CARGO_FEATURE_MLIR").is_none() {
        return;
    }
    let linked = env::var(PREFIX)
        .map_err(|_| format!("{PREFIX} is not set"))
        .and_then(|prefix| link(&Path::new(&prefix).join("lib")));
    if let Err(why) = linked {
        println!(
            "cargo::error=the feature `mlir` needs LLVM and MLIR 22: {why}. Install them \
             (Debian: {PACKAGES}), or set {PREFIX} and TABLEGEN_220_PREFIX to where they are."
        );
        process::exit(1);
    }
}

fn link(lib: &Path) -> Result<(), String> {
    let entries = fs::read_dir(lib).map_err(|e| format!("{}: {e}", lib.display()))?;
    let is_c_interface = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("libMLIRCAPI") && name.ends_with(".a")
    };
    let mut archives: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(is_c_interface).collect();
    if archives.is_empty() {
        return Err(format!("{} holds no libMLIRCAPI*.a", lib.display()));
    }
    archives.sort();
    let list: String = archives.iter().map(|p| format!(" {}", p.display())).collect();
    let out = env::var("OUT_DIR").map_err(|e| e.to_string())?;
    let script = Path::new(&out).join("libMLIR-C.so");
    fs::write(&script, format!("GROUP ({list} )\n")).map_err(|e| e.to_string())?;
    println!("cargo::rustc-link-search=native={out}");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    Ok(())
}
