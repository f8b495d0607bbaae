//! The measurements of `cargo xtask bench`: what tracing costs a real nginx and real php-fpm at saturation.
//!
//! `bench PARTS PAIRS TOOL_PAIRS` prints one figure per line, as JSON (see `figure`), and says on standard error what it does. PARTS is
//! a comma-separated list of [`PARTS`]; PAIRS is how many pairs of slices each case of why502 gets, TOOL_PAIRS how many each other
//! tool gets. All of it happens in a network namespace of its own; nothing is left of it, also after Ctrl-C.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rig::{Namespace, interrupt};

// What is measured, and where it is emitted.
mod figure;
mod load;
mod stage;
mod tool;

// What its cost is read from.
mod process;
mod programs;

// The measurements.
mod explain;
mod flood;
mod growth;
mod hooks;
mod pairs;
mod screen;
mod serve;
mod storm;

type Part = fn(&stage::Stage, &Counts) -> Result<()>;

/// How many pairs of slices are made.
struct Counts {
    /// For each case of why502.
    pairs: usize,
    /// For each other tool.
    tool_pairs: usize,
}

const PARTS: [(&str, Part); 9] = [
    ("why502", |stage, counts| pairs::of_why502(stage, counts.pairs)),
    ("tools", |stage, counts| pairs::of_other_tools(stage, counts.tool_pairs)),
    ("hooks", |stage, _| hooks::measure(stage)),
    ("growth", |stage, _| growth::measure(stage)),
    ("storm", |stage, _| storm::measure(stage)),
    ("screen", |stage, _| screen::measure(stage)),
    ("flood", |stage, counts| flood::measure(stage, counts.pairs)),
    ("explain", |stage, _| explain::measure(stage)),
    ("serve", |stage, _| serve::measure(stage)),
];

fn main() -> ExitCode {
    interrupt::run("bench", |namespace| measure(namespace).map(|()| ExitCode::SUCCESS))
}

fn measure(namespace: &Namespace) -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [parts, pairs, tool_pairs] = arguments.as_slice() else {
        bail!("usage: bench PARTS PAIRS TOOL_PAIRS");
    };
    let counts = Counts { pairs: pairs.parse()?, tool_pairs: tool_pairs.parse()? };
    let find = |name: &str| {
        let part = PARTS.iter().find(|(known, _)| *known == name);
        part.with_context(|| format!("nothing to measure is called {name}"))
    };
    let parts: Vec<_> = parts.split(',').map(find).collect::<Result<_>>()?;
    let stage = stage::Stage::set(namespace)?;
    for (name, part) in parts {
        part(&stage, &counts).with_context(|| format!("measuring {name}"))?;
    }
    Ok(())
}
