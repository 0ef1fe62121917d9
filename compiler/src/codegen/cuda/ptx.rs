//! From a module to PTX, through MLIR's passes and LLVM's generator for NVPTX.

use super::{Arch, CudaError};
use melior::Context;
use melior::dialect::DialectRegistry;
use melior::ir::Module;
use melior::ir::block::BlockLike;
use melior::ir::operation::OperationLike;
use melior::pass::PassManager;
use melior::utility::{
    parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes,
};
use std::cell::RefCell;
use std::rc::Rc;

/// MLIR, set up.
pub(super) struct Tools {
    context: Context,
}

impl Tools {
    pub(super) fn new() -> Tools {
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        register_all_passes();
        // Kernels are small: threads would cost more than they bring.
        let context = Context::new_with_registry(&registry, false);
        context.load_all_available_dialects();
        register_all_llvm_translations(&context);
        Tools { context }
    }

    /// The PTX of a module that holds one `gpu.module`.
    pub(super) fn ptx(&self, kernel: &str, source: &str, arch: Arch) -> Result<String, CudaError> {
        let failed = |message: String| CudaError::Mlir { kernel: kernel.to_string(), message };
        let mut module = self.explained(|| Module::parse(&self.context, source)).map_err(failed)?;
        let manager = PassManager::new(&self.context);
        parse_pass_pipeline(manager.as_operation_pass_manager(), &pipeline(arch))
            .map_err(|e| failed(e.to_string()))?;
        self.explained(|| manager.run(&mut module).ok()).map_err(failed)?;
        object(&module).ok_or_else(|| failed("the passes left no PTX".to_string()))
    }

    /// Runs something of MLIR; where it fails, the error is what MLIR had to say.
    fn explained<T>(&self, f: impl FnOnce() -> Option<T>) -> Result<T, String> {
        let said = Rc::new(RefCell::new(String::new()));
        let to = Rc::clone(&said);
        let handler = self.context.attach_diagnostic_handler(move |d| {
            let mut to = to.borrow_mut();
            if !to.is_empty() {
                to.push_str("; ");
            }
            to.push_str(&format!("{}: {d}", d.location()));
            true
        });
        let result = f();
        self.context.detach_diagnostic_handler(handler);
        result.ok_or_else(|| said.take())
    }
}

/// Structured control flow and arithmetic go before `convert-gpu-to-nvvm`, which
/// would turn some of it into calls of NVIDIA's device library.
fn pipeline(arch: Arch) -> String {
    format!(
        "builtin.module(\
           nvvm-attach-target{{chip={arch} features=+ptx{ptx} O=3}},\
           convert-scf-to-cf,\
           convert-nvvm-to-llvm,\
           gpu.module(\
             canonicalize,cse,\
             convert-arith-to-llvm,\
             convert-gpu-to-nvvm,\
             canonicalize,cse,\
             reconcile-unrealized-casts),\
           gpu-module-to-binary{{format=isa}})",
        ptx = arch.ptx
    )
}

/// The text inside the module's `gpu.binary`. The bindings know no such attribute;
/// its printed form holds the text as a string.
fn object(module: &Module<'_>) -> Option<String> {
    let mut next = module.body().first_operation();
    while let Some(op) = next {
        if op.name().as_string_ref().as_str() == Ok("gpu.binary") {
            let objects = op.attribute("objects").ok()?.to_string();
            let (_, text) = objects.split_once("assembly = \"")?;
            let (text, _) = text.rsplit_once('"')?;
            return unescape(text);
        }
        next = op.next_in_block();
    }
    None
}

/// Undoes the escapes of MLIR's strings: a backslash and two hexadecimal digits, or
/// two backslashes. The closing NUL of an object is dropped.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [b, after @ ..] = rest {
        rest = after;
        if *b != b'\\' {
            bytes.push(*b);
        } else if let [b'\\', after @ ..] = rest {
            bytes.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        }
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_mlir() {
        assert_eq!(unescape("a\\0A\\22b\\22 \\\\c\\00").as_deref(), Some("a\n\"b\" \\c"));
        assert_eq!(unescape("\\0"), None);
        assert_eq!(unescape("\\xy"), None);
    }

    #[test]
    fn what_mlir_refuses_is_named() {
        let arch = Arch::ALL[0];
        let refused = |source| match Tools::new().ptx("k", source, arch) {
            Err(CudaError::Mlir { message, .. }) => message,
            other => panic!("{other:?}"),
        };
        assert!(refused("gpu.module @m { oops }").contains("oops"));
        assert_eq!(refused("module {}"), "the passes left no PTX");
    }
}
