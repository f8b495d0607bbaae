//! The project's own commands: `cargo xtask VERB`.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

mod arch;
mod bench;
mod bpf_toolchain;
mod count;
mod demo;
mod dist;
mod end_to_end;
mod interrupt;
mod newest_nginx;
mod packages;
mod prebuild;
mod python;
mod release_check;
mod rig;
mod setup;
mod step;
mod test;
mod vm;

/// The project's own commands. Each sets up first what is missing on this machine, as root.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Breaks nginx-to-php-fpm exchanges in every way, in a network namespace of its own, and shows why502 explain each.
    Demo(demo::Options),
    /// Runs every check: rustfmt, clippy, the unit tests, and the end-to-end tests on this kernel and, emulated, on four others.
    Test,
    /// Runs the end-to-end tests on other kernels (5.10, 6.1, 6.12, 7.2; with --arch arm64 6.1 and 6.12), in an emulated machine.
    Vm(vm::Options),
    /// Measures what why502 costs, beside tcpdump, strace and bpftrace, and checks its budgets.
    Bench(bench::Options),
    /// Makes what a release hands out, in target/dist: a static binary, packages, an image, their checksums.
    Dist(dist::Options),
    /// Renews the BPF objects that come prebuilt, for `cargo install` without a toolchain for the kernel side.
    Prebuild(prebuild::Options),
    /// Checks whether this commit is fit to be released: version, changelog, compiler, dependencies and their licences.
    ReleaseCheck,
    /// Only installs what is missing to build, run and check: the BPF toolchain, nginx, php-fpm.
    Setup,
}

fn main() -> ExitCode {
    run(&Arguments::parse().verb).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        // As a shell says it: 128 and the signal's number.
        interrupt::noted().map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal as u8))
    })
}

fn run(verb: &Verb) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this package has no workspace around it")?;
    let mut steps = step::Steps::new(workspace);
    let mut set_up = |name| setup::run(name, workspace, &mut steps);
    match verb {
        // It needs little of it, and gets that itself while it builds.
        Verb::Demo(_) => {}
        Verb::Test => set_up("test")?,
        Verb::Vm(_) => set_up("vm")?,
        Verb::Bench(_) => set_up("bench")?,
        // It runs no server: most of what the others install is not for it.
        Verb::Dist(_) => dist::set_up(&mut steps, workspace)?,
        Verb::Prebuild(_) => bpf_toolchain::set_up(&mut steps, workspace)?,
        // It needs one program, and gets that itself.
        Verb::ReleaseCheck => {}
        Verb::Setup => set_up("setup")?,
    }
    if matches!(verb, Verb::Test | Verb::Setup) {
        newest_nginx::get(&mut steps, workspace)?;
    }
    match verb {
        Verb::Demo(options) => demo::run(&mut steps, workspace, options).map(|()| ExitCode::SUCCESS),
        Verb::Test => test::run(&mut steps, workspace),
        Verb::Vm(options) => vm::run(&mut steps, workspace, options),
        Verb::Bench(options) => bench::run(&mut steps, workspace, options),
        Verb::Dist(options) => dist::run(&mut steps, workspace, options).map(|()| ExitCode::SUCCESS),
        Verb::Prebuild(options) => prebuild::run(&mut steps, workspace, options).map(|()| ExitCode::SUCCESS),
        Verb::ReleaseCheck => release_check::run(&mut steps, workspace).map(|()| ExitCode::SUCCESS),
        Verb::Setup => Ok(ExitCode::SUCCESS),
    }
}
