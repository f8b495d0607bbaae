//! How much stack the BPF programs take, held against what kernels give them, without one of those kernels.
//!
//! Before 6.13 a chain of calls has 512 bytes in all, of which each function takes its own, rounded up to 32 (`check_max_stack_depth` in
//! kernel/bpf/verifier.c, `MAX_BPF_STACK`).

use std::collections::HashMap;

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
};

use super::object::Object;

const MOST: u64 = 512;
const INSTRUCTION: usize = 8;
/// `BPF_REG_10`, the frame's end.
const FRAME: u8 = 10;
/// `BPF_LDX`, `BPF_ST`, `BPF_STX`: the classes of instructions that look at memory.
const LOAD: u8 = 1;
const STORE_CONSTANT: u8 = 2;
const STORE: u8 = 3;
/// `BPF_ALU64 | BPF_MOV | BPF_X`, `BPF_ALU64 | BPF_ADD | BPF_K`, `BPF_LD | BPF_DW | BPF_IMM`, `BPF_JMP | BPF_CALL`, and that it is one of a
/// function of the object's own (`BPF_PSEUDO_CALL`).
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const LONG_CONSTANT: u8 = 0x18;
const CALL: u8 = 0x85;
const OWN: u8 = 1;

/// Where a function begins.
type Place = (SectionIndex, u64);

struct Function {
    name: String,
    /// What it takes (bytes), as far as its instructions name the place.
    frame: u64,
    calls: Vec<Place>,
}

fn functions(elf: &[u8]) -> HashMap<Place, Function> {
    let file = object::File::parse(elf).unwrap();
    let mut functions = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let relocations: HashMap<u64, RelocationTarget> =
            section.relocations().map(|(at, relocation)| (at, relocation.target())).collect();
        let code = section.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
        let (mut frame, mut calls) = (0, Vec::new());
        // Registers that hold the frame's end.
        let mut ends = [false; 16];
        let mut is_second_half = false;
        for (number, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            if std::mem::take(&mut is_second_half) {
                continue;
            }
            let [operation, registers, ..] = *instruction else { unreachable!() };
            let (destination, source) = (registers & 0xf, registers >> 4);
            let offset = i16::from_le_bytes([instruction[2], instruction[3]]);
            let constant = i32::from_le_bytes(instruction[4..].try_into().unwrap());
            let at = symbol.address() + (number * INSTRUCTION) as u64;
            let base = match operation & 7 {
                LOAD => Some(source),
                STORE | STORE_CONSTANT => Some(destination),
                _ => None,
            };
            let below = match operation {
                _ if base == Some(FRAME) => offset.into(),
                ADD if std::mem::take(&mut ends[usize::from(destination)]) => constant,
                _ => 0,
            };
            frame = frame.max(u64::from(below.min(0).unsigned_abs()));
            match operation {
                MOVE => ends[usize::from(destination)] = source == FRAME,
                LONG_CONSTANT => is_second_half = true,
                CALL if source == OWN => {
                    // Relative to the instruction after it or, by a relocation, to what that names.
                    let next =
                        |from: u64| from.wrapping_add_signed((i64::from(constant) + 1) * INSTRUCTION as i64);
                    calls.push(match relocations.get(&at) {
                        Some(RelocationTarget::Symbol(callee)) => {
                            let callee = file.symbol_by_index(*callee).unwrap();
                            let begins =
                                if callee.kind() == SymbolKind::Section { next(0) } else { callee.address() };
                            (callee.section_index().unwrap(), begins)
                        }
                        Some(target) => panic!("a call of {target:?}"),
                        None => (index, next(at)),
                    });
                }
                _ => {}
            }
        }
        let name = symbol.name().unwrap().to_owned();
        functions.insert((index, symbol.address()), Function { name, frame, calls });
    }
    functions
}

/// The deepest chain that begins with a function: what it takes, and the functions' names and frames.
fn deepest(functions: &HashMap<Place, Function>, from: Place) -> (u64, String) {
    let Function { name, frame, calls } =
        functions.get(&from).unwrap_or_else(|| panic!("no function is at {from:?}"));
    let (under, chain) = calls.iter().map(|callee| deepest(functions, *callee)).max().unwrap_or_default();
    ((*frame).max(1).next_multiple_of(32) + under, format!("{name} {frame} > {chain}"))
}

#[test]
fn no_chain_of_calls_takes_more_stack_than_old_kernels_give() {
    for (object, least) in [(Object::LIVE, 40), (Object::BACKLOG, 10), (Object::SOCKETS, 1)] {
        let functions = functions(&object.elf().unwrap());
        let chains: Vec<_> = functions.keys().map(|begin| deepest(&functions, *begin)).collect();
        assert!(chains.len() >= least, "only {} functions were found", chains.len());
        let (most, chain) = chains.into_iter().max().unwrap();
        assert!(most > 64, "nothing takes any stack");
        assert!(most <= MOST, "{most} bytes: {chain}");
    }
}

/// From 6.13 on, a function that takes as much (`BPF_PRIV_STACK_MIN_SIZE`), rounded up to 16, may have it of the CPU.
const OF_THE_CPU: u64 = 64;

/// Several tasks may be inside of a uprobe's program on one CPU: only what is done where no other can begin may take such a stack.
#[test]
fn what_is_done_for_several_tasks_at_a_time_takes_no_stack_of_the_cpu() {
    let elf = Object::LIVE.elf().unwrap();
    let file = object::File::parse(&*elf).unwrap();
    let functions = functions(&elf);
    let programs: Vec<_> = functions
        .iter()
        .filter(|((section, _), _)| {
            file.section_by_index(*section).unwrap().name().unwrap().starts_with("uprobe")
        })
        .collect();
    assert_eq!(programs.len(), 2);
    for (_, Function { name, frame, calls }) in programs {
        assert!(frame.next_multiple_of(16) < OF_THE_CPU, "{name} takes {frame} bytes");
        let alone: Vec<_> = calls
            .iter()
            .map(|callee| &functions[callee])
            .filter(|callee| callee.frame.next_multiple_of(16) >= OF_THE_CPU)
            .map(|callee| callee.name.as_str())
            .collect();
        assert!(
            alone.iter().all(|name| name.contains("heard")) && !alone.is_empty(),
            "{name} calls {alone:?}"
        );
    }
}
