//! Loads programs, each with its instances, and attaches them.

use std::{collections::HashSet, panic::resume_unwind};

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{Program, ProgramError},
};

use super::{
    kinds::refusal,
    programs::programs,
    standby::{BODY, Body, FIRST, body_of, standby_of},
};
use crate::{
    confine,
    load::{lean::keep_handle_only, refused::refused, tracefs, types::Types},
    model::{facts::Source, hook_kind::HookKind},
};

pub(in crate::load) struct Attacher<'a> {
    object: &'a mut Ebpf,
    types: &'a mut Types,
    /// Kinds whose programs may not be there.
    useless: HashSet<HookKind>,
    /// Whether programs that have standby instances are attached with them.
    with_standby: bool,
    /// Programs that some fact has already.
    attached: HashSet<String>,
}

impl<'a> Attacher<'a> {
    pub(in crate::load) fn new(object: &'a mut Ebpf, types: &'a mut Types) -> Self {
        Self { object, types, useless: HashSet::new(), with_standby: false, attached: HashSet::new() }
    }

    /// The object may lack the programs of these kinds.
    pub(in crate::load) fn without(
        useless: HashSet<HookKind>,
        object: &'a mut Ebpf,
        types: &'a mut Types,
    ) -> Self {
        Self { useless, ..Self::new(object, types) }
    }

    /// With the standby instances of the programs that have any, or without.
    pub(super) fn with_standby(self, with_standby: bool) -> Self {
        Self { with_standby, ..self }
    }

    /// Attaches all programs of a source; returns the source's name. Where one is refused, none stays.
    pub(in crate::load) fn attach(&mut self, source: &Source) -> Result<String, String> {
        if self.useless.contains(&source.kind) {
            return Err(refusal(source.kind));
        }
        let programs = source.points.iter().flat_map(|point| programs(source.kind, *point));
        let programs: Vec<_> = programs.filter(|(program, _)| !self.attached.contains(program)).collect();
        for (attached, (program, target)) in programs.iter().enumerate() {
            if let Err(error) = self.attach_one(program, target) {
                for (program, _) in &programs[..=attached] {
                    self.detach(program);
                }
                return Err(format!("{}/{target}: {}", source.kind.of_source(), refused(&error)));
            }
        }
        self.attached.extend(programs.into_iter().map(|(program, _)| program));
        Ok(source.name())
    }

    /// What the first one misses until its standby instances are attached is lost, so all are loaded before: that takes long.
    pub(in crate::load) fn attach_one(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let instances = self.instances(name);
        if instances.len() > 1 {
            self.provide_body(name, target)?;
        }
        instances.iter().try_for_each(|name| self.load(name, target))?;
        instances.iter().try_for_each(|name| self.attach_loaded(name, target))
    }

    /// What is attached in a program's place, in this order: itself, or instances of it.
    fn instances(&self, name: &str) -> Vec<String> {
        let standby = if self.with_standby { standby_of(name) } else { Vec::new() };
        let first = if !standby.is_empty() && body_of(name).is_some() {
            format!("{name}_{FIRST}")
        } else {
            name.to_owned()
        };
        std::iter::once(first).chain(standby).collect()
    }

    /// Puts what the instances of a program share where they go on, if they share anything.
    pub(super) fn provide_body(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let Some(Body { map, place }) = body_of(name) else { return Ok(()) };
        let body = format!("{name}_{BODY}");
        // Another source of the fact may have begun with it, and been refused.
        if is_loaded(self.object, &body) {
            return Ok(());
        }
        self.load(&body, target)?;
        let program = self.object.program(&body).ok_or_else(|| missing(&body))?.fd()?.try_clone();
        let program = program.map_err(ProgramError::IOError)?;
        let map = self.object.map_mut(map).ok_or_else(|| missing(map))?;
        // It stays within the object: the kernel empties the map of one that is let go.
        ProgramArray::try_from(map)?.set(place, &program, 0)?;
        Ok(())
    }

    fn load(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let program = self.object.program_mut(name).ok_or_else(|| missing(name))?;
        let result = match program {
            Program::RawTracePoint(program) => program.load(),
            Program::TracePoint(program) => program.load(),
            Program::KProbe(program) => program.load(),
            Program::FEntry(program) => program.load(target, self.types.get()?),
            Program::FExit(program) => program.load(target, self.types.get()?),
            _ => Err(missing(name)),
        };
        match &result {
            Ok(()) => keep_handle_only(program, name),
            Err(error) => show(name, error),
        }
        result
    }

    fn attach_loaded(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let result = match self.object.program_mut(name).ok_or_else(|| missing(name))? {
            Program::RawTracePoint(program) => program.attach(target).map(drop),
            // These two are perf events, for which some kernels ask for CAP_SYS_ADMIN (Debian's, with its `perf_event_paranoid` of 3).
            Program::TracePoint(program) => tracefs::with(|| program.attach("syscalls", target).map(drop))?,
            Program::KProbe(program) => confine::apart(|| program.attach(target, 0).map(drop))
                .unwrap_or_else(|panic| resume_unwind(panic)),
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            _ => Err(missing(name)),
        };
        result.inspect_err(|error| show(name, error))
    }

    pub(in crate::load) fn detach(&mut self, name: &str) {
        self.instances(name).iter().rev().for_each(|instance| self.detach_only(instance));
    }

    fn detach_only(&mut self, name: &str) {
        // A program that was never loaded has nothing to detach.
        let _not_loaded = match self.object.program_mut(name) {
            Some(Program::RawTracePoint(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            _ => Ok(()),
        };
    }
}

pub(super) fn is_loaded(object: &Ebpf, program: &str) -> bool {
    object.program(program).is_some_and(|program| program.fd().is_ok())
}

/// The object has no such program, or one of another kind.
fn missing(name: &str) -> ProgramError {
    ProgramError::InvalidName { name: name.to_owned() }
}

/// Shows what the kernel says of a program, where that was asked for.
fn show(name: &str, error: &ProgramError) {
    if std::env::var_os("WHY502_VERIFIER_LOG").is_some() {
        crate::terminal::complain(&format!("{name}: {error:?}\n"));
    }
}
