//! Lets the tests of device code find MLIR's shared library where the feature `mlir`
//! linked it: the compiler's build script can say that for the compiler's own programs
//! only.

use std::env;

fn main() {
    const PREFIX: &str = "MLIR_SYS_220_PREFIX";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={PREFIX}");
    if env::var_os("CARGO_FEATURE_MLIR").is_some()
        && let Ok(prefix) = env::var(PREFIX)
    {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{prefix}/lib");
    }
}
