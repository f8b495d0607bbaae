//! The demonstration: a real nginx and real php-fpm, broken in one way after another, while why502 watches.
//!
//! `demo` shows what `why502 live` says of each. `demo --serve` has `why502 serve` count them and a Prometheus answer which causes there
//! were; with `--hold` both then run on until Ctrl-C. All of it happens in a network namespace of its own, but for the pages of the two,
//! which only this host can ask; nothing is left of it, also after Ctrl-C.

use std::env;
use std::io::{Write, stdout};
use std::process::ExitCode;

use rig::interrupt;

mod live;
mod serve;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let show = match arguments[..] {
        [] => live::show,
        ["--serve"] => serve::show,
        ["--serve", "--hold"] => serve::show_and_hold,
        _ => {
            eprintln!("usage: demo [--serve [--hold]]");
            return ExitCode::from(2);
        }
    };
    interrupt::run("demo", move |namespace| show(namespace).map(|()| ExitCode::SUCCESS))
}

fn say(sentence: &str) {
    // A closed standard output is noticed by why502's lines, too; it ends nothing here.
    let _ = writeln!(stdout(), "\n# {sentence}");
}
