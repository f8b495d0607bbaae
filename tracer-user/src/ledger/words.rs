//! What nginx said of upstreams, until it is known which exchange each word is about.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use wire::{Beginning, FAMILY_UNIX, SUBJECT_LEN, Word, WordOf};

use super::PATIENCE_NS;
use crate::model::{
    budget,
    from_wire::address,
    inquiry::{Denial, Found, Place},
    stream::Logged,
    upstream::Upstream,
    verdict::Process,
};

/// How many words wait at most; the oldest then waits no longer.
const MOST_WAITING: usize = 16_384;

/// One thing that nginx said of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When (ns, monotonic).
    pub ns: u64,
    /// The thread.
    pub thread: u32,
    /// Who; the name is empty where an exchange has it.
    pub nginx: Process,
    /// `NGX_LOG_EMERG` (1) to `NGX_LOG_ERR` (4).
    pub level: u32,
    /// The errno in its line, or zero.
    pub errno: u32,
    /// The number of its client's connection: what stands behind the asterisk in its line.
    pub connection: u64,
    /// The message as nginx's source has it, with its conversions.
    pub format: String,
    /// The name or the reason among its arguments; empty where it has none.
    pub subject: String,
    /// The first number among its arguments.
    pub number: i64,
    /// What nginx was doing.
    pub doing: String,
    /// Whether it is of a session of `stream {}`, as far as that is looked at: where there is no connection that would show it.
    pub is_of_session: bool,
    /// The upstream that a note is of, if that was seen.
    pub of: Option<Upstream>,
    /// How it came to be known.
    pub source: Source,
    /// What was looked up about it.
    pub found: Option<Found>,
}

/// How a word came to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was heard as nginx said it.
    Heard,
    /// nginx's error log has it.
    Logged {
        /// The upstream that the line names, if it names one.
        upstream: Option<Upstream>,
    },
}

