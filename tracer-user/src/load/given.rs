//! The types of a kernel that shows none, from a file: as BTFHub has them, or in the `vmlinux` of the vendor's debug symbols.
//!
//! Layouts come from it. What the kernel asks for by a type's number (fentry, iterators, functions of the kernel's own) does not, for numbers are
//! those of the very BTF that the kernel was built with: one bit of another configuration, and they name something else.

use std::{
    env::consts::ARCH,
    fs::{File, OpenOptions},
    io::{self, Read, Seek as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use btf_rs::{Backend, Btf, Type};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::{
    LittleEndian,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64, SectionHeader64},
    pod::{from_bytes, slice_from_bytes},
};

use crate::model::failure::Failure;

/// Where the kernel shows its types.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

/// Where there are files for kernels that show none.
pub const WHERE_TO_GET: &str =
    "BTFHub (https://github.com/aquasecurity/btfhub-archive) or the vmlinux of the vendor's debug symbols";

/// A kernel's BTF is no larger, in bytes: distributions' have 5 to 15 MiB.
const LARGEST: u64 = 64 << 20;

/// So are the headers and the names of an ELF file's sections.
const LARGEST_TABLE: u64 = 8 << 20;

/// Begins every BTF, in the byte order of all machines that why502 runs on.
const MAGIC: [u8; 2] = [0x9f, 0xeb];
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What the ELF files of this machine's kernels are for.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };

/// What only `struct pt_regs` of a machine has.
const REGISTERS: [(&str, &str); 2] = [("x86_64", "orig_ax"), ("aarch64", "orig_x0")];

/// What was given.
#[derive(Debug)]
struct Given {
    path: PathBuf,
    /// The types alone, in memory: the file may change, and later nobody here may open it.
    types: File,
    /// Whether they are, byte for byte, those that the kernel shows.
    are_own: bool,
}

static GIVEN: OnceLock<Given> = OnceLock::new();

/// Takes the kernel's types from a file from now on. Without one nothing is changed.
///
/// # Errors
/// Why they cannot be those of this kernel.
pub fn take_types(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let taken = read(path).and_then(|bytes| checked(&bytes).map(|types| (types, is_same(&bytes))));
    let (types, are_own) = taken.map_err(|why| {
        Failure::CannotTrace(format!("{} (--btf) is not this kernel's BTF: {why}", path.display()))
    })?;
    if are_own.is_some_and(|is| !is) {
        crate::notice!(
            "this kernel's own BTF is passed over for that of {}, as asked: if it is of another kernel, what is read of this one is wrong",
            path.display()
        );
    }
    let given = Given { path: path.to_owned(), types, are_own: are_own.unwrap_or(false) };
    GIVEN.set(given).map_err(|_| Failure::Run(anyhow::anyhow!("BTF was given twice")))
}

/// Where the types are read that are in use.
pub fn types_in_use() -> PathBuf {
    match GIVEN.get() {
        Some(given) => path_of(&given.types),
        None => PATH.into(),
    }
}

/// The file that was given.
pub fn given_types() -> Option<&'static Path> {
    GIVEN.get().map(|given| given.path.as_path())
}

/// Whether the numbers of the types in use are the running kernel's.
pub(super) fn are_own() -> bool {
    GIVEN.get().is_none_or(|given| given.are_own)
}

/// Whether these are the types that the running kernel shows; none if it shows none.
fn is_same(bytes: &[u8]) -> Option<bool> {
    let mut own = Vec::new();
    let length = bytes.len() as u64;
    File::open(PATH).and_then(|file| file.take(length + 1).read_to_end(&mut own)).ok()?;
    Some(own == bytes)
}

