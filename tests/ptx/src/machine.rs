//! The machine.
//!
//! Threads run one after another, each until it waits for others. What real
//! devices leave undefined is an error here: accesses outside of a buffer or not
//! aligned, a shuffle or barrier that not all threads reach. The order of threads
//! can be turned round, so that a missing barrier shows.

use super::text::{Function, Inst, Operand, Ty};
use half::{bf16, f16};

/// Global memory: buffers far away from each other.
#[derive(Clone, Default)]
pub struct Memory {
    /// None where a buffer was freed.
    buffers: Vec<Option<Vec<u8>>>,
}

/// Distance between the addresses of buffers.
const APART: u64 = 1 << 40;

impl Memory {
    /// A new buffer with these contents; returns its address.
    pub fn add(&mut self, bytes: Vec<u8>) -> u64 {
        self.buffers.push(Some(bytes));
        self.buffers.len() as u64 * APART
    }

    /// The contents of a buffer.
    ///
    /// # Panics
    /// If there is none at the address.
    pub fn bytes(&self, address: u64) -> &[u8] {
        self.buffers[(address / APART) as usize - 1].as_ref().expect("the buffer was freed")
    }

    /// Takes a buffer away: touching it is an error from now on.
    ///
    /// # Errors
    /// When no buffer begins there.
    pub fn remove(&mut self, address: u64) -> Result<(), String> {
        let number = self.number(address)?;
        let whole = address.is_multiple_of(APART) && self.buffers[number].take().is_some();
        if whole { Ok(()) } else { Err(format!("{address:#x} is no buffer")) }
    }

    /// Bytes of all buffers.
    pub fn in_use(&self) -> usize {
        self.buffers.iter().flatten().map(Vec::len).sum()
    }

    fn number(&self, at: u64) -> Result<usize, String> {
        let number = (at / APART).checked_sub(1).ok_or("a null pointer")? as usize;
        if number < self.buffers.len() { Ok(number) } else { Err("no such buffer".to_string()) }
    }

    /// So many bytes at an address, which is a multiple of `align`.
    ///
    /// # Errors
    /// When they are not all inside one buffer.
    pub fn place(&mut self, at: u64, size: usize, align: usize) -> Result<&mut [u8], String> {
        let number = self.number(at)?;
        let buffer = self.buffers[number].as_mut().ok_or("memory that was freed")?;
        slice(buffer, at % APART, size, align)
    }
}

fn slice(bytes: &mut [u8], at: u64, size: usize, align: usize) -> Result<&mut [u8], String> {
    if !at.is_multiple_of(align as u64) {
        return Err(format!("{at:#x} is not aligned to {align}"));
    }
    let len = bytes.len();
    let end = usize::try_from(at).ok().and_then(|a| a.checked_add(size));
    let range = end.filter(|&e| e <= len).map(|e| e - size..e);
    range.map(|r| &mut bytes[r]).ok_or_else(|| format!("{at:#x} is outside of {len:#x} bytes"))
}

const WARP: usize = 32;

struct Thread {
    number: u64,
    at: usize,
    done: bool,
    registers: Vec<u64>,
}

/// Runs a kernel, its threads in order or, when `reverse`, from the last one.
///
/// # Errors
/// Whatever the machine does not let pass.
pub fn launch(
    f: &Function,
    memory: &mut Memory,
    blocks: u32,
    threads: u32,
    params: &[u64],
    reverse: bool,
) -> Result<(), String> {
    if params.len() != f.params {
        return Err(format!("{} parameters instead of {}", params.len(), f.params));
    }
    for block in 0..u64::from(blocks) {
        let thread = |number| Thread {
            number,
            at: 0,
            done: false,
            registers: vec![0xdead_beef_dead_beef; f.registers],
        };
        let mut b = Block { f, memory, shared: vec![0xcd; f.shared], block, params };
        let mut threads: Vec<Thread> = (0..u64::from(threads)).map(thread).collect();
        b.run(&mut threads, reverse).map_err(|e| format!("{}, block {block}: {e}", f.name))?;
    }
    Ok(())
}

