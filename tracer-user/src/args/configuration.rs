//! The file of `why502 serve`: its keys are the options, so each is read, checked and explained by the same words.

use std::{collections::BTreeMap, error::Error as _, ffi::OsString, fmt};

use clap::{Arg, ArgAction, CommandFactory as _, Parser as _, error::ErrorKind, parser::ValueSource};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Args, Command, Serve};

/// Options that a file cannot have: it would say where it is, or whether it counts.
const NOT_IN_A_FILE: [&str; 3] = ["config", "check", "help"];

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In which line, from 1; none where it is none of one line.
    pub line: Option<usize>,
    /// What.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{line}: {}", self.what),
            None => write!(f, " {}", self.what),
        }
    }
}

/// What the command line and a file come to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The options.
    pub serve: Serve,
    /// What the file says and the command line does not, by option.
    pub settings: BTreeMap<String, Vec<String>>,
    /// In which line it says so.
    pub lines: BTreeMap<String, usize>,
}

/// Adds what a file says to a whole command line of `why502 serve`, which goes before it.
///
/// # Errors
/// All that is wrong with the file, in the order of its lines.
pub fn resolve(words: &[OsString], text: &str) -> Result<Resolved, Vec<Wrong>> {
    let command = Args::command();
    let serve = command.find_subcommand("serve").cloned().unwrap_or_default();
    let mut reading = Reading { serve, text, found: BTreeMap::new(), wrong: Vec::new() };
    reading.read();
    let Reading { mut found, mut wrong, .. } = reading;
    if !wrong.is_empty() {
        wrong.sort_by_key(|wrong| wrong.line);
        return Err(wrong);
    }
    let whole = |error: &clap::Error| vec![Wrong { line: None, what: sentence(error) }];
    let given = command.try_get_matches_from(words).map_err(|error| whole(&error))?;
    if let Some(given) = given.subcommand_matches("serve") {
        found.retain(|_, setting| given.value_source(&setting.id) != Some(ValueSource::CommandLine));
    }
    // The program's name and the command's come first.
    let (before, after) = words.split_at(words.len().min(2));
    let said = found.values().flat_map(|setting| setting.words.iter().map(OsString::from));
    let all: Vec<OsString> = before.iter().cloned().chain(said).chain(after.iter().cloned()).collect();
    match Args::try_parse_from(all).map_err(|error| whole(&error))?.command {
        Command::Serve(serve) => {
            let lines = found.iter().map(|(name, setting)| (name.clone(), setting.line)).collect();
            let settings = found.into_iter().map(|(name, setting)| (name, setting.words)).collect();
            Ok(Resolved { serve: *serve, settings, lines })
        }
        _ => Err(vec![Wrong { line: None, what: "a file is of `why502 serve` only".to_owned() }]),
    }
}

/// What a file says of one option.
struct Setting {
    /// The option, as clap calls it.
    id: String,
    /// As they would stand on the command line.
    words: Vec<String>,
    line: usize,
}

struct Reading<'a> {
    serve: clap::Command,
    text: &'a str,
    found: BTreeMap<String, Setting>,
    wrong: Vec<Wrong>,
}

