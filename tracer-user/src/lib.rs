//! why502 names, with proof from the kernel, why an exchange between nginx and an upstream failed.
//!
//! The modules stand in the order in which data flows: the kernel side is loaded, its records are decoded, the ledger
//! joins them into exchanges, each exchange gets its cause, the verdict is held against nginx's own log, and goes out.

// What the program speaks of; it depends on nothing else here.
pub mod model;

// The command line, in these words.
pub mod args;

// What is given up once it is not needed any more.
pub mod confine;

// The kernel side: its layout, its hooks, its maps.
pub mod load;

// What /proc says of nginx, php-fpm and others.
pub mod procfs;

// The event loop, the ring buffer's reader, the account of losses.
pub mod engine;

// Bytes become records.
pub mod decode;

// Records become exchanges; what slow workers do is looked at meanwhile.
pub mod ledger;
pub mod sample;

// Accept queues, by hooks of their own.
pub mod queues;

// The stream as it is saved.
pub mod evidence;

// An exchange gets its cause, and what else is known of it.
pub mod answers;
pub mod cause;
pub mod groups;
pub mod near;
pub mod pressure;

// Verdicts are held against nginx's own log.
pub mod audit;

// What lies behind many failures.
pub mod roots;

// The stream as it comes from the running kernel, and what it comes to.
pub mod pipeline;
pub mod source;

// Where that goes.
pub mod sink;

// Each command puts these together.
pub mod command;

// Used by all of them: files that are made, the memory that is held, what reaches a terminal.
pub mod file;
pub mod memory;
pub mod terminal;
pub mod version;

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;
