//! A failure is copied: into a file, which works everywhere, and to the clipboard of a terminal that takes it from afar (OSC 52).

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use crate::{
    file,
    model::verdict::Verdict,
    sink::{Json, Look, Sink as _, Text},
};

/// What it is copied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As `why502 live -v` writes it to a pipe.
    Text,
    /// As `why502 live -o json` does.
    Json,
}

/// Names in a row that may be taken.
const MOST_TAKEN: u32 = 1_000;

/// The failure, in lines of at most so many columns if it is text.
pub fn written(verdict: &Verdict, form: Form, width: usize) -> String {
    let mut bytes = Vec::new();
    let look = Look { details: true, evidence: true, colour: false, width };
    let written = match form {
        Form::Text => Text::new(&mut bytes, look).verdict(verdict),
        Form::Json => {
            let mut json = Json::new(&mut bytes);
            json.verdict(verdict).and_then(|()| json.flush())
        }
    };
    match written {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Writes it into a new file in this folder.
///
/// # Errors
/// Of the system.
pub fn to_file(text: &str, form: Form) -> io::Result<PathBuf> {
    let ending = match form {
        Form::Text => "txt",
        Form::Json => "json",
    };
    let mut number = 1;
    loop {
        let path = PathBuf::from(format!("why502-failure-{number}.{ending}"));
        match file::create(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_TAKEN => number += 1,
            Err(error) => return Err(error),
        }
    }
}
