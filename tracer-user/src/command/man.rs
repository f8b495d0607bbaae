//! `why502 man`: the manual pages, made of what `--help` says.

use std::{fs, io};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::{args, model::failure::Failure};

/// How [`args`] begins what follows a command's options.
const EXAMPLES: &str = "Examples:";
const EXIT_STATUS: &str = "Exit status: ";
/// Of commands that do not say theirs.
const STATUSES: &str =
    "0 ended as asked; 1 failed at run time; 2 wrong usage; 3 this host or these privileges cannot trace.";

/// Writes them into a folder: why502.1, and one for each command.
///
/// # Errors
/// If the folder is missing or cannot be written.
pub fn run(args: &args::Man) -> Result<(), Failure> {
    for (name, page) in pages().context("a manual page cannot be made")? {
        let path = args.folder.join(name);
        fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Each page's file name and text.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // A page of `why502 help` would say nothing; and the title has one line for the version.
    let mut root = args::Args::command().disable_help_subcommand(true).long_version(None);
    root.build();
    let names: Vec<String> = root.get_subcommands().map(page_name).collect();
    let mut pages = vec![page(&root, &names)?];
    for command in root.get_subcommands() {
        pages.push(page(command, &["why502".to_owned()])?);
    }
    Ok(pages)
}

/// A command as its page is called: why502-live.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command, see_also: &[String]) -> io::Result<(String, Vec<u8>)> {
    let source = concat!("why502 ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("why502");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend(synopsis(command).to_roff().bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        let mut heading = Roff::new();
        heading.control("SH", ["COMMANDS"]);
        for command in command.get_subcommands() {
            heading.control("TP", []);
            heading.text([bold(page_name(command)), roman("(1)")]);
            heading.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
        }
        page.extend(heading.to_roff().bytes());
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    page.extend(examples(&after).to_roff().bytes());
    page.extend(exit_status(&after).to_roff().bytes());
    let mut end = Roff::new();
    end.control("SH", ["SEE ALSO"]);
    for (index, name) in see_also.iter().enumerate() {
        let comma = if index + 1 < see_also.len() { "(1)," } else { "(1)" };
        end.text([bold(name), roman(comma)]);
    }
    page.extend(end.to_roff().bytes());
    Ok((format!("{}.1", page_name(command)), page))
}

/// In short, as `--help` has it: what clap_mangen makes repeats every option.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(name), roman(usage.strip_prefix(name).unwrap_or(usage))]);
    roff
}

/// The examples, each with what it does under it.
fn examples(after: &str) -> Roff {
    let mut roff = Roff::new();
    let mut lines = after.lines().skip_while(|line| *line != EXAMPLES);
    if lines.next().is_none() {
        return roff;
    }
    roff.control("SH", ["EXAMPLES"]);
    for line in lines.take_while(|line| !line.is_empty()) {
        let text = line.trim_start();
        if line.len() - text.len() > 2 {
            // What the command above does.
            roff.text([roman(text)]);
            continue;
        }
        let (command, what) = text.split_once("  ").unwrap_or((text, ""));
        roff.control("TP", []);
        roff.text([bold(command)]);
        if !what.is_empty() {
            roff.text([roman(what.trim_start())]);
        }
    }
    roff
}

fn exit_status(after: &str) -> Roff {
    let own = after.split_once(EXIT_STATUS).map(|(_, statuses)| statuses.replace('\n', " "));
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman(own.unwrap_or_else(|| STATUSES.to_owned()))]);
    roff
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Stdio};

    use super::*;

    #[test]
    fn there_is_a_page_of_each_command_and_one_of_them_all() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "why502.1");
        for command in args::Args::command().get_subcommands() {
            let name = format!("why502-{}.1", command.get_name());
            assert!(names.contains(&name.as_str()), "{name}");
            assert!(String::from_utf8_lossy(&pages[0].1).contains(command.get_name()));
        }
        assert_eq!(names.len(), 1 + args::Args::command().get_subcommands().count());
    }

    #[test]
    fn a_page_shows_the_options_but_for_hidden_ones_and_the_examples() {
        let pages = pages().unwrap();
        let (_, live) = pages.iter().find(|(name, _)| name == "why502-live.1").unwrap();
        let live = String::from_utf8_lossy(live);
        for part in [
            "SH SYNOPSIS\n\\fBwhy502 live\\fR [OPTIONS]",
            "SH EXAMPLES",
            "SH \"EXIT STATUS\"",
            "\\-\\-upstream",
        ] {
            assert!(live.contains(part), "{part}: {live}");
        }
        assert!(!live.contains("ready\\-file"), "{live}");
    }

    #[test]
    fn each_page_is_whole_for_man() {
        for (name, page) in pages().unwrap() {
            let mut groff = std::process::Command::new("groff");
            let groff = groff.args(["-man", "-Tutf8", "-ww", "-rLL=78n"]);
            let started = groff.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            // It comes with Debian's man-db, which a machine for builds may lack.
            let Ok(mut child) = started else { return };
            child.stdin.take().unwrap().write_all(&page).unwrap();
            let output = child.wait_with_output().unwrap();
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && complaints.is_empty(), "{name}: {complaints}");
        }
    }
}
