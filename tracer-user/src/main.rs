//! The why502 command.

use std::{panic, process::ExitCode};

use clap::Parser as _;
use why502::{
    args::{Args, Command},
    command::{backlog, completions, doctor, explain, live, man, record, report, serve, top},
    memory,
    model::failure::Failure,
    notice, terminal,
};

fn main() -> ExitCode {
    memory::share();
    panic::set_hook(Box::new(|panic| notice!("this is a fault of why502 itself, please report it: {panic}")));
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => return of_usage(&usage),
    };
    let result = match &args.command {
        Command::Live(args) => live::run(args).map(|()| ExitCode::SUCCESS),
        Command::Backlog(args) => backlog::run(args),
        Command::Record(args) => record::run(args).map(|()| ExitCode::SUCCESS),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(args),
        Command::Top(args) => top::run(args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Completions(args) => completions::run(args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => man::run(args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            if !matches!(failure, Failure::Closed) {
                notice!("{failure}");
            }
            failure.exit_code()
        }
    }
}

/// Wrong usage, in clap's words, which quote what was asked for; or the help that was asked for.
fn of_usage(usage: &clap::Error) -> ExitCode {
    if !usage.use_stderr() {
        usage.exit();
    }
    let words = usage.render();
    terminal::complain(&match terminal::complains_in_colour() {
        true => words.ansi().to_string(),
        false => words.to_string(),
    });
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
