//! The picture: what is left of the throughput while each tool watches, one dot for each pair of slices, with median and quartiles.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    figures::Figures,
    spread::Spread,
    tables::{CASES, TOOLS},
};

/// Where it stands, in the workspace.
pub(crate) const PATH: &str = "docs/cost.svg";

/// The same, as the page beside it calls it.
const NAME: &str = "cost.svg";

const WIDTH: u32 = 900;
const ROW: u32 = 34;
const TOP: u32 = 44;
const BOTTOM: u32 = 34;
/// Where the ratio's axis begins and ends, and the ratios there.
const LEFT: i32 = 330;
const RIGHT: i32 = 860;
const GREATEST: f64 = 1.2;

const BACKGROUND: RGBColor = RGBColor(255, 255, 255);
const TEXT: RGBColor = RGBColor(31, 35, 40);
const LINE: RGBColor = RGBColor(209, 217, 224);
const OURS: RGBColor = RGBColor(9, 105, 218);
const OTHERS: RGBColor = RGBColor(188, 76, 0);

/// The same colours where the reader prefers dark pages.
const DARK: [(&str, &str); 5] = [
    ("#FFFFFF", "#0D1117"),
    ("#1F2328", "#E6EDF3"),
    ("#D1D9E0", "#3D444D"),
    ("#0969DA", "#4493F8"),
    ("#BC4C00", "#F0883E"),
];

/// As Markdown shows it.
pub(crate) fn link() -> String {
    let what =
        "Throughput while why502, tcpdump, strace and bpftrace watch, as a share of the second beside it";
    format!("![{what}]({NAME})")
}

/// Draws it.
pub(crate) fn draw(figures: &Figures, path: &Path) -> Result<()> {
    fs::write(path, svg(figures)?).with_context(|| format!("{} cannot be written", path.display()))
}

/// One row of the picture.
struct Row {
    name: String,
    ratios: Vec<f64>,
    colour: RGBColor,
}

fn svg(figures: &Figures) -> Result<String> {
    let mut rows = Vec::new();
    for (tool, _) in TOOLS {
        for (case, what) in CASES {
            let ratios = figures.values(case, tool, "throughput_ratio");
            let colour = if tool == "why502" { OURS } else { OTHERS };
            if !ratios.is_empty() {
                rows.push(Row { name: format!("{tool}: {what}"), ratios, colour });
            }
        }
    }
    let height = TOP + ROW * u32::try_from(rows.len())? + BOTTOM;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&BACKGROUND)?;
        axis(&area, height)?;
        for (number, row) in (0..).zip(&rows) {
            let middle = i32::try_from(TOP + ROW * number + ROW / 2)?;
            self::row(&area, row, middle)?;
        }
        area.present()?;
    }
    Ok(readable_in_the_dark(&text))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn axis(area: &Area<'_>, height: u32) -> Result<()> {
    let title = "Throughput while watched, as a share of the second beside it";
    area.draw(&Text::new(title, (16, 12), style(16)))?;
    let (top, bottom) = (i32::try_from(TOP)?, i32::try_from(height - BOTTOM)?);
    for tenth in (0..=12).step_by(2) {
        let ratio = f64::from(tenth) / 10.0;
        let width = if tenth == 10 { 2 } else { 1 };
        let line = [(x(ratio), top), (x(ratio), bottom)];
        area.draw(&PathElement::new(line, LINE.stroke_width(width)))?;
        let label = style(12).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(format!("{ratio:.1}"), (x(ratio), bottom + 8), label))?;
    }
    Ok(())
}

fn row(area: &Area<'_>, row: &Row, middle: i32) -> Result<()> {
    let Row { name, ratios, colour } = row;
    let Some(spread) = Spread::of(ratios) else { return Ok(()) };
    let right = style(13).pos(Pos::new(HPos::Right, VPos::Center));
    area.draw(&Text::new(format!("{name}  {:.3}", spread.median), (LEFT - 14, middle), right))?;
    for ratio in ratios {
        area.draw(&Circle::new((x(*ratio), middle), 3, colour.mix(0.35).filled()))?;
    }
    let quartiles = [(x(spread.low), middle - 9), (x(spread.high), middle + 9)];
    area.draw(&Rectangle::new(quartiles, colour.stroke_width(1)))?;
    let median = [(x(spread.median), middle - 12), (x(spread.median), middle + 12)];
    area.draw(&PathElement::new(median, colour.stroke_width(3)))?;
    Ok(())
}

fn style(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

fn x(ratio: f64) -> i32 {
    LEFT + (f64::from(RIGHT - LEFT) * ratio.clamp(0.0, GREATEST) / GREATEST) as i32
}

/// Whoever shows the picture decides, not the page it stands in.
fn readable_in_the_dark(svg: &str) -> String {
    let rules: String = DARK
        .iter()
        .flat_map(|(light, dark)| {
            ["fill", "stroke"].map(|what| format!("[{what}=\"{light}\"]{{{what}:{dark}}}"))
        })
        .collect();
    let style = format!("<style>@media (prefers-color-scheme: dark){{{rules}}}</style>");
    match svg.find('>') {
        Some(head) => format!("{}\n{style}{}", &svg[..=head], &svg[head + 1..]),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Result<String> {
        let line = |subject: &str, value: f64| {
            format!(
                r#"{{"case":"fastcgi_tcp","subject":"{subject}","measure":"throughput_ratio","value":{value}}}"#
            )
        };
        let lines = [line("why502", 0.98), line("why502", 1.0), line("strace", 0.2)];
        svg(&Figures::parse(lines.iter().map(String::as_str))?)
    }

    #[test]
    fn each_row_has_its_name_and_median_and_each_pair_its_dot() -> Result<()> {
        let picture = picture()?;
        for name in ["why502: FastCGI over TCP  0.990", "strace: FastCGI over TCP  0.200"] {
            assert!(picture.contains(name), "{picture}");
        }
        assert_eq!(picture.matches("<circle").count(), 3);
        Ok(())
    }

    #[test]
    fn every_colour_has_one_for_dark_pages() -> Result<()> {
        let picture = picture()?;
        let used = picture.split("\"#").skip(1).filter_map(|rest| rest.get(..6));
        for colour in used {
            assert!(DARK.iter().any(|(light, _)| light[1..] == *colour), "{colour}");
        }
        assert!(picture.contains("prefers-color-scheme: dark"), "{picture}");
        Ok(())
    }
}
