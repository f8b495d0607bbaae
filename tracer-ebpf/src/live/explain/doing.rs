//! What nginx does with a connection, as its log would say after "while", where it says nothing.
//!
//! nginx gives epoll the address of its own object for a connection before it calls connect (`ngx_event_connect_peer`,
//! src/event/ngx_event_connect.c; `ngx_epoll_add_connection`, src/event/modules/ngx_epoll_module.c): the socket's wait queue leads there.
//! The object names the log, and the log what is being done and for whom. Whom it is for bears a mark of nginx's own, and what does not is not
//! believed.

use core::mem::MaybeUninit;

use wire::{MISSING, characters as word, nginx_flag};

use crate::{
    kernel::{
        read::{filter, layout, read},
        task,
    },
    live::explain::nginx_memory::{read_text, user_word, user_words},
};

/// `ngx_connection_t.fd` and `log` (src/core/ngx_connection.h).
const CONNECTION_FD: u64 = 24;
const CONNECTION_LOG: u64 = 80;
/// `ngx_log_t.data` and `action` (src/core/ngx_log.h), with two words between them.
const LOG_DATA: u64 = 40;
const LOG_ACTION: u64 = 64;
/// `ngx_connection_t.read` and `write` (src/core/ngx_connection.h), and of the events that these are, the flags `eof` and `timedout` in the
/// word after the connection (src/event/ngx_event.h).
const CONNECTION_EVENTS: u64 = 8;
const EVENT_EOF: u32 = 1 << 8;
const EVENT_TIMED_OUT: u32 = 1 << 10;
/// The request is the second word of its log's data (`ngx_http_log_ctx_t.request`, src/http/ngx_http_request.h).
const CONTEXT_REQUEST: u64 = 8;
/// `ngx_http_request_t.connection`: the client's, or one that stands for a stream of it and has its descriptor (the same file,
/// `ngx_http_v2_create_stream` in src/http/v2/ngx_http_v2.c).
const REQUEST_CONNECTION: u64 = 8;
/// `ngx_http_request_t.read_event_handler`, `write_event_handler`, `cache` where nginx was built with one, and `upstream` (the same file).
const REQUEST_HANDLERS: u64 = 48;

/// What a request and a session of `stream {}` begin with: `NGX_HTTP_MODULE` and `NGX_STREAM_MODULE`.
const HTTP: u32 = u32::from_le_bytes(*b"HTTP");
const STREAM: u32 = u32::from_le_bytes(*b"STRM");

/// nginx's own object for a connection that it is about to make, in its memory; zero where it is not known.
#[inline(never)]
pub fn connection_of(sk: u64) -> u64 {
    if filter!(reads_nginx) == 0
        || layout!(epoll_entry_wait) == MISSING
        || layout!(epoll_entry_item) == MISSING
        || layout!(epoll_data) == MISSING
    {
        return 0;
    }
    let queue: u64 = read(sk, layout!(sk_wait_queue));
    let waiting = queue.wrapping_add(u64::from(layout!(wait_queue_head)));
    let first: u64 = read(waiting, 0);
    if queue == 0 || first == waiting {
        return 0;
    }
    let item: u64 = read(first.wrapping_sub(u64::from(layout!(epoll_entry_wait))), layout!(epoll_entry_item));
    // The lowest bit tells this connection from the last one that had this object.
    read::<u64>(item, layout!(epoll_data)) & !1
}

/// For what nginx makes this connection: [`nginx_flag`] bits, none for a request that it passes on, or where that is not known.
#[inline(never)]
pub fn purpose(connection: u64) -> u32 {
    if connection == 0 {
        return 0;
    }
    let log = user_word(connection.wrapping_add(CONNECTION_LOG));
    let [data, _, _, action] = user_words(log.wrapping_add(LOG_DATA)).unwrap_or_default();
    let [mark, request] = user_words(data).unwrap_or_default();
    if mark as u32 == STREAM {
        return nginx_flag::STREAM;
    }
    if user_word(request) as u32 != HTTP {
        return 0;
    }
    let (begins, _) = text(action);
    let is_of_module = action == 0 || begins != 0 && begins != word(b"connecti");
    if is_of_module { nginx_flag::OF_MODULE } else { 0 }
}

/// Whether what nginx logs is about a session of `stream {}`.
#[inline(always)]
pub fn is_of_session(log: u64) -> bool {
    user_word(user_word(log.wrapping_add(LOG_DATA))) as u32 == STREAM
}

/// nginx's socket to the client for whose request it made this connection; zero where that is not known, or was closed before. To be asked
/// in nginx's own time.
#[inline(always)]
pub fn client_of(connection: u64) -> u64 {
    let log = user_word(connection.wrapping_add(CONNECTION_LOG));
    let context = user_word(log.wrapping_add(LOG_DATA));
    let request = user_word(context.wrapping_add(CONTEXT_REQUEST));
    if connection == 0 || user_word(request) as u32 != HTTP {
        return 0;
    }
    let client = user_word(request.wrapping_add(REQUEST_CONNECTION));
    let descriptor = user_word(client.wrapping_add(CONNECTION_FD)) as i32;
    if descriptor < 0 { 0 } else { task::sock_of(descriptor as u64) }
}

