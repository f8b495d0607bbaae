//! What clears a namespace when its test can no longer do so.
//!
//! A shell that holds the namespace and waits for the end of its standard input, which comes when the test
//! process is gone, even by SIGKILL. It then kills what still runs in the namespace (daemons' workers outlive
//! their master) and removes the scratch folder.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::process::{self, Process};

const SCRIPT: &str = r#"
read -r _
for round in 1 2 3 4 5; do
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/net")" = "$1" ] && kill -KILL "${process#/proc/}"
    done
done
rm -rf -- "$2"
"#;

/// Starts the watchdog of the namespace `net`, called `identity` in /proc; it lives until it is dropped, or
/// until this process is gone and its work is done.
pub(crate) fn start(net: File, identity: &Path, scratch: &Path) -> Result<Process> {
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(SCRIPT).arg("rig-watchdog").arg(identity).arg(scratch);
    // Its standard output is the namespace, only to hold it: no other can then get the same identity
    // meanwhile.
    command.stdin(Stdio::piped()).stdout(net).stderr(Stdio::null());
    process::detach(&mut command);
    Process::start(command).context("the watchdog of a namespace")
}
