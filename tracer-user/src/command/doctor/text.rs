//! Tables for a person.

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

use super::{
    Report,
    confidence::{Level, Standing},
    host::Host,
    sight::{How, Sight},
};
use crate::{
    load::{Lockdown, WHERE_TO_GET_BTF, names_of_capabilities},
    model::{privileges::KEPT, words::count},
    procfs::masters::Master,
    sink::{Look, paragraph},
    terminal::printable,
};

const INDENT: &str = "  ";
const NOT_SEEN: &str = "not seen";
const ON_DEMAND: &str = "on demand";
const INFERRED: &str = "inferred";
const PARTLY: &str = "partly";

/// The report.
pub fn render(report: &Report, look: &Look) -> String {
    let Report { host, sight, standings, settings, masters } = report;
    let page = Page { look };
    let mut text = page.conclusion(sight, standings);
    text += &page.section("Host", &page.table(host_rows(host, sight.is_ok())));
    if let Ok(sight) = sight {
        text += &page.section("Facts, and the hooks that see them", &page.table(fact_rows(sight)));
        let (everywhere, here): (Vec<_>, Vec<_>) = standings
            .iter()
            .filter(|standing| standing.reason.is_some())
            .partition(|standing| standing.everywhere);
        text += &page.section(
            "Causes that this kernel does not let it prove from the start",
            &page.table(cause_rows(&here)),
        );
        text += &page.section("Causes that no kernel lets it prove", &page.table(cause_rows(&everywhere)));
    }
    let kept = KEPT.iter().map(|kept| vec![kept.capability.to_string(), kept.why.to_owned()]);
    text += &page.section("Capabilities that are kept once all is attached", &page.table(kept.collect()));
    let rows = settings.iter().map(|setting| {
        let value = setting.value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        vec![setting.name.to_owned(), value, setting.meaning.clone()]
    });
    text += &page.section("Settings of this network namespace", &page.table(rows.collect()));
    let hears = |master: &Master| sight.as_ref().ok()?.hears(master.pid);
    let mut processes = page.table(masters.iter().map(|master| master_row(master, hears(master))).collect());
    if masters.is_empty() {
        processes = format!("{INDENT}none runs\n");
    }
    if let Ok(sight) = sight {
        processes +=
            &format!("{INDENT}{} on this host\n", count(sight.listeners() as u64, "listening socket"));
    }
    text + &page.section("nginx and php-fpm", &processes)
}

struct Page<'a> {
    look: &'a Look,
}

impl Page<'_> {
    /// What it all amounts to, in a sentence.
    fn conclusion(&self, sight: &Result<Sight, String>, standings: &[Standing]) -> String {
        let text = match sight {
            Err(obstacle) => format!("Tracing is impossible here: {obstacle}."),
            Ok(_) => {
                let provable = standings.iter().filter(|standing| !standing.everywhere);
                let all = provable.clone().count();
                let here = provable.filter(|standing| !standing.is_worse_here()).count();
                let elsewhere = standings.len() - all;
                format!(
                    "Tracing works. Of the {all} causes that a kernel can prove, this one proves {} from the start; {elsewhere} \
                     more are inferred on any kernel.",
                    if here == all { "each".to_owned() } else { here.to_string() },
                )
            }
        };
        paragraph("", &text, 0, self.look.width)
    }

    /// A title and what is under it; nothing where nothing is.
    fn section(&self, title: &str, body: &str) -> String {
        if body.is_empty() {
            return String::new();
        }
        format!("\n{}\n{body}", self.look.paint(Style::new().bold(), title, 0))
    }

    /// Rows in aligned columns, of which the last is wrapped.
    fn table(&self, rows: Vec<Vec<String>>) -> String {
        let Some(columns) = rows.first().map(Vec::len) else { return String::new() };
        let width = u16::try_from(self.look.width.saturating_sub(INDENT.len())).unwrap_or(u16::MAX);
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width).add_rows(rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if index + 1 < columns {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| format!("{INDENT}{}\n", self.mark(line.trim_end()))).collect()
    }

    /// Words that matter in colour: put in when the columns are made, so that escapes take no room.
    fn mark(&self, line: &str) -> String {
        let styles = [
            (NOT_SEEN, AnsiColor::Red.on_default()),
            (ON_DEMAND, AnsiColor::Yellow.on_default()),
            (INFERRED, AnsiColor::Yellow.on_default()),
            (PARTLY, AnsiColor::Yellow.on_default()),
        ];
        let begins = |word: &str| line.starts_with(word) || line.contains(&format!("  {word}: "));
        match styles.iter().find(|(word, _)| begins(word)) {
            Some((word, style)) => line.replacen(word, &self.look.paint(*style, word, 0), 1),
            None => line.to_owned(),
        }
    }
}

