//! nginx's own word: a uprobe on `ngx_log_error_core` in each binary that runs as nginx.
//!
//! nginx exports the function (it links with `-Wl,-E`), so a stripped binary names it, too. A binary is known by its file: what runs
//! already and what is started from it later is heard alike. Nothing is executed, and of the file only its tables are read.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

use super::{lean::keep_handle_only, refused::refused};
use crate::{
    confine, file,
    model::{clock::monotonic_ns, facts::WORDS},
};

/// The function, and the program that hears it on any kernel.
const FUNCTION: &str = "ngx_log_error_core";

/// The program that also reads what is not mapped yet; kernels before 6.0 refuse it.
const SLEEPABLE: &str = "ngx_log_error_core_sleepable";

/// Exists where the kernel was built with uprobes (`CONFIG_UPROBE_EVENTS`).
const UPROBES: &str = "/sys/bus/event_source/devices/uprobe";

/// A binary is no larger than this, in bytes.
const LARGEST: u64 = 256 << 20;

/// Which file a binary is: device and inode.
pub type Binary = (u64, u64);

/// Which binary this process runs; none if it has ended.
pub fn binary(pid: u32) -> Option<Binary> {
    let meta = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The binaries that are heard.
#[derive(Debug)]
pub(super) struct Words {
    /// Whether the program has what is not mapped yet read for it.
    pub(super) may_wait: bool,
    /// None for those without the function, and for those that cannot be heard.
    known: HashMap<Binary, Option<Place>>,
}

/// Where the function lies.
#[derive(Debug)]
struct Place {
    /// The file itself, whatever has its name by now.
    file: File,
    /// Where in it.
    offset: u64,
    /// None while it is left alone.
    link: Option<UProbeLinkId>,
    /// Since when it is heard, or is not (ns, monotonic).
    since_ns: u64,
}

/// Loads the program.
///
/// # Errors
/// Why nginx's word cannot be heard on this kernel.
pub(super) fn load(object: &mut Ebpf) -> Result<Words, String> {
    if !Path::new(UPROBES).exists() {
        return Err("this kernel has no uprobes".to_owned());
    }
    let may_wait = named(object, SLEEPABLE)?.load().is_ok();
    if !may_wait {
        named(object, FUNCTION)?.load().map_err(|error| format!("{WORDS}: {}", refused(&error)))?;
    }
    let loaded = if may_wait { SLEEPABLE } else { FUNCTION };
    if let Some(program) = object.program_mut(loaded) {
        keep_handle_only(program, loaded);
    }
    Ok(Words { may_wait, known: HashMap::new() })
}

/// The program that is loaded.
fn program(object: &mut Ebpf) -> Result<&mut UProbe, String> {
    let is_loaded = named(object, SLEEPABLE)?.fd().is_ok();
    named(object, if is_loaded { SLEEPABLE } else { FUNCTION })
}

fn named<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, String> {
    let program = object.program_mut(name).ok_or("the BPF object has no program for it")?;
    program
        .try_into()
        .map_err(|_| "the BPF object's program for it is none on a function of a process".to_owned())
}

impl Words {
    /// Hears the binary that this process runs, if that is an nginx and not heard already: one that only root may write, or whatever
    /// it is if `believes_all`. Returns whether it is heard from now on, and was not before; none if the process has ended. That takes the
    /// kernel some hundredths of a second: it waits until no other processor is about to look at its probes.
    ///
    /// # Errors
    /// Why it cannot be heard.
    pub(super) fn hear(
        &mut self,
        object: &mut Ebpf,
        pid: u32,
        believes_all: bool,
    ) -> Result<Option<bool>, String> {
        let Some((program, meta)) = program_of(pid)? else { return Ok(None) };
        let binary = (meta.dev(), meta.ino());
        if !(is_roots(&meta) || believes_all) || self.known.contains_key(&binary) {
            return Ok(Some(false));
        }
        self.known.insert(binary, None);
        // This very file, whatever the process has become since.
        let path = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let file = File::open(&path).map_err(|error| format!("its binary cannot be read: {error}"))?;
        let Some(offset) = offset(&file, meta.len())? else { return Ok(Some(false)) };
        let mut place = Place { file: program, offset, link: None, since_ns: 0 };
        place.attach(object)?;
        self.known.insert(binary, Some(place));
        Ok(Some(true))
    }

    /// The same, where a binary that is none to be heard is reported, too.
    ///
    /// # Errors
    /// Why what this process says is not heard.
    pub(super) fn try_hear(&mut self, object: &mut Ebpf, pid: u32, believes_all: bool) -> Result<(), String> {
        let Some((program, meta)) = program_of(pid)? else { return Err("it has ended".to_owned()) };
        if !(is_roots(&meta) || believes_all) {
            return Err("others than root may write its binary".to_owned());
        }
        let file = File::open(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let file = file.map_err(|error| format!("its binary cannot be read: {error}"))?;
        match offset(&file, meta.len())? {
            Some(_) => self.hear(object, pid, believes_all).map(drop),
            None => Err(format!("its binary does not name {FUNCTION}")),
        }
    }

    /// Since when a binary is heard (ns, monotonic); none if it is not.
    pub(super) fn heard_since(&self, id: Binary) -> Option<u64> {
        let binary = self.known.get(&id)?.as_ref()?;
        binary.link.as_ref().map(|_| binary.since_ns)
    }

    /// Whether a binary is one that nginx was met in, and what it says is not heard.
    pub(super) fn is_unheard(&self, id: Binary) -> bool {
        self.known.get(&id).is_some_and(|binary| binary.as_ref().is_none_or(|binary| binary.link.is_none()))
    }

    /// Leaves a binary alone until [`Words::hear_again`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn leave_alone(&mut self, object: &mut Ebpf, id: Binary) -> Result<(), String> {
        let Some(Some(binary)) = self.known.get_mut(&id) else { return Ok(()) };
        let Some(link) = binary.link.take() else { return Ok(()) };
        let left = program(object)?.detach(link).map_err(|error| format!("{WORDS}: {}", refused(&error)));
        binary.since_ns = monotonic_ns();
        left
    }

    /// Hears a binary again that was left alone.
    ///
    /// # Errors
    /// Why it cannot be heard.
    pub(super) fn hear_again(&mut self, object: &mut Ebpf, id: Binary) -> Result<(), String> {
        match self.known.get_mut(&id) {
            Some(Some(binary)) if binary.link.is_none() => binary.attach(object),
            _ => Ok(()),
        }
    }
}

impl Place {
    fn attach(&mut self, object: &mut Ebpf) -> Result<(), String> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let (program, offset) = (program(object)?, self.offset);
        // It takes CAP_SYS_ADMIN on any kernel (`perf_uprobe_event_init`, kernel/events/core.c, as tried on 6.18).
        let attached = confine::apart(|| program.attach(offset, &path, UProbeScope::AllProcesses))
            .unwrap_or_else(|panic| resume_unwind(panic));
        let link = attached.map_err(|error| format!("{WORDS}: {}", refused(&error)))?;
        (self.link, self.since_ns) = (Some(link), monotonic_ns());
        Ok(())
    }
}

