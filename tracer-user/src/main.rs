//! The why502 command.

use std::process::ExitCode;

use clap::Parser as _;
use why502::{
    args::{Args, Command},
    backlog, doctor, live, record, report,
};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Command::Live(args) => live::run(args).map(|()| ExitCode::SUCCESS),
        Command::Backlog(args) => backlog::run(args),
        Command::Record(args) => record::run(args).map(|()| ExitCode::SUCCESS),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("why502: {failure}");
            failure.exit_code()
        }
    }
}
