//! `why502 explain`: what is known of a cause, out of the page that the documentation has of them all.

mod page;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anstyle::Style;

use crate::model::topic::Topic;
use crate::{
    args::Explain,
    model::{cause::Cause, failure::Failure},
    sink::{Look, paragraph},
    terminal,
};
use page::{Block, Group, Section};

/// Holds the longest label of a section's part and two blanks.
const LABELS: usize = 18;

/// Prints what was asked for. It needs no privilege, and looks at nothing of this host.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Explain) -> Result<ExitCode, Failure> {
    let text = render(args.topic, &Look::of_stdout(false));
    terminal::print(terminal::text(), text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn render(topic: Option<Topic>, look: &Look) -> String {
    match topic {
        None => list(look),
        Some(Topic::Kind(kind)) => {
            let group = page::group(kind);
            let sections =
                Cause::ALL.iter().filter(|cause| cause.cause() == kind).map(|cause| one(*cause, look));
            let intro = group.map(|group| intro(&group, look));
            intro.into_iter().chain(sections).collect::<Vec<_>>().join("\n")
        }
        Some(Topic::One(cause)) => one(cause, look),
    }
}

/// All of them, each with its meaning.
fn list(look: &Look) -> String {
    let details = Cause::ALL.iter().map(|cause| cause.detail().len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut last = "";
    for cause in Cause::ALL {
        if cause.cause() != last {
            last = cause.cause();
            text += &look.paint(Style::new().bold(), last, 0);
            text.push('\n');
        }
        let status = cause.status().map_or_else(|| "   ".to_owned(), |status| status.to_string());
        let head = format!("  {:details$}  {status}  ", cause.detail());
        text += &paragraph(&head, cause.meaning(), head.len(), look.width);
    }
    text += "\nwhy502 explain CAUSE/DETAIL says more of one.\n";
    text
}

fn intro(group: &Group, look: &Look) -> String {
    let mut text = look.paint(Style::new().bold(), group.name, 0);
    text.push('\n');
    for block in &group.intro {
        text += &paragraph("  ", &block.text, 2, look.width);
    }
    text
}

fn one(cause: Cause, look: &Look) -> String {
    // That each has its section, a test sees to.
    let Some(Section { name, blocks }) = page::section(cause) else {
        return format!("{cause}: {}\n", cause.meaning());
    };
    let mut text = look.paint(Style::new().bold(), name, 0);
    text.push('\n');
    for Block { label, text: said } in blocks {
        let head = label.map_or_else(|| "  ".to_owned(), |label| format!("  {label:LABELS$}"));
        text += &paragraph(&head, &said, head.len(), look.width);
    }
    text
}
