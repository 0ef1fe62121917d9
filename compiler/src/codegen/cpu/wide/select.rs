//! From one operation to instructions, in the registers that are left.

use super::Emitter;
use super::asm::{Bin, R, Rounding, Src};
use super::registers::{Place, src};
use crate::codegen::cpu::micro::{Id, Micro};

impl Emitter<'_> {
    /// Emits one operation for one register; returns where the result is.
    pub(super) fn operation(
        &mut self,
        op: &Micro,
        places: &[Place],
        q: usize,
        free: &mut Vec<u8>,
        dies: &dyn Fn(Id) -> bool,
        load: impl Fn(&mut Self, u32, u8) -> R,
    ) -> R<u8> {
        let s = |id: Id| src(places, id, q);
        let own = |id: Id| match s(id) {
            Src::Reg(r) if dies(id) => Some(r),
            _ => None,
        };
        // A result may take the register of an operand that dies here.
        let reuse = |ids: &[Id], free: &mut Vec<u8>| {
            ids.iter().find_map(|&i| own(i)).unwrap_or_else(|| free.pop().expect("counted"))
        };
        let fresh = |free: &mut Vec<u8>| free.pop().expect("counted");
        use Micro::*;
        macro_rules! bin {
            ($op:ident, $a:expr, $b:expr) => {{
                let d = reuse(&[$a, $b], free);
                self.asm.bin(Bin::$op, d, s($a), s($b))?;
                d
            }};
        }
        macro_rules! one {
            ($a:expr, |$d:ident| $e:expr) => {{
                let $d = reuse(&[$a], free);
                $e?;
                $d
            }};
        }
        Ok(match *op {
            Load(arg) => {
                let d = fresh(free);
                load(self, arg, d)?;
                d
            }
            Const(_) | Row(_) => unreachable!("placed before"),
            Add(a, b) => bin!(Add, a, b),
            Sub(a, b) => bin!(Sub, a, b),
            Mul(a, b) => bin!(Mul, a, b),
            Div(a, b) => bin!(Div, a, b),
            Min(a, b) => bin!(Min, a, b),
            Max(a, b) => bin!(Max, a, b),
            Neg(a) => one!(a, |d| self.asm.neg(d, s(a))),
            Abs(a) => one!(a, |d| self.asm.abs(d, s(a))),
            Round(a) => one!(a, |d| self.asm.round(Rounding::Nearest, d, s(a))),
            Floor(a) => one!(a, |d| self.asm.round(Rounding::Floor, d, s(a))),
            Ceil(a) => one!(a, |d| self.asm.round(Rounding::Ceil, d, s(a))),
            Trunc(a) => one!(a, |d| self.asm.round(Rounding::Trunc, d, s(a))),
            Sqrt(a) => one!(a, |d| self.asm.sqrt(d, s(a))),
            CopySign(a, b) => {
                let d = fresh(free);
                self.asm.copysign(d, s(a), s(b))?;
                d
            }
            Ldexp(a, n) => {
                let d = fresh(free);
                self.asm.ldexp(d, s(a), s(n))?;
                d
            }
            Mantissa(a) | Exponent(a) => {
                let d = fresh(free);
                self.asm.split(matches!(op, Exponent(_)), d, s(a))?;
                d
            }
            Select(cmp, a, b, x, y) => {
                let d = fresh(free);
                self.asm.select(cmp, d, [s(a), s(b), s(x), s(y)])?;
                d
            }
            Fma(a, b, c) | Fnma(a, b, c) => {
                let negate = matches!(op, Fnma(..));
                // The product may be taken either way round; a constant stands best
                // where an operand may come from memory.
                if let (Some(d), Src::Reg(x)) = (own(c).filter(|_| c != a && c != b), s(a)) {
                    self.asm.fma231(negate, d, x, s(b))?;
                    d
                } else if let (Some(d), Src::Reg(y)) = (own(a).filter(|_| a != c && a != b), s(b)) {
                    self.asm.fma213(negate, d, y, s(c))?;
                    d
                } else if let (Some(d), Src::Reg(x)) = (own(b).filter(|_| b != c && a != b), s(a)) {
                    self.asm.fma213(negate, d, x, s(c))?;
                    d
                } else {
                    let d = fresh(free);
                    match (s(a), s(b)) {
                        (Src::Reg(x), Src::Reg(y)) => {
                            self.asm.copy(d, x)?;
                            self.asm.fma213(negate, d, y, s(c))?;
                        }
                        (Src::Const(k), Src::Reg(y)) | (Src::Reg(y), Src::Const(k)) => {
                            self.asm.constant(d, k)?;
                            self.asm.fma213(negate, d, y, s(c))?;
                        }
                        (Src::Const(k), Src::Const(l)) => {
                            // Both in memory: the addend goes into the register.
                            match s(c) {
                                Src::Reg(z) => self.asm.copy(d, z)?,
                                Src::Const(z) => self.asm.constant(d, z)?,
                            }
                            let t = if self.asm.wide() { 31 } else { 14 };
                            self.asm.constant(t, k)?;
                            self.asm.fma231(negate, d, t, Src::Const(l))?;
                        }
                    }
                    d
                }
            }
        })
    }
}