/// A text that a zero closes.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Said {
    /// What a record says.
    pub fn new(record: &WordOf) -> Self {
        let WordOf { word, comm, subject, unread_message: _, unread_action: _, upstream, is_of_session } =
            record;
        let Word { header: _, ns, connection, number, tgid, tid, level, errno, message, action } = word;
        Self {
            ns: *ns,
            thread: *tid,
            nginx: Process { pid: *tgid, comm: text(comm) },
            level: *level,
            errno: *errno,
            connection: *connection,
            format: text(message),
            of: match upstream.family {
                0 => None,
                _ if !Beginning::of(message).is_note() => None,
                FAMILY_UNIX => Some(Upstream::Unix(text(subject).into())),
                _ => Some(Upstream::Inet(address(upstream))),
            },
            subject: if subject[SUBJECT_LEN - 2] == 0 { text(subject) } else { text(subject) + "…" },
            number: *number,
            doing: text(action),
            is_of_session: *is_of_session != 0,
            source: Source::Heard,
            found: None,
        }
    }

    /// What a line of the log says.
    pub fn logged(logged: &Logged) -> Self {
        let source = Source::Logged { upstream: logged.upstream.clone() };
        Self { source, ..Self::new(&logged.word) }
    }

    /// Whether it is known from nginx's log only.
    pub fn is_logged(&self) -> bool {
        matches!(self.source, Source::Logged { .. })
    }

    /// The upstream that its line in the log names, if it is known from there.
    pub fn named(&self) -> Option<&Upstream> {
        match &self.source {
            Source::Logged { upstream } => upstream.as_ref(),
            Source::Heard => None,
        }
    }

    /// The group of upstreams that its line in the log names.
    pub fn group(&self) -> Option<&str> {
        match self.named() {
            Some(Upstream::Named(name)) => Some(name),
            _ => None,
        }
    }

    /// The message, with those arguments in it that are known, as it stands in nginx's line before the errno.
    pub fn message(&self) -> Cow<'_, str> {
        if self.is_unreadable() {
            return "…".into();
        }
        if self.format == "%*s" {
            return self.subject.trim_start().into();
        }
        if !self.format.contains('%') {
            return self.format.as_str().into();
        }
        let mut subject = Some(self.subject.as_str()).filter(|subject| !subject.is_empty());
        let mut message = String::new();
        let mut rest = self.format.as_str();
        // Only the first number is known, and only where it does not say how long a text is.
        let mut has_number = self.format.contains(".*s") || self.format.contains("%*s");
        while let Some((before, after)) = rest.split_once('%') {
            message += before;
            // nginx's own conversions (src/core/ngx_string.c): flags, then a type of one character.
            let flags = after.find(|flag: char| !flag.is_ascii_digit() && !"uxXm.*".contains(flag));
            let (kind, after) = match flags.map(|at| after.split_at(at)) {
                Some((_, after)) if !after.is_empty() => {
                    let kind = after.chars().next().unwrap_or_default();
                    (kind, &after[kind.len_utf8()..])
                }
                _ => ('?', ""),
            };
            match kind {
                'V' | 's' if subject.is_some() => message.extend(subject.take()),
                's' if self.is_of_name() => message += resolver_says(self.number),
                'd' | 'i' | 'l' if !has_number => {
                    has_number = true;
                    message += &self.number.to_string();
                }
                _ => message.push('…'),
            }
            rest = after;
        }
        (message + rest).into()
    }

    /// Whether it is about no upstream, as far as its texts were read. Those that could not be read at once may be about anything.
    pub fn is_foreign(&self) -> bool {
        let is_with_upstream = Beginning::of(self.doing.as_bytes()).is_with_upstream();
        !self.is_unreadable() && !is_with_upstream && !Beginning::of(self.format.as_bytes()).is_of_upstream()
    }

    /// Whether its message could not be read: nginx had not looked at that part of its memory, and ended too soon.
    pub fn is_unreadable(&self) -> bool {
        self.format.is_empty()
    }

    /// Whether it is about no connection: none was made, connect refused it, or it goes on.
    pub fn is_of_no_connection(&self) -> bool {
        Beginning::of(self.format.as_bytes()).is_of_no_connection()
    }

    /// Whether nginx found no server of a group alive.
    pub fn is_no_live(&self) -> bool {
        self.format.starts_with("no live ")
    }

    /// Whether a timer of nginx's went off, or one of a cosocket of Lua's.
    pub fn is_of_timer(&self) -> bool {
        self.format.starts_with("upstream timed out")
            || self.format.starts_with("lua tcp socket ") && self.format.contains(" timed out")
    }

    /// Whether it is about a name that does not resolve.
    pub fn is_of_name(&self) -> bool {
        self.format.starts_with("%V could not be resolved")
    }

    /// Whether connect itself failed, at once.
    pub fn is_of_connect(&self) -> bool {
        self.format.starts_with("connect() to %V ")
    }

    /// What was found to stand between nginx and the upstream.
    pub fn denial(&self) -> Option<&Denial> {
        match self.found.as_ref()? {
            Found::Denial(denial) => Some(denial),
            _ => None,
        }
    }

    /// What was found at a unix upstream's path.
    pub fn place(&self) -> Option<&Place> {
        match self.found.as_ref()? {
            Found::Place(place) => Some(place),
            _ => None,
        }
    }

    /// Whether the folder is there that a unix upstream's socket should be in.
    pub fn has_folder(&self) -> Option<bool> {
        match self.found.as_ref()? {
            Found::Missing { has_folder } => Some(*has_folder),
            _ => None,
        }
    }

    /// When a connection with the upstream's address was last known to work (ns, monotonic), where it cannot be reached now.
    pub fn reached_ns(&self) -> Option<u64> {
        match self.found.as_ref()? {
            Found::Reached(ns) => Some(*ns),
            _ => None,
        }
    }

    /// Where connect went, as nginx names it, if it was that which failed; and the upstream that a note is of.
    pub fn peer(&self) -> Option<Upstream> {
        if self.of.is_some() {
            return self.of.clone();
        }
        if let Source::Logged { upstream: Some(upstream) } = &self.source {
            return Some(upstream.clone());
        }
        let name = self.is_of_connect().then_some(self.subject.as_str())?;
        match name.strip_prefix("unix:") {
            Some(path) => Some(Upstream::Unix(path.trim_end_matches(':').into())),
            None => name.parse().ok().map(Upstream::Inet),
        }
    }

    /// Whether it is no failure but what a FastCGI application wrote.
    pub fn is_note(&self) -> bool {
        Beginning::of(self.format.as_bytes()).is_note()
    }
}

/// What nginx's resolver says of its own numbers (`ngx_resolver_strerror`, src/core/ngx_resolver.c).
fn resolver_says(number: i64) -> &'static str {
    match number {
        1 => "Format error",
        2 => "Server failure",
        3 => "Host not found",
        4 => "Unimplemented",
        5 => "Operation refused",
        110 => "Operation timed out",
        _ => "Unknown error",
    }
}

/// The words that wait: by when they were said, and the thread.
#[derive(Debug, Default)]
pub(super) struct Words(BTreeMap<(u64, u32), Said>);

impl Words {
    /// One more waits; gives back the one for which there is no room. Records were lost at `loss_ns`.
    pub(super) fn put(&mut self, said: Said, loss_ns: u64) -> Option<Said> {
        self.0.insert((said.ns, said.thread), said);
        let is_before_loss = self.0.first_key_value().is_some_and(|((ns, _), _)| *ns <= loss_ns);
        let most = if is_before_loss { budget::WAITING_AFTER_LOSS } else { MOST_WAITING };
        if self.0.len() > most { self.0.pop_first().map(|(_, said)| said) } else { None }
    }

    /// The words about an exchange of `thread` that began at `began_ns`, the last of which was said at `word_ns`; none of them where they
    /// were lost on their way. Nothing at all if that word is about something else, as showed once its texts were read.
    pub(super) fn claim(&mut self, thread: u32, word_ns: u64, began_ns: u64) -> Option<Vec<Said>> {
        let Entry::Occupied(last) = self.0.entry((word_ns, thread)) else { return Some(Vec::new()) };
        if last.get().is_of_no_connection() || last.get().is_foreign() {
            return None;
        }
        let last = last.remove();
        // Nothing lies between the words about one connection but words about it.
        let before: Vec<_> = self
            .0
            .range((began_ns, 0)..(word_ns, thread))
            .filter(|((_, of), said)| {
                *of == thread && said.connection == last.connection && !said.is_of_no_connection()
            })
            .map(|(name, _)| *name)
            .collect();
        let mut words: Vec<_> = before.into_iter().filter_map(|name| self.0.remove(&name)).collect();
        words.push(last);
        Some(words)
    }

