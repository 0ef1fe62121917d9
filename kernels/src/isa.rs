//! The instruction sets a kernel is built for, and which of them this process uses.

use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction-set levels, lowest first. Levels follow the x86-64 psABI
/// micro-architecture levels (v3 has AVX2 and FMA, v4 AVX-512 F/BW/CD/DQ/VL).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Isa {
    /// What the compiler target guarantees: SSE2 on x86-64, NEON on AArch64.
    Baseline = 0,
    /// x86-64-v3: AVX2, FMA, BMI2, F16C.
    Avx2 = 1,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    Avx512 = 2,
}

impl Isa {
    /// Every level, lowest first.
    pub const ALL: [Isa; 3] = [Isa::Baseline, Isa::Avx2, Isa::Avx512];

    /// The name used on command lines and in artifacts.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "x86-64-v3",
            Isa::Avx512 => "x86-64-v4",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|i| i.name() == name)
    }

    /// Width of one vector register in f32 lanes.
    pub fn lanes_f32(self) -> usize {
        match self {
            Isa::Baseline => 4,
            Isa::Avx2 => 8,
            Isa::Avx512 => 16,
        }
    }
}

const UNKNOWN: u8 = u8::MAX;
static ACTIVE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The best level this machine has.
pub fn detect() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c");
        let v4 = v3
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if v4 {
            return Isa::Avx512;
        }
        if v3 {
            return Isa::Avx2;
        }
    }
    Isa::Baseline
}

/// The level kernels of this process use: the best the machine has, unless
/// [`limit`] lowered it.
#[inline]
pub fn active() -> Isa {
    match ACTIVE.load(Ordering::Relaxed) {
        0 => Isa::Baseline,
        1 => Isa::Avx2,
        2 => Isa::Avx512,
        _ => {
            let isa = detect();
            ACTIVE.store(isa as u8, Ordering::Relaxed);
            isa
        }
    }
}

/// Uses at most `isa` from now on; returns the level now active. A level the
/// machine lacks is never activated. Meant for tests and for benchmarks that
/// compare levels.
pub fn limit(isa: Isa) -> Isa {
    let isa = isa.min(detect());
    ACTIVE.store(isa as u8, Ordering::Relaxed);
    isa
}
