//! How the tape behaves.

mod check;
mod checkpoint;
mod func;
mod function;
mod hooks;
mod inplace;
mod modes;
mod parts;
mod programs;
mod tape;
mod threads;

use sinter::{Tensor, tensor};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static EXPECTING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<(String, String, u32)>> = const { RefCell::new(None) };
}

/// The message, file and line of the panic that `f` ends in.
fn panic_of(f: impl FnOnce()) -> (String, String, u32) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTING.get() {
                return usual(info);
            }
            let text = info.payload_as_str().unwrap_or("").to_string();
            let at = info.location().expect("panics have a place");
            LAST.set(Some((text, at.file().to_string(), at.line())));
        }));
    });
    EXPECTING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    EXPECTING.set(false);
    let last = LAST.take();
    assert!(result.is_err(), "expected a panic");
    last.expect("the hook ran")
}

/// The message of the panic that `f` ends in.
fn message_of(f: impl FnOnce()) -> String {
    panic_of(f).0
}

fn leaf(values: &[f64]) -> Tensor {
    tensor(values).requires_grad_(true)
}

fn grad_of(t: &Tensor) -> Vec<f64> {
    t.grad().expect("a gradient").to_vec()
}
