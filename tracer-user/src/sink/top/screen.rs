//! The terminal, while the screen is drawn on it: taken, and given back as it was, whatever happens.

use std::{
    io::{self, IsTerminal as _, Stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    clipboard::CopyToClipboard,
    cursor::{Hide, Show},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};

use crate::terminal;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether there is a terminal to be drawn on.
pub fn is_there() -> bool {
    io::stdout().is_terminal()
}

/// Takes the terminal. A panic of any thread gives it back before it is reported.
///
/// # Errors
/// Of the system.
pub fn take() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |fault| {
            give_back();
            terminal::end_diversion();
            report(fault);
        }));
    });
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Hide)?;
    Terminal::new(CrosstermBackend::new(io::stdout()))
}

/// Gives the terminal back as it was, once.
pub fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // Nothing is left that could be done about an error.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Hands a text to the terminal's clipboard, if it has one.
///
/// # Errors
/// Of the system.
pub fn to_clipboard(text: &str) -> io::Result<()> {
    execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text))
}
