use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::*;

/// The parts of each section, in this order, under what the cause means.
const PARTS: [&str; 6] =
    ["nginx logs", "The kernel saw", "How sure", "To see it", "What to do", "Mistaken for"];

/// The heading over the list of what nginx logs.
const INDEX: &str = "By what nginx logs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn part(cause: Cause, label: &str) -> String {
    let blocks = page::section(cause).unwrap().blocks;
    blocks.into_iter().find(|block| block.label == Some(label)).unwrap().text
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The file and the name of a test, as in `reset::a_kill_from_outside_names_the_killer`.
fn as_test(code: &str) -> Option<(&str, &str)> {
    let is_name = |name: &str| {
        name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
    };
    code.split_once("::").filter(|(file, name)| is_name(file) && is_name(name))
}

/// A heading's anchor, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
}

/// Where the links of a Markdown file lead, but for those within code.
fn links(markdown: &str) -> Vec<&str> {
    let outside_fences = markdown.split("```").step_by(2);
    // Code may go on in the next line, and ends with its paragraph.
    let prose =
        outside_fences.flat_map(|text| text.split("\n\n")).flat_map(|text| text.split('`').step_by(2));
    prose.flat_map(|text| text.split("](").skip(1).filter_map(|rest| rest.split(')').next())).collect()
}

#[test]
fn each_cause_has_one_section_and_each_section_a_cause() {
    let sections: Vec<_> = page::headed("### ").map(|(name, _)| name.to_owned()).collect();
    let causes: Vec<_> = Cause::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(sections, causes, "in the order of the table");
    let mut kinds: Vec<_> = Cause::ALL.iter().map(|cause| cause.cause()).collect();
    kinds.dedup();
    let groups: Vec<_> = page::headed("## ").map(|(name, _)| name).collect();
    assert_eq!(groups[0], INDEX);
    assert_eq!(groups[1..], kinds);
    assert!(kinds.iter().all(|kind| page::group(kind).is_some_and(|group| !group.intro.is_empty())));
}

#[test]
fn each_section_has_its_parts() {
    for cause in Cause::ALL {
        let blocks = page::section(*cause).unwrap().blocks;
        let (first, parts) = blocks.split_first().unwrap();
        assert_eq!((first.label, first.text.as_str()), (None, cause.meaning()));
        assert_eq!(parts.iter().filter_map(|part| part.label).collect::<Vec<_>>(), PARTS, "{cause}");
        for Block { label, text } in parts {
            assert!(
                text.len() > 5 && text.ends_with('.') && !text.contains("**"),
                "{cause}: {label:?}: {text}"
            );
        }
        let logs = part(*cause, "nginx logs");
        let status = cause.status().map_or_else(|| "status".to_owned(), |status| status.to_string());
        assert!(logs.contains(&status), "{cause}: {logs}");
        let sure = part(*cause, "How sure").to_lowercase();
        assert!(
            ["proven", "inferred", "incomplete"].iter().any(|word| sure.contains(word)),
            "{cause}: {sure}"
        );
    }
}

#[test]
fn each_section_names_tests_that_there_are() {
    let folder = root().join("tests/e2e");
    let mut tests = 0;
    for cause in Cause::ALL {
        let section = page::section(*cause).unwrap();
        let see = part(*cause, "To see it");
        // Of what nobody has thought of there is none.
        let is_known = *cause != Cause::NginxSays;
        assert_eq!(quoted(&see).any(|code| as_test(code).is_some()), is_known, "{cause}: {see}");
        for code in section.blocks.iter().flat_map(|block| quoted(&block.text)) {
            let Some((file, name)) = as_test(code) else { continue };
            let source = fs::read_to_string(folder.join(file).with_extension("rs")).unwrap_or_default();
            assert!(source.contains(&format!("fn {name}()")), "{cause}: {code}");
            tests += 1;
        }
    }
    assert!(tests > Cause::ALL.len());
}

#[test]
fn the_index_leads_from_what_nginx_logs_to_each_cause() {
    let (_, index) = page::headed("## ").next().unwrap();
    let mut reached = BTreeSet::new();
    for item in index.split("\n- ").skip(1) {
        let links = links(item);
        assert!(!links.is_empty(), "{item}");
        let named = Cause::ALL
            .iter()
            .filter(|cause| links.contains(&format!("#{}", anchor(&cause.to_string())).as_str()));
        let named: Vec<_> = named.collect();
        assert_eq!(named.len(), links.len(), "{item}");
        let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
        for cause in named {
            reached.insert(*cause);
            let Some(line) = item.starts_with('`').then(|| quoted(&item).next()).flatten() else { continue };
            let group = page::group(cause.cause()).unwrap();
            let of_group = group.intro.iter().any(|block| block.text.contains(line));
            assert!(of_group || part(*cause, "nginx logs").contains(line), "{cause} does not have {line}");
        }
    }
    let missing: Vec<_> = Cause::ALL.iter().filter(|cause| !reached.contains(cause)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_section_reads_as_text_on_any_terminal() {
    let golden = "\
refused/permission_denied
  nginx may not write to the upstream's unix socket.
  nginx logs        `connect() to unix:/run/php/php8.2-fpm.sock failed (13:
                    Permission denied) while connecting to upstream`, at level
                    crit; 502.
";
    let look = Look { width: 80, ..Look::PLAIN };
    let text = render(Some(Topic::One(Cause::RefusedPermission)), &look);
    assert!(text.starts_with(golden), "{text}");
    assert!(text.ends_with("refused/denied_by_lsm, which has the same line.\n"), "{text}");
    for width in [40, 80, 200] {
        let kinds = ["refused", "reset", "read_timeout"].map(|kind| Some(Topic::Kind(kind)));
        for topic in kinds.into_iter().chain([None]) {
            let text = render(topic, &Look { width, ..Look::PLAIN });
            assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "{text:?}");
            assert!(text.lines().all(|line| line.trim_end() == line && !line.contains("](#")), "{text}");
        }
    }
}

#[test]
fn of_a_kind_all_is_said_and_of_nothing_the_list() {
    let text = render(Some(Topic::Kind("premature_close")), &Look::PLAIN);
    assert!(text.starts_with("premature_close\n  The upstream closed the connection properly"), "{text}");
    let sections = text.lines().filter(|line| line.starts_with("premature_close/")).count();
    assert_eq!(sections, Cause::ALL.iter().filter(|cause| cause.cause() == "premature_close").count());
    let text = render(None, &Look::PLAIN);
    assert!(text.starts_with("refused\n  no_listener                502  Nobody listens at"), "{text}");
    assert!(Cause::ALL.iter().all(|cause| text.contains(&format!("\n  {} ", cause.detail()))), "{text}");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let asked = |word: &str| word.parse::<Topic>();
    assert_eq!(asked("reset/worker_killed"), Ok(Topic::One(Cause::ResetWorkerKilled)));
    assert_eq!((asked("reset"), asked("reset/")), (Ok(Topic::Kind("reset")), Ok(Topic::Kind("reset"))));
    let answered = |word: &str| asked(word).unwrap_err().to_string();
    let said = answered("reset/worker_kiled");
    assert!(said.starts_with("no cause has this name; the nearest: reset/worker_killed, "), "{said}");
    let said = answered("slow_worker");
    assert!(said.starts_with("no cause has this name; the nearest: read_timeout/slow_worker"), "{said}");
    let said = answered("killed");
    assert!(said.contains("reset/worker_killed") && said.contains("premature_close/worker_killed"), "{said}");
    let said = answered("\u{1b}[2J");
    assert_eq!(said, "no cause has this name, or one like it; `why502 explain` lists them all");
}
