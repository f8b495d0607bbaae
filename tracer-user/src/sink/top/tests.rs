//! What is on the screen, drawn without a terminal; and which key does what.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};

use super::{
    choice::{Choice, View},
    copy::Form,
    keys::{Act, press},
    state::State,
    view,
};
use crate::{
    model::{
        cause::Cause,
        clock::ClockOffset,
        stream::{Depth, Entry, UpstreamCounts, What},
        upstream::Upstream,
        verdict::Confidence,
    },
    sink::samples,
};

/// Some failures of three upstreams, and a queue.
fn incident() -> State {
    let killed = samples::killed();
    let mut state = State::new(100, ClockOffset(killed.unix_ns), true);
    for number in 0..40_u32 {
        let mut verdict = killed.clone();
        match number % 3 {
            0 => verdict.upstream = Upstream::Unix("/run/php/php8.2-fpm.sock".into()),
            1 => (verdict.cause, verdict.confidence) = (Cause::RefusedNoListener, Confidence::Inferred),
            _ => {}
        }
        state.verdict(&verdict);
    }
    let listener = killed.upstream;
    let counts = UpstreamCounts { ns: 1, upstream: listener.clone(), exchanges: 130 };
    state.entry(&Entry { at_ns: 1, what: What::Upstream(counts) });
    state.entry(&Entry { at_ns: 1, what: What::Depth(Depth { ns: 1, listener, depth: 3, limit: 4 }) });
    state
}

/// The screen's lines.
fn screen(state: &State, choice: &mut Choice, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, state, choice, false)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn key(choice: &mut Choice, state: &State, code: KeyCode) -> Act {
    press(choice, state, KeyEvent::new(code, KeyModifiers::NONE))
}

fn types(choice: &mut Choice, state: &State, text: &str) {
    for letter in text.chars() {
        key(choice, state, KeyCode::Char(letter));
    }
}

#[test]
fn each_view_shows_what_it_is_for_on_a_small_and_on_a_large_screen() {
    let state = incident();
    for (width, height) in [(80, 24), (110, 30), (200, 60)] {
        let mut choice = Choice::default();
        for (digit, words) in [
            ('1', ["reset/worker_killed", "127.0.0.1:19001", "proven", "Behind many", "13"]),
            ('2', ["502", "refused/no_listener", "3.26 s", "inferred", "UPSTREAM"]),
            ('3', ["127.0.0.1:19001", "3/4", "QUEUE", "DEEPEST", "FAILED"]),
            ('4', ["php-fpm8.2 24940", "SIGTERM", "php-fpm8.2 24938", "POOL", "DIED"]),
            ('5', ["24945", "worker", "is not heard", "PID", "BINARY"]),
        ] {
            key(&mut choice, &state, KeyCode::Char(digit));
            let text = screen(&state, &mut choice, width, height).join("\n");
            for word in words {
                assert!(text.contains(word), "{width}x{height}, {digit}: no {word} in\n{text}");
            }
        }
    }
}

#[test]
fn the_share_is_of_that_upstreams_exchanges_where_these_are_counted() {
    let text = screen(&incident(), &mut Choice::default(), 120, 24).join("\n");
    // 13 of 130.
    assert!(text.contains("10%"), "{text}");
}

#[test]
fn any_size_and_any_name_are_harmless() {
    let mut state = incident();
    let mut verdict = samples::killed();
    for name in
        ["/run/\u{1b}[2J\u{7}\r\n\u{202e}x", "名前が広い.sock", "e\u{301}\u{200d}👩‍👩‍👧", &"/x".repeat(2_000)]
    {
        verdict.upstream = Upstream::Unix(name.into());
        verdict.explanation = name.to_owned();
        verdict.advice = name.to_owned();
        if let Some(killer) = &mut verdict.killer {
            killer.comm = name.to_owned();
        }
        state.verdict(&verdict);
        state.notice(name);
    }
    for (width, height) in [(0, 0), (1, 1), (39, 7), (40, 8), (41, 9), (80, 24), (93, 30), (160, 50)] {
        let mut choice = Choice::default();
        for code in ['1', '2', '3', '4', '5', '?'].map(KeyCode::Char).into_iter().chain([
            KeyCode::Esc,
            KeyCode::Char('2'),
            KeyCode::Enter,
            KeyCode::End,
            KeyCode::PageUp,
        ]) {
            key(&mut choice, &state, code);
            for line in screen(&state, &mut choice, width, height) {
                assert!(!line.chars().any(|char| char.is_control() || char == '\u{202e}'), "{line:?}");
            }
        }
    }
}

#[test]
fn every_column_is_explained() {
    let explained: Vec<&str> =
        view::help::SECTIONS.iter().flat_map(|(_, words)| words.iter().map(|(word, _)| *word)).collect();
    for column in view::columns() {
        assert!(explained.contains(&column), "{column} is not explained");
    }
    for (view, _) in View::ALL {
        for order in view.orders() {
            assert!(view::columns().any(|column| column == *order), "{order} is no column");
        }
    }
}