struct Block<'a> {
    f: &'a Function,
    memory: &'a mut Memory,
    shared: Vec<u8>,
    block: u64,
    params: &'a [u64],
}

/// Items in order, or from the last one.
fn ordered(n: usize, reverse: bool) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| if reverse { n - 1 - i } else { i })
}

impl Block<'_> {
    /// Runs to the end, barrier by barrier.
    fn run(&mut self, threads: &mut [Thread], reverse: bool) -> Result<(), String> {
        loop {
            for w in ordered(threads.len() / WARP, reverse) {
                self.run_warp(&mut threads[WARP * w..WARP * (w + 1)], reverse)?;
            }
            if threads.iter().all(|t| t.done) {
                return Ok(());
            }
            let at = threads[0].at;
            if threads.iter().any(|t| t.done || t.at != at) {
                return Err("not all threads reach a barrier".to_string());
            }
            threads.iter_mut().for_each(|t| t.at += 1);
        }
    }

    /// Runs a warp until all its threads are done or wait for the block.
    fn run_warp(&mut self, warp: &mut [Thread], reverse: bool) -> Result<(), String> {
        loop {
            for i in ordered(WARP, reverse) {
                let t = &mut warp[i];
                self.run_thread(t).map_err(|e| {
                    format!("thread {}, `{}`: {e}", t.number, self.f.code[t.at].text)
                })?;
            }
            let at = warp[0].at;
            let here = &self.f.code[at.min(self.f.code.len() - 1)];
            if warp.iter().all(|t| t.done) || here.name == ["bar", "sync"] {
                return Ok(());
            }
            if warp.iter().any(|t| t.done || t.at != at) {
                return Err(format!("not all threads of a warp reach `{}`", here.text));
            }
            if here.name[0] == "shfl" {
                self.shuffle(here, warp)?;
            }
            warp.iter_mut().for_each(|t| t.at += 1);
        }
    }

    fn shuffle(&self, inst: &Inst, warp: &mut [Thread]) -> Result<(), String> {
        let [Operand::Register(to), from, by, ..] = &inst.operands[..] else {
            return Err(format!("`{}`", inst.text));
        };
        let values: Vec<u64> = warp.iter().map(|t| self.value(t, from)).collect();
        for (lane, t) in warp.iter_mut().enumerate() {
            let by = self.value(t, by) as usize;
            let source = match inst.name[2].as_str() {
                "down" => lane + by,
                "bfly" => lane ^ by,
                "idx" => by,
                other => return Err(format!("shuffle {other}")),
            };
            // Beyond the warp's end a thread gets its own value.
            t.registers[*to] = *values.get(source).unwrap_or(&values[lane]);
        }
        Ok(())
    }

    /// Runs a thread until it is done or waits.
    fn run_thread(&mut self, t: &mut Thread) -> Result<(), String> {
        let f = self.f;
        while !t.done {
            let inst = &f.code[t.at];
            let enabled = inst.guard.is_none_or(|(r, wanted)| (t.registers[r] & 1 == 1) == wanted);
            match inst.name[0].as_str() {
                "bar" | "shfl" => return Ok(()),
                _ if !enabled => t.at += 1,
                "ret" => t.done = true,
                "bra" => t.at = inst.target,
                "ld" | "st" => {
                    self.access(t, inst)?;
                    t.at += 1;
                }
                _ => {
                    let args: Vec<u64> =
                        inst.operands[1..].iter().map(|o| self.value(t, o)).collect();
                    match &inst.operands[0] {
                        Operand::Register(to) => t.registers[*to] = compute(inst, &args)?,
                        // Eight bytes taken apart.
                        Operand::Registers(halves) if inst.name[0] == "mov" => {
                            t.registers[halves[0]] = args[0] & 0xffff_ffff;
                            t.registers[halves[1]] = args[0] >> 32;
                        }
                        other => return Err(format!("a result in {other:?}")),
                    }
                    t.at += 1;
                }
            }
        }
        Ok(())
    }

    fn value(&self, t: &Thread, o: &Operand) -> u64 {
        match o {
            Operand::Register(r) => t.registers[*r],
            Operand::Number(n) => *n,
            Operand::Thread => t.number,
            Operand::Block => self.block,
            Operand::Address(base, offset) => self.value(t, base).wrapping_add_signed(*offset),
            Operand::Registers(_) => unreachable!("only loads and stores take lists"),
        }
    }

    /// A load or store.
    fn access(&mut self, t: &mut Thread, inst: &Inst) -> Result<(), String> {
        let loads = inst.name[0] == "ld";
        let (address, data) = if loads { (1, 0) } else { (0, 1) };
        let at = self.value(t, &inst.operands[address]);
        let ty = *inst.types.last().ok_or("no type")?;
        let registers: Vec<Operand> = match &inst.operands[data] {
            Operand::Registers(list) => list.iter().map(|&r| Operand::Register(r)).collect(),
            one => vec![one.clone()],
        };
        if inst.name[1] == "param" {
            let &[Operand::Register(r)] = &registers[..] else { return Err("a list".into()) };
            t.registers[r] = self.params[at as usize];
            return Ok(());
        }
        let shared = inst.name[1] == "shared";
        let size = ty.size();
        if !at.is_multiple_of((size * registers.len()) as u64) {
            return Err(format!("{at:#x} is not aligned for {} values", registers.len()));
        }
        for (i, r) in registers.iter().enumerate() {
            let value = if loads { 0 } else { self.value(t, r) };
            let at = at + (i * size) as u64;
            let place = if shared {
                slice(&mut self.shared, at, size, size)?
            } else {
                self.memory.place(at, size, size)?
            };
            if let (true, Operand::Register(r)) = (loads, r) {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(place);
                t.registers[*r] = widen(u64::from_le_bytes(bytes), ty);
            } else {
                place.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(())
    }
}

/// The low bits of a value, extended as its type says.
fn widen(v: u64, ty: Ty) -> u64 {
    let shift = 64 - 8 * ty.size() as u32;
    match ty {
        Ty::Pred => v & 1,
        Ty::Signed(_) => ((v << shift) as i64 >> shift) as u64,
        _ => v << shift >> shift,
    }
}

/// What an instruction gives.
fn compute(inst: &Inst, args: &[u64]) -> Result<u64, String> {
    let ty = *inst.types.last().ok_or("no type")?;
    let name = inst.name[0].as_str();
    let has = |part: &str| inst.name.iter().any(|n| n == part);
    Ok(match name {
        "mov" => args[0],
        "prmt" => permuted(args),
        "selp" => args[if args[2] & 1 == 1 { 0 } else { 1 }],
        "cvt" => convert(inst, args[0])?,
        "setp" => u64::from(compare(inst.name[1].as_str(), ty, args[0], args[1])?),
        "mul" | "mad" if has("wide") => {
            let product = widen(args[0], ty).wrapping_mul(widen(args[1], ty));
            product.wrapping_add(args.get(2).copied().unwrap_or(0))
        }
        _ => match ty {
            Ty::F32 => {
                let f = |i: usize| f32::from_bits(args[i] as u32);
                u64::from(float32(name, args.len(), f)?.to_bits())
            }
            Ty::F64 => float64(name, args.len(), |i| f64::from_bits(args[i]))?.to_bits(),
            // Every result of one operation on halves is the f32 result, rounded.
            Ty::F16 => {
                let f = |i: usize| f16::from_bits(args[i] as u16).to_f32();
                f16::from_f32(float32(name, args.len(), f)?).to_bits().into()
            }
            Ty::BF16 => {
                let f = |i: usize| bf16::from_bits(args[i] as u16).to_f32();
                bf16::from_f32(float32(name, args.len(), f)?).to_bits().into()
            }
            _ => integer(name, has("hi"), ty, args)?,
        },
    })
}

/// Four of the bytes of two words, each chosen by four bits, the highest of which asks for
/// its sign instead.
fn permuted(args: &[u64]) -> u64 {
    let both = args[1] << 32 | args[0] & 0xffff_ffff;
    let one = |i: u64| {
        let chosen = args[2] >> (4 * i) & 15;
        let byte = both >> (8 * (chosen & 7)) & 0xff;
        let byte = if chosen & 8 == 0 { byte } else { 0xff * (byte >> 7) };
        byte << (8 * i)
    };
    (0..4).map(one).sum()
}

macro_rules! floats {
    ($name:ident, $t:ty) => {
        fn $name(name: &str, n: usize, a: impl Fn(usize) -> $t) -> Result<$t, String> {
            Ok(match (name, n) {
                ("add", 2) => a(0) + a(1),
                ("sub", 2) => a(0) - a(1),
                ("mul", 2) => a(0) * a(1),
                ("div", 2) => a(0) / a(1),
                ("fma", 3) => a(0).mul_add(a(1), a(2)),
                ("min", 2) => a(0).min(a(1)),
                ("max", 2) => a(0).max(a(1)),
                ("neg", 1) => -a(0),
                ("abs", 1) => a(0).abs(),
                ("rcp", 1) => 1.0 / a(0),
                ("sqrt", 1) => a(0).sqrt(),
                ("copysign", 2) => a(1).copysign(a(0)),
                _ => return Err(format!("unknown on floats: {name}")),
            })
        }
    };
}
floats!(float32, f32);
floats!(float64, f64);

fn integer(name: &str, high: bool, ty: Ty, args: &[u64]) -> Result<u64, String> {
    let a = |i: usize| widen(args[i], ty);
    let signed = matches!(ty, Ty::Signed(_));
    let bits = 8 * ty.size() as u64;
    // A distance is always 32 bits wide.
    let distance = || (args[1] & 0xffff_ffff).min(bits);
    let pick = |s: i64, u: u64| if signed { s as u64 } else { u };
    let by_zero = || Err("division by zero".to_string());
    let r = match name {
        "add" => a(0).wrapping_add(a(1)),
        "sub" => a(0).wrapping_sub(a(1)),
        "mul" | "mad" if high => {
            let wide = if signed {
                (i128::from(a(0) as i64) * i128::from(a(1) as i64)) as u128
            } else {
                u128::from(a(0)) * u128::from(a(1))
            };
            ((wide >> bits) as u64).wrapping_add(args.get(2).copied().unwrap_or(0))
        }
        "mul" => a(0).wrapping_mul(a(1)),
        "mad" => a(0).wrapping_mul(a(1)).wrapping_add(a(2)),
        "div" | "rem" if a(1) == 0 => return by_zero(),
        "div" => pick((a(0) as i64).wrapping_div(a(1) as i64), a(0) / a(1)),
        "rem" => pick((a(0) as i64).wrapping_rem(a(1) as i64), a(0) % a(1)),
        "min" => pick((a(0) as i64).min(a(1) as i64), a(0).min(a(1))),
        "max" => pick((a(0) as i64).max(a(1) as i64), a(0).max(a(1))),
        "and" => a(0) & a(1),
        "or" => a(0) | a(1),
        "xor" => a(0) ^ a(1),
        "not" => !a(0),
        "neg" => a(0).wrapping_neg(),
        "abs" => (a(0) as i64).unsigned_abs(),
        "shl" => a(0).checked_shl(distance() as u32).unwrap_or(0),
        "shr" => {
            let d = distance() as u32;
            pick(a(0) as i64 >> d.min(63), a(0).checked_shr(d).unwrap_or(0))
        }
        _ => return Err(format!("unknown on integers: {name}")),
    };
    Ok(widen(r, ty))
}

/// A float of any type as f64, which holds them all.
fn as_double(ty: Ty, v: u64) -> Option<f64> {
    Some(match ty {
        Ty::F16 => f16::from_bits(v as u16).to_f64(),
        Ty::BF16 => bf16::from_bits(v as u16).to_f64(),
        Ty::F32 => f64::from(f32::from_bits(v as u32)),
        Ty::F64 => f64::from_bits(v),
        _ => return None,
    })
}

fn compare(how: &str, ty: Ty, a: u64, b: u64) -> Result<bool, String> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (as_double(ty, a), as_double(ty, b)) {
        (Some(x), Some(y)) => x.partial_cmp(&y),
        _ if matches!(ty, Ty::Signed(_)) => Some((widen(a, ty) as i64).cmp(&(widen(b, ty) as i64))),
        _ => Some(widen(a, ty).cmp(&widen(b, ty))),
    };
    Ok(match how {
        "num" => order.is_some(),
        "nan" => order.is_none(),
        "eq" => order == Some(Equal),
        "equ" => matches!(order, Some(Equal) | None),
        "ne" => matches!(order, Some(Less | Greater)),
        "neu" => order != Some(Equal),
        "lt" | "lo" => order == Some(Less),
        "ltu" => matches!(order, Some(Less) | None),
        "le" | "ls" => matches!(order, Some(Less | Equal)),
        "leu" => order != Some(Greater),
        "gt" | "hi" => order == Some(Greater),
        "gtu" => matches!(order, Some(Greater) | None),
        "ge" | "hs" => matches!(order, Some(Greater | Equal)),
        "geu" => order != Some(Less),
        _ => return Err(format!("comparison {how}")),
    })
}

