//! Code in this process.

use super::{CodegenError, Listing, generate, target};
use crate::plan::Plan;
use cranelift::module::default_libcall_names;
use cranelift_jit::{JITBuilder, JITModule};
use sinter_kernels::isa::Isa;
use sinter_runtime::program::{Code, MainFn};

/// The memory of compiled functions; freed when dropped.
struct Memory(Option<JITModule>);

// SAFETY: after `finalize_definitions` the module is only kept, and freed once.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing is reached through a shared reference.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(m) = self.0.take() {
            // SAFETY: `Code` calls no function after dropping its memory.
            unsafe { m.free_memory() }
        }
    }
}

/// Compiles a plan for this machine, at most at level `isa`.
///
/// # Errors
/// When the machine has no code generator.
pub fn jit(plan: &Plan, isa: Isa) -> Result<(Code, Vec<Listing>), CodegenError> {
    let isa = isa.min(sinter_kernels::isa::detect());
    let builder = JITBuilder::with_isa(target(isa)?, default_libcall_names());
    let mut module = JITModule::new(builder);
    let (entry, listings) = generate(&mut module, plan, isa)?;
    module.finalize_definitions().map_err(|e| CodegenError::Function {
        function: "the module".to_string(),
        message: e.to_string(),
    })?;
    let address = module.get_finalized_function(entry);
    // SAFETY: the entry was generated with exactly this signature.
    let main = unsafe { std::mem::transmute::<*const u8, MainFn>(address) };
    // SAFETY: generated from this plan, for instructions the machine has; the
    // module keeps the code.
    let code = unsafe { Code::new(main, Box::new(Memory(Some(module)))) };
    Ok((code, listings))
}
