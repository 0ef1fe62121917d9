//! Vector instructions of both levels behind one face.
//!
//! Methods emit one [`Micro`](super::super::micro::Micro) operation each, at the
//! full register width of the level: 16 lanes with AVX-512, 8 with AVX2.
//! Register 31 (AVX-512) or 14 and 15 (AVX2) are scratch; mask register `k1` (or
//! vector 13) masks the tail of a row, `k7` is scratch.

use super::super::micro::Cmp;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use sinter_kernels::isa::Isa;

pub(super) type R<T = ()> = Result<T, IcedError>;

const Z: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14,
    zmm15, zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27,
    zmm28, zmm29, zmm30, zmm31,
];
const Y: [AsmRegisterYmm; 32] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
    ymm15, ymm16, ymm17, ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27,
    ymm28, ymm29, ymm30, ymm31,
];
const X: [AsmRegisterXmm; 32] = [
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14,
    xmm15, xmm16, xmm17, xmm18, xmm19, xmm20, xmm21, xmm22, xmm23, xmm24, xmm25, xmm26, xmm27,
    xmm28, xmm29, xmm30, xmm31,
];

/// A vector operand: a register or a constant in memory behind the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Src {
    Reg(u8),
    Const(u32),
}

/// An operation of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bin {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Rounding, as the immediate of the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rounding {
    Nearest = 8,
    Floor = 9,
    Ceil = 10,
    Trunc = 11,
}

const SIGN: u32 = 0x8000_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Bits of 2/3, from which [`sinter_kernels::math::Lane::split`] counts exponents.
const SPLIT: u32 = 0x3f2a_aaab;

pub(super) struct Asm {
    pub(super) a: CodeAssembler,
    isa: Isa,
    pool: Vec<(u32, CodeLabel)>,
    /// AVX2: -1 eight times, then 0 eight times; a tail mask is a window into it.
    ramp: Option<CodeLabel>,
}

impl Asm {
    pub(super) fn new(isa: Isa) -> R<Asm> {
        let mut a = CodeAssembler::new(64)?;
        // Registers above 15 exist in EVEX encodings alone.
        a.set_prefer_vex(isa != Isa::Avx512);
        Ok(Asm { a, isa, pool: vec![], ramp: None })
    }

    pub(super) fn wide(&self) -> bool {
        self.isa == Isa::Avx512
    }

    /// Lanes of a register.
    pub(super) fn lanes(&self) -> usize {
        self.isa.lanes_f32()
    }

    /// Registers that may hold values.
    pub(super) fn registers(&self) -> u8 {
        if self.wide() { 31 } else { 13 }
    }

    fn scratch(&self) -> u8 {
        if self.wide() { 31 } else { 14 }
    }

    fn label(&mut self, bits: u32) -> CodeLabel {
        if let Some(p) = self.pool.iter().find(|p| p.0 == bits) {
            return p.1;
        }
        let l = self.a.create_label();
        self.pool.push((bits, l));
        l
    }

    /// Writes the constants behind the code and assembles everything.
    pub(super) fn finish(mut self) -> R<Vec<u8>> {
        let copies = if self.wide() { 1 } else { 8 };
        for (bits, mut l) in std::mem::take(&mut self.pool) {
            self.a.set_label(&mut l)?;
            self.a.dd(&vec![bits; copies])?;
        }
        if let Some(mut l) = self.ramp.take() {
            self.a.set_label(&mut l)?;
            self.a.dd(&[u32::MAX; 8])?;
            self.a.dd(&[0; 8])?;
        }
        self.a.assemble(0)
    }

    /// A constant as a memory operand.
    fn mem(&mut self, bits: u32) -> AsmMemoryOperand {
        let l = self.label(bits);
        if self.wide() { dword_bcst(l) } else { ymmword_ptr(l) }
    }

    /// Puts an operand into a register: its own, or scratch.
    fn reg(&mut self, s: Src) -> R<u8> {
        match s {
            Src::Reg(r) => Ok(r),
            Src::Const(bits) => {
                let t = self.scratch();
                self.constant(t, bits)?;
                Ok(t)
            }
        }
    }

    /// `d = constant`
    pub(super) fn constant(&mut self, d: u8, bits: u32) -> R {
        if bits == 0 {
            return self.zero(d);
        }
        let l = self.label(bits);
        if self.wide() {
            self.a.vbroadcastss(Z[d as usize], dword_ptr(l))
        } else {
            self.a.vmovups(Y[d as usize], ymmword_ptr(l))
        }
    }

