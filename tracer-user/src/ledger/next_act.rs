//! What nginx did next after it closed an exchange. Where nginx's word cannot be heard, it stands in for that, and what is judged by it is
//! an inference.

use wire::{Action, NextAction, nginx_flag, tcp_state};

use super::{Exchange, Next};
use crate::model::from_wire::address;

/// How a client had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// It had reset its connection.
    pub by_reset: bool,
    /// Its own socket shows it. Else only what nginx did next does.
    pub is_seen: bool,
}

impl Exchange {
    /// Whether nginx closed it long after it had last read from it: the response stalled, or a kept-alive connection was
    /// idle for long enough.
    pub fn may_have_stalled(&self) -> bool {
        self.nginx_closed_first()
            && !self.was_connecting()
            && self.has(nginx_flag::READ_LAST)
            && self.nginx.unread == 0
    }

    /// Whether only the worker's end can tell that from a response that stalled: nginx says nothing that would be heard.
    pub(super) fn depends_on_worker(&self) -> bool {
        self.may_have_stalled() && self.word().is_none() && !self.is_silent()
    }

    /// Whether the worker answered nginx's close by closing within a second, having no more to send and nothing left to read, as an
    /// idle server does.
    pub fn worker_closed_in_turn(&self) -> bool {
        const IN_TURN_NS: u64 = 1_000_000_000;
        self.worker.is_some_and(|worker| {
            let is_in_turn =
                worker.ended_ns > self.nginx.ended_ns && worker.ended_ns - self.nginx.ended_ns < IN_TURN_NS;
            let by_choice = is_in_turn && worker.error == 0 && worker.exiting == 0;
            let had_read_all = if self.path.is_some() {
                worker.unread == 0
            } else {
                worker.old_state == tcp_state::CLOSE_WAIT && worker.new_state == tcp_state::LAST_ACK
            };
            by_choice && had_read_all
        })
    }

    /// Whether nginx stopped waiting: it says so or, where nothing was heard, it went on with another socket in a way that only follows its
    /// own decision: it answered the client or tried the next upstream.
    pub fn nginx_gave_up(&self) -> bool {
        if self.word().is_some() {
            return self.timer_went_off();
        }
        // Before it answers, it reads what is left of the client's own request.
        matches!(self.next_action, Next::Seen { action: Action::Sent | Action::Connected, what }
            if is_same_turn(&what) || what.turned_to == what.other_sock)
    }

    /// How a client had left whose socket nginx closed right after, in the same turn.
    pub(super) fn next_client_had_left(&self) -> Option<Left> {
        let Next::Seen { action: Action::Closed, what } = self.next_action else { return None };
        let by_reset = what.old_state == u32::from(tcp_state::CLOSE);
        (has_peer_left(&what) && is_same_turn(&what)).then_some(Left { by_reset, is_seen: false })
    }

    /// Whether nginx closed a socket right after whose other side was still there, and sent nothing before: the client's, unless it went to
    /// the very upstream.
    pub fn nginx_answered_no_more(&self) -> bool {
        matches!(self.next_action, Next::Seen { action: Action::Closed | Action::ShutDown, what }
            if is_same_turn(&what)
                && what.old_state == u32::from(tcp_state::ESTABLISHED)
                && address(&what.peer) != address(&self.nginx.upstream))
    }

    /// Whether nginx dealt with a client or another upstream in the very turn of its loop in which it closed this exchange: the two
    /// belong together. An idle connection is closed for itself.
    pub fn nginx_acted_at_once(&self) -> bool {
        self.word().is_some() || matches!(self.next_action, Next::Seen { what, .. } if is_same_turn(&what))
    }
}

/// Whether the other side of the socket that nginx acted on had closed or reset it before.
pub(super) fn has_peer_left(next_action: &NextAction) -> bool {
    [tcp_state::CLOSE_WAIT, tcp_state::CLOSE].map(u32::from).contains(&next_action.old_state)
}

/// Whether nginx's thread received from no socket between closing the exchange and this act: a new turn of its loop begins with
/// that, be it a request of the very client that it then answers.
pub(super) fn is_same_turn(next_action: &NextAction) -> bool {
    next_action.turned_to == 0
}
