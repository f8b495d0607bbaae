//! How TCP and unix sockets carry an exchange: what their hooks see, written down at both ends of it.

pub mod connect;
pub mod receives;
pub mod tcp;
pub mod transfer;
pub mod unix;
pub mod unwatched;
