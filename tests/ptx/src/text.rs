//! Reading PTX: as much of it as LLVM's generator writes for our kernels.

use std::collections::HashMap;

/// Type of an instruction's values; of bits and integers, their bytes.
#[allow(missing_docs)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ty {
    Bits(usize),
    Unsigned(usize),
    Signed(usize),
    F16,
    BF16,
    F32,
    F64,
    Pred,
}

impl Ty {
    fn of(name: &str) -> Option<Ty> {
        let float = match name {
            "f16" => Ty::F16,
            "bf16" => Ty::BF16,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "pred" => Ty::Pred,
            _ => {
                let (kind, bits) = name.split_at_checked(1)?;
                let bytes = bits.parse::<usize>().ok()? / 8;
                return match kind {
                    "b" => Some(Ty::Bits(bytes)),
                    "u" => Some(Ty::Unsigned(bytes)),
                    "s" => Some(Ty::Signed(bytes)),
                    _ => None,
                };
            }
        };
        Some(float)
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Ty::Bits(n) | Ty::Unsigned(n) | Ty::Signed(n) => n,
            Ty::F16 | Ty::BF16 => 2,
            Ty::F32 => 4,
            Ty::F64 => 8,
            Ty::Pred => 1,
        }
    }
}

/// An operand.
#[allow(missing_docs)] // as they are written
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    Register(usize),
    Registers(Vec<usize>),
    /// A number, the offset of shared memory, or the number of a parameter.
    Number(u64),
    Thread,
    Block,
    /// `[base + offset]`
    Address(Box<Operand>, i64),
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    /// As it was written.
    pub text: String,
    /// Runs only where the register holds this.
    pub guard: Option<(usize, bool)>,
    /// Its name between the dots, without the types.
    pub name: Vec<String>,
    /// The types in its name, in order.
    pub types: Vec<Ty>,
    /// What it takes, the result first.
    pub operands: Vec<Operand>,
    /// Where a jump goes.
    pub target: usize,
}

/// A kernel.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// How many parameters it has.
    pub params: usize,
    /// How many registers a thread has.
    pub registers: usize,
    /// Bytes of shared memory.
    pub shared: usize,
    /// The instructions, in order.
    pub code: Vec<Inst>,
}

struct Reader {
    registers: HashMap<String, usize>,
    /// Shared memory and parameters by name.
    names: HashMap<String, u64>,
    labels: HashMap<String, usize>,
}

/// Reads the one kernel of a module.
///
/// # Errors
/// What of the text is not understood.
pub fn read(source: &str) -> Result<Function, String> {
    let source: Vec<&str> =
        source.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let source = source.join("\n");
    let (_, entry) = source.split_once(".entry ").ok_or("no kernel")?;
    let (name, rest) = entry.split_once('(').ok_or("no parameters")?;
    let (params, rest) = rest.split_once(')').ok_or("no end of the parameters")?;
    let (_, body) = rest.split_once('{').ok_or("no body")?;
    let (body, _) = body.rsplit_once('}').ok_or("no end of the body")?;
    let params: Vec<&str> = params.split(',').filter_map(|p| p.split_whitespace().last()).collect();
    let mut r = Reader {
        registers: HashMap::new(),
        names: params.iter().enumerate().map(|(i, p)| (p.to_string(), i as u64)).collect(),
        labels: HashMap::new(),
    };
    let mut shared = 0;
    let mut statements: Vec<&str> = vec![];
    for statement in body.split(';') {
        // Some statements stand in braces of their own, with a register called `tmp`.
        let mut statement = statement.trim().trim_start_matches(['}', '{']).trim();
        while let Some((label, rest)) = statement.split_once(':') {
            r.labels.insert(label.trim().to_string(), statements.len());
            statement = rest.trim();
        }
        if let Some(memory) = statement.strip_prefix(".shared .align ") {
            // `.shared .align 4 .b8 name[32]`
            let words: Vec<&str> = memory.split_whitespace().collect();
            let [align, _, place] = words[..] else { return Err(statement.to_string()) };
            let (name, len) = place.trim_end_matches(']').split_once('[').ok_or("a size")?;
            let number = |s: &str| s.parse::<usize>().map_err(|e| format!("{statement}: {e}"));
            shared = usize::next_multiple_of(shared, number(align)?);
            r.names.insert(name.to_string(), shared as u64);
            shared += number(len)?;
        } else if !statement.is_empty() && !statement.starts_with(".reg") {
            statements.push(statement);
        }
    }
    let code: Result<Vec<Inst>, String> =
        statements.iter().map(|s| r.inst(s).map_err(|e| format!("`{s}`: {e}"))).collect();
    Ok(Function {
        name: name.trim().to_string(),
        params: params.len(),
        code: code?,
        registers: r.registers.len(),
        shared,
    })
}

