//! How TCP and unix sockets carry an exchange.

pub mod connect;
pub mod tcp;
pub mod transfer;
pub mod unix;
pub mod unwatched;
