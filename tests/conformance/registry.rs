//! The registry: which of PyTorch's operators is computed how.

use crate::args::{Args, Outputs};
use sinter::{DType, Tensor};
use sinter_tests::Tolerance;
use std::collections::BTreeMap;

type Run = Box<dyn Fn(&Args) -> Vec<Tensor> + Send + Sync>;
type Which = Box<dyn Fn(&Args) -> bool + Send + Sync>;

/// How an operator is computed, and what of it is not there.
pub struct Entry {
    /// Computes a case.
    pub run: Run,
    /// What it is made of, where Sinter has no function of its own.
    pub composite: Option<&'static str>,
    /// Replaces the tolerance of f32 and f64 (in units of the type's precision).
    pub tolerance: Option<Tolerance>,
    /// Replaces the tolerance of f64 alone.
    pub double: Option<Tolerance>,
    /// Replaces the tolerance of half precision.
    pub half: Option<Tolerance>,
    /// Cases that are not run, and why.
    pub skips: Vec<(&'static str, Which)>,
    /// Whether it means the memory's layout, so that other layouts are other cases.
    pub dense: bool,
    /// Why gradients are not compared.
    pub no_gradient: Option<&'static str>,
    /// Why second derivatives are not checked.
    pub no_second: Option<&'static str>,
}

impl Entry {
    /// Other tolerances than the general ones; a comment says why.
    pub fn within(&mut self, tolerance: Tolerance) -> &mut Entry {
        self.tolerance = Some(tolerance);
        self
    }

    /// Another tolerance of f64 alone, where PyTorch's value is no better.
    pub fn double(&mut self, tolerance: Tolerance) -> &mut Entry {
        self.double = Some(tolerance);
        self
    }

    /// Another tolerance in half precision: each part of a composite rounds.
    pub fn half(&mut self, units: f64) -> &mut Entry {
        self.half = Some(Tolerance { largest: units, ..Tolerance::units(units) });
        self
    }

    /// Does not run some cases.
    pub fn skip(
        &mut self,
        reason: &'static str,
        which: impl Fn(&Args) -> bool + Send + Sync + 'static,
    ) -> &mut Entry {
        self.skips.push((reason, Box::new(which)));
        self
    }

    /// Does not run the cases of a type.
    pub fn without(&mut self, types: &'static [DType], reason: &'static str) -> &mut Entry {
        self.skip(reason, move |a| a.dtype.is_some_and(|d| types.contains(&d)))
    }

    /// Does not run the cases of complex numbers.
    pub fn real(&mut self) -> &mut Entry {
        self.without(&[DType::C64, DType::C128], "complex numbers")
    }

    /// The op means the memory's layout.
    pub fn dense(&mut self) -> &mut Entry {
        self.dense = true;
        self
    }

    /// Gradients are not compared.
    pub fn no_gradient(&mut self, reason: &'static str) -> &mut Entry {
        self.no_gradient = Some(reason);
        self
    }
}

impl Entry {
    /// Second derivatives are not checked.
    pub fn no_second(&mut self, reason: &'static str) -> &mut Entry {
        self.no_second = Some(reason);
        self
    }
}

/// All entries, by PyTorch's names.
#[derive(Default)]
pub struct Registry {
    /// The entries.
    pub entries: BTreeMap<&'static str, Entry>,
}

impl Registry {
    /// Adds an operator.
    pub fn op<O: Outputs>(
        &mut self,
        name: &'static str,
        run: impl Fn(&Args) -> O + Send + Sync + 'static,
    ) -> &mut Entry {
        let entry = Entry {
            run: Box::new(move |a| run(a).list()),
            composite: None,
            tolerance: None,
            double: None,
            half: None,
            skips: Vec::new(),
            dense: false,
            no_gradient: None,
            no_second: None,
        };
        let old = self.entries.insert(name, entry);
        assert!(old.is_none(), "`{name}` is in the registry twice");
        self.entries.get_mut(name).expect("it was just put there")
    }

    /// Adds an operator that is written as `of` where Sinter is used.
    pub fn composite<O: Outputs>(
        &mut self,
        name: &'static str,
        of: &'static str,
        run: impl Fn(&Args) -> O + Send + Sync + 'static,
    ) -> &mut Entry {
        let entry = self.op(name, run);
        entry.composite = Some(of);
        entry
    }
}
