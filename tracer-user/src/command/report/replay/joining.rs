//! Joins the recordings of nginx's hosts with those of their listeners' hosts, for which all are read once before.

use std::rc::Rc;

use anyhow::Context as _;

use super::{
    Recording,
    part::{Source, again, shown},
};
use crate::{
    command::report::join::{Ends, Join},
    model::{failure::Failure, stream::What},
};

/// Reads everything once, so that the recordings of nginx's hosts can be joined with those of their listeners' hosts.
pub(super) fn join(recordings: &mut [Recording]) -> Result<(), Failure> {
    let mut ends = Ends::default();
    each(recordings, true, |number, what| ends.add(number, what))?;
    if ends.left_out > 0 {
        crate::notice!(
            "there are more worker's ends than fit in memory: the last {} are not joined",
            ends.left_out
        );
    }
    let ends = Rc::new(ends);
    for recording in recordings.iter_mut().filter(|recording| !recording.is_of_listeners()) {
        recording.join = Some(Join::new(Rc::clone(&ends)));
    }
    let mut joins: Vec<_> = recordings.iter_mut().map(|recording| recording.join.take()).collect();
    each(recordings, false, |number, what| {
        if let Some(Some(join)) = joins.get_mut(number) {
            join.learn(what);
        }
    })?;
    for (recording, join) in recordings.iter_mut().zip(joins) {
        recording.join = join;
    }
    Ok(())
}

/// Hands on every entry of the files of listeners, or of the others.
fn each(
    recordings: &[Recording],
    of_listeners: bool,
    mut take: impl FnMut(usize, &What),
) -> Result<(), Failure> {
    let its = recordings.iter().enumerate().filter(|(_, one)| one.is_of_listeners() == of_listeners);
    for (number, part) in its.flat_map(|(number, one)| one.parts.iter().map(move |part| (number, part))) {
        let Source::File(file) = &part.source else {
            return Err(Failure::Run(anyhow::anyhow!(
                "{} can be read only once, and joining hosts takes more: give all of them as files",
                shown(&part.path)
            )));
        };
        let mut reader = again(file).with_context(|| shown(&part.path))?;
        while let Some(entry) = reader.next_entry().with_context(|| shown(&part.path))? {
            take(number, &entry.what);
        }
    }
    Ok(())
}
