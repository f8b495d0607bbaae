//! Commands in the documents. Above each block of them stands a comment: `run` (the test of `docs/claims.md` does), `run by
//! target::test` (these end-to-end tests do), or `not run: ` and the reason.

use std::fs;

use clap::{Parser as _, error::ErrorKind};
use why502::args::Args;

use crate::page::{Page, root};

/// What else a block may be written in; none of these is a command.
const NO_COMMANDS: [&str; 6] = ["", "json", "python", "sql", "toml", "yaml"];

/// Whether an end-to-end test has this name, as in `reset::a_kill_from_outside_names_the_killer`.
fn is_test(name: &str) -> bool {
    let Some((target, test)) = name.split_once("::") else { return false };
    let manifest = fs::read_to_string(root().join("tests/Cargo.toml")).expect("the rig's manifest");
    let Some((_, after)) = manifest.split_once(&format!("[[test]]\nname = \"{target}\"\npath = \"")) else {
        return false;
    };
    let path = after.split('"').next().expect("a path");
    let source = fs::read_to_string(root().join("tests").join(path)).expect("a test's source");
    source.contains(&format!("#[test]\nfn {test}()"))
}

#[test]
fn each_block_of_commands_is_run_or_marked_as_not_run() {
    let (mut unmarked, mut run, mut not_run) = (Vec::new(), 0, 0);
    for page in Page::all() {
        for fence in page.fences().filter(|fence| !NO_COMMANDS.contains(&fence.language.as_str())) {
            let place = format!("{}:{}", page.path.display(), fence.line);
            match fence.mark.as_deref().unwrap_or_default() {
                "run" if page.path.ends_with("claims.md") => run += 1,
                mark => match (mark.strip_prefix("run by "), mark.strip_prefix("not run: ")) {
                    (Some(tests), _) => {
                        for test in tests.split(", ") {
                            assert!(is_test(test), "{place}: no test is called {test}");
                        }
                        run += 1;
                    }
                    (_, Some(reason)) if reason.chars().count() > 10 => not_run += 1,
                    _ => unmarked.push(place),
                },
            }
        }
    }
    assert!(unmarked.is_empty(), "neither run nor marked: {unmarked:?}");
    assert!(run > not_run, "{run} blocks are run, {not_run} are not");
}

#[test]
fn each_test_that_a_page_names_is_there() {
    let mut count = 0;
    for page in Page::all() {
        for code in page.codes() {
            let is_name = |part: &str| {
                !part.is_empty() && part.chars().all(|char| matches!(char, 'a'..='z' | '0'..='9' | '_'))
            };
            let Some((target, test)) = code.split_once("::") else { continue };
            if is_name(target) && is_name(test) {
                // SECURITY.md has those of the attacks, whose sources have other names than their targets.
                assert!(is_test(code), "{}: no test is called {code}", page.path.display());
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count} tests");
}

/// The commands of a line of shell: without comments, prompts, pipes and what follows them.
fn commands(line: &str) -> Option<Vec<String>> {
    let at = line.find("why502 ")?;
    let before = line[..at].trim();
    // A prompt, an assignment, or what sudo and the like put in front.
    if !(before.is_empty() || before.ends_with(['$', '|', ';']) || before.ends_with("&&")) {
        return None;
    }
    let (mut words, mut word, mut quote, mut has_word) = (Vec::new(), String::new(), None, false);
    for char in line[at..].chars() {
        match (char, quote) {
            ('\'' | '"', None) => (quote, has_word) = (Some(char), true),
            (_, Some(open)) if char == open => quote = None,
            (' ', None) => {
                if has_word {
                    words.push(std::mem::take(&mut word));
                }
                has_word = false;
            }
            ('|' | '>' | '#' | ';' | '&', None) => break,
            _ => {
                word.push(char);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    Some(words)
}

#[test]
fn each_command_of_why502_is_understood() {
    let mut count = 0;
    for page in Page::all() {
        let blocks = page.fences().filter(|fence| fence.language == "sh");
        let lines = blocks.flat_map(|fence| fence.text.lines()).chain(page.codes());
        for words in lines.filter_map(commands) {
            count += 1;
            match Args::try_parse_from(&words) {
                Ok(_) => {}
                Err(error) if error.exit_code() == 0 => {}
                // A command that is only mentioned lacks what it must be given.
                Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{}: {words:?}: {error}", page.path.display()),
            }
        }
    }
    assert!(count > 50, "{count} commands");
}

#[test]
fn a_command_ends_where_the_shell_ends_it() {
    let words = |line| commands(line).unwrap_or_default().join("|");
    assert_eq!(words("why502 live -c 1 -v      # the next failure"), "why502|live|-c|1|-v");
    assert_eq!(words("web$ why502 record -o web.zst"), "why502|record|-o|web.zst");
    assert_eq!(words("why502 live -o json | jq .cause"), "why502|live|-o|json");
    assert_eq!(
        words("why502 record --trigger 'failures>=20/10s'"),
        "why502|record|--trigger|failures>=20/10s"
    );
    assert_eq!(words("the words why502 live would say"), "");
}
