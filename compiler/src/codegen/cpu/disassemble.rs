//! Reading generated code back, for people.

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};

/// A function of an object file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Size of its code in bytes.
    pub bytes: usize,
    /// Its instructions, with their offsets; empty for other architectures than
    /// x86-64.
    pub instructions: Vec<(usize, String)>,
}

/// The functions of an object file, as [`super::object`] makes it, in the order of
/// their code.
///
/// # Errors
/// When it is no such file.
pub fn disassemble(object: &[u8]) -> Result<Vec<Function>, String> {
    let file = ElfFile64::<Endianness>::parse(object).map_err(|e| e.to_string())?;
    let x86 = file.architecture() == object::Architecture::X86_64;
    let mut symbols: Vec<_> = file
        .symbols()
        .filter(|s| s.kind() == SymbolKind::Text)
        .filter_map(|s| Some((s.section_index()?, s.address(), s.size(), s.name().ok()?)))
        .collect();
    symbols.sort_by_key(|s| (s.0.0, s.1));
    let mut out = Vec::with_capacity(symbols.len());
    for (section, address, size, name) in symbols {
        let section = file.section_by_index(section).map_err(|e| e.to_string())?;
        let data = section.data().map_err(|e| e.to_string())?;
        let code = usize::try_from(address)
            .ok()
            .zip(usize::try_from(size).ok())
            .and_then(|(at, n)| data.get(at..at.checked_add(n)?))
            .ok_or_else(|| format!("`{name}` leaves its section"))?;
        let instructions = if x86 { instructions(code) } else { vec![] };
        out.push(Function { name: name.to_string(), bytes: code.len(), instructions });
    }
    Ok(out)
}

fn instructions(code: &[u8]) -> Vec<(usize, String)> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_branch_leading_zeros(false);
    let mut out = Vec::new();
    for i in &mut decoder {
        // Constants lie behind the code: what decodes to nonsense is data.
        if i.is_invalid() {
            let at = i.ip() as usize;
            out.push((at, format!("{} bytes of constants", code.len() - at)));
            break;
        }
        let mut text = String::new();
        formatter.format(&i, &mut text);
        out.push((i.ip() as usize, text));
    }
    out
}
