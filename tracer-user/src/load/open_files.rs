//! The sockets that processes hold, read from the kernel's iterator over open files. No descriptor of anybody's is touched, and no
//! text is read that somebody else may have written.

use std::{
    fs::File,
    io::{self, Read as _},
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{Iter, Program, ProgramError},
};
use wire::HeldSocket;
use zerocopy::FromBytes as _;

use super::{lean::keep_handle_only, types::Types};

/// How long one reading may take: whoever opens files by the million does not keep the tracer from its work.
const MOST: Duration = Duration::from_secs(5);

/// Entries that are read at once.
const AT_ONCE: usize = 512;

/// Loads the program of this name, whose every run is one reading.
///
/// # Errors
/// Where this kernel has no such iterator (before 5.8), or refuses it.
pub(super) fn load(object: &mut Ebpf, name: &str, types: &mut Types) -> Result<(), ProgramError> {
    let result = program(object, name)?.load("task_file", types.get()?);
    if let (Err(error), Some(_)) = (&result, std::env::var_os("WHY502_VERIFIER_LOG")) {
        crate::notice!("{name}: {error:?}");
    }
    result?;
    if let Some(program) = object.program_mut(name) {
        keep_handle_only(program, name);
    }
    Ok(())
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter, ProgramError> {
    match object.program_mut(name) {
        Some(Program::Iter(program)) => Ok(program),
        _ => Err(ProgramError::InvalidName { name: name.to_owned() }),
    }
}

/// Visits all open files once, and hands on what the program emits of them.
///
/// # Errors
/// If the kernel refuses, or if it takes too long: what was handed on is not all then.
pub(super) fn read(object: &mut Ebpf, name: &str, each: impl FnMut(&HeldSocket)) -> io::Result<()> {
    let program = program(object, name).map_err(io::Error::other)?;
    let link = program.attach().map_err(io::Error::other)?;
    let link = program.take_link(link).map_err(io::Error::other)?;
    entries(link.into_file().map_err(io::Error::other)?, each)
}

fn entries(mut file: File, mut each: impl FnMut(&HeldSocket)) -> io::Result<()> {
    const LEN: usize = size_of::<HeldSocket>();
    let began = Instant::now();
    let mut buffer = vec![0; AT_ONCE * LEN];
    let mut filled = 0;
    while began.elapsed() < MOST {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        filled += match file.read(room) {
            Ok(0) if filled == 0 => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            // The kernel visits a million files in one go at most.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        let whole = filled / LEN * LEN;
        for entry in buffer[..whole].chunks_exact(LEN) {
            // Of just this length, and any bytes are an entry.
            if let Ok(entry) = HeldSocket::read_from_bytes(entry) {
                each(&entry);
            }
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "this host has too many open files to be looked through"))
}
