//! nginx's own word: what it is about to write to its error log about an upstream.
//!
//! nginx says so before it closes the upstream's connection, in the very turn of its loop that closes it. So the next connection of ours
//! that the thread closes, and that had begun by then, is the one that the word is about; what the network had ended before is
//! closed after the word, too. What never became a connection has no such close, and its words wait for none. Where nginx complains and
//! goes on, the connection is the one that the thread has read from last.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use wire::{
    ACTION_LEN, Beginning, Endpoint, FAMILY_UNIX, Header, Kind, MESSAGE_LEN, NginxEnd, PATH_LEN, Task, Word,
    WordOf, characters as word, nginx_flag,
};

use crate::{
    kernel::{
        memory,
        put::put,
        read::{filter, layout, read},
        task,
    },
    live::{
        entry::unix_path,
        explain::{
            doing, last_read,
            nginx_memory::{read_characters, read_text, user_word, user_words},
        },
        maps::{self, EXCHANGES, LESS, RING, SPOKEN, change, count},
        scope,
    },
};

/// When a thread said the word whose connection it is about to close (ns, monotonic).
#[map]
static SAID: HashMap<u32, u64> = HashMap::with_max_entries(1_024, 0);

/// How many calls of each process were turned away: userspace looks at it when there are many.
#[map]
static FOREIGN: LruHashMap<u32, u64> = LruHashMap::with_max_entries(1_024, 0);

/// A call that is of no interest: what it costs nginx, it has cost.
#[inline(always)]
pub fn turn_away() {
    count!(foreign_words, 1);
    let process = task::process();
    match FOREIGN.get_ptr_mut(process) {
        // SAFETY: preallocated map memory; of one that was pushed out meanwhile, another counts one more.
        Some(count) => unsafe { memory::add(count, 1) },
        None => {
            // What finds no room pushes out who wrote nothing for longest.
            let _refused = FOREIGN.insert(process, 1, 0);
        }
    }
}

/// `NGX_LOG_ERR`, src/core/ngx_log.h: more important levels have smaller numbers, from 1 on.
pub const ERROR: u64 = 4;

/// In a `ngx_log_t` (src/core/ngx_log.h): the connection's number, and what is being done.
const LOG_CONNECTION: u64 = 16;
pub const LOG_ACTION: u64 = 64;

/// What most of what nginx says of upstreams begins with.
pub const UPSTREAM: u64 = word(b"upstream");

/// The characters at a place of a text.
#[inline(always)]
fn at<const LEN: usize>(text: &[u8; LEN], place: usize) -> u64 {
    // SAFETY: within the text, which is longer than each place that is asked for; it need not be aligned.
    unsafe { text.as_ptr().add(place).cast::<u64>().read_unaligned() }
}

/// Marks the moment of a word about a connection that a module made for itself: it is about no other.
const OF_MODULE: u64 = 1 << 63;

/// How a text begins.
#[inline(always)]
fn beginning<const LEN: usize>(text: &[u8; LEN]) -> Beginning {
    Beginning(at(text, 0), at(text, 8))
}

/// Whether a call is surely about no upstream: the beginnings of both its texts can be read, and none is of one. Nothing else is done with
/// most lines of a flood.
#[inline(always)]
pub fn is_surely_foreign(log: u64, format: u64) -> bool {
    let Some([first, second]) = user_words(format) else { return false };
    let Some([action]) = user_words(log.wrapping_add(LOG_ACTION)) else { return false };
    let doing = if action == 0 { Some([0; 2]) } else { user_words(action) };
    let is_with_upstream = doing.is_none_or(|[first, second]| Beginning(first, second).is_with_upstream());
    !is_with_upstream && !Beginning(first, second).is_of_upstream()
}

/// Where the name or the reason among a message's arguments is. Of the arguments, only these are read, and numbers: nothing of requests or
/// responses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// There is none.
    None,
    /// An `ngx_str_t` is the first argument: its length, then where its characters are.
    String,
    /// A number, then a text that a zero closes.
    Text,
    /// A length, then as many characters: the whole text of `ngx_ssl_error`.
    Characters,
}

#[inline(always)]
fn subject_of(message: &[u8; MESSAGE_LEN]) -> Subject {
    let begins = at(message, 0);
    let is_certificate = begins == word(b"upstream") && at(message, 8) == word(b" SSL cer");
    if is_certificate && at(message, 24) == word(b" verify ") {
        Subject::Text
    } else if is_certificate
        || begins == word(b"%V could")
        || begins == word(b"no resol")
        || begins == word(b"bind(%V)")
        || begins == word(b"connect(") && at(message, 8) == word(b") to %V ")
    {
        Subject::String
    } else if begins & 0xffff_ffff == word(b"%*s\0\0\0\0\0") & 0xffff_ffff {
        Subject::Characters
    } else {
        Subject::None
    }
}

