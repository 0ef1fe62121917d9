//! Tensors that stand for others for a while.

use super::mode;
use crate::tensor::Tensor;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::cell::RefCell;

thread_local! {
    /// By the number of the tensor that is replaced, which is kept alive.
    static STAND_INS: RefCell<FxHashMap<usize, (Tensor, Tensor)>> = RefCell::default();
}

/// Runs `f` with ops on this thread taking the second of each pair where they are
/// given the first.
pub(crate) fn with_replaced<R>(pairs: Vec<(Tensor, Tensor)>, f: impl FnOnce() -> R) -> R {
    struct Back(FxHashMap<usize, (Tensor, Tensor)>);
    impl Drop for Back {
        fn drop(&mut self) {
            STAND_INS.set(std::mem::take(&mut self.0));
        }
    }
    let before = STAND_INS.with_borrow(|m| m.clone());
    STAND_INS.with_borrow_mut(|m| {
        m.extend(pairs.into_iter().map(|(from, to)| (from.id(), (from, to))));
    });
    let _back = Back(before);
    let _mode = mode::set(mode::REPLACE, mode::REPLACE);
    f()
}

/// What the tensors stand for; `None` where each stands for itself.
#[cold]
pub(crate) fn replaced(inputs: &[&Tensor]) -> Option<SmallVec<[Tensor; 4]>> {
    STAND_INS.with_borrow(|m| {
        if !inputs.iter().any(|t| m.contains_key(&t.id())) {
            return None;
        }
        let find = |t: &&Tensor| m.get(&t.id()).map_or(*t, |(_, to)| to).clone();
        Some(inputs.iter().map(find).collect())
    })
}

/// All that stands for something now.
pub(super) fn stand_ins() -> Vec<(Tensor, Tensor)> {
    STAND_INS.with_borrow(|m| m.values().cloned().collect())
}
