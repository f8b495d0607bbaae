//! All the sinks of a run.

use std::io;

use super::Sink;
use crate::{
    model::{failure::Failure, verdict::Summary},
    terminal,
};

/// All the sinks of a run. One whose reader has gone takes no more; the others do, until the run has ended.
#[derive(Default)]
pub struct Sinks {
    open: Vec<Box<dyn Sink>>,
    /// The reader of one has gone: `| head` has what it wanted.
    is_closed: bool,
}

impl Sinks {
    /// Adds one.
    pub fn add(&mut self, sink: impl Sink + 'static) {
        self.add_boxed(Box::new(sink));
    }

    /// Adds one that may be of any kind.
    pub fn add_boxed(&mut self, sink: Box<dyn Sink>) {
        self.open.push(sink);
    }

    /// Whether somebody has what he wanted, so that the run is over.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Hands something to each of them.
    ///
    /// # Errors
    /// Of the first that cannot take it, for any other reason than that its reader has gone.
    pub fn each(&mut self, mut hand: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> Result<(), Failure> {
        let mut result = Ok(());
        self.open.retain_mut(|sink| match terminal::written(hand(sink.as_mut())) {
            Err(Failure::Closed) => {
                self.is_closed = true;
                false
            }
            written => {
                if result.is_ok() {
                    result = written;
                }
                true
            }
        });
        result
    }

    /// When one of them is to be flushed at the latest (ns, monotonic).
    pub fn wake_ns(&self) -> Option<u64> {
        self.open.iter().flat_map(|sink| [sink.wake_ns(), sink.sums_ns()]).flatten().min()
    }

    /// Hands what the run amounts to so far to those for which it is time.
    ///
    /// # Errors
    /// As [`Sinks::each`].
    pub fn so_far(&mut self, now_ns: u64, sums: impl FnOnce() -> Summary) -> Result<(), Failure> {
        let is_time = |sink: &dyn Sink| sink.sums_ns().is_some_and(|ns| ns <= now_ns);
        if !self.open.iter().any(|sink| is_time(sink.as_ref())) {
            return Ok(());
        }
        let sums = sums();
        self.each(|sink| if is_time(sink) { sink.so_far(&sums) } else { Ok(()) })
    }

    /// Whether SIGUSR1 is a demand to one of them.
    pub fn takes_demands(&self) -> bool {
        self.open.iter().any(|sink| sink.takes_demands())
    }

    /// The user demands something by SIGUSR1.
    pub fn demand(&mut self) {
        self.open.iter_mut().for_each(|sink| sink.demand());
    }

    /// Whether SIGHUP asks one of them to read its configuration again.
    pub fn takes_reloads(&self) -> bool {
        self.open.iter().any(|sink| sink.takes_reloads())
    }

    /// The user has changed the configuration.
    pub fn reload(&mut self) {
        self.open.iter_mut().for_each(|sink| sink.reload());
    }

    /// Ends each of them, also where one cannot take the summary.
    ///
    /// # Errors
    /// Of the first that cannot.
    pub fn end(mut self, summary: &Summary) -> Result<(), Failure> {
        let written = self.each(|sink| sink.summary(summary)).and_then(|()| self.each(|sink| sink.flush()));
        self.open.into_iter().map(|sink| sink.end(summary)).fold(written, Result::and)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::ErrorKind, rc::Rc};

    use super::*;

    /// One that refuses summaries, and counts how often it was ended.
    struct Refuses(ErrorKind, Rc<Cell<u32>>);

    impl Sink for Refuses {
        fn summary(&mut self, _: &Summary) -> io::Result<()> {
            Err(self.0.into())
        }

        fn end(self: Box<Self>, _: &Summary) -> Result<(), Failure> {
            self.1.set(self.1.get() + 1);
            Ok(())
        }
    }

    fn ended(kinds: &[ErrorKind]) -> (Result<(), Failure>, u32) {
        let ended = Rc::default();
        let mut sinks = Sinks::default();
        for kind in kinds {
            sinks.add(Refuses(*kind, Rc::clone(&ended)));
        }
        (sinks.end(&Summary::default()), ended.get())
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_an_error_keeps_no_other_from_its_end() {
        assert!(matches!(ended(&[ErrorKind::BrokenPipe]), (Ok(()), 0)));
        assert!(matches!(ended(&[ErrorKind::StorageFull, ErrorKind::BrokenPipe]), (Err(Failure::Run(_)), 1)));
    }
}
