//! The screens as pictures, for the documents.

use std::path::Path;

use anyhow::Context as _;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::{
    choice::{Choice, View},
    state::State,
    view,
};
use crate::{file, model::failure::Failure};

/// The screen's columns and lines.
const SIZE: (u16, u16) = (110, 26);

/// A cell's width and height, and where the letters stand in it.
const CELL: (f32, f32, f32) = (8.4, 18.0, 13.5);

/// The colours of paper and ink.
const PAPER: &str = "#1b1f27";
const INK: &str = "#d8dee9";

/// Draws each view, and a failure unfolded, into files of this folder.
///
/// # Errors
/// If one cannot be written.
pub fn pictures(state: &State, folder: &Path) -> Result<(), Failure> {
    let mut choice = Choice::default();
    for (view, name) in View::ALL {
        choice.show(view);
        write(state, &mut choice, folder, name)?;
    }
    choice.show(View::Failures);
    choice.unfolded = Some(0);
    write(state, &mut choice, folder, "failure")
}

fn write(state: &State, choice: &mut Choice, folder: &Path, name: &str) -> Result<(), Failure> {
    let mut terminal = Terminal::new(TestBackend::new(SIZE.0, SIZE.1)).context("nothing can be drawn")?;
    terminal.draw(|frame| view::draw(frame, state, choice, false)).context("nothing can be drawn")?;
    let picture = of_buffer(terminal.backend().buffer());
    Ok(file::replace(&folder.join(format!("{name}.svg")), picture.as_bytes())?)
}

/// A picture of what is on a screen.
fn of_buffer(buffer: &Buffer) -> String {
    let (width, height, base) = CELL;
    let area = buffer.area;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"ui-monospace, Menlo, Consolas, \
         monospace\" font-size=\"14\" xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{PAPER}\"/>\n",
        f32::from(area.width) * width + 16.0,
        f32::from(area.height) * height + 12.0,
    );
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let first = &buffer[(x, y)];
            let is_alike = |other: &Cell| other.fg == first.fg && other.modifier == first.modifier;
            let end = (x..area.width).find(|at| !is_alike(&buffer[(*at, y)])).unwrap_or(area.width);
            let text: String = (x..end).map(|at| buffer[(at, y)].symbol()).collect();
            let (left, top) = (f32::from(x) * width + 8.0, f32::from(y) * height + 6.0);
            svg += &run(first, &text, left, top, f32::from(end - x) * width, base);
            x = end;
        }
    }
    svg + "</svg>\n"
}

/// Letters of one style in a row.
fn run(style: &Cell, text: &str, left: f32, top: f32, length: f32, base: f32) -> String {
    let (is_reversed, is_underlined) =
        (style.modifier.contains(Modifier::REVERSED), style.modifier.contains(Modifier::UNDERLINED));
    if text.trim().is_empty() && !is_reversed && !is_underlined {
        return String::new();
    }
    let ink = match style.fg {
        Color::Red => "#f07178",
        Color::Yellow => "#e5c07b",
        Color::Green => "#98c379",
        _ => INK,
    };
    let mut svg = String::new();
    if is_reversed {
        let height = CELL.1;
        svg += &format!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{height:.1}\" fill=\"{ink}\"/>\n"
        );
    }
    let mut attributes = format!(" fill=\"{}\"", if is_reversed { PAPER } else { ink });
    if style.modifier.contains(Modifier::BOLD) {
        attributes += " font-weight=\"bold\"";
    }
    if style.modifier.contains(Modifier::DIM) {
        attributes += " opacity=\"0.6\"";
    }
    if is_underlined {
        attributes += " text-decoration=\"underline\"";
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    svg + &format!(
        "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\"{attributes}>{text}</text>\n",
        top + base
    )
}
