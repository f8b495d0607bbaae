//! What is done with a word of nginx's before it is handed on: whether it was asked for, what there is to be looked up about it, and the texts
//! that the kernel side could not read.

use nix::errno::Errno;
use wire::{Beginning, Endpoint, SUBJECT_LEN, WordOf};

use super::Source;
use crate::{
    ledger::Said,
    model::{
        groups::{Configured, Place},
        stream::What,
        upstream::UpstreamFilter,
    },
    procfs::host::text_of,
};

impl Source {
    /// Whether a word may be about an upstream that was asked for. Of what names none, only words about connections that are watched
    /// can be, and those about groups, which may have such servers; others are counted.
    pub(super) fn is_asked_for(&mut self, said: &Said) -> bool {
        if self.wanted.is_empty() || said.is_no_live() {
            return true;
        }
        if let Some(peer) = said.peer() {
            return self.wanted.iter().any(|wanted| wanted.matches(&peer));
        }
        let is_of_watched = !said.is_of_no_connection();
        self.words_left_out += u64::from(!is_of_watched);
        is_of_watched
    }

    /// What there is to be learnt, before a word is taken in.
    pub(super) fn ask(&mut self, said: &Said) -> Option<What> {
        let inquiry = self.inquiries.of_word(said, &mut self.configurations).map(What::Inquiry);
        inquiry.or_else(|| self.ask_groups(said).map(What::Groups))
    }

    /// What the configuration says of the groups of a worker that found no server alive, unless it was asked before.
    fn ask_groups(&mut self, said: &Said) -> Option<Configured> {
        let mut configured = if said.is_no_live() {
            self.groups.ask(said.nginx.pid, &mut self.configurations)?
        } else {
            return None;
        };
        configured.is_narrowed = !self.wanted.is_empty();
        if configured.is_narrowed {
            for server in configured.groups.iter_mut().flat_map(|group| &mut group.servers) {
                server.is_watched = self.wanted.iter().any(|wanted| match (&server.place, wanted) {
                    (Place::At(upstream), _) => wanted.matches(upstream),
                    (Place::Named(port), UpstreamFilter::Port(wanted)) => port == wanted,
                    (Place::Named(port), UpstreamFilter::Address(wanted)) => *port == wanted.port(),
                    (Place::Named(_), UpstreamFilter::Unix(_)) => false,
                });
            }
        }
        Some(configured)
    }
}

/// Reads what the kernel side could not: texts that nginx itself had not looked at before it said them. It has by now.
///
/// # Errors
/// If not all could be read: it stays a word, whose level and errno are known.
pub(super) fn read_texts(word: &mut WordOf) -> Result<(), Errno> {
    let pid = word.word.tgid;
    if word.unread_message != 0 {
        word.word.message = text_of(pid, word.unread_message)?;
        if !Beginning::of(&word.word.message).is_note() {
            (word.upstream, word.subject) = (Endpoint::default(), [0; SUBJECT_LEN]);
        }
    }
    if word.unread_action != 0 {
        word.word.action = text_of(pid, word.unread_action)?;
    }
    Ok(())
}
