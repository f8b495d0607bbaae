//! A table whose columns make room for each other, on any width.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::Line,
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::safe;

/// Columns between two columns.
const GAP: u16 = 1;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub title: &'static str,
    /// How wide it is at least.
    pub least: u16,
    /// How wide it gets where there is room.
    pub most: u16,
    /// Whether what it has stands at its right.
    pub is_right: bool,
    /// It is shown where there are so many columns of text.
    pub from: u16,
}

impl Column {
    /// One of text.
    pub const fn text(title: &'static str, least: u16, most: u16) -> Self {
        Self { title, least, most, is_right: false, from: 0 }
    }

    /// One of figures.
    pub const fn figure(title: &'static str, width: u16) -> Self {
        Self { title, least: width, most: width, is_right: true, from: 0 }
    }

    /// Only where the screen is so wide.
    pub const fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }
}

/// What stands in a column.
pub type Cell = (String, Style);

/// How wide each column is; zero for one that is not shown.
fn widths(columns: &[Column], total: u16) -> Vec<u16> {
    let mut widths: Vec<_> =
        columns.iter().map(|column| if total >= column.from { column.least } else { 0 }).collect();
    let shown = widths.iter().filter(|width| **width > 0).count();
    let gaps = u16::try_from(shown.saturating_sub(1)).unwrap_or(0) * GAP;
    let mut room = total.saturating_sub(widths.iter().sum::<u16>().saturating_add(gaps));
    // A column each in turn, so that all grow alike.
    while room > 0 {
        let before = room;
        for (width, column) in widths.iter_mut().zip(columns) {
            if *width > 0 && *width < column.most && room > 0 {
                *width += 1;
                room -= 1;
            }
        }
        if room == before {
            break;
        }
    }
    widths
}

/// The text in so many columns at most; what is cut out is in the middle, for paths differ at their ends.
pub fn fit(text: &str, width: usize) -> String {
    let text = safe(text);
    if text.width() <= width {
        return text;
    }
    if width < 8 {
        return head(&text, width);
    }
    let tail_width = width / 3;
    let tail: Vec<char> = tail(&text, tail_width);
    let mut fitting = head(&text, width - tail_width - 2);
    fitting += "..";
    fitting.extend(tail);
    fitting
}

fn head(text: &str, width: usize) -> String {
    let mut taken = 0;
    text.chars()
        .take_while(|char| {
            taken += char.width().unwrap_or(0);
            taken <= width
        })
        .collect()
}

fn tail(text: &str, width: usize) -> Vec<char> {
    let mut taken = 0;
    let is_within = |char: &char| {
        taken += char.width().unwrap_or(0);
        taken <= width
    };
    let mut tail: Vec<_> = text.chars().rev().take_while(is_within).collect();
    tail.reverse();
    tail
}

/// Draws the titles, and the rows that fit from `offset` on, `selected` among them if one is.
pub fn draw(
    frame: &mut Frame,
    area: Rect,
    columns: &[Column],
    sorted_by: &str,
    rows: impl Iterator<Item = Vec<Cell>>,
    selected: Option<usize>,
) {
    let widths = widths(columns, area.width);
    let mut lines = area.rows();
    let Some(first) = lines.next() else { return };
    let title = |column: &Column| {
        let style = if column.title == sorted_by {
            Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            Style::new().add_modifier(Modifier::UNDERLINED)
        };
        (column.title.to_owned(), style)
    };
    let titles = columns.iter().map(title).collect();
    row(frame, first, columns, &widths, titles, false);
    for (number, (line, cells)) in lines.zip(rows).enumerate() {
        row(frame, line, columns, &widths, cells, selected == Some(number));
    }
}

fn row(
    frame: &mut Frame,
    line: Rect,
    columns: &[Column],
    widths: &[u16],
    cells: Vec<Cell>,
    is_selected: bool,
) {
    let mut x = line.x;
    for ((column, width), (text, style)) in columns.iter().zip(widths).zip(cells) {
        if *width == 0 {
            continue;
        }
        let room = line.right().saturating_sub(x).min(*width);
        if room == 0 {
            break;
        }
        let text = fit(&text, usize::from(room));
        let blanks = room.saturating_sub(u16::try_from(text.width()).unwrap_or(u16::MAX));
        let at = if column.is_right { x + blanks } else { x };
        frame.render_widget(
            Line::styled(text, style),
            Rect { x: at, y: line.y, width: line.right() - at, height: 1 },
        );
        x = x.saturating_add(*width + GAP);
    }
    if is_selected {
        frame.buffer_mut().set_style(line, Style::new().add_modifier(Modifier::REVERSED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_share_what_room_there_is() {
        let columns = [Column::text("A", 10, 30), Column::text("B", 5, 10), Column::figure("C", 4).from(60)];
        assert_eq!(widths(&columns, 40), [29, 10, 0]);
        assert_eq!(widths(&columns, 100), [30, 10, 4]);
        assert_eq!(widths(&columns, 10), [10, 5, 0]);
    }

    #[test]
    fn what_is_too_long_is_cut_in_the_middle_and_nothing_steers() {
        assert_eq!(fit("/run/php/php8.2-fpm.sock", 30), "/run/php/php8.2-fpm.sock");
        assert_eq!(fit("/run/php/php8.2-fpm.sock", 14), "/run/php..sock");
        assert_eq!(fit("/run/php", 5), "/run/");
        assert_eq!(fit("a\u{1b}[2Jb\n", 30), "a\\u{1b}[2Jb\\n");
        // Wide characters take two columns each.
        let wide = "名".repeat(20);
        for width in 0..45 {
            assert!(fit(&wide, width).width() <= width, "{width}");
        }
    }
}
