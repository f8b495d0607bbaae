//! An ELF object without what only debuggers read. That is three quarters of a BPF object, and the loader would go through all of it.

use anyhow::{Context as _, Result};
use object::{
    LittleEndian,
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
            new.sh_type.set(endian, SHT_NULL);
            new.sh_size.set(endian, 0);
        } else if section.sh_type(endian) != SHT_NOBITS {
            let data = section.data(endian, elf).context("a section cannot be read")?;
            align(&mut lean, section.sh_addralign(endian));
            new.sh_offset.set(endian, lean.len() as u64);
            lean.extend_from_slice(data);
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
    section.starts_with(b".debug") || section.starts_with(b".rel.debug")
}

fn align(bytes: &mut Vec<u8>, to: u64) {
    let to = usize::try_from(to).unwrap_or(1).max(1);
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}
