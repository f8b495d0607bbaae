//! `why502 completions`: what a shell completes commands and options by.

use clap::CommandFactory as _;
use clap_complete::aot;

use crate::{
    args::{Args, Completions, Shell},
    model::failure::Failure,
    terminal,
};

/// Prints them.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Completions) -> Result<(), Failure> {
    terminal::print(terminal::text(), &of(args.shell))
}

fn of(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    aot::generate(shell, &mut Args::command(), "why502", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};
    use std::process::Command;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_shell_is_given_every_command() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(of(*shell)).unwrap();
            for command in Args::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell:?}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn bash_completes_a_command_and_an_option() {
        let ask = "source /dev/stdin; COMP_WORDS=(why502 $1); COMP_CWORD=$(($# > 0 ? 1 : 0)); \
            [ -z \"$2\" ] || { COMP_WORDS=(why502 $1 $2); COMP_CWORD=2; }; \
            _why502 why502 \"${COMP_WORDS[COMP_CWORD]}\" \"\"; echo \"${COMPREPLY[@]}\"";
        let complete = |words: [&str; 2]| {
            let (read, mut write) = io::pipe().unwrap();
            let mut command = Command::new("bash");
            command.args(["--norc", "-c", ask, "bash"]).args(words).stdin(read);
            let writer = std::thread::spawn(move || write.write_all(&of(Shell::Bash)));
            let output = command.output().unwrap();
            drop(command);
            writer.join().unwrap().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(complete(["expl", ""]), "explain");
        assert_eq!(complete(["live", "--dur"]), "--duration");
    }
}
