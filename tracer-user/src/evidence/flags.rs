//! What else is known of nginx's end: flags by name.

use serde::{Deserialize, Serialize};
use wire::nginx_flag;

use super::codec::{Bad, Base, Codec, Context};

/// What else is known of nginx's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// A reset arrived.
    ResetReceived,
    /// The accept queue was full at each look taken while the SYN was unanswered.
    QueueFullAtConnect,
    /// The process that closed this end was exiting.
    CloserExiting,
    /// The exchange succeeded; its connection was slow to come about.
    EndedWell,
    /// What nginx does next is told in a line of its own.
    AftermathFollows,
    /// The last thing that happened was bytes read.
    ReadLast,
    /// The worker's socket had been handed to a process.
    WorkerAccepted,
    /// The worker's end was still open.
    WorkerOpen,
    /// The peer's close was read.
    EndRead,
    /// nginx peeked at the connection, which it keeps for later.
    Peeked,
    /// nginx still wanted to send.
    SendBlocked,
    /// The SYN queue was full at each look taken while the SYN was unanswered.
    SynQueueFullAtConnect,
    /// Each reset that this host's TCP sent was seen.
    OwnResetsSeen,
    /// The upstream's listener may have been among those that found no room.
    ListenerLeftOut,
    /// Something of this exchange was lost.
    FactsLost,
    /// nginx's word on this exchange would have been heard, had there been one.
    WordAudible,
    /// The connection had been upgraded.
    Upgraded,
    /// The connection was made for a session of `stream {}`.
    Stream,
    /// A module of nginx's made the connection for itself.
    OfModule,
    /// What nginx was given last came from this end.
    UpstreamRead,
    /// It came from the client.
    ClientRead,
    /// It came from neither.
    OtherRead,
    /// nginx had slept since: a timer woke it, or an event that gave it nothing to read.
    NothingRead,
    /// The client's socket had no room for what nginx wanted to send.
    ClientBlocked,
    /// The nginx worker was shutting down.
    ShuttingDown,
    RequestUnderWay,
    /// To nginx, the client's connection was over.
    ClientEnded,
    /// Whether it was, and whether a timer had gone off, nginx's memory did not tell.
    ClientUntold,
    /// nginx had closed another exchange right before.
    SameTurn,
    /// No timer of nginx's had gone off.
    Untimed,
    /// nginx's timer for the request's body had gone off.
    BodyTimed,
    /// Another process held this end's file when nginx closed it.
    ClosedLate,
}

const FLAGS: [(u32, Flag); 32] = [
    (nginx_flag::RESET_RECEIVED, Flag::ResetReceived),
    (nginx_flag::QUEUE_FULL_AT_CONNECT, Flag::QueueFullAtConnect),
    (nginx_flag::CLOSER_EXITING, Flag::CloserExiting),
    (nginx_flag::ENDED_WELL, Flag::EndedWell),
    (nginx_flag::NEXT_ACTION_FOLLOWS, Flag::AftermathFollows),
    (nginx_flag::READ_LAST, Flag::ReadLast),
    (nginx_flag::WORKER_ACCEPTED, Flag::WorkerAccepted),
    (nginx_flag::WORKER_OPEN, Flag::WorkerOpen),
    (nginx_flag::END_READ, Flag::EndRead),
    (nginx_flag::PEEKED, Flag::Peeked),
    (nginx_flag::SEND_BLOCKED, Flag::SendBlocked),
    (nginx_flag::SYN_QUEUE_FULL_AT_CONNECT, Flag::SynQueueFullAtConnect),
    (nginx_flag::OWN_RESETS_SEEN, Flag::OwnResetsSeen),
    (nginx_flag::LISTENER_LEFT_OUT, Flag::ListenerLeftOut),
    (nginx_flag::FACTS_LOST, Flag::FactsLost),
    (nginx_flag::WORD_AUDIBLE, Flag::WordAudible),
    (nginx_flag::UPGRADED, Flag::Upgraded),
    (nginx_flag::STREAM, Flag::Stream),
    (nginx_flag::OF_MODULE, Flag::OfModule),
    (nginx_flag::UPSTREAM_READ, Flag::UpstreamRead),
    (nginx_flag::CLIENT_READ, Flag::ClientRead),
    (nginx_flag::OTHER_READ, Flag::OtherRead),
    (nginx_flag::NOTHING_READ, Flag::NothingRead),
    (nginx_flag::CLIENT_BLOCKED, Flag::ClientBlocked),
    (nginx_flag::SHUTTING_DOWN, Flag::ShuttingDown),
    (nginx_flag::REQUEST_UNDER_WAY, Flag::RequestUnderWay),
    (nginx_flag::CLIENT_ENDED, Flag::ClientEnded),
    (nginx_flag::CLIENT_UNTOLD, Flag::ClientUntold),
    (nginx_flag::SAME_TURN, Flag::SameTurn),
    (nginx_flag::UNTIMED, Flag::Untimed),
    (nginx_flag::BODY_TIMED, Flag::BodyTimed),
    (nginx_flag::CLOSED_LATE, Flag::ClosedLate),
];

/// [`nginx_flag`] bits by name.
pub(super) struct Flags;

impl Codec<u32> for Flags {
    type Json = Vec<Flag>;

    fn encode(flags: &u32, _: Context<'_>) -> Vec<Flag> {
        FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, flag)| *flag).collect()
    }

    fn decode(json: Vec<Flag>, _: Base) -> Result<u32, Bad> {
        let bit = |flag: &Flag| FLAGS.iter().find(|(_, known)| known == flag).map_or(0, |(bit, _)| *bit);
        Ok(json.iter().map(bit).fold(0, |all, bit| all | bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_name() {
        let all = FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
        assert_eq!(all, nginx_flag::ALL);
    }
}
