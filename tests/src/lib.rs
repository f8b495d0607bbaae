//! Real nginx and real php-fpm in a network namespace of their own, broken on purpose.
//!
//! A [`Namespace`] owns everything: the network, a scratch folder and every process started in it. When its
//! last clone is dropped, or the test process dies in whatever way, all of it goes. An [`Fpm`] and an
//! [`Nginx`] are started in it, a [`Client`] makes requests, and a [`Tracer`] is `why502 live` watching from
//! outside.
//!
//! Nothing here sleeps for an effect to come about: see [`wait`].

// What everything stands on.
pub mod interrupt;
pub mod lines;
pub mod process;
pub mod terminal;
pub mod tmux;
pub mod wait;

// The machine: a network, what crosses it, and what its kernel counts.
pub mod control_group;
pub mod drops;
pub mod endpoint;
pub mod freezer;
pub mod function;
pub mod link;
pub mod listener;
pub mod memory;
pub mod namespace;
pub mod queue;
mod watchdog;

// The two ends of an exchange, and who asks for one.
pub mod client;
pub mod confinement;
pub mod crowd;
pub mod fpm;
pub mod nginx;
pub mod web_socket;

// Whom a worker waits on.
pub mod database;

// Upstreams that misbehave as php-fpm cannot, and those that people run.
pub mod application;
pub mod faulty;
pub mod faulty_site;
pub mod incident;
pub mod refusing;
pub mod remote;
pub mod resolver;
pub mod tls;

// Local users who mean harm.
pub mod attacker;
pub mod hostile;

// What nginx says happened.
pub mod access_log;
pub mod error_log;

// What why502 says happened, and whether the two agree.
pub mod backlog;
pub mod browser;
pub mod clickhouse;
pub mod collector;
pub mod duckdb;
pub mod golden;
pub mod log_daemons;
pub mod programs;
pub mod reconcile;
pub mod recorder;
pub mod replay;
pub mod service;
pub mod sight;
pub mod tracer;
pub mod verdict;

// What why502 does meanwhile.
pub mod conduct;
pub mod strace;

pub use application::{Application, Server};
pub use attacker::{Attacker, Walls};
pub use backlog::Backlog;
pub use client::Client;
pub use collector::Collector;
pub use confinement::Confinement;
pub use crowd::Crowd;
pub use database::Database;
pub use endpoint::Endpoint;
pub use faulty::{Fault, FaultyServer};
pub use faulty_site::{By, FaultySite};
pub use fpm::Fpm;
pub use hostile::HostileLogger;
pub use namespace::Namespace;
pub use nginx::{Location, Nginx};
pub use programs::Programs;
pub use remote::{Remote, Temper};
pub use resolver::{Help, Resolver};
pub use sight::{Sight, When};
pub use tls::Certificate;
pub use tracer::Tracer;
pub use verdict::Verdict;
