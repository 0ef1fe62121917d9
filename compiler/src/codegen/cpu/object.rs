//! Code in a file: a relocatable object with one global symbol, the entry.

use super::{CodegenError, Listing, generate, target};
use crate::plan::Plan;
use cranelift::module::default_libcall_names;
use cranelift::object::{ObjectBuilder, ObjectModule};
use sinter_kernels::isa::Isa;

/// Compiles a plan for level `isa` into an object file (ELF on Linux).
///
/// # Errors
/// When this architecture has no code generator.
pub fn object(plan: &Plan, isa: Isa) -> Result<(Vec<u8>, Vec<Listing>), CodegenError> {
    let fail = |e: &dyn std::fmt::Display| CodegenError::Function {
        function: "the object".to_string(),
        message: e.to_string(),
    };
    let builder =
        ObjectBuilder::new(target(isa)?, plan.program.name.clone(), default_libcall_names())
            .map_err(|e| fail(&e))?;
    let mut module = ObjectModule::new(builder);
    let (_, listings) = generate(&mut module, plan, isa)?;
    let bytes = module.finish().emit().map_err(|e| fail(&e))?;
    Ok((bytes, listings))
}