    pub(super) fn zero(&mut self, d: u8) -> R {
        let d = d as usize;
        if self.wide() { self.a.vpxord(Z[d], Z[d], Z[d]) } else { self.a.vxorps(Y[d], Y[d], Y[d]) }
    }

    pub(super) fn copy(&mut self, d: u8, s: u8) -> R {
        if d == s {
            return Ok(());
        }
        if self.wide() {
            self.a.vmovaps(Z[d as usize], Z[s as usize])
        } else {
            self.a.vmovaps(Y[d as usize], Y[s as usize])
        }
    }

    /// `d = a op b`
    pub(super) fn bin(&mut self, op: Bin, d: u8, a: Src, b: Src) -> R {
        let x = self.reg(a)? as usize;
        let d = d as usize;
        macro_rules! emit {
            ($d:expr, $x:expr, $b:expr) => {
                match op {
                    Bin::Add => self.a.vaddps($d, $x, $b),
                    Bin::Sub => self.a.vsubps($d, $x, $b),
                    Bin::Mul => self.a.vmulps($d, $x, $b),
                    Bin::Div => self.a.vdivps($d, $x, $b),
                    Bin::Min => self.a.vminps($d, $x, $b),
                    Bin::Max => self.a.vmaxps($d, $x, $b),
                    Bin::And => self.a.vandps($d, $x, $b),
                    Bin::Or => self.a.vorps($d, $x, $b),
                    Bin::Xor => self.a.vxorps($d, $x, $b),
                }
            };
        }
        match (self.wide(), b) {
            (true, Src::Reg(y)) => emit!(Z[d], Z[x], Z[y as usize]),
            (false, Src::Reg(y)) => emit!(Y[d], Y[x], Y[y as usize]),
            (true, Src::Const(c)) => {
                let m = self.mem(c);
                emit!(Z[d], Z[x], m)
            }
            (false, Src::Const(c)) => {
                let m = self.mem(c);
                emit!(Y[d], Y[x], m)
            }
        }
    }

    /// `d = ±(d * b) + c`, the sign negative when `negate`.
    pub(super) fn fma213(&mut self, negate: bool, d: u8, b: u8, c: Src) -> R {
        let (d, b) = (d as usize, b as usize);
        macro_rules! emit {
            ($d:expr, $b:expr, $c:expr) => {
                if negate {
                    self.a.vfnmadd213ps($d, $b, $c)
                } else {
                    self.a.vfmadd213ps($d, $b, $c)
                }
            };
        }
        match (self.wide(), c) {
            (true, Src::Reg(c)) => emit!(Z[d], Z[b], Z[c as usize]),
            (false, Src::Reg(c)) => emit!(Y[d], Y[b], Y[c as usize]),
            (true, Src::Const(c)) => {
                let m = self.mem(c);
                emit!(Z[d], Z[b], m)
            }
            (false, Src::Const(c)) => {
                let m = self.mem(c);
                emit!(Y[d], Y[b], m)
            }
        }
    }

    /// `d = ±(a * b) + d`, the sign negative when `negate`.
    pub(super) fn fma231(&mut self, negate: bool, d: u8, a: u8, b: Src) -> R {
        let (d, a) = (d as usize, a as usize);
        macro_rules! emit {
            ($d:expr, $a:expr, $b:expr) => {
                if negate {
                    self.a.vfnmadd231ps($d, $a, $b)
                } else {
                    self.a.vfmadd231ps($d, $a, $b)
                }
            };
        }
        match (self.wide(), b) {
            (true, Src::Reg(b)) => emit!(Z[d], Z[a], Z[b as usize]),
            (false, Src::Reg(b)) => emit!(Y[d], Y[a], Y[b as usize]),
            (true, Src::Const(b)) => {
                let m = self.mem(b);
                emit!(Z[d], Z[a], m)
            }
            (false, Src::Const(b)) => {
                let m = self.mem(b);
                emit!(Y[d], Y[a], m)
            }
        }
    }

    pub(super) fn neg(&mut self, d: u8, a: Src) -> R {
        self.bin(Bin::Xor, d, a, Src::Const(SIGN))
    }

    pub(super) fn abs(&mut self, d: u8, a: Src) -> R {
        self.bin(Bin::And, d, a, Src::Const(MAGNITUDE))
    }

