//! An ELF object without what only debuggers read. That is nine tenths of a BPF object, the loader would go through all of it, and both the
//! loader and the kernel would keep the lines of each program for as long as it runs.

use anyhow::{Context as _, Result, ensure};
use object::{
    LittleEndian, U32, U64,
    elf::{FileHeader64, SHT_NOBITS, SHT_NULL, SectionHeader64},
    pod::{bytes_of, bytes_of_slice, from_bytes_mut},
    read::elf::{FileHeader as _, SectionHeader as _},
};

/// The same object; the sections that are gone keep their numbers, and are empty.
pub(crate) fn without_debug(elf: &[u8]) -> Result<Vec<u8>> {
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(elf).context("it is no ELF object")?;
    let sections = header.sections(endian, elf).context("its sections cannot be read")?;
    let mut lean = bytes_of(header).to_vec();
    let mut headers = Vec::new();
    for section in sections.iter() {
        let name = sections.section_name(endian, section).context("a section has no name")?;
        let mut new: SectionHeader64<_> = *section;
        if is_for_debuggers(name) {
            // Where it was shows how long the paths of this machine are.
            new = nothing(section.sh_name);
        } else if section.sh_type(endian) != SHT_NOBITS {
            let mut data = section.data(endian, elf).context("a section cannot be read")?.to_vec();
            if name == b".BTF.ext" {
                remove_lines(&mut data).context("its .BTF.ext cannot be read")?;
                new.sh_size.set(endian, data.len() as u64);
            }
            if name == b".BTF" {
                blank_paths(&mut data).context("its .BTF cannot be read")?;
            }
            align(&mut lean, section.sh_addralign(endian));
            new.sh_offset.set(endian, lean.len() as u64);
            lean.extend_from_slice(&data);
        }
        headers.push(new);
    }
    align(&mut lean, align_of::<u64>() as u64);
    let start = lean.len() as u64;
    lean.extend_from_slice(bytes_of_slice(&headers));
    let (header, _rest) = from_bytes_mut::<FileHeader64<LittleEndian>>(&mut lean)
        .map_err(|()| anyhow::anyhow!("the new header is too short"))?;
    header.e_shoff.set(endian, start);
    Ok(lean)
}

fn is_for_debuggers(section: &[u8]) -> bool {
    // Relocations of .BTF.ext repeat what stands there: where each function begins.
    section.starts_with(b".debug") || section.starts_with(b".rel.debug") || section == b".rel.BTF.ext"
}

/// The header of a section that is gone.
fn nothing(sh_name: U32<LittleEndian>) -> SectionHeader64<LittleEndian> {
    let (half, whole) = (U32::default(), U64::default());
    SectionHeader64 {
        sh_name,
        sh_type: U32::new(LittleEndian, SHT_NULL),
        sh_flags: whole,
        sh_addr: whole,
        sh_offset: whole,
        sh_size: whole,
        sh_link: half,
        sh_info: half,
        sh_addralign: whole,
        sh_entsize: whole,
    }
}

/// Removes from a `struct btf_ext_header` and what follows it which line of the source each instruction is of. Where functions begin, and
/// of what type they are, stays: the kernel verifies a function by itself, or within its caller, by that.
fn remove_lines(ext: &mut Vec<u8>) -> Result<()> {
    const HEADER_LEN: usize = 4;
    const LINES_AT: usize = 16;
    const LINES_LEN: usize = 20;
    const RELOCATIONS_AT: usize = 24;
    const RELOCATIONS_LEN: usize = 28;
    let (header, lines, len) = (field(ext, HEADER_LEN)?, field(ext, LINES_AT)?, field(ext, LINES_LEN)?);
    let has_relocations = header > RELOCATIONS_LEN;
    ensure!(!has_relocations || field(ext, RELOCATIONS_LEN)? == 0, "it has relocations");
    ensure!(header + lines + len == ext.len(), "lines are not the last that it holds");
    ext.truncate(header + lines);
    ext[LINES_LEN..LINES_LEN + 4].fill(0);
    if has_relocations {
        // There are none, but they must begin within it.
        ext.copy_within(LINES_AT..LINES_AT + 4, RELOCATIONS_AT);
    }
    Ok(())
}

/// Blanks the names of source files in the strings that follow a `struct btf_header`: only the lines that are gone named them.
fn blank_paths(btf: &mut [u8]) -> Result<()> {
    const HEADER_LEN: usize = 4;
    const STRINGS_AT: usize = 16;
    const STRINGS_LEN: usize = 20;
    let (start, len) = (field(btf, HEADER_LEN)? + field(btf, STRINGS_AT)?, field(btf, STRINGS_LEN)?);
    let strings = btf.get_mut(start..start + len).context("its strings are cut off")?;
    for string in strings.split_mut(|byte| *byte == 0).filter(|string| string.starts_with(b"/")) {
        string.fill(0);
    }
    Ok(())
}

/// A number of a header's.
fn field(bytes: &[u8], at: usize) -> Result<usize> {
    let bytes = bytes.get(at..at + 4).context("it is cut off")?;
    Ok(u32::from_le_bytes(bytes.try_into()?).try_into()?)
}

fn align(bytes: &mut Vec<u8>, to: u64) {
    let to = usize::try_from(to).unwrap_or(1).max(1);
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}
