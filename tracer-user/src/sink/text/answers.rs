//! What clients were answered, in a few sentences.

use anstyle::AnsiColor;

use super::{Look, paragraph::paragraph, units};
use crate::model::{
    answers::{Answers, Kind},
    words::times,
};

/// How many answers there were of each kind; nothing where no access log was followed.
pub(crate) fn answered(answers: Option<&Answers>, look: &Look) -> String {
    let Some(answers) = answers else { return String::new() };
    let sentence = |text: &str| match look.details {
        true => paragraph("", text, 0, look.width),
        false => format!("{text}\n"),
    };
    let mut text = match answers.total() {
        0 => {
            sentence("No client was answered 499, 502, 503 or 504, by the access logs that nginx holds open.")
        }
        total => {
            let kinds = Kind::ALL.iter().filter(|(kind, ..)| answers.of(*kind) > 0);
            let kinds: Vec<String> = kinds
                .map(|(kind, _, words)| {
                    let (mut statuses, of) = (Vec::new(), |count: u64| units::grouped(count));
                    for ((status, _), count) in answers.counts.iter().filter(|((_, of), _)| of == kind) {
                        statuses.push(format!("{status}: {}", of(*count)));
                    }
                    format!("{} {words} ({})", of(answers.of(*kind)), statuses.join(", "))
                })
                .collect();
            sentence(&format!(
                "Clients were answered 499, 502, 503 or 504 {}, by nginx's access logs: {}.",
                times(total),
                kinds.join("; ")
            ))
        }
    };
    if answers.left_out > 0 {
        let warning = format!(
            "Access logs grew too fast to be read: {} or stretches of them were left out.",
            units::counted(answers.left_out, "line")
        );
        for line in sentence(&warning).lines() {
            text += &look.paint(AnsiColor::Yellow.on_default(), line, 0);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_reported_with_its_statuses() {
        let look = Look::PLAIN;
        let counts = [((502, Kind::Explained), 12), ((504, Kind::Explained), 1), ((503, Kind::Rule), 2)];
        let answers = Answers { counts: counts.into_iter().collect(), left_out: 0 };
        let text = answered(Some(&answers), &look);
        assert!(
            text.contains("15 times")
                && text.contains("13 as its verdict says (502: 12, 504: 1); 2 by a rule"),
            "{text}"
        );
        assert!(answered(Some(&Answers::default()), &look).starts_with("No client"));
        assert_eq!(answered(None, &look), "");
        let many = Answers { left_out: 3, ..Answers::default() };
        assert!(answered(Some(&many), &look).contains("3 lines or stretches"));
    }
}