fn host_rows(host: &Host, is_traceable: bool) -> Vec<Vec<String>> {
    let Host { kernel, has_btf, given_btf, lockdown, missing_capabilities, has_tracefs, means } = host;
    let btf = match given_btf {
        Some(path) => format!("from {}", printable(&path.display().to_string())),
        None if *has_btf => "present".to_owned(),
        None => format!("missing (CONFIG_DEBUG_INFO_BTF): --btf takes it from a file, of {WHERE_TO_GET_BTF}"),
    };
    let lockdown = match lockdown {
        Lockdown::Off => "off",
        Lockdown::Integrity => "integrity mode, which does not hinder",
        Lockdown::Confidentiality => {
            "confidentiality mode, in which no BPF program may read the kernel's memory"
        }
        Lockdown::Unknown if is_traceable => "not known (securityfs is not mounted), and no hindrance",
        Lockdown::Unknown => "not known: securityfs is not mounted",
    };
    let privileges = match missing_capabilities.as_deref() {
        Some([]) => "complete".to_owned(),
        Some(missing) => {
            format!("without {}: run why502 as root", names_of_capabilities(missing).join(" and "))
        }
        None => "not known: /proc does not tell".to_owned(),
    };
    let tracefs = if *has_tracefs {
        "mounted"
    } else {
        "not mounted; why502 mounts its own, unseen by others, should it need to watch system calls"
    };
    [
        ("kernel", kernel.as_str()),
        ("BTF", &btf),
        ("lockdown", lockdown),
        ("privileges", &privileges),
        ("tracefs", tracefs),
        (
            "seccomp",
            if means.seccomp {
                "present: only system calls that are in use are allowed once all is attached"
            } else {
                "missing: system calls are not filtered"
            },
        ),
        (
            "landlock",
            if means.landlock {
                "present: report, and top of files, open nothing but these"
            } else {
                "missing: report, and top of files, open what their user may open"
            },
        ),
    ]
    .map(|(name, value)| vec![name.to_owned(), value.to_owned()])
    .to_vec()
}

fn fact_rows(sight: &Sight) -> Vec<Vec<String>> {
    sight
        .facts()
        .map(|(fact, how)| {
            let seen = match how {
                How::Always(source) => match sight.instead(fact) {
                    Some(instead) => format!("{source}; {instead}"),
                    None => source.clone(),
                },
                How::OnDemand(source) => format!("{ON_DEMAND}: {source}"),
                How::Never(reason) => match sight.instead(fact) {
                    Some(instead) => format!("{NOT_SEEN}: {reason}; instead, {instead}"),
                    None => format!("{NOT_SEEN}: {reason}"),
                },
            };
            vec![fact.meaning().to_owned(), seen]
        })
        .collect()
}