    /// The word about an exchange of `thread` whose end came late, in another process's time: the only one that the thread said since `from_ns`
    /// and that no other exchange has claimed. Where there are several, nobody knows.
    pub(super) fn claim_late(&mut self, thread: u32, from_ns: u64, ended_ns: u64) -> Option<Said> {
        let waiting = self.0.range((from_ns, 0)..=(ended_ns, u32::MAX));
        let mut names = waiting
            .filter(|((_, of), said)| *of == thread && !said.is_of_no_connection() && !said.is_foreign())
            .map(|(name, _)| *name);
        match (names.next(), names.next()) {
            (Some(name), None) => self.0.remove(&name),
            _ => None,
        }
    }

    /// Those that have waited for long enough at `now` (ns, monotonic): the oldest first.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<Said> {
        let still_waiting = self.0.split_off(&(now.saturating_sub(PATIENCE_NS), 0));
        std::mem::replace(&mut self.0, still_waiting).into_values().collect()
    }

    /// When [`Words::overdue`] next has something (ns, monotonic).
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.0.first_key_value().map(|((ns, _), _)| ns.saturating_add(PATIENCE_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(format: &str, subject: &str, number: i64) -> Said {
        Said {
            ns: 5,
            thread: 7,
            nginx: Process { pid: 7, comm: "nginx".to_owned() },
            level: 4,
            errno: 0,
            connection: 1,
            format: format.to_owned(),
            subject: subject.to_owned(),
            number,
            doing: "reading upstream".to_owned(),
            is_of_session: false,
            of: None,
            source: Source::Heard,
            found: None,
        }
    }

    #[test]
    fn messages_have_the_arguments_that_are_known() {
        let message = |format, subject, number| said(format, subject, number).message().into_owned();
        assert_eq!(message("connect() to %V failed", "unix:/x", 0), "connect() to unix:/x failed");
        assert_eq!(
            message("upstream SSL certificate verify error: (%l:%s)", "self-signed certificate", 18),
            "upstream SSL certificate verify error: (18:self-signed certificate)"
        );
        assert_eq!(
            message("upstream sent unsupported FastCGI protocol version: %d", "", 72),
            "upstream sent unsupported FastCGI protocol version: 72"
        );
        assert_eq!(
            message("%*s", "SSL_do_handshake() failed (SSL: x)", 0),
            "SSL_do_handshake() failed (SSL: x)"
        );
        assert_eq!(
            message("upstream sent invalid header: \"%*s\\x%02xd...\"", "", 0),
            "upstream sent invalid header: \"…\\x…...\""
        );
        assert_eq!(
            message("%V could not be resolved (%i: %s)", "nobody.invalid", 3),
            "nobody.invalid could not be resolved (3: Host not found)"
        );
        assert_eq!(message("100%", "", 0), "100…");
        assert_eq!(message("", "", 0), "…");
    }

    #[test]
    fn a_late_end_claims_a_word_only_if_it_is_the_only_one() {
        let mut words = Words::default();
        for (ns, thread) in [(10, 7), (12, 8), (20, 7), (22, 7)] {
            words.put(Said { ns, thread, ..said("upstream timed out", "", 0) }, 0);
        }
        assert_eq!(words.claim_late(7, 5, 15).map(|said| said.ns), Some(10));
        assert!(words.claim_late(7, 5, 15).is_none() && words.claim_late(7, 5, 30).is_none());
        assert_eq!(words.claim_late(7, 21, 30).map(|said| said.ns), Some(22));
    }

    #[test]
    fn words_about_one_connection_are_claimed_together() {
        let mut words = Words::default();
        words.put(Said { ns: 10, connection: 9, ..said("upstream sent invalid header", "", 0) }, 0);
        words.put(Said { ns: 11, ..said("upstream sent invalid header", "", 0) }, 0);
        words.put(Said { ns: 12, ..said("no live upstreams", "", 0) }, 0);
        words.put(Said { ns: 13, ..said("upstream sent invalid header", "", 0) }, 0);
        let claimed = words.claim(7, 13, 10).unwrap();
        assert_eq!(claimed.iter().map(|said| said.ns).collect::<Vec<_>>(), [11, 13]);
        assert!(words.claim(7, 13, 10).unwrap().is_empty());
        // What its texts say only later.
        assert!(words.claim(7, 12, 10).is_none());
        words.put(Said { ns: 14, doing: String::new(), ..said("open() \"%s\" failed", "", 0) }, 0);
        assert!(words.claim(7, 14, 10).is_none());
        assert_eq!(words.overdue(12 + PATIENCE_NS).len(), 1);
        assert_eq!(words.next_deadline(), Some(12 + PATIENCE_NS));
    }
}