/// The file that a process runs, not opened; none if it has ended.
fn program_of(pid: u32) -> Result<Option<(File, Metadata)>, String> {
    let failed = |error: io::Error| format!("its binary cannot be looked at: {error}");
    let program = match file::named(Path::new(&format!("/proc/{pid}/exe"))) {
        Ok(program) => program,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let meta = program.metadata().map_err(failed)?;
    Ok(Some((program, meta)))
}

/// Whether only root may write it.
fn is_roots(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
}

/// Where the function lies in its file; none where it is no nginx.
fn offset(file: &File, length: u64) -> Result<Option<u64>, String> {
    if length > LARGEST {
        return Err(format!("its binary is larger than {} MiB", LARGEST >> 20));
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(LARGEST);
    limited.read_to_end(&mut bytes).map_err(|error| format!("its binary cannot be read: {error}"))?;
    let binary = object::File::parse(bytes.as_slice())
        .map_err(|error| format!("its binary is no program: {error}"))?;
    let symbol =
        binary.dynamic_symbols().chain(binary.symbols()).find(|symbol| symbol.name() == Ok(FUNCTION));
    let Some(address) = symbol.map(|symbol| symbol.address()) else { return Ok(None) };
    let segment = binary.segments().find_map(|segment| {
        let within = address.checked_sub(segment.address()).filter(|within| *within < segment.size())?;
        Some(segment.file_range().0 + within)
    });
    Ok(segment)
}
