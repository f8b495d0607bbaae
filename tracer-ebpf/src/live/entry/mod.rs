//! Where the entries of open exchanges are, and how each end of a connection finds its own.

pub mod handshake;
pub mod joined;
pub mod share;
pub mod unix_path;