/// What nginx knows of the client and of its timers when it closes an exchange: [`nginx_flag::CLIENT_ENDED`], [`nginx_flag::UNTIMED`] or
/// [`nginx_flag::BODY_TIMED`], or [`nginx_flag::CLIENT_UNTOLD`] alone. To be asked in nginx's own time.
///
/// It marks each stream of a connection of HTTP/2 that it gives up as being at its end (`ngx_http_v2_finalize_connection`,
/// src/http/v2/ngx_http_v2.c), and no stream that is cancelled; and each event whose timer goes off (`ngx_event_expire_timers`,
/// src/event/ngx_event_timer.c).
#[inline(never)]
pub fn client_end(connection: u64) -> u32 {
    let log = user_word(connection.wrapping_add(CONNECTION_LOG));
    let context = user_word(log.wrapping_add(LOG_DATA));
    let request = user_word(context.wrapping_add(CONTEXT_REQUEST));
    if connection == 0 || user_word(request) as u32 != HTTP {
        return nginx_flag::CLIENT_UNTOLD;
    }
    let client = user_word(request.wrapping_add(REQUEST_CONNECTION));
    let (Some(of_client), Some(of_upstream)) = (events(client), events(connection)) else {
        return nginx_flag::CLIENT_UNTOLD;
    };
    let mut flags = 0;
    if (of_client[0] | of_client[1]) & EVENT_EOF != 0 {
        flags |= nginx_flag::CLIENT_ENDED;
    }
    if of_client[0] & EVENT_TIMED_OUT != 0 {
        flags |= nginx_flag::BODY_TIMED;
    } else if (of_client[1] | of_upstream[0] | of_upstream[1]) & EVENT_TIMED_OUT == 0 {
        flags |= nginx_flag::UNTIMED;
    }
    flags
}

/// The flags of a connection's events, for reading and for writing; none where they cannot be read, or are not its own.
#[inline(always)]
fn events(connection: u64) -> Option<[u32; 2]> {
    let [reads, writes] = user_words(connection.wrapping_add(CONNECTION_EVENTS))?;
    let [of_reads, when_reading] = user_words(reads)?;
    let [of_writes, when_writing] = user_words(writes)?;
    (of_reads == connection && of_writes == connection).then_some([when_reading as u32, when_writing as u32])
}

/// Whether nginx passes on what it reads from this connection and its client, whatever that is: it was upgraded. So it says; what it has done
/// since for another part of the same request (`mirror`) is said instead.
#[inline(never)]
pub fn is_upgraded(connection: u64) -> bool {
    if connection == 0 {
        return false;
    }
    let log = user_word(connection.wrapping_add(CONNECTION_LOG));
    text(user_word(log.wrapping_add(LOG_ACTION))) == (word(b"proxying"), word(b" upgrade"))
}

/// The same by what nginx calls for this connection and its client: four functions of four lines that stand one after the other in its source,
/// and so in its program (`ngx_http_upstream_upgraded_read_downstream` and the like, src/http/ngx_http_upstream.c): within 48 to 64 bytes in
/// those of Debian. Of what it calls otherwise, two read the response, and are longer than all four.
#[inline(never)]
pub fn has_handlers_of_upgraded(connection: u64) -> bool {
    /// What four such functions take at most, with whatever the compiler puts around them.
    const FOUR: u64 = 128;
    let Some([reads_client, writes_client, reads, writes]) = handlers(connection) else { return false };
    let first = reads_client.min(writes_client).min(reads.min(writes));
    let last = reads_client.max(writes_client).max(reads.max(writes));
    first != 0 && reads_client != writes_client && reads != writes && last - first < FOUR
}

/// Whether nginx still reads the request's body from the client, of an exchange of which no response has come. Once it has all of it, and as
/// long as no response has come, it only looks whether the client is there, by two functions of one line that stand one after the other
/// (`ngx_http_upstream_rd_check_broken_connection` and `ngx_http_upstream_wr_check_broken_connection`, src/http/ngx_http_upstream.c).
#[inline(never)]
pub fn reads_request(connection: u64) -> bool {
    /// What two such functions take at most.
    const TWO: u64 = 64;
    handlers(connection)
        .is_some_and(|[reads_client, writes_client, ..]| reads_client.abs_diff(writes_client) >= TWO)
}

/// What nginx calls when the client can be read from or written to, and this connection; none of another than the one of the request itself,
/// which may have parts (`mirror`), or where that is not known.
#[inline(always)]
fn handlers(connection: u64) -> Option<[u64; 4]> {
    if connection == 0 {
        return None;
    }
    let log = user_word(connection.wrapping_add(CONNECTION_LOG));
    let context = user_word(log.wrapping_add(LOG_DATA));
    let request = user_word(context.wrapping_add(CONTEXT_REQUEST));
    if user_word(request) as u32 != HTTP {
        return None;
    }
    let [reads_client, writes_client, without_cache, with_cache] =
        user_words(request.wrapping_add(REQUEST_HANDLERS))?;
    // `ngx_http_upstream_t` begins with its own two, and with the connection.
    let mut upstream = user_words(with_cache).unwrap_or_default();
    if upstream[2] != connection {
        upstream = user_words(without_cache).unwrap_or_default();
    }
    let [reads, writes, its] = upstream;
    (its == connection).then_some([reads_client, writes_client, reads, writes])
}

/// How a text of nginx's begins; zeroes where it cannot be read.
#[inline(always)]
fn text(from: u64) -> (u64, u64) {
    let mut text = MaybeUninit::<[u64; 3]>::uninit();
    for number in 0..3 {
        // SAFETY: within. Word by word, for the compiler would call a function of its own: before 6.13 the stacks of a chain of calls count
        // together, and there is no room for one more.
        unsafe { text.as_mut_ptr().cast::<u64>().add(number).write_volatile(0) };
    }
    if from != 0 {
        read_text(text.as_mut_ptr().cast::<[u8; 24]>(), from);
    }
    // SAFETY: all of it was written, and any bytes are numbers.
    let [first, second, _] = unsafe { text.assume_init() };
    (first, second)
}