/// What is read there, in memory.
///
/// # Errors
/// If there is no room for it, or it cannot be read.
pub(super) fn kept(mut from: impl Read) -> io::Result<File> {
    let descriptor: OwnedFd = memfd_create("btf", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(descriptor);
    io::copy(&mut from, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Where it is found while it is open.
pub(super) fn path_of(kept: &File) -> PathBuf {
    format!("/proc/self/fd/{}", kept.as_raw_fd()).into()
}

/// The types in a file, which holds nothing else or is an ELF file that has them as a section.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    // Nobody has to write into a pipe for this to end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let part = |at: u64, length: u64, most: u64| -> Result<Vec<u8>, String> {
        if at.checked_add(length).is_none_or(|end| end > metadata.len()) {
            return Err("it is cut off".to_owned());
        }
        if length > most {
            return Err(format!("it has more than {} MiB", most >> 20));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        file.read_exact_at(&mut bytes, at).map_err(cannot)?;
        Ok(bytes)
    };
    let begin = part(0, metadata.len().min(4), LARGEST)?;
    if begin == ELF_MAGIC {
        return section(part);
    }
    if !begin.starts_with(&MAGIC) {
        return Err(match begin.get(..2) {
            Some([0xeb, 0x9f]) => "it is of a machine with another byte order".to_owned(),
            _ => "it is neither BTF nor an ELF file; an archive has to be unpacked".to_owned(),
        });
    }
    part(0, metadata.len(), LARGEST)
}

/// The section `.BTF` of an ELF file. Of one with debug symbols, which may have a gigabyte, nothing else is read.
fn section(part: impl Fn(u64, u64, u64) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let endian = LittleEndian;
    let bytes = part(0, size_of::<FileHeader64<LittleEndian>>() as u64, LARGEST_TABLE)?;
    let (header, _rest) = from_bytes::<FileHeader64<LittleEndian>>(&bytes).map_err(|()| "it is cut off")?;
    // Of 64 bits (ELFCLASS64), and little-endian (ELFDATA2LSB).
    if (header.e_ident.class, header.e_ident.data) != (2, 1) || header.e_machine.get(endian) != MACHINE {
        return Err(format!("it is an ELF file of another kind of machine than this, {}", ARCH));
    }
    let count = usize::from(header.e_shnum.get(endian));
    let length = count * size_of::<SectionHeader64<LittleEndian>>();
    let bytes = part(header.e_shoff.get(endian), length as u64, LARGEST_TABLE)?;
    let (sections, _rest) = slice_from_bytes::<SectionHeader64<LittleEndian>>(&bytes, count)
        .map_err(|()| "its sections cannot be read")?;
    let of = |section: &SectionHeader64<LittleEndian>, most| {
        part(section.sh_offset.get(endian), section.sh_size.get(endian), most)
    };
    let names =
        sections.get(usize::from(header.e_shstrndx.get(endian))).ok_or("its sections have no names")?;
    let names = of(names, LARGEST_TABLE)?;
    let is_named = |section: &&SectionHeader64<LittleEndian>| {
        let begin = usize::try_from(section.sh_name.get(endian)).ok();
        begin.and_then(|begin| names.get(begin..)).is_some_and(|name| name.starts_with(b".BTF\0"))
    };
    let found = sections.iter().find(is_named);
    of(found.ok_or("it is an ELF file without BTF (a section .BTF)")?, LARGEST)
}

/// These types in memory, once they are seen to be as whole as whoever reads them takes for granted, and of a kernel on this kind of machine.
fn checked(bytes: &[u8]) -> Result<File, String> {
    const HEADER: usize = 24;
    let field = |at: usize| -> Option<u64> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?).into())
    };
    let fields = || Some((field(4)?, field(8)?, field(12)?, field(16)?, field(20)?));
    let (header, types, types_length, strings, strings_length) = fields().ok_or("it is cut off")?;
    let length = bytes.len() as u64;
    if bytes.get(..2) != Some(&MAGIC[..]) || header < HEADER as u64 {
        return Err("it is no BTF".to_owned());
    }
    if header + types + types_length > length || header + strings + strings_length > length {
        return Err("it is cut off".to_owned());
    }
    if strings_length == 0 || bytes.get((header + strings + strings_length - 1) as usize) != Some(&0) {
        return Err("its names are cut off".to_owned());
    }
    let types = kept(bytes).map_err(|error| error.to_string())?;
    let btf =
        Btf::from_file_with_backend(path_of(&types), Backend::Mmap).map_err(|error| error.to_string())?;
    of_this_machine(&btf)?;
    Ok(types)
}

