//! A loader for the object files that the compiler emits: no linker, no symbols
//! from outside but a few functions of mathematics, memory that is writable or
//! executable but never both.

use crate::program::{Code, MainFn};
use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget,
    SectionIndex, SectionKind,
};

/// Name of the entry.
const ENTRY: &str = "sinter_main";

fn bad(why: impl std::fmt::Display) -> String {
    why.to_string()
}

/// Where each section of code or data lies in the mapping.
type Places = Vec<(SectionIndex, usize, usize)>;

fn place(places: &Places, s: SectionIndex) -> Option<(usize, usize)> {
    places.iter().find(|p| p.0 == s).map(|p| (p.1, p.2))
}

/// Copies the code into memory of its own, resolves what refers to other parts of
/// it, and makes it executable.
#[allow(unsafe_code)]
pub(super) fn load(image: &[u8]) -> Result<Code, String> {
    let file = ElfFile64::<Endianness>::parse(image).map_err(bad)?;
    let here = match std::env::consts::ARCH {
        "x86_64" => object::Architecture::X86_64,
        "aarch64" => object::Architecture::Aarch64,
        other => return Err(bad(format!("no loader for {other}"))),
    };
    if file.architecture() != here {
        return Err(bad(format!("it is for {:?}", file.architecture())));
    }
    let mut places: Places = vec![];
    let mut total = 0usize;
    for s in file.sections() {
        let wanted =
            matches!(s.kind(), SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::Data);
        if wanted && s.size() > 0 {
            let align = usize::try_from(s.align()).unwrap_or(0).clamp(64, 4096);
            total = total.next_multiple_of(align);
            let size = s.data().map_err(bad)?.len();
            places.push((s.index(), total, size));
            total = total.checked_add(size).ok_or_else(|| bad("it is too large"))?;
        }
    }
    if total == 0 {
        return Err(bad("it is empty"));
    }
    // Sections of an honest object lie side by side, each padded to a page at most.
    if total > image.len() + places.len() * 4096 {
        return Err(bad("its sections overlap"));
    }
    let system = |e: std::io::Error| bad(format!("no memory for code: {e}"));
    let mut memory = memmap2::MmapOptions::new().len(total).map_anon().map_err(system)?;
    let base = memory.as_ptr() as u64;
    for &(index, at, size) in &places {
        let s = file.section_by_index(index).map_err(bad)?;
        memory[at..at + size].copy_from_slice(s.data().map_err(bad)?);
    }
    for &(index, at, size) in &places {
        let s = file.section_by_index(index).map_err(bad)?;
        for (offset, r) in s.relocations() {
            let offset = usize::try_from(offset).map_err(bad)?;
            let RelocationTarget::Symbol(symbol) = r.target() else {
                return Err(bad("a relocation without a symbol"));
            };
            let symbol = file.symbol_by_index(symbol).map_err(bad)?;
            let inside = symbol
                .section_index()
                .and_then(|i| place(&places, i))
                .filter(|(_, size)| symbol.address() <= *size as u64)
                .map(|target| base + target.0 as u64 + symbol.address());
            let value = inside
                .or_else(|| {
                    symbol.is_undefined().then(|| mathematics(symbol.name().ok()?)).flatten()
                })
                .ok_or_else(|| bad("it refers to something outside"))?;
            let RelocationFlags::Elf { r_type } = r.flags() else {
                return Err(bad("a relocation of another format"));
            };
            relocate(
                &mut memory[at..at + size],
                offset,
                r_type,
                value,
                r.addend(),
                base + at as u64,
            )?;
        }
    }
    let entry =
        file.symbols().find(|s| s.name() == Ok(ENTRY)).ok_or_else(|| bad("it has no entry"))?;
    let (at, size) = entry
        .section_index()
        .and_then(|i| place(&places, i))
        .filter(|(_, size)| entry.address() < *size as u64)
        .ok_or_else(|| bad("the entry lies outside"))?;
    debug_assert!(size > 0);
    let memory = memory.make_exec().map_err(system)?;
    let address = memory.as_ptr().wrapping_add(at + entry.address() as usize);
    // SAFETY: the compiler emits the entry with this signature, under the ABI
    // version that the header was checked for.
    let main = unsafe { std::mem::transmute::<*const u8, MainFn>(address) };
    // SAFETY: the artifact's checksums hold, so this is the compiler's code for the
    // program beside it, at an instruction-set level this machine has.
    Ok(unsafe { Code::new(main, Box::new(memory)) })
}

/// What code for a processor without instructions for fused multiply-adds and
/// rounding calls instead, by the names of the C library.
fn mathematics(name: &str) -> Option<u64> {
    extern "C" fn fmaf(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    extern "C" fn fma(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }
    macro_rules! rounding {
        ($($name:ident: $t:ty = $f:path;)*) => {
            match name {
                $(stringify!($name) => {
                    extern "C" fn $name(x: $t) -> $t {
                        $f(x)
                    }
                    $name as extern "C" fn($t) -> $t as usize
                })*
                "fmaf" => fmaf as extern "C" fn(f32, f32, f32) -> f32 as usize,
                "fma" => fma as extern "C" fn(f64, f64, f64) -> f64 as usize,
                _ => return None,
            }
        };
    }
    let address = rounding! {
        floorf: f32 = f32::floor;
        floor: f64 = f64::floor;
        ceilf: f32 = f32::ceil;
        ceil: f64 = f64::ceil;
        truncf: f32 = f32::trunc;
        trunc: f64 = f64::trunc;
        nearbyintf: f32 = f32::round_ties_even;
        nearbyint: f64 = f64::round_ties_even;
    };
    Some(address as u64)
}

/// Writes one resolved reference at `offset` of a section that lies at `place`.
fn relocate(
    section: &mut [u8],
    offset: usize,
    kind: u32,
    value: u64,
    addend: i64,
    place: u64,
) -> Result<(), String> {
    let x86 = cfg!(target_arch = "x86_64");
    let target = value.wrapping_add_signed(addend);
    let far = || bad("a reference is out of range");
    let mut put = |bytes: &[u8]| {
        let end = offset.checked_add(bytes.len());
        let slot = end.and_then(|e| section.get_mut(offset..e));
        slot.map(|s| s.copy_from_slice(bytes))
            .ok_or_else(|| bad("a relocation outside its section"))
    };
    match kind {
        elf::R_X86_64_64 if x86 => put(&target.to_le_bytes()),
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 if x86 => {
            let d = target.wrapping_sub(place + offset as u64) as i64;
            put(&i32::try_from(d).map_err(|_| far())?.to_le_bytes())
        }
        elf::R_AARCH64_ABS64 if !x86 => put(&target.to_le_bytes()),
        elf::R_AARCH64_CALL26 if !x86 => {
            let d = target.wrapping_sub(place + offset as u64) as i64;
            if d % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&d) {
                return Err(far());
            }
            // A branch with link and 26 bits of distance in words.
            let word = 0x9400_0000u32 | ((d >> 2) as u32 & 0x03ff_ffff);
            put(&word.to_le_bytes())
        }
        other => Err(bad(format!("relocation type {other} is not known"))),
    }
}