/// nginx calls `ngx_log_error_core(level, log, errno, format, first, second)`.
///
/// Its texts may lie where the worker itself has never looked, and then nobody can read them here: userspace does, a moment later, and
/// finds out whether this is about an upstream at all.
#[inline(always)]
pub fn said(level: u64, log: u64, errno: u32, format: u64, first: u64, second: u64) {
    if level == 0 {
        return;
    }
    let mut texts = MaybeUninit::<Texts>::zeroed();
    let doing = user_word(log.wrapping_add(LOG_ACTION));
    // SAFETY: made of zeroes.
    let texts = unsafe { texts.assume_init_mut() };
    if doing != 0 && !read_text(&raw mut texts.action, doing) {
        texts.unread_action = doing;
    }
    if !read_text(&raw mut texts.message, format) {
        texts.unread_message = format;
    }
    let is_unread = texts.unread_action | texts.unread_message != 0;
    let begins = beginning(&texts.message);
    if !beginning(&texts.action).is_with_upstream() && !begins.is_of_upstream() {
        turn_away();
        if !is_unread {
            return;
        }
    }
    let task = task::current();
    if !scope::is_our_task(&task) {
        return;
    }
    // SAFETY: the helper takes nothing.
    let ns = unsafe { bpf_ktime_get_ns() };
    let is_of_no_connection = begins.is_of_no_connection();
    // What it has read from just now, and goes on with.
    let may_be_note = begins.is_note() || texts.unread_message != 0;
    let read = if begins.is_passed_on() || may_be_note { read_last() } else { None };
    let mut upstream = Endpoint::default();
    let mut path_of = 0;
    let mut is_placed = false;
    if let Some((sk, nginx)) = read {
        if may_be_note {
            upstream = nginx.upstream;
            path_of = if upstream.family == FAMILY_UNIX { sk } else { 0 };
        } else {
            nginx.word_ns = ns;
            is_placed = true;
        }
    }
    if !is_placed && !is_of_no_connection {
        let thread = task::thread();
        // SAFETY: only tested for presence.
        let is_new = unsafe { SAID.get(thread) }.is_none();
        // Where there is no room, it is emitted and joined to nothing: the exchange must not pass for one of which nothing was said.
        let moment = if begins.is_of_module() { ns | OF_MODULE } else { ns };
        if put!(SAID, thread, moment, lost) && is_new {
            change(&SPOKEN, 1);
        }
    }
    let said = Said { ns, level, log, errno, first, second, upstream, path_of };
    let subject = subject_of(&texts.message);
    if subject == Subject::None && !is_of_no_connection && !is_unread {
        said.send(&task, texts);
    } else {
        said.send_of(&task, texts, subject);
    }
}

/// The message and what is being done, as far as they could be read.
#[repr(C)]
struct Texts {
    message: [u8; MESSAGE_LEN],
    action: [u8; ACTION_LEN],
    /// Where they are that could not be read; else zero.
    unread_message: u64,
    unread_action: u64,
}

/// What was said, as nginx gave it.
struct Said {
    ns: u64,
    level: u64,
    log: u64,
    errno: u32,
    first: u64,
    second: u64,
    /// Whom a note is of, if it is one.
    upstream: Endpoint,
    /// The socket of ours whose path that is, or zero.
    path_of: u64,
}

impl Said {
    #[inline(always)]
    fn send(&self, task: &Task, texts: &Texts) {
        let Some(mut entry) = RING.reserve::<Word>(0) else {
            count!(lost, 1);
            return;
        };
        let record = entry.as_mut_ptr();
        // SAFETY: the entry is exactly one record; all of it is cleared first.
        let record = unsafe {
            memory::clear(record);
            &mut *record
        };
        self.write(record, task, texts);
        record.header = Header { kind: Kind::Word as u32, len: size_of::<Word>() as u32 };
        record.number = self.first as i64;
        entry.submit(0);
    }