fn convert(inst: &Inst, v: u64) -> Result<u64, String> {
    let &[to, from] = &inst.types[..] else { return Err("not two types".to_string()) };
    let rounding = inst.name.get(1).map_or("", String::as_str);
    let Some(x) = as_double(from, v) else {
        let v = widen(v, from);
        let signed = matches!(from, Ty::Signed(_));
        // Halves are reached through f32, in one step only where that is exact.
        let exact = from.size() <= 2;
        return Ok(match to {
            Ty::F16 if exact && signed => f16::from_f32(v as i64 as f32).to_bits().into(),
            Ty::F16 if exact => f16::from_f32(v as f32).to_bits().into(),
            Ty::BF16 if exact && signed => bf16::from_f32(v as i64 as f32).to_bits().into(),
            Ty::BF16 if exact => bf16::from_f32(v as f32).to_bits().into(),
            Ty::F16 | Ty::BF16 => return Err("an integer is rounded once instead of twice".into()),
            Ty::F32 if signed => u64::from((v as i64 as f32).to_bits()),
            Ty::F32 => u64::from((v as f32).to_bits()),
            Ty::F64 if signed => (v as i64 as f64).to_bits(),
            Ty::F64 => (v as f64).to_bits(),
            _ => widen(v, to),
        });
    };
    let x = match rounding {
        "rni" => x.round_ties_even(),
        "rmi" => x.floor(),
        "rpi" => x.ceil(),
        "rzi" => x.trunc(),
        _ => x,
    };
    Ok(match to {
        Ty::F16 => f16::from_f64(x).to_bits().into(),
        Ty::BF16 => bf16::from_f64(x).to_bits().into(),
        Ty::F32 => u64::from((x as f32).to_bits()),
        Ty::F64 => x.to_bits(),
        Ty::Signed(2) => widen(x as i16 as u64, to),
        Ty::Signed(4) => widen(x as i32 as u64, to),
        Ty::Signed(8) => x as i64 as u64,
        Ty::Unsigned(2) => u64::from(x as u16),
        Ty::Unsigned(4) => u64::from(x as u32),
        Ty::Unsigned(8) => x as u64,
        _ => return Err(format!("to {to:?}")),
    })
}
