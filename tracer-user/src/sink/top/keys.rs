//! What each key does.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    choice::{Choice, View},
    copy::Form,
    state::State,
};
use crate::model::verdict::{Confidence, Verdict};

/// What is to be done beyond the choice itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Leave.
    Quit,
    /// Write the evidence of the last minutes.
    Save,
    /// Copy a failure.
    Copy(Box<Verdict>, Form),
    /// Fail, for the tests.
    Fault,
}

/// Takes a key in.
pub fn press(choice: &mut Choice, state: &State, key: KeyEvent) -> Act {
    choice.message = None;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Act::Quit } else { Act::Nothing };
    }
    if choice.is_typing {
        type_on(choice, key.code);
        return Act::Nothing;
    }
    match key.code {
        KeyCode::Char('q') => return Act::Quit,
        KeyCode::Char('s') => return Act::Save,
        KeyCode::Char('!') => return Act::Fault,
        KeyCode::Char(letter @ ('y' | 'Y')) => {
            let form = if letter == 'y' { Form::Text } else { Form::Json };
            if let Some(verdict) = selected(choice, state) {
                return Act::Copy(Box::new(verdict), form);
            }
            choice.message = Some("no failure is selected: they are in the view of key 2".to_owned());
        }
        KeyCode::Char('?') | KeyCode::F(1) => {
            choice.help = if choice.help.is_some() { None } else { Some(0) };
        }
        KeyCode::Char(digit @ '1'..='5') => {
            let number = usize::from(digit as u8 - b'1');
            choice.show(View::ALL[number].0);
        }
        KeyCode::Tab | KeyCode::Right => turn(choice, 1),
        KeyCode::BackTab | KeyCode::Left => turn(choice, View::ALL.len() - 1),
        KeyCode::Char('p' | ' ') => {
            choice.paused = match choice.paused.take() {
                Some(_) => None,
                None => Some(Box::new(state.clone())),
            };
        }
        KeyCode::Char('o') => choice.next_order(),
        KeyCode::Char('r') => choice.turn_round(),
        KeyCode::Char('/') => {
            choice.is_typing = true;
            if !matches!(choice.view, View::Causes | View::Failures) {
                choice.show(View::Failures);
            }
        }
        KeyCode::Char('u') => {
            choice.upstream = match choice.upstream.take() {
                Some(_) => None,
                None => kind(choice, state).map(|(upstream, _)| upstream),
            };
        }
        KeyCode::Char('c') => {
            choice.cause = match choice.cause.take() {
                Some(_) => None,
                None => kind(choice, state).map(|(_, cause)| cause),
            };
        }
        KeyCode::Char('f') => {
            choice.confidence = match choice.confidence {
                None => Some(Confidence::Proven),
                Some(Confidence::Proven) => Some(Confidence::Inferred),
                Some(Confidence::Inferred) => Some(Confidence::Incomplete),
                Some(Confidence::Incomplete) => None,
            };
        }
        KeyCode::Esc => escape(choice),
        KeyCode::Enter => enter(choice, state),
        KeyCode::Up | KeyCode::Char('k') => go(choice, state, -1),
        KeyCode::Down | KeyCode::Char('j') => go(choice, state, 1),
        KeyCode::PageUp => go(choice, state, -page(choice)),
        KeyCode::PageDown => go(choice, state, page(choice)),
        KeyCode::Home | KeyCode::Char('g') => go(choice, state, isize::MIN),
        KeyCode::End | KeyCode::Char('G') => go(choice, state, isize::MAX),
        _ => {}
    }
    Act::Nothing
}

fn page(choice: &Choice) -> isize {
    isize::try_from(choice.page).unwrap_or(isize::MAX)
}

fn type_on(choice: &mut Choice, code: KeyCode) {
    match code {
        KeyCode::Enter => choice.is_typing = false,
        KeyCode::Esc => {
            choice.is_typing = false;
            choice.text.clear();
        }
        KeyCode::Backspace => drop(choice.text.pop()),
        KeyCode::Char(letter) if choice.text.len() < 100 => choice.text.push(letter.to_ascii_lowercase()),
        _ => {}
    }
}

fn turn(choice: &mut Choice, by: usize) {
    let number = (choice.view.number() + by) % View::ALL.len();
    choice.show(View::ALL[number].0);
}

/// One step back.
fn escape(choice: &mut Choice) {
    if choice.help.take().is_some() || choice.unfolded.take().is_some() {
        return;
    }
    choice.clear();
}

fn enter(choice: &mut Choice, state: &State) {
    match choice.view {
        View::Failures => {
            let failures = choice.failures(state);
            let selected = failures.get(choice.selected(&failures)).map(|kept| kept.number);
            choice.unfolded = match choice.unfolded.take() {
                Some(_) => None,
                // It stays the one that it is, whatever comes.
                None => selected.map(|_| 0),
            };
            choice.failure = selected;
        }
        View::Causes => {
            if let Some((upstream, cause)) = kind(choice, state) {
                (choice.upstream, choice.cause) = (Some(upstream), Some(cause));
                choice.show(View::Failures);
            }
        }
        _ => {}
    }
}

/// The upstream and the cause of what is selected.
fn kind(
    choice: &Choice,
    state: &State,
) -> Option<(crate::model::upstream::Upstream, crate::model::cause::Cause)> {
    match choice.view {
        View::Causes => {
            let kinds = choice.kinds(state);
            let at = choice.at().min(kinds.len().checked_sub(1)?);
            let ((upstream, cause, _), _) = kinds[at];
            Some((upstream.clone(), *cause))
        }
        View::Failures => selected(choice, state).map(|verdict| (verdict.upstream.clone(), verdict.cause)),
        _ => None,
    }
}

fn selected(choice: &Choice, state: &State) -> Option<Verdict> {
    if choice.view != View::Failures {
        return None;
    }
    let failures = choice.failures(state);
    failures.get(choice.selected(&failures)).map(|kept| kept.verdict.clone())
}

/// Moves by so many lines.
fn go(choice: &mut Choice, state: &State, by: isize) {
    let moved = |from: usize| from.saturating_add_signed(by);
    if let Some(line) = &mut choice.help {
        *line = moved(*line);
    } else if let Some(line) = &mut choice.unfolded {
        *line = moved(*line);
    } else if choice.view == View::Failures {
        let failures = choice.failures(state);
        let last = failures.len().saturating_sub(1);
        let to = moved(choice.selected(&failures)).min(last);
        // The first line shows whatever is the newest.
        choice.failure = if to == 0 { None } else { failures.get(to).map(|kept| kept.number) };
    } else {
        // Drawing knows how many there are, and goes no further.
        choice.select(moved(choice.at()).min(1 << 20));
    }
}