    /// `d` = magnitude of `a`, sign of `s`; `d` differs from both.
    pub(super) fn copysign(&mut self, d: u8, a: Src, s: Src) -> R {
        self.bin(Bin::And, d, a, Src::Const(MAGNITUDE))?;
        let t = self.scratch();
        self.bin(Bin::And, t, s, Src::Const(SIGN))?;
        self.bin(Bin::Or, d, Src::Reg(d), Src::Reg(t))
    }

    pub(super) fn round(&mut self, mode: Rounding, d: u8, a: Src) -> R {
        let x = self.reg(a)? as usize;
        if self.wide() {
            self.a.vrndscaleps(Z[d as usize], Z[x], mode as u32)
        } else {
            self.a.vroundps(Y[d as usize], Y[x], mode as u32)
        }
    }

    pub(super) fn sqrt(&mut self, d: u8, a: Src) -> R {
        let x = self.reg(a)? as usize;
        if self.wide() {
            self.a.vsqrtps(Z[d as usize], Z[x])
        } else {
            self.a.vsqrtps(Y[d as usize], Y[x])
        }
    }

    /// `d = a * 2^n`; `d` differs from both.
    pub(super) fn ldexp(&mut self, d: u8, a: Src, n: Src) -> R {
        if self.wide() {
            let x = self.reg(a)? as usize;
            return match n {
                Src::Reg(n) => self.a.vscalefps(Z[d as usize], Z[x], Z[n as usize]),
                Src::Const(c) => {
                    let m = self.mem(c);
                    self.a.vscalefps(Z[d as usize], Z[x], m)
                }
            };
        }
        // As the scalar definition: 2^n in two factors. 14 and 15 are scratch.
        let n = self.reg(n)? as usize;
        let d = d as usize;
        let bias = self.mem(127);
        self.a.vcvtps2dq(Y[14], Y[n])?;
        self.a.vpsrad(Y[15], Y[14], 1u32)?;
        self.a.vpsubd(Y[14], Y[14], Y[15])?;
        self.a.vpaddd(Y[15], Y[15], bias)?;
        self.a.vpslld(Y[15], Y[15], 23u32)?;
        self.a.vpaddd(Y[14], Y[14], bias)?;
        self.a.vpslld(Y[14], Y[14], 23u32)?;
        match a {
            Src::Reg(x) => self.a.vmulps(Y[d], Y[15], Y[x as usize])?,
            Src::Const(c) => {
                let m = self.mem(c);
                self.a.vmulps(Y[d], Y[15], m)?;
            }
        }
        self.a.vmulps(Y[d], Y[d], Y[14])
    }

    /// The parts of [`sinter_kernels::math::Lane::split`]; `d` differs from `a`.
    pub(super) fn split(&mut self, exponent: bool, d: u8, a: Src) -> R {
        let t = self.scratch() as usize;
        let x = self.reg(a)? as usize;
        let base = self.mem(SPLIT);
        let d = d as usize;
        if self.wide() {
            self.a.vpsubd(Z[d], Z[x], base)?;
            self.a.vpsrad(Z[d], Z[d], 23u32)?;
            if exponent {
                return self.a.vcvtdq2ps(Z[d], Z[d]);
            }
            self.a.vpslld(Z[t], Z[d], 23u32)?;
            self.a.vpsubd(Z[d], Z[x], Z[t])
        } else {
            self.a.vpsubd(Y[d], Y[x], base)?;
            self.a.vpsrad(Y[d], Y[d], 23u32)?;
            if exponent {
                return self.a.vcvtdq2ps(Y[d], Y[d]);
            }
            self.a.vpslld(Y[15], Y[d], 23u32)?;
            self.a.vpsubd(Y[d], Y[x], Y[15])
        }
    }

