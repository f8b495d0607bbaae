//! The client of an exchange, and what it had to do with nginx's closing it.

use std::net::SocketAddr;

use wire::{Action, FAMILY_UNIX, NextAction, nginx_flag, tcp_state};

use super::{
    Exchange, Next,
    next_act::{Left, is_same_turn},
};
use crate::model::from_wire::address;

/// What nginx did to the client's socket after it had closed the exchange, in the same turn of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It closed it, after it had sent so many bytes.
    Closed(u32),
    /// It ended its own side of it and kept it, to read what may still come.
    ShutDown,
    /// It sent so many bytes, and kept it.
    Answered(u32),
    /// Nothing, as far as is seen.
    Nothing,
}

impl Exchange {
    /// Whether the client's socket is known, and was there as nginx closed the exchange.
    pub(super) fn knows_client(&self) -> bool {
        self.nginx.client.state != 0
    }

    /// The client's address, where it is known and not a unix socket's.
    pub fn client(&self) -> Option<SocketAddr> {
        let peer = &self.nginx.client.peer;
        (self.knows_client() && peer.family != FAMILY_UNIX).then(|| address(peer))
    }

    /// Whether both served one client's connection, as far as that is known.
    pub(super) fn has_client_of(&self, other: &Exchange) -> bool {
        let (client, others) = (&self.nginx.client, &other.nginx.client);
        self.knows_client()
            && other.knows_client()
            && client.sock == others.sock
            && (client.peer.port, client.peer.addr) == (others.peer.port, others.peer.addr)
    }

    /// Whether the client was still connected when nginx closed the exchange.
    pub fn client_is_there(&self) -> bool {
        self.nginx.client.state == tcp_state::ESTABLISHED && !self.next_is_of_another_client()
    }

    /// How the client had left when nginx closed the exchange, if it had, and if that may be why.
    pub fn client_had_left(&self) -> Option<Left> {
        if self.word().is_some() {
            return None;
        }
        let state = self.nginx.client.state;
        let is_gone = matches!(state, tcp_state::CLOSE | tcp_state::CLOSE_WAIT);
        let is_unanswered = !self.may_have_been_answered();
        if is_gone && (is_unanswered || !self.was_kept_idle() && self.fate_of_client() == Fate::Closed(0)) {
            return Some(Left { by_reset: state == tcp_state::CLOSE, is_seen: true });
        }
        let is_unknown = state == 0 || self.next_is_of_another_client();
        // Where nothing was to be heard and all of a response may have come, the connection may have been an idle one.
        let may_be_idle = !is_unanswered && (self.is_silent() || self.was_kept_idle());
        if is_unknown && !may_be_idle { self.next_client_had_left() } else { None }
    }

    /// Whether nginx closed it over what the client had just sent: that is what its thread had read last, and the client is still there. A
    /// request that is cancelled on a connection with others is such.
    pub fn client_had_it_closed(&self) -> bool {
        self.has(nginx_flag::CLIENT_READ) && self.client_is_there()
    }

    /// Whether a timer, or an event that gave nginx nothing to read of this exchange or its client, had it closed, with the client still
    /// there and nginx turning to it next.
    pub fn was_timed_with_client(&self) -> bool {
        (self.has(nginx_flag::NOTHING_READ) || self.has(nginx_flag::OTHER_READ))
            && self.client_is_there()
            && self.fate_of_client() != Fate::Nothing
    }

    /// Whether nginx answered the client next, and closed its connection: what it does with a request that it refuses, unless that is one of
    /// several on a connection.
    pub fn client_was_refused(&self) -> bool {
        match self.fate_of_client() {
            Fate::Closed(answered) => answered > 0,
            // It does so with what it ends properly, after what it has sent.
            Fate::ShutDown => true,
            Fate::Answered(_) | Fate::Nothing => false,
        }
    }

    /// Whether nginx closed the client's connection next without an answer.
    pub fn client_was_closed(&self) -> bool {
        self.fate_of_client() == Fate::Closed(0)
    }

    /// Whether nginx answered the client at once, and kept its connection, which has others: it may have refused this one of them, or dealt
    /// with another in the same moment.
    pub fn client_was_answered(&self) -> bool {
        matches!(self.fate_of_client(), Fate::Answered(_))
    }

    /// Whether nginx next sent the client the reset of a stream of HTTP/2 and nothing else, by its number of bytes (`RST_STREAM`, RFC 9113, 6.4).
    /// Its window updates are as long, and nginx sends them for what it reads of bodies.
    pub fn client_was_sent_a_reset(&self) -> bool {
        const RESET: u32 = 13;
        /// What TLS adds to a record: nothing without it; in 1.3; in 1.2 with AES in GCM, and with ChaCha20.
        const ADDED: [u32; 4] = [0, 22, 29, 21];
        matches!(self.fate_of_client(), Fate::Answered(bytes) if ADDED.contains(&bytes.wrapping_sub(RESET)))
    }

    /// Whether the client's connection was over for nginx, though the client had not left as far as its socket shows.
    pub fn client_was_given_up(&self) -> bool {
        self.has(nginx_flag::CLIENT_ENDED) && self.client_is_there()
    }

    /// Whether an act was for the client, in the turn in which nginx closed the exchange.
    pub(super) fn is_same_turn_for_client(&self, what: &NextAction) -> bool {
        what.other_sock == self.nginx.client.sock && is_same_turn(what)
    }

    /// Whether nginx had, or may have had, all of the response.
    pub fn may_have_been_answered(&self) -> bool {
        self.has(nginx_flag::READ_LAST) && self.nginx.unread == 0
    }

    /// Whether it was a connection that nginx keeps for later, all of whose response had come: nginx closes them with those of its clients
    /// when it is told to quit, and an idle server follows at once.
    fn was_kept_idle(&self) -> bool {
        self.has(nginx_flag::SHUTTING_DOWN) || self.nginx.exchange > 1 && self.worker_closed_in_turn()
    }

    fn fate_of_client(&self) -> Fate {
        match self.next_action {
            Next::Seen { action, what }
                if what.other_sock == self.nginx.client.sock
                    && (is_same_turn(&what)
                        || action == Action::Closed && what.bytes > 0
                        // With it, nginx ends all exchanges for its client, and may read what is left of their responses.
                        || self.has(nginx_flag::CLIENT_ENDED)) =>
            {
                match action {
                    // Before it answers, it reads what is left of the request; once it has, it reads nothing before it closes.
                    Action::Closed => Fate::Closed(what.bytes),
                    Action::ShutDown => Fate::ShutDown,
                    Action::Sent => Fate::Answered(what.bytes),
                    Action::Connected => Fate::Nothing,
                }
            }
            _ => Fate::Nothing,
        }
    }

    /// Whether nginx next closed a client's socket that is not the one that was taken for this exchange's: then that was wrong.
    fn next_is_of_another_client(&self) -> bool {
        self.next_client_had_left().is_some()
            && matches!(self.next_action, Next::Seen { what, .. } if what.other_sock != self.nginx.client.sock)
    }
}