/// Causes with the same reason stand together, in the order of the table of causes.
fn cause_rows(standings: &[&Standing]) -> Vec<Vec<String>> {
    let mut rows: Vec<(&'static str, &'static str, Vec<String>)> = Vec::new();
    for standing in standings {
        let word = match standing.level {
            Level::Proven => "proven",
            Level::Partly => PARTLY,
            Level::OnDemand => ON_DEMAND,
            Level::Inferred => INFERRED,
            Level::NotSeen => NOT_SEEN,
        };
        let reason = standing.reason.unwrap_or_default();
        let cause = standing.cause.to_string();
        match rows.iter_mut().find(|(_, other, _)| *other == reason) {
            Some((.., causes)) => causes.push(cause),
            None => rows.push((word, reason, vec![cause])),
        }
    }
    rows.into_iter()
        .map(|(word, reason, causes)| vec![word.to_owned(), causes.join("\n"), reason.to_owned()])
        .collect()
}

fn master_row(master: &Master, heard: Option<Result<&str, &str>>) -> Vec<String> {
    let Master { pid, comm, workers, listeners, is_elsewhere } = master;
    let mut listens = match listeners.as_deref() {
        None => "where it listens may not be seen".to_owned(),
        Some([]) => "listens nowhere".to_owned(),
        Some(listeners) => format!("listens on {}", listeners.join(", ")),
    };
    listens += match is_elsewhere {
        Some(true) => " (in another network namespace, which has settings of its own)",
        Some(false) => "",
        None => " (in which network namespace may not be seen)",
    };
    listens += &match heard {
        Some(Ok(source)) => format!("; what it logs is heard ({source})"),
        Some(Err(reason)) => format!("; what it logs is not heard: {reason}"),
        None => String::new(),
    };
    vec![
        printable(comm).into_owned(),
        format!("master {pid}"),
        count(*workers as u64, "worker"),
        printable(&listens).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::{confidence::standings, sight::samples},
        *,
    };
    use crate::{confine::Means, model::facts::Fact};

    fn report(sight: Result<Sight, String>) -> Report {
        let host = Host {
            kernel: "6.1.0".to_owned(),
            has_btf: true,
            given_btf: None,
            lockdown: Lockdown::Off,
            missing_capabilities: Some(Vec::new()),
            has_tracefs: true,
            means: Means { seccomp: true, landlock: false },
        };
        let standings = sight.as_ref().map(standings).unwrap_or_default();
        let master = Master {
            pid: 7,
            comm: "php-fpm\u{1b}[2J".to_owned(),
            workers: 1,
            listeners: Some(vec!["/run/a.sock".to_owned()]),
            is_elsewhere: Some(true),
        };
        Report { host, sight, standings, settings: Vec::new(), masters: vec![master] }
    }

    #[test]
    fn a_kernel_that_shows_everything_has_no_section_of_what_it_lacks() {
        let text = render(&report(Ok(samples::sight(&[], &[]))), &Look::PLAIN);
        assert!(text.starts_with("Tracing works.") && text.contains("proves each"), "{text}");
        assert!(
            !text.contains("this kernel does not let it") && text.contains("no kernel lets it prove"),
            "{text}"
        );
    }

    #[test]
    fn what_lacks_is_named_with_what_it_costs() {
        let sight = samples::sight(&[Fact::SynDrops], &[Fact::UnixSockets]);
        let text = render(&report(Ok(sight)), &Look::PLAIN);
        for words in [
            "not seen: refused; instead, ",
            "partly     accept_queue_overflow/syn_dropped",
            "on demand  refused/socket_missing",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.trim_end() == line && line.len() <= 110), "{text}");
    }

    #[test]
    fn names_of_processes_do_not_steer_the_terminal() {
        let text = render(&report(Err("no BTF".to_owned())), &Look::PLAIN);
        assert!(text.starts_with("Tracing is impossible here: no BTF.\n"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("another network namespace"), "{text}");
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let report = report(Ok(samples::sight(&[Fact::SynDrops], &[Fact::UnixSockets])));
        let plain = render(&report, &Look::PLAIN);
        let colour = render(&report, &Look { colour: true, ..Look::PLAIN });
        assert!(colour.contains('\u{1b}'));
        let mut stripped = String::new();
        for (number, part) in colour.split('\u{1b}').enumerate() {
            stripped += if number == 0 { part } else { part.split_once('m').unwrap().1 };
        }
        assert_eq!(stripped, plain);
    }
}
