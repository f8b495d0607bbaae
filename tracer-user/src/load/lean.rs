//! Lets go of a program's instructions once the kernel has them. The loader keeps them for as long as its own handle, each program's with all
//! the functions that it calls.

use aya::programs::{FEntry, FExit, Iter, KProbe, Program, ProgramError, RawTracePoint, TracePoint, UProbe};

/// Takes another handle on a program that is loaded and attached to nothing yet. Where the kernel gives none (it asks for `CAP_SYS_ADMIN`), the
/// first one stays: it only takes more memory.
pub(super) fn keep_handle_only(program: &mut Program, name: &str) {
    if let Ok(handle) = handle(program, name) {
        *program = handle;
    }
}

fn handle(program: &Program, name: &str) -> Result<Program, ProgramError> {
    let info = program.info()?;
    let name = name.to_owned().into();
    Ok(match program {
        Program::RawTracePoint(_) => Program::RawTracePoint(RawTracePoint::from_program_info(info, name)?),
        Program::TracePoint(_) => Program::TracePoint(TracePoint::from_program_info(info, name)?),
        Program::Iter(_) => Program::Iter(Iter::from_program_info(info, name)?),
        // SAFETY: of the same type and the same kind as the one that was loaded.
        Program::FEntry(_) => Program::FEntry(unsafe { FEntry::from_program_info(info, name) }?),
        // SAFETY: as above.
        Program::FExit(_) => Program::FExit(unsafe { FExit::from_program_info(info, name) }?),
        Program::KProbe(probe) => {
            // SAFETY: as above.
            Program::KProbe(unsafe { KProbe::from_program_info(info, name, probe.kind()) }?)
        }
        Program::UProbe(probe) => {
            // SAFETY: as above.
            Program::UProbe(unsafe { UProbe::from_program_info(info, name, probe.kind()) }?)
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    })
}
