//! What `docs/claims.md` measures, measured again: each block of commands in a shell with `docs/lab.sh`, in namespaces of its own. It needs
//! root, nginx, php-fpm and node.

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use crate::page::{Fence, Page, Part, root};

const PAGE: &str = "docs/claims.md";
/// Its translation has the same blocks.
const CHINESE: &str = "docs/zh-CN/claims.md";
/// So many at a time: they wait for timers most of the time.
const LANES: usize = 3;
/// What hangs is a failure; the longest takes 20 s.
const LIMIT: &str = "180";

/// Each block that is to be run, and what it printed when the page was written.
fn blocks(page: &Page) -> Vec<(&Fence, &Fence)> {
    let mut fences = page.parts.iter().filter(|part| !matches!(part, Part::Prose(_)));
    let mut blocks = Vec::new();
    while let Some(part) = fences.next() {
        let Part::Fence(fence) = part else { continue };
        if fence.mark.as_deref() == Some("run") {
            let Some(Part::Fence(printed)) = fences.next() else { panic!("line {}: no output", fence.line) };
            assert_eq!(printed.language, "", "line {}", printed.line);
            blocks.push((fence, printed));
        }
    }
    blocks
}

fn run(block: &str) -> String {
    let mut shell = Command::new("timeout");
    shell.args(["--kill-after=10", LIMIT, "unshare", "--net", "--mount", "bash", "-c"]);
    shell.arg(format!("exec 2>&1; . docs/lab.sh\n{block}"));
    shell.env("WHY502", env!("CARGO_BIN_EXE_why502")).current_dir(root()).stdin(Stdio::null());
    let output = shell.output().expect("a shell in namespaces of its own, which needs root");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Times and fractions differ from run to run.
fn without_times(printed: &str) -> String {
    let mut text = String::new();
    for line in printed.lines() {
        for word in line.split_inclusive(' ') {
            let is_time = word.trim_end().parse::<f64>().is_ok() && word.contains('.');
            text += if is_time { "N " } else { word };
        }
        text.push('\n');
    }
    text
}

#[test]
fn each_claim_is_measured_as_it_stands_there() {
    let page = Page::read(PAGE);
    let blocks = blocks(&page);
    let measured = Mutex::new(Vec::new());
    let next = Mutex::new(blocks.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let Some((at, (block, _))) = next.lock().unwrap().next() else { return };
                    let printed = run(&block.text);
                    measured.lock().unwrap().push((at, printed));
                }
            });
        }
    });
    let mut measured = measured.into_inner().unwrap();
    measured.sort();
    if env::var_os("RENEW").is_some() {
        renew(PAGE, &measured);
        renew(CHINESE, &measured);
        return;
    }
    let mut others = String::new();
    for ((_, printed), (block, expected)) in measured.iter().zip(&blocks) {
        if without_times(printed) != without_times(&expected.text) {
            others += &format!("line {}:\n{}printed\n{printed}", block.line, block.text);
        }
    }
    assert!(others.is_empty(), "not as {PAGE} says (RENEW=1 renews it):\n{others}");
    assert!(blocks.len() >= 20);
}

fn renew(path: &str, measured: &[(usize, String)]) {
    let page = Page::read(path);
    let mut text = page.text.clone();
    for ((_, printed), (_, old)) in measured.iter().zip(blocks(&page)).rev() {
        text.replace_range(old.place.clone(), printed);
    }
    fs::write(root().join(path), text).expect("a page that may be written");
}

#[test]
fn times_are_not_compared_and_statuses_are() {
    assert_eq!(without_times("504 after 1.01 s\n"), without_times("504 after 0.98 s"));
    assert_ne!(without_times("504 after 1.01 s"), without_times("502 after 1.01 s"));
}
