//! What is done when a process of nginx's begins to run, or is told to read its configuration again.

use super::Source;

impl Source {
    /// A process of ours has begun to run, or is told to read its configuration again.
    pub(super) fn begins(&mut self, pid: u32) {
        self.audible.forget(pid);
        // A daemon leaves its work to a child, and ends.
        if !self.hears(pid) {
            for pid in self.hearing.running() {
                self.hears(pid);
            }
        }
        self.unix.begins(pid, &mut self.configurations);
        self.access_logs.begins(pid, &mut self.configurations);
    }

    /// Hears what this process says from now on, if it is to be heard. Returns whether it was there still.
    fn hears(&mut self, pid: u32) -> bool {
        let hears = self.tracer.hear(pid);
        if hears == Some(true) && self.is_verbose {
            crate::notice!("what nginx {pid} says of its upstreams is heard from now on");
        }
        hears.is_some()
    }
}