    /// `d = cmp(a, b) ? x : y`; `d` differs from `x`.
    pub(super) fn select(&mut self, cmp: Cmp, d: u8, [a, b, x, y]: [Src; 4]) -> R {
        let imm = match cmp {
            Cmp::Eq => 0u32,
            Cmp::Lt => 1,
            Cmp::Le => 2,
            Cmp::Ne => 4,
        };
        if self.wide() {
            let ra = self.reg(a)? as usize;
            match b {
                Src::Reg(b) => self.a.vcmpps(k7, Z[ra], Z[b as usize], imm)?,
                Src::Const(c) => {
                    let m = self.mem(c);
                    self.a.vcmpps(k7, Z[ra], m, imm)?;
                }
            }
            let ry = self.reg(y)? as usize;
            return match x {
                Src::Reg(x) => self.a.vblendmps(Z[d as usize].k7(), Z[ry], Z[x as usize]),
                Src::Const(c) => {
                    let m = self.mem(c);
                    self.a.vblendmps(Z[d as usize].k7(), Z[ry], m)
                }
            };
        }
        let ra = self.reg(a)? as usize;
        match b {
            Src::Reg(b) => self.a.vcmpps(Y[15], Y[ra], Y[b as usize], imm)?,
            Src::Const(c) => {
                let m = self.mem(c);
                self.a.vcmpps(Y[15], Y[ra], m, imm)?;
            }
        }
        let ry = self.reg(y)? as usize;
        match x {
            Src::Reg(x) => self.a.vblendvps(Y[d as usize], Y[ry], Y[x as usize], Y[15]),
            Src::Const(c) => {
                let m = self.mem(c);
                self.a.vblendvps(Y[d as usize], Y[ry], m, Y[15])
            }
        }
    }

    // ------------------------------------------------------------ memory

    /// Prepares the mask of the next register: `left` elements remain (more than 0).
    pub(super) fn tail_mask(&mut self, left: AsmRegister64, temp: AsmRegister64) -> R {
        if self.wide() {
            // bzhi keeps everything when there are 64 or more, which is right too.
            self.a.mov(temp, -1i64)?;
            self.a.bzhi(temp, temp, left)?;
            return self.a.kmovq(k1, temp);
        }
        // min(left, 8) lanes: a window of the ramp starting that much before its middle.
        let ramp = match self.ramp {
            Some(l) => l,
            None => {
                let l = self.a.create_label();
                self.ramp = Some(l);
                l
            }
        };
        let mut small = self.a.create_label();
        self.a.mov(temp, left)?;
        self.a.cmp(temp, 8)?;
        self.a.jbe(small)?;
        self.a.mov(temp, 8i64)?;
        self.a.set_label(&mut small)?;
        self.a.neg(temp)?;
        self.a.shl(temp, 2)?;
        self.a.push(left)?;
        self.a.lea(left, qword_ptr(ramp))?;
        self.a.vmovups(Y[13], ymmword_ptr(left + temp + 32))?;
        self.a.pop(left)
    }

    pub(super) fn load(&mut self, d: u8, m: AsmMemoryOperand, bytes: bool, masked: bool) -> R {
        let d = d as usize;
        if self.wide() {
            let t = if masked { Z[d].k1().z() } else { Z[d] };
            if bytes {
                self.a.vpmovzxbd(t, xmmword_ptr(m))?;
                return self.a.vcvtdq2ps(Z[d], Z[d]);
            }
            return self.a.vmovups(t, zmmword_ptr(m));
        }
        if masked {
            self.a.vmaskmovps(Y[d], Y[13], ymmword_ptr(m))
        } else {
            self.a.vmovups(Y[d], ymmword_ptr(m))
        }
    }

    pub(super) fn store(&mut self, m: AsmMemoryOperand, s: Src, bytes: bool, masked: bool) -> R {
        let r = self.reg(s)? as usize;
        if self.wide() {
            if bytes {
                self.a.vcvttps2dq(Z[31], Z[r])?;
                let m = xmmword_ptr(m);
                return self.a.vpmovdb(if masked { m.k1() } else { m }, Z[31]);
            }
            let m = zmmword_ptr(m);
            return self.a.vmovups(if masked { m.k1() } else { m }, Z[r]);
        }
        if masked {
            self.a.vmaskmovps(ymmword_ptr(m), Y[13], Y[r])
        } else {
            self.a.vmovups(ymmword_ptr(m), Y[r])
        }
    }

    /// Stores whole vectors of f32 past the caches, at addresses that are multiples of
    /// their size.
    pub(super) fn stream(&mut self, m: AsmMemoryOperand, s: Src) -> R {
        let r = self.reg(s)? as usize;
        if self.wide() {
            self.a.vmovntps(zmmword_ptr(m), Z[r])
        } else {
            self.a.vmovntps(ymmword_ptr(m), Y[r])
        }
    }