/// Says what gives another machine away; a file that says neither is believed.
fn of_this_machine(btf: &Btf) -> Result<(), String> {
    let of_name = |name: &str| btf.resolve_types_by_name(name).unwrap_or_default();
    let is_long = |found: &Type| matches!(found, Type::Int(int) if int.size() != size_of::<usize>());
    if of_name("long unsigned int").iter().any(is_long) {
        return Err("it is of a 32-bit kernel".to_owned());
    }
    let members = |found: &Type| match found {
        Type::Struct(found) => {
            found.members.iter().filter_map(|member| btf.resolve_name(member).ok()).collect()
        }
        _ => Vec::new(),
    };
    let registers: Vec<String> = of_name("pt_regs").iter().flat_map(members).collect();
    let machine = REGISTERS.iter().find(|(_, name)| registers.iter().any(|register| register == name));
    match machine {
        Some((machine, _)) if *machine == ARCH => {}
        Some((machine, _)) => return Err(format!("it is of a kernel for {machine}")),
        None if registers.is_empty() => {}
        None => return Err(format!("it is of a kernel for another machine than this, {ARCH}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn check(bytes: &[u8]) -> Result<(), String> {
        checked(bytes).map(drop)
    }

    fn own() -> Vec<u8> {
        fs::read(PATH).unwrap()
    }

    /// BTF with these types, of which each is its words, and names.
    fn of(types: &[&[u32]], names: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_le_bytes).collect();
        let (length, names_length) = (types.len().try_into().unwrap(), names.len().try_into().unwrap());
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend([24, 0, length, length, names_length].into_iter().flat_map(u32::to_le_bytes));
        [bytes, types, names.to_vec()].concat()
    }

    const INT: u32 = 1 << 24;
    const STRUCT_OF_ONE: u32 = 4 << 24 | 1;

    fn why(bytes: &[u8]) -> String {
        check(bytes).unwrap_err()
    }

    /// An ELF file for a machine with one section of this name beside that of the names.
    fn elf(machine: u16, name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0");
        let (names_at, content_at) = (64, 64 + names.len());
        let headers_at = content_at + content.len();
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(16, 0);
        file.extend(1_u16.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend([0_u64, 0, headers_at as u64].into_iter().flat_map(u64::to_le_bytes));
        file.extend(0_u32.to_le_bytes());
        file.extend([64_u16, 0, 0, 64, 2, 0].into_iter().flat_map(u16::to_le_bytes));
        assert_eq!(file.len(), names_at);
        file.extend(names.as_bytes());
        file.extend(content);
        for (name, at, length) in [(0_u32, names_at, names.len()), (1, content_at, content.len())] {
            file.extend([name, 1].into_iter().flat_map(u32::to_le_bytes));
            let fields = [0, 0, at as u64, length as u64, 0, 1, 0];
            file.extend(fields.into_iter().flat_map(u64::to_le_bytes));
        }
        file
    }

    fn read_of(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("given");
        fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn this_kernels_own_types_are_taken_alone_and_out_of_an_elf_file() {
        let own = own();
        assert_eq!(read(Path::new(PATH)).as_deref(), Ok(&own[..]));
        assert_eq!(read_of(&elf(MACHINE, ".BTF", &own)).as_deref(), Ok(&own[..]));
        assert_eq!((check(&own), is_same(&own)), (Ok(()), Some(true)));
        assert_eq!(is_same(&own[..own.len() - 1]), Some(false));
    }

    #[test]
    fn what_is_no_btf_is_said_in_a_clause() {
        let elf_without = elf(MACHINE, ".text", b"code");
        let elf_of_another = elf(if MACHINE == EM_X86_64 { EM_AARCH64 } else { EM_X86_64 }, ".BTF", &own());
        for (bytes, words) in [
            (&b""[..], "neither BTF nor an ELF file"),
            (b"BTFHub", "neither BTF nor an ELF file"),
            (b"\xeb\x9f\x01\x00", "another byte order"),
            (b"\x7fELF", "cut off"),
            (&elf_without, "without BTF"),
            (&elf_of_another, "another kind of machine"),
        ] {
            let why = read_of(bytes).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        }
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("no regular file"));
        assert!(read(Path::new("/nonexistent")).unwrap_err().contains("No such file"));
        let folder = TempDir::new().unwrap();
        let huge = folder.path().join("huge");
        fs::write(&huge, MAGIC).unwrap();
        File::options().write(true).open(&huge).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(read(&huge).unwrap_err().contains("more than 64 MiB"));
    }

    #[test]
    fn another_machines_types_are_refused() {
        let long = [1, INT, 4, 32];
        assert!(why(&of(&[&long], b"\0long unsigned int\0")).contains("32-bit"));
        let registers = |name: &[u8]| {
            of(
                &[&[1, INT, 4, 32], &[5, STRUCT_OF_ONE, 16, 13, 1, 0]],
                &[b"\0int\0pt_regs\0", name, b"\0"].concat(),
            )
        };
        for (machine, register) in REGISTERS {
            let checked = check(&registers(register.as_bytes()));
            match machine == ARCH {
                true => assert_eq!(checked, Ok(())),
                false => assert!(checked.unwrap_err().ends_with(machine)),
            }
        }
        assert!(why(&registers(b"gprs")).contains("another machine"));
        assert_eq!(check(&of(&[&[1, INT, 4, 32]], b"\0int\0")), Ok(()));
    }

    /// What passes the check may still be nonsense: whoever reads it comes to an end, without a panic.
    #[test]
    fn any_bytes_are_types_or_refused() {
        let mut random = fastrand::Rng::with_seed(502);
        let own = own();
        // As many as have all kinds of types among them, and the names of none.
        let small = of(
            &[
                &[1, INT, 4, 32],
                &[5, STRUCT_OF_ONE, 16, 0, 2, 0],
                &[5, STRUCT_OF_ONE, 16, 13, 1, 0],
                &[0, 8 << 24, 4],
                &[0, 10 << 24, 4],
            ],
            b"\0int\0sock\0\0\0\0\0\0\0",
        );
        for turn in 0..20_000 {
            let mut bytes = if turn % 4_000 == 0 { own.clone() } else { small.clone() };
            let most = bytes.len();
            for _ in 0..random.usize(0..6) {
                bytes[random.usize(0..most)] = random.u8(..);
            }
            if random.u8(..) < 40 {
                bytes.truncate(random.usize(0..most));
            }
            if check(&bytes).is_ok() {
                super::super::btf::try_all(&bytes);
            }
        }
    }

    #[test]
    fn any_elf_file_is_read_or_refused() {
        let mut random = fastrand::Rng::with_seed(502);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("given");
        for _ in 0..3_000 {
            let mut bytes = elf(MACHINE, ".BTF", &of(&[&[1, INT, 4, 32]], b"\0int\0"));
            let most = bytes.len();
            for _ in 0..random.usize(0..6) {
                bytes[random.usize(4..most)] = random.u8(..);
            }
            if random.u8(..) < 40 {
                bytes.truncate(random.usize(0..most));
            }
            fs::write(&path, &bytes).unwrap();
            if let Ok(types) = read(&path) {
                assert!(types.len() <= most);
                // Whatever they are, that is said.
                let _types_or_not = check(&types);
            }
        }
    }
}
