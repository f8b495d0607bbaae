//! TCP states by name.

use wire::tcp_state;

use super::codec::{Bad, Base, Codec, Context, bad};

/// A TCP state by its name in `include/net/tcp_states.h`.
pub(super) struct State;

const STATES: [(u8, &str); 9] = [
    (tcp_state::ESTABLISHED, "ESTABLISHED"),
    (tcp_state::SYN_SENT, "SYN_SENT"),
    (tcp_state::SYN_RECV, "SYN_RECV"),
    (tcp_state::FIN_WAIT1, "FIN_WAIT1"),
    (tcp_state::FIN_WAIT2, "FIN_WAIT2"),
    (tcp_state::CLOSE, "CLOSE"),
    (tcp_state::CLOSE_WAIT, "CLOSE_WAIT"),
    (tcp_state::LAST_ACK, "LAST_ACK"),
    (tcp_state::LISTEN, "LISTEN"),
];

impl Codec<u8> for State {
    type Json = Option<String>;

    fn encode(state: &u8, _: Context<'_>) -> Option<String> {
        let name = STATES.iter().find(|(number, _)| number == state).map(|(_, name)| (*name).to_owned());
        (*state != 0).then(|| name.unwrap_or_else(|| state.to_string()))
    }

    fn decode(json: Option<String>, _: Base) -> Result<u8, Bad> {
        let Some(text) = json else { return Ok(0) };
        let number = STATES.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
        number.or_else(|| text.parse().ok()).ok_or_else(|| bad("a state is none of TCP's"))
    }
}

impl Codec<u32> for State {
    type Json = Option<String>;

    fn encode(state: &u32, context: Context<'_>) -> Option<String> {
        <Self as Codec<u8>>::encode(&u8::try_from(*state).unwrap_or(u8::MAX), context)
    }

    fn decode(json: Option<String>, base: Base) -> Result<u32, Bad> {
        <Self as Codec<u8>>::decode(json, base).map(u32::from)
    }
}