    #[inline(always)]
    fn send_of(&self, task: &Task, texts: &Texts, subject: Subject) {
        let Some(mut entry) = RING.reserve::<WordOf>(0) else {
            count!(lost, 1);
            return;
        };
        let record = entry.as_mut_ptr();
        // SAFETY: the entry is exactly one record; all of it is cleared first.
        let record = unsafe {
            memory::clear(record);
            &mut *record
        };
        self.write(&mut record.word, task, texts);
        record.word.header = Header { kind: Kind::WordOf as u32, len: size_of::<WordOf>() as u32 };
        record.comm = task.comm;
        record.unread_message = texts.unread_message;
        record.unread_action = texts.unread_action;
        record.upstream = self.upstream;
        record.is_of_session = u32::from(doing::is_of_session(self.log));
        let to = &raw mut record.subject;
        match subject {
            Subject::None => record.word.number = self.first as i64,
            Subject::String => {
                read_characters(to, user_word(self.first.wrapping_add(8)), user_word(self.first));
                record.word.number = i64::from(self.second as i32);
            }
            Subject::Text => {
                let _refused = read_text(to, self.second);
                record.word.number = self.first as i64;
            }
            Subject::Characters => read_characters(to, self.second, self.first),
        }
        if self.path_of != 0
            && let Some(exchange) = EXCHANGES.get_ptr(self.path_of)
            // SAFETY: preallocated map memory.
            && let Some(path) = unix_path::of(unsafe { (*exchange).path })
        {
            // SAFETY: map memory; the subject has room for a path, and both are bytes.
            unsafe { memory::fill(to.cast::<[u8; PATH_LEN]>(), path) };
        }
        entry.submit(0);
    }

    #[inline(always)]
    fn write(&self, record: &mut Word, task: &Task, texts: &Texts) {
        record.ns = self.ns;
        record.connection = user_word(self.log.wrapping_add(LOG_CONNECTION));
        (record.tgid, record.tid) = (task.tgid, task.tid);
        (record.level, record.errno) = (self.level as u32, self.errno);
        (record.message, record.action) = (texts.message, texts.action);
    }
}

/// Whether the running process calls itself an nginx worker that is shutting down: "nginx: worker process is shutting down"
/// (`ngx_setproctitle`, src/os/unix/ngx_setproctitle.c) stands where its arguments were.
#[inline(always)]
pub fn is_shutting_down() -> bool {
    if filter!(reads_nginx) == 0 {
        return false;
    }
    let memory: u64 = read(task::current_task(), layout!(task_mm));
    let title: u64 = read(memory, layout!(mm_arg_start));
    user_word(title) == word(b"nginx: w") && user_word(title.wrapping_add(25)) == word(b"shutting")
}

/// Whether any word waits for its connection's close: false nearly always.
#[inline(always)]
pub fn is_any() -> bool {
    maps::is_any(&SPOKEN)
}

/// Whether the running thread has said a word, and has yet to close the connection that it is about. A module may go on with its own.
#[inline(always)]
pub fn is_said() -> bool {
    // SAFETY: copied out at once.
    is_any() && unsafe { SAID.get(task::thread()) }.is_some_and(|ns| *ns & OF_MODULE == 0)
}

/// The running thread closes a connection that began at `began_ns`, from which it read last at `read_ns`, and that a module made for itself or
/// not: when it said the word that is about it, or zero. What nginx complains of it reads no more: a word from before is about another, whose
/// close was put off.
#[inline(always)]
pub fn of_close(began_ns: u64, read_ns: u64, is_of_module: bool) -> u64 {
    if !is_any() {
        return 0;
    }
    let thread = task::thread();
    // SAFETY: copied out at once.
    let Some(moment) = (unsafe { SAID.get(thread) }).copied() else { return 0 };
    let ns = moment & !OF_MODULE;
    if ns < began_ns || ns < read_ns || (moment != ns) != is_of_module {
        return 0;
    }
    if SAID.remove(thread).is_ok() {
        change(&SPOKEN, LESS);
    }
    ns
}

/// The thread closes or begins something else: what it said last was about a connection that is not watched, or it ends and closes
/// nothing any more.
#[inline(always)]
pub fn forget() {
    if is_any() && SAID.remove(task::thread()).is_ok() {
        change(&SPOKEN, LESS);
    }
}

/// The end of ours that the running thread has read from last, if it has read from nothing else since.
#[inline(always)]
fn read_last<'a>() -> Option<(u64, &'a mut NginxEnd)> {
    let sock = last_read::sock();
    let exchange = EXCHANGES.get_ptr_mut(sock)?;
    // SAFETY: preallocated map memory.
    let nginx = unsafe { &mut (*exchange).nginx };
    let is_its = nginx.nginx.tid == task::thread() && nginx.flags & nginx_flag::READ_LAST != 0;
    is_its.then_some((sock, nginx))
}