impl Reading<'_> {
    fn read(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map(|span| self.line(span.start));
            self.wrong.push(Wrong { line, what: error.message().to_owned() });
        }
        for (key, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(inner) => {
                    for (inner_key, value) in inner {
                        let name = format!("{}-{}", key.get_ref(), inner_key.get_ref());
                        let shown = format!("{}.{}", key.get_ref(), inner_key.get_ref());
                        self.setting(&name, &shown, inner_key.span().start, value);
                    }
                }
                _ => self.setting(key.get_ref(), key.get_ref(), key.span().start, value),
            }
        }
    }

    /// Takes in a key, which stands at `start`.
    fn setting(&mut self, name: &str, shown: &str, start: usize, value: &Spanned<DeValue<'_>>) {
        let at = self.line(start);
        let line = Some(at);
        let Some(option) = self.option(name) else {
            let names = self.serve.get_arguments().filter(|option| may_stand(option));
            let nearest =
                names.filter_map(Arg::get_long).min_by_key(|other| strsim::levenshtein(name, other));
            let nearest = nearest.map_or_else(String::new, |nearest| format!("; the nearest: {nearest}"));
            self.wrong.push(Wrong { line, what: format!("no option is called {shown}{nearest}") });
            return;
        };
        let (id, long) = (option.get_id().to_string(), option.get_long().unwrap_or(name).to_owned());
        match words(option, &long, value.get_ref()).and_then(|words| self.is_understood(words)) {
            Ok(words) => {
                if self.found.insert(long, Setting { id, words, line: at }).is_some() {
                    self.wrong.push(Wrong { line, what: format!("{shown} is said twice, under two names") });
                }
            }
            Err(what) => self.wrong.push(Wrong { line, what: format!("{shown}: {what}") }),
        }
    }

    fn option(&self, name: &str) -> Option<&Arg> {
        let is_it = |option: &&Arg| {
            let aliases = option.get_all_aliases().unwrap_or_default();
            option.get_long() == Some(name) || aliases.contains(&name)
        };
        self.serve.get_arguments().filter(|option| may_stand(option)).find(is_it)
    }

    /// Has an option read its words alone: whether it goes with others shows later.
    fn is_understood(&self, words: Vec<String>) -> Result<Vec<String>, String> {
        let alone = ["serve"].into_iter().chain(words.iter().map(String::as_str));
        match self.serve.clone().try_get_matches_from(alone) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
                ) =>
            {
                Err(sentence(&error))
            }
            _ => Ok(words),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }
}

fn may_stand(option: &Arg) -> bool {
    !option.is_hide_set() && option.get_long().is_some_and(|long| !NOT_IN_A_FILE.contains(&long))
}

/// As an option and its values would stand on the command line.
fn words(option: &Arg, long: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            DeValue::Boolean(true) => Ok(vec![format!("--{long}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            _ => Err("it is true or false".to_owned()),
        };
    }
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(format!("--{long}={text}")),
        DeValue::Integer(number) if number.radix() == 10 => {
            Ok(format!("--{long}={}", number.as_str().replace('_', "")))
        }
        _ => Err("its value is a text in quotes, or a whole number".to_owned()),
    };
    match (value, option.get_action()) {
        (DeValue::Array(values), ArgAction::Append) => {
            values.iter().map(|value| one(value.get_ref())).collect()
        }
        (DeValue::Array(_), _) => Err("it takes one value, not a list".to_owned()),
        (value, _) => Ok(vec![one(value)?]),
    }
}

