//! Puts the kernel's own functions where compiled programs call marks, or nothing where they are not to be called.

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, SectionKind};
use wire::{KERNEL_FUNCTIONS, KernelFunction, READ_ONLY_CAST, SHARED_STACK_BEGIN, SHARED_STACK_END};

use super::{
    btf::Kernel,
    callable::{PREEMPTIBLE, SHARES_STACKS, interprets},
};

/// An instruction's length, in bytes: the operation, two registers, an offset, and four of a number.
const INSTRUCTION: usize = 8;
const CALL: u8 = 0x85;
/// In a call's source register: the number is of a type in the kernel's BTF (`BPF_PSEUDO_KFUNC_CALL`), not a helper's.
const KERNEL_FUNCTION: u8 = 2 << 4;
/// Jumps to the next instruction.
const NOTHING: [u8; INSTRUCTION] = [0x05, 0, 0, 0, 0, 0, 0, 0];

/// The numbers of [`KERNEL_FUNCTIONS`], in their order; none for one that is not to be called.
type Numbers = [Option<u32>; KERNEL_FUNCTIONS.len()];

/// What a function is called for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Cast,
    SharedStack,
    Undisturbed,
}

fn purpose(function: &KernelFunction) -> Purpose {
    match *function {
        READ_ONLY_CAST => Purpose::Cast,
        SHARED_STACK_BEGIN | SHARED_STACK_END => Purpose::SharedStack,
        _ => Purpose::Undisturbed,
    }
}

/// Those that are to be called: for each purpose all, if this kernel offers all and has that which makes them necessary, or none.
pub(super) fn numbers(kernel: &Kernel) -> Numbers {
    let known = KERNEL_FUNCTIONS.map(|function| kernel.function(function.name));
    let offers = |of: Purpose| {
        let mut its = KERNEL_FUNCTIONS.iter().zip(known).filter(|(function, _)| purpose(function) == of);
        !interprets() && its.all(|(_, number)| number.is_some())
    };
    let is_called = |of: Purpose| match of {
        Purpose::Cast => kernel.casts(),
        Purpose::SharedStack => kernel.function(SHARES_STACKS).is_some() && offers(of),
        Purpose::Undisturbed => kernel.has(PREEMPTIBLE) && offers(of),
    };
    let mut numbers = known;
    for (function, number) in KERNEL_FUNCTIONS.iter().zip(&mut numbers) {
        if !is_called(purpose(function)) {
            *number = None;
        }
    }
    numbers
}

/// The object with these functions, or nothing, in place of every mark.
///
/// # Errors
/// If it is no ELF object.
pub(super) fn settled(mut elf: Vec<u8>, numbers: Numbers) -> Result<Vec<u8>> {
    for place in marks(&elf)? {
        let instruction = &mut elf[place.at..place.at + INSTRUCTION];
        match numbers[place.function] {
            Some(number) => {
                instruction[1] = KERNEL_FUNCTION;
                instruction[4..].copy_from_slice(&number.to_le_bytes());
            }
            None => instruction.copy_from_slice(&NOTHING),
        }
    }
    Ok(elf)
}

/// Where an instruction calls a mark.
struct Mark {
    at: usize,
    /// Which of [`KERNEL_FUNCTIONS`].
    function: usize,
}

fn marks(elf: &[u8]) -> Result<Vec<Mark>> {
    let object = object::File::parse(elf).context("the BPF object cannot be read")?;
    let mut marks = Vec::new();
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, _length)) = section.file_range() else { continue };
        let start = usize::try_from(start).context("the BPF object is too large")?;
        let code = section.data().context("a section of the BPF object cannot be read")?;
        // The second half of a long constant begins with a zero, so it is never taken for a call.
        for (number, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            let called =
                |mark: u32| instruction[..4] == [CALL, 0, 0, 0] && instruction[4..] == mark.to_le_bytes();
            if let Some(function) = KERNEL_FUNCTIONS.iter().position(|function| called(function.mark)) {
                marks.push(Mark { at: start + number * INSTRUCTION, function });
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use std::fs;

    use super::*;
    use crate::load::object::Object;

    #[test]
    fn every_function_is_called_where_the_kernel_has_them_and_nothing_is_where_not() {
        let object = Object::LIVE.elf().unwrap();
        let marks_of = |elf: &[u8]| marks(elf).unwrap();
        let called: HashSet<_> = marks_of(&object).iter().map(|mark| mark.function).collect();
        assert_eq!(called.len(), KERNEL_FUNCTIONS.len());

        let numbers = [71_001, 71_002, 71_003, 71_004, 71_005, 71_006, 71_007];
        let with = settled(object.clone(), numbers.map(Some)).unwrap();
        let without = settled(object.clone(), [None; KERNEL_FUNCTIONS.len()]).unwrap();
        for Mark { at, function } in marks_of(&object) {
            let number = numbers[function].to_le_bytes();
            assert_eq!(with[at..at + INSTRUCTION], [&[CALL, KERNEL_FUNCTION, 0, 0], &number[..]].concat());
            assert_eq!(without[at..at + INSTRUCTION], NOTHING);
        }
        for settled in [with, without] {
            assert!(marks_of(&settled).is_empty());
            assert_eq!(settled.len(), object.len());
        }
    }

    /// Whether they are to be called is another matter: that this kernel offers them is what its own list of them says.
    #[test]
    fn functions_are_known_by_their_numbers_in_the_kernels_types() {
        let kernel = Kernel::running().unwrap();
        let own = fs::read_to_string("/proc/kallsyms").unwrap();
        for name in KERNEL_FUNCTIONS.map(|function| function.name).into_iter().chain([SHARES_STACKS]) {
            let is_there = own.lines().any(|line| line.split(' ').nth(2) == Some(name));
            assert_eq!(kernel.function(name).is_some(), is_there, "{name}");
        }
        assert_eq!(kernel.function("class_srcu_fast_notrace_t"), None);
    }
}
