//! Both ends of an exchange, from connect to its end.
//!
//! An exchange is one entry by nginx's socket, in which the worker's end of its connection is kept, too ([`super::entry`]). Over TCP and over
//! unix sockets ([`super::transport`]) it is the same machine:
//!
//! ```text
//!     nginx connects                            transport::tcp::begin::connects, transport::connect::begin
//!           |
//!           v
//!      connecting ------------------------------------------------------+
//!           |  the handshake is over, on nginx's side                    |  no listener, no answer, ICMP
//!           |  (a unix socket has both ends at once)                     |
//!           v                                                            |
//!      connected -----------------------------------------+             |
//!           |  the worker's end appears (worker_end::begins)             |  nginx closes, or its process ends,
//!           v                                              |             |  or a reset or a timeout comes
//!       joined --------------------------------------------+             |
//!           |  a process accepts or reads (taken.rs)       |             |
//!           v                                              |             |
//!      under way ------------------------------------------+             |
//!        |     ^                                           |             |
//!        |     |  nginx sends after it has read: the       |             |
//!        +-----+  next exchange on this connection         |             |
//!                 (nginx_end::sends)                       v             v
//!                                                     ending.rs says how it ended
//!                                                          |
//!              +----------------------+--------------------+------------------+
//!              v                      v                                       v
//!      Ending::Broken           Ending::Well                      Ending::Failed, Ending::Late
//!      the network ended it;    the entry goes                    what the kernel keeps is read, it is
//!      once nginx closes it,                                      emitted (emit.rs), what nginx does next
//!      well or failed                                             is awaited (fallback.rs), and the
//!                                                                 entry goes
//! ```
//!
//! A worker's end that outlives nginx's stands for itself from then on (`worker_end::outlives`, abandoned.rs), and how it ends is emitted
//! later. One whose nginx is on another host never had an exchange (served.rs).

pub mod abandoned;
pub mod ending;
pub mod nginx_end;
pub mod served;
pub mod taken;
pub mod worker_end;