/// What clap says, in one sentence.
fn sentence(error: &clap::Error) -> String {
    if let Some(why) = error.source() {
        return why.to_string();
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::args::{Listen, Trigger};

    fn with(words: &[&str], text: &str) -> Result<Resolved, Vec<Wrong>> {
        let words: Vec<_> = ["why502", "serve"].iter().chain(words).map(OsString::from).collect();
        resolve(&words, text)
    }

    fn wrong(text: &str) -> Vec<String> {
        with(&[], text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_says_what_options_say() {
        let text = "max-open = 4_096\nupstream = [\":9000\", \"/run/a.sock\"]\nno-uprobe = true\nno-access-log = false\n\
                    [metrics]\naddress = \"[::1]:99\"\nupstreams = 7\n[json]\npath = \"/a.json\"\nrotate-keep = 0\n[record]\nlast = \"10m\"\n\
                    trigger = [\"failures>=20/10s\", \"cause=reset\"]\nhook = [\"/bin/notify\", \"--file\"]\n";
        let Serve { trace, metrics, metrics_upstreams, json_path, json_rotate_keep, record_last, .. } =
            with(&[], text).unwrap().serve;
        assert_eq!((trace.max_open, trace.upstreams.len()), (4_096, 2));
        assert!(trace.no_uprobe && !trace.no_access_log);
        assert_eq!((metrics, metrics_upstreams), (Listen::At("[::1]:99".parse().unwrap()), 7));
        assert_eq!((json_path.as_deref(), json_rotate_keep), (Some(Path::new("/a.json")), 0));
        assert_eq!(record_last, Some(Duration::from_secs(600)));
        let serve = with(&[], text).unwrap().serve;
        assert!(matches!(serve.record_triggers[..], [Trigger::Failures { .. }, Trigger::Cause(_)]));
        assert_eq!(serve.record_hook, ["/bin/notify", "--file"]);
        let serve = with(
            &[],
            "journal = true\nsyslog = \"udp://[::1]:514\"\n[otlp]\nurl = \"http://a:1/b\"\nqueue = 9\n",
        )
        .unwrap()
        .serve;
        assert!(serve.journal && serve.otlp_queue == 9);
        let shown = [serve.otlp.map(|to| to.to_string()), serve.syslog.map(|to| to.to_string())];
        assert_eq!(shown, [Some("http://a:1/b".to_owned()), Some("udp://[::1]:514".to_owned())]);
        assert_eq!(with(&[], "metrics = \"off\"").unwrap().serve.metrics, Listen::Off);
        assert!(with(&[], "").unwrap().settings.is_empty());
    }

    #[test]
    fn the_file_that_is_handed_out_is_valid_as_it_stands_and_with_all_that_is_commented_out() {
        let text = include_str!("../../../packaging/why502.toml");
        assert!(with(&[], text).unwrap().settings.is_empty());
        let is_setting = |line: &str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        let mut count = 0;
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if is_setting(setting) => {
                count += 1;
                setting
            }
            _ => line,
        });
        let whole: String = lines.flat_map(|line| [line, "\n"]).collect();
        let resolved = with(&[], &whole).unwrap();
        assert_eq!((resolved.settings.len(), count), (23, 23), "{:?}", resolved.settings.keys());
        // What it says is the default is.
        let default = with(&[], "").unwrap().serve;
        let Serve {
            trace,
            metrics,
            metrics_upstreams,
            metrics_queue_waits,
            json_rotate_size,
            json_rotate_keep,
            record_directory,
            record_keep,
            otlp_interval,
            otlp_queue,
            journal,
            ..
        } = resolved.serve;
        assert_eq!((otlp_interval, otlp_queue, journal), (default.otlp_interval, default.otlp_queue, false));
        assert_eq!((trace.max_open, trace.no_uprobe), (default.trace.max_open, false));
        assert_eq!((metrics, metrics_upstreams), (default.metrics, default.metrics_upstreams));
        assert!(!metrics_queue_waits && !default.metrics_queue_waits);
        assert_eq!(
            (json_rotate_size, json_rotate_keep, record_directory, record_keep),
            (
                default.json_rotate_size,
                default.json_rotate_keep,
                default.record_directory,
                default.record_keep
            )
        );
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let text = "upstream = [\":1\", \":2\"]\nmax-open = 128\n";
        let resolved = with(&["-u", ":3", "--metrics", ":1"], text).unwrap();
        assert_eq!((resolved.serve.trace.upstreams.len(), resolved.serve.trace.max_open), (1, 128));
        assert_eq!(resolved.settings.keys().collect::<Vec<_>>(), ["max-open"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_by_line() {
        let text = "max-opne = 4\nmax-open = 1\n\n[record]\nlast = \"soon\"\nkeep = [1, 2]\ntrigger = [\"sun\"]\n[json]\npath = true\n";
        assert_eq!(
            wrong(text),
            [
                "1: no option is called max-opne; the nearest: max-open",
                "2: max-open: 1 is not in 64..=1048576",
                "5: record.last: a duration looks like 30s, 10m or 1h30m",
                "6: record.keep: it takes one value, not a list",
                "7: record.trigger: a trigger looks like failures>=20/10s or cause=reset/worker_killed",
                "9: json.path: its value is a text in quotes, or a whole number",
            ]
        );
        assert_eq!(wrong("all = true\ncomm = \"x\"\n").len(), 1);
        assert!(
            wrong("\nmetrics = 127.0.0.1\n")[0].starts_with("2: "),
            "{:?}",
            wrong("\nmetrics = 127.0.0.1\n")
        );
        assert!(wrong("check = true")[0].contains("no option is called check"));
        assert!(wrong("ready-file = \"/tmp/x\"")[0].contains("no option"));
        let twice = "metrics = \":1\"\nmetrics-address = \":2\"\n";
        assert_eq!(wrong(twice), ["2: metrics-address is said twice, under two names"]);
    }
}
