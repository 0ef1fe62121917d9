//! Who changed memory in place last: for messages.

use sinter_kernels::mem::Block;
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::Location;
use std::sync::Mutex;

/// Lines that changed memory in place, by the number noted in the block.
static WRITERS: Mutex<Writers> = Mutex::new(Writers { lines: Vec::new(), index: None });

struct Writers {
    lines: Vec<(&'static str, &'static Location<'static>)>,
    index: Option<HashMap<(usize, usize), u32>>,
}

thread_local! {
    /// The line this thread noted last, and its number.
    static LAST: Cell<((usize, usize), u32)> = const { Cell::new(((0, 0), 0)) };
}

/// Notes a change in place, the line that made it, and whether it was recorded.
pub(crate) fn note_write(
    block: &Block,
    op: &'static str,
    at: &'static Location<'static>,
    recorded: bool,
) {
    let key = (op.as_ptr() as usize, std::ptr::from_ref(at) as usize);
    // A line in a loop comes again and again.
    let (last, n) = LAST.get();
    if last == key {
        block.bump_version(n, recorded);
        return;
    }
    let mut w = WRITERS.lock().unwrap_or_else(|e| e.into_inner());
    let w = &mut *w;
    let lines = &mut w.lines;
    let n = *w.index.get_or_insert_default().entry(key).or_insert_with(|| {
        lines.push((op, at));
        lines.len() as u32
    });
    LAST.set((key, n));
    block.bump_version(n, recorded);
}

pub(crate) fn written_at(block: &Block) -> String {
    let w = WRITERS.lock().unwrap_or_else(|e| e.into_inner());
    let line = (block.last_writer() as usize).checked_sub(1).and_then(|i| w.lines.get(i));
    line.map_or(String::new(), |(op, at)| format!(" by `{op}` at {at}"))
}