#[test]
fn help_shows_all_of_itself_when_it_is_scrolled() {
    let state = incident();
    let mut choice = Choice::default();
    key(&mut choice, &state, KeyCode::Char('?'));
    let mut seen = screen(&state, &mut choice, 80, 24).join("\n");
    for _ in 0..20 {
        key(&mut choice, &state, KeyCode::PageDown);
        seen += &screen(&state, &mut choice, 80, 24).join("\n");
    }
    for word in ["The first line", "WHAT THE BUSY ONES DO:", "q, Ctrl-C: Leave."] {
        assert!(seen.contains(word), "{word}");
    }
    key(&mut choice, &state, KeyCode::Esc);
    assert_eq!(choice.help, None);
}

#[test]
fn failures_are_filtered_by_typing_and_unfolded() {
    let state = incident();
    let mut choice = Choice::default();
    key(&mut choice, &state, KeyCode::Char('2'));
    types(&mut choice, &state, "/FPM.SOCK");
    assert!(choice.is_typing);
    assert_eq!(choice.failures(&state).len(), 14);
    let text = screen(&state, &mut choice, 80, 24).join("\n");
    assert!(text.contains("only what has: fpm.sock") && !text.contains("refused"), "{text}");
    key(&mut choice, &state, KeyCode::Enter);
    assert!(!choice.is_typing);
    key(&mut choice, &state, KeyCode::Enter);
    let text = screen(&state, &mut choice, 80, 24).join("\n");
    for word in
        ["Look at: request_terminate_timeout", "raw_tp/signal_generate", "SIGTERM to 24940", "+3.257 s"]
    {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    // One step back each.
    key(&mut choice, &state, KeyCode::Esc);
    assert_eq!(choice.failures(&state).len(), 14);
    key(&mut choice, &state, KeyCode::Esc);
    assert_eq!(choice.failures(&state).len(), 40);
}

#[test]
fn the_selected_line_filters_by_upstream_and_by_cause() {
    let state = incident();
    let mut choice = Choice::default();
    // The upstream of the most frequent kind, which is the first.
    key(&mut choice, &state, KeyCode::Char('u'));
    assert_eq!(choice.kinds(&state).len(), 1);
    key(&mut choice, &state, KeyCode::Char('u'));
    assert_eq!(choice.kinds(&state).len(), 3);
    key(&mut choice, &state, KeyCode::Char('f'));
    key(&mut choice, &state, KeyCode::Char('f'));
    assert_eq!(choice.kinds(&state).len(), 1);
    key(&mut choice, &state, KeyCode::Esc);
    key(&mut choice, &state, KeyCode::Enter);
    assert_eq!((choice.view, choice.failures(&state).len()), (View::Failures, 14));
}

#[test]
fn the_selected_failure_stays_while_others_come() {
    let mut state = incident();
    let mut choice = Choice::default();
    key(&mut choice, &state, KeyCode::Char('2'));
    key(&mut choice, &state, KeyCode::Down);
    key(&mut choice, &state, KeyCode::Down);
    let selected = choice.failure;
    assert_eq!(selected, Some(37));
    for _ in 0..10 {
        state.verdict(&samples::killed());
    }
    let failures = choice.failures(&state);
    assert_eq!((choice.selected(&failures), choice.failure), (12, selected));
    // Even once it is not kept any more, there is a first line.
    for _ in 0..200 {
        state.verdict(&samples::killed());
    }
    assert_eq!(choice.selected(&choice.failures(&state)), 0);
}

#[test]
fn a_pause_shows_what_was_there() {
    let mut state = incident();
    let mut choice = Choice::default();
    key(&mut choice, &state, KeyCode::Char('p'));
    state.verdict(&samples::killed());
    assert_eq!(choice.paused.as_ref().map(|paused| paused.failures.len()), Some(40));
    key(&mut choice, &state, KeyCode::Char('p'));
    assert!(choice.paused.is_none());
}

#[test]
fn each_view_is_sorted_by_each_of_its_columns() {
    let state = incident();
    for (view, _) in View::ALL {
        let mut choice = Choice::default();
        choice.show(view);
        for _ in 0..2 * view.orders().len() {
            key(&mut choice, &state, KeyCode::Char('o'));
            let forwards = screen(&state, &mut choice, 160, 30);
            key(&mut choice, &state, KeyCode::Char('r'));
            let backwards = screen(&state, &mut choice, 160, 30);
            assert!(view == View::Nginx || forwards != backwards, "{view:?} by {}", choice.order());
            key(&mut choice, &state, KeyCode::Char('r'));
        }
    }
}

#[test]
fn a_failure_is_copied_as_text_and_as_json() {
    let state = incident();
    let mut choice = Choice::default();
    assert_eq!(key(&mut choice, &state, KeyCode::Char('y')), Act::Nothing);
    assert!(choice.message.is_some());
    key(&mut choice, &state, KeyCode::Char('2'));
    for (letter, form) in [('y', Form::Text), ('Y', Form::Json)] {
        let Act::Copy(verdict, copied) = key(&mut choice, &state, KeyCode::Char(letter)) else {
            panic!("nothing is copied");
        };
        assert_eq!(copied, form);
        let text = super::copy::written(&verdict, form, 110);
        match form {
            Form::Text => assert!(text.contains("Look at: ") && text.contains("raw_tp/"), "{text}"),
            Form::Json => {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(json["type"], "verdict");
            }
        }
    }
}