impl Reader {
    fn register(&mut self, name: &str) -> usize {
        let n = self.registers.len();
        *self.registers.entry(name.to_string()).or_insert(n)
    }

    fn inst(&mut self, text: &str) -> Result<Inst, String> {
        let mut rest = text;
        let mut guard = None;
        if let Some(guarded) = rest.strip_prefix('@') {
            let (register, after) = guarded.split_once(char::is_whitespace).ok_or("a guard")?;
            let wanted = !register.starts_with('!');
            guard = Some((self.register(register.trim_start_matches('!')), wanted));
            rest = after.trim();
        }
        let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (types, name): (Vec<&str>, Vec<&str>) =
            name.split('.').partition(|p| Ty::of(p).is_some());
        let mut inst = Inst {
            text: text.to_string(),
            guard,
            name: name.iter().map(|n| n.to_string()).collect(),
            types: types.iter().filter_map(|t| Ty::of(t)).collect(),
            operands: vec![],
            target: 0,
        };
        if name[0] == "bra" {
            inst.target = *self.labels.get(operands.trim()).ok_or("an unknown label")?;
            return Ok(inst);
        }
        let mut depth = 0;
        let separate = |c: char| {
            depth += i32::from(matches!(c, '{' | '[')) - i32::from(matches!(c, '}' | ']'));
            c == ',' && depth == 0
        };
        for o in operands.split(separate).map(str::trim).filter(|o| !o.is_empty()) {
            // `%value|%valid`: nobody reads whether a shuffle was.
            let o = o.split('|').next().unwrap_or_default();
            inst.operands.push(self.operand(o)?);
        }
        Ok(inst)
    }

    fn operand(&mut self, text: &str) -> Result<Operand, String> {
        let bad = || format!("operand `{text}`");
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or_else(bad)?;
            let (base, offset) = inside.split_once('+').unwrap_or((inside, "0"));
            let offset = offset.trim().parse().map_err(|_| bad())?;
            return Ok(Operand::Address(Box::new(self.operand(base.trim())?), offset));
        }
        if let Some(list) = text.strip_prefix('{') {
            let list = list.strip_suffix('}').ok_or_else(bad)?;
            return Ok(Operand::Registers(
                list.split(',').map(|r| self.register(r.trim())).collect(),
            ));
        }
        let digits = ["0f", "0d", "0x"].iter().find_map(|p| text.strip_prefix(p));
        let digits = digits.map(|d| d.trim_end_matches('U'));
        Ok(match text {
            "%tid.x" => Operand::Thread,
            "%ctaid.x" => Operand::Block,
            _ if text.starts_with('%') => Operand::Register(self.register(text)),
            _ => Operand::Number(match (digits, self.names.get(text)) {
                (Some(d), _) => u64::from_str_radix(d, 16).map_err(|_| bad())?,
                (None, Some(&place)) => place,
                (None, None) => text.parse::<i64>().map_err(|_| bad())? as u64,
            }),
        })
    }
}
