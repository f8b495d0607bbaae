//! Leaves programs out of a BPF object before the loader reads it. It keeps what it reads, each program with all the functions that it calls:
//! those that no kernel of this kind takes would be half of what the process holds.

use anyhow::{Context as _, Result};
use object::{
    LittleEndian,
    elf::{FileHeader64, SHF_EXECINSTR, SectionHeader64},
    pod::slice_from_bytes_mut,
    read::elf::FileHeader as _,
};

/// Marks sections as no code: the loader takes every other one that it does not know for a program.
///
/// # Errors
/// If it is no ELF object.
pub(super) fn leave_out(elf: &mut [u8], is_to_go: impl Fn(&str) -> bool) -> Result<()> {
    let unreadable = "the BPF object cannot be read";
    let endian = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(&*elf).context(unreadable)?;
    let sections = header.sections(endian, &*elf).context(unreadable)?;
    let are_to_go: Vec<bool> = sections
        .iter()
        .map(|section: &SectionHeader64<_>| {
            let name = sections.section_name(endian, section).context(unreadable)?;
            Ok(is_to_go(&String::from_utf8_lossy(name)))
        })
        .collect::<Result<_>>()?;
    let start = usize::try_from(header.e_shoff.get(endian)).context(unreadable)?;
    let headers = elf.get_mut(start..).context(unreadable)?;
    let (headers, _rest) = slice_from_bytes_mut::<SectionHeader64<LittleEndian>>(headers, are_to_go.len())
        .map_err(|()| anyhow::anyhow!("the sections of the BPF object are cut off"))?;
    for (section, _) in headers.iter_mut().zip(are_to_go).filter(|(_, is_to_go)| *is_to_go) {
        let flags = section.sh_flags.get(endian) & !u64::from(SHF_EXECINSTR);
        section.sh_flags.set(endian, flags);
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{load::object::Object, model::hook_kind::HookKind};

    #[test]
    fn the_loader_passes_over_what_was_left_out_and_nothing_else() {
        let object = Object::LIVE.elf().unwrap();
        let whole = aya_obj::Object::parse(&object).unwrap();
        for (_name, kind) in HookKind::ALL {
            let mut elf = object.clone();
            leave_out(&mut elf, |section| kind.is_of(section)).unwrap();
            let lean = aya_obj::Object::parse(&elf).unwrap();
            let gone: Vec<_> =
                whole.programs.keys().filter(|name| !lean.programs.contains_key(*name)).collect();
            assert!(!gone.is_empty(), "{kind:?}");
            assert_eq!(lean.maps.len(), whole.maps.len());
            assert_eq!(lean.programs.len() + gone.len(), whole.programs.len());
        }
    }
}
