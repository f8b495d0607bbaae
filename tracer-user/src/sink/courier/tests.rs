//! What becomes of records with a receiver that takes, refuses, is away, or hangs.

use std::sync::mpsc::{Sender, sync_channel};

use super::*;
use crate::sink::samples;

/// A receiver that does as it is told for each batch, and says how many records that had.
struct Accepting {
    fates: Receiver<Fate>,
    seen: Sender<usize>,
}

impl Carrier for Accepting {
    const BATCH: usize = 2;
    const LINGER: Duration = Duration::ZERO;

    fn carry(&mut self, records: &[Record]) -> Fate {
        self.seen.send(records.len()).unwrap();
        self.fates.recv().unwrap_or(Fate::Later { why: "it hangs up".to_owned(), after: None })
    }
}

fn courier(most: usize) -> (Box<Courier>, std::sync::mpsc::SyncSender<Fate>, Receiver<usize>, Arc<Drops>) {
    let (order, fates) = sync_channel(0);
    let (seen, saw) = channel();
    let drops = Arc::new(Drops::default());
    let courier =
        Courier::start("test", "a test".to_owned(), most, &drops, Accepting { fates, seen }).unwrap();
    (Box::new(courier), order, saw, drops)
}

fn counts(drops: &Drops) -> Vec<u64> {
    drops.counts().map(|(_, count)| count).collect()
}

/// Of the three that are put in, the first goes alone: the thread has it before the others come.
fn three(courier: &mut Courier, saw: &Receiver<usize>) {
    courier.verdict(&samples::killed()).unwrap();
    assert_eq!(saw.recv(), Ok(1));
    for _ in 0..2 {
        courier.verdict(&samples::killed()).unwrap();
    }
}

#[test]
fn what_is_taken_is_taken_once_in_batches() {
    let (mut courier, order, saw, drops) = courier(10);
    three(&mut courier, &saw);
    order.send(Fate::Taken { but: 0 }).unwrap();
    order.send(Fate::Taken { but: 1 }).unwrap();
    assert_eq!(saw.recv(), Ok(2));
    let mail = Arc::clone(&courier.mail);
    courier.end(&Summary::default()).unwrap();
    assert_eq!((mail.lock().taken, counts(&drops)), (2, vec![0, 1, 0]));
    assert!(saw.recv().is_err());
}

#[test]
fn what_is_refused_is_counted_and_not_sent_again() {
    let (mut courier, order, saw, drops) = courier(10);
    three(&mut courier, &saw);
    order.send(Fate::Refused("no".to_owned())).unwrap();
    order.send(Fate::Taken { but: 0 }).unwrap();
    courier.end(&Summary::default()).unwrap();
    assert_eq!((saw.recv(), saw.recv().is_err()), (Ok(2), true));
    assert_eq!(counts(&drops), [0, 1, 0]);
}

#[test]
fn what_is_not_taken_now_is_sent_again_after_the_time_that_was_asked_for() {
    let (mut courier, order, saw, drops) = courier(10);
    let after = Some(Duration::from_millis(50));
    courier.verdict(&samples::killed()).unwrap();
    assert_eq!(saw.recv(), Ok(1));
    let begun = Instant::now();
    order.send(Fate::Later { why: "busy".to_owned(), after }).unwrap();
    assert_eq!(saw.recv(), Ok(1));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    order.send(Fate::Taken { but: 0 }).unwrap();
    let mail = Arc::clone(&courier.mail);
    courier.end(&Summary::default()).unwrap();
    assert_eq!((mail.lock().taken, drops.sum()), (1, 0));
}

#[test]
fn what_finds_no_room_is_counted_and_what_is_left_at_the_end_is_too() {
    let (mut courier, order, saw, drops) = courier(2);
    three(&mut courier, &saw);
    // The thread has one, and two wait.
    for _ in 0..5 {
        courier.verdict(&samples::killed()).unwrap();
    }
    assert_eq!(counts(&drops), [5, 0, 0]);
    // It is away, and stays away: one more try, and no more.
    drop(order);
    courier.end(&Summary::default()).unwrap();
    assert_eq!(counts(&drops), [5, 0, 3]);
    assert_eq!(saw.iter().collect::<Vec<_>>(), [1]);
}
