//! nginx's word: whose is heard, from when on, and whose is left alone.

use super::Tracer;
use crate::{
    load::words::{Binary, binary},
    model::facts::Fact,
};

impl Tracer {
    /// Hears what nginx says, from now on, in the binary that this process runs, if it is one. Why one cannot be heard is reported. Returns
    /// whether it is heard, and was not before; none if the process has ended.
    pub fn hear(&mut self, pid: u32) -> Option<bool> {
        let Some(words) = &mut self.words else { return Some(false) };
        words.hear(&mut self.object, pid, self.believes_all).unwrap_or_else(|why| {
            crate::notice!(
                "what nginx {pid} says of its upstreams is not heard: {why}; what it judges by content is not told"
            );
            Some(false)
        })
    }

    /// Since when what a binary says is heard (ns, monotonic), if it is.
    pub fn heard_since(&self, binary: Binary) -> Option<u64> {
        self.words.as_ref()?.heard_since(binary)
    }

    /// Whether what this process says is heard from now on.
    ///
    /// # Errors
    /// Why it is not.
    pub fn try_hear(&mut self, pid: u32) -> Result<(), String> {
        if let Some(words) = &mut self.words {
            return words.try_hear(&mut self.object, pid, self.believes_all);
        }
        let missing = self.plan.missing.iter().find(|(fact, _)| *fact == Fact::Words);
        Err(missing.map_or_else(String::new, |(_, reason)| reason.clone()))
    }

    /// Whether this kernel lets nginx's word be heard, and it is to be.
    pub fn hears_words(&self) -> bool {
        self.words.is_some()
    }

    /// Whether what nginx says is heard by a program that may not wait for memory: a text that nginx itself had not looked at is then read
    /// only after it was said.
    pub fn reads_words_late(&self) -> bool {
        self.words.as_ref().is_some_and(|words| !words.may_wait)
    }

    /// Whether what this process says is to be known from elsewhere. A binary that nobody believes to be nginx's is none of it.
    pub fn is_unheard(&self, pid: u32) -> bool {
        self.words.as_ref().is_none_or(|words| binary(pid).is_some_and(|binary| words.is_unheard(binary)))
    }

    /// Leaves a binary alone, or hears it again.
    ///
    /// # Errors
    /// Why the kernel refuses.
    pub fn listen(&mut self, binary: Binary, is_heard: bool) -> Result<(), String> {
        match (&mut self.words, is_heard) {
            (Some(words), true) => words.hear_again(&mut self.object, binary),
            (Some(words), false) => words.leave_alone(&mut self.object, binary),
            (None, _) => Ok(()),
        }
    }
}