    /// One element in every lane.
    pub(super) fn broadcast(
        &mut self,
        d: u8,
        m: AsmMemoryOperand,
        bytes: bool,
        temp: AsmRegister32,
    ) -> R {
        let d = d as usize;
        if bytes {
            self.a.movzx(temp, byte_ptr(m))?;
            self.a.vmovd(X[self.scratch() as usize], temp)?;
            if self.wide() {
                self.a.vpbroadcastd(Z[d], X[31])?;
                return self.a.vcvtdq2ps(Z[d], Z[d]);
            }
            self.a.vpbroadcastd(Y[d], X[14])?;
            return self.a.vcvtdq2ps(Y[d], Y[d]);
        }
        if self.wide() {
            self.a.vbroadcastss(Z[d], dword_ptr(m))
        } else {
            self.a.vbroadcastss(Y[d], dword_ptr(m))
        }
    }

    /// The first lane to memory.
    pub(super) fn store_one(
        &mut self,
        m: AsmMemoryOperand,
        s: Src,
        bytes: bool,
        temp: AsmRegister32,
    ) -> R {
        let r = self.reg(s)? as usize;
        if bytes {
            self.a.vcvttss2si(temp, X[r])?;
            let low = match temp {
                t if t == r11d => r11b,
                _ => al,
            };
            return self.a.mov(byte_ptr(m), low);
        }
        self.a.vmovss(dword_ptr(m), X[r])
    }

    // ------------------------------------------------------------ reductions

    /// `acc = acc op v` in the lanes of the tail mask, or all.
    pub(super) fn accumulate(&mut self, op: Bin, acc: u8, v: Src, masked: bool) -> R {
        let nan_wins = matches!(op, Bin::Min | Bin::Max);
        if self.wide() {
            let r = self.reg(v)? as usize;
            let (z, acc) = (Z[acc as usize], Z[acc as usize]);
            if nan_wins {
                // Lanes that hold NaN keep it; elsewhere a NaN in v is the result.
                self.a.vcmpps(if masked { k7.k1() } else { k7 }, z, z, 0u32)?;
                return match op {
                    Bin::Min => self.a.vminps(acc.k7(), z, Z[r]),
                    _ => self.a.vmaxps(acc.k7(), z, Z[r]),
                };
            }
            let d = if masked { acc.k1() } else { acc };
            return match op {
                Bin::Mul => self.a.vmulps(d, z, Z[r]),
                _ => self.a.vaddps(d, z, Z[r]),
            };
        }
        if !nan_wins && !masked {
            return self.bin(op, acc, Src::Reg(acc), v);
        }
        self.bin(op, 15, Src::Reg(acc), v)?;
        let y = Y[acc as usize];
        if nan_wins {
            self.a.vcmpps(Y[14], y, y, 0u32)?;
            if masked {
                self.a.vandps(Y[14], Y[14], Y[13])?;
            }
            return self.a.vblendvps(y, y, Y[15], Y[14]);
        }
        self.a.vblendvps(y, y, Y[15], Y[13])
    }

    /// Combines the halves of a register down to one lane.
    pub(super) fn fold(&mut self, op: Bin, r: u8) -> R {
        let i = r as usize;
        let t = self.scratch() as usize;
        if self.wide() {
            self.a.vextractf64x4(Y[t], Z[i], 1u32)?;
            self.combine(op, r)?;
            self.a.vextractf32x4(X[t], Y[i], 1u32)?;
        } else {
            self.a.vextractf128(X[t], Y[i], 1u32)?;
        }
        self.combine(op, r)?;
        self.a.vshufps(X[t], X[i], X[i], 0x4eu32)?;
        self.combine(op, r)?;
        self.a.vshufps(X[t], X[i], X[i], 0xb1u32)?;
        self.combine(op, r)
    }

    /// `r = r op scratch`
    fn combine(&mut self, op: Bin, r: u8) -> R {
        if self.wide() {
            return self.accumulate(op, r, Src::Reg(31), false);
        }
        // The AVX2 form of an extreme uses both scratch registers itself.
        if matches!(op, Bin::Min | Bin::Max) {
            self.bin(op, 15, Src::Reg(r), Src::Reg(14))?;
            let y = Y[r as usize];
            self.a.vcmpps(Y[14], y, y, 0u32)?;
            return self.a.vblendvps(y, y, Y[15], Y[14]);
        }
        self.bin(op, r, Src::Reg(r), Src::Reg(14))
    }

    /// Ends vector work: dirty upper halves would slow every SSE instruction after.
    pub(super) fn leave(&mut self) -> R {
        self.a.vzeroupper()
    }
}
