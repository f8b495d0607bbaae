//! What happened lately, by a number that names it: rows of places that are found by arithmetic, in which the newest pushes out the oldest.
//!
//! Whatever strangers can fill must be kept so, and not in an LRU map: whoever does not find an entry here learns whether it may have
//! been there, for then all of its row is younger than it would be. There is no exchange instruction before 5.12, so two CPUs that write
//! into one row at the same moment may take the same place. Its number therefore stands before and behind what it names: where both are
//! the same, so is what lies between, and where they differ nothing is there.

use core::mem::MaybeUninit;

use aya_ebpf::maps::Array;

use crate::kernel::memory::{bounded, fill};

/// Places of a row; a power of two.
const WAYS: usize = 4;

/// One entry; free while `ns` is zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place<V> {
    ns: u64,
    key: u64,
    value: V,
    key_again: u64,
}

/// The places that one number may take.
pub type Row<V> = [Place<V>; WAYS];

/// What is found of a number.
pub enum Found<V> {
    /// This.
    It(V),
    /// Nothing, and nothing was there.
    Nothing,
    /// Nothing, and something may have been there: the row is full of what came later.
    MaybePushedOut,
}

/// The row of a number in a table whose rows `MASK` numbers.
#[inline(always)]
fn row<V, const MASK: u64>(table: &Array<Row<V>>, key: u64) -> Option<*mut Place<V>> {
    let number = bounded::<MASK>(key ^ key >> 16);
    table.get_ptr_mut(number as u32).map(|row| row.cast())
}

/// The moment and the number of a place.
#[inline(always)]
fn read<V>(place: *mut Place<V>) -> (u64, u64) {
    // SAFETY: map memory, which others may write meanwhile.
    unsafe { ((&raw const (*place).ns).read_volatile(), (&raw const (*place).key).read_volatile()) }
}

/// Whether a place is whole.
#[inline(always)]
fn is_whole<V>(place: *mut Place<V>) -> bool {
    // SAFETY: the same.
    unsafe { (&raw const (*place).key_again).read_volatile() == (&raw const (*place).key).read_volatile() }
}

/// Notes `value`, which came about at `ns`, instead of what is there of this number, or instead of the oldest.
#[inline(always)]
pub fn note<V: Copy, const MASK: u64>(table: &Array<Row<V>>, key: u64, ns: u64, value: &V) {
    let Some(row) = row::<V, MASK>(table, key) else { return };
    let (mut way, mut oldest_ns) = (0, u64::MAX);
    for other in 0..WAYS as u64 {
        // SAFETY: map memory; a row has that many places.
        let (its_ns, its_key) = read(unsafe { row.add(other as usize) });
        if its_ns != 0 && its_key == key {
            (way, oldest_ns) = (other, 0);
        } else if its_ns < oldest_ns {
            (way, oldest_ns) = (other, its_ns);
        }
    }
    // SAFETY: the same. Whoever reads it meanwhile takes it for free: its moment goes first and comes last.
    unsafe {
        let place = row.add(bounded::<{ WAYS as u64 - 1 }>(way));
        (&raw mut (*place).ns).write_volatile(0);
        (&raw mut (*place).key).write_volatile(key);
        fill(&raw mut (*place).value, value);
        (&raw mut (*place).key_again).write_volatile(key);
        (&raw mut (*place).ns).write_volatile(ns);
    }
}

/// What is there of this number since `since_ns`; whether it was pushed out matters if it came about since `lately_ns`.
#[inline(always)]
pub fn find<V: Copy, const MASK: u64>(
    table: &Array<Row<V>>,
    key: u64,
    since_ns: u64,
    lately_ns: u64,
) -> Found<V> {
    find_with::<V, V, MASK>(table, key, since_ns, lately_ns, |value| {
        let mut copy = MaybeUninit::uninit();
        // SAFETY: the whole value is written, from one of its type.
        unsafe {
            fill(copy.as_mut_ptr(), value);
            copy.assume_init()
        }
    })
}

/// The same, of which only a part is taken, by `part`: another CPU may write the value meanwhile, and then the part is not believed.
#[inline(always)]
pub fn find_with<V: Copy, P, const MASK: u64>(
    table: &Array<Row<V>>,
    key: u64,
    since_ns: u64,
    lately_ns: u64,
    part: impl Fn(*const V) -> P,
) -> Found<P> {
    let Some(row) = row::<V, MASK>(table, key) else { return Found::Nothing };
    let (mut way, mut is_full) = (WAYS as u64, true);
    for other in 0..WAYS as u64 {
        // SAFETY: map memory; a row has that many places.
        let (ns, its_key) = read(unsafe { row.add(other as usize) });
        if ns != 0 && its_key == key && ns >= since_ns {
            way = other;
        }
        is_full &= ns >= lately_ns && ns != 0;
    }
    if way < WAYS as u64 {
        // SAFETY: the same.
        let place = unsafe { row.add(bounded::<{ WAYS as u64 - 1 }>(way)) };
        let before = read(place);
        // SAFETY: the same.
        let part = part(unsafe { &raw const (*place).value });
        if before.0 != 0 && before.1 == key && read(place) == before && is_whole(place) {
            return Found::It(part);
        }
        // Another CPU is writing it, or two have.
        return Found::MaybePushedOut;
    }
    if is_full { Found::MaybePushedOut } else { Found::Nothing }
}

/// Changes what is there of this number.
#[inline(always)]
pub fn change<V, const MASK: u64>(table: &Array<Row<V>>, key: u64, change: impl Fn(*mut V)) {
    let Some(row) = row::<V, MASK>(table, key) else { return };
    for way in 0..WAYS {
        // SAFETY: map memory; a row has that many places.
        let place = unsafe { row.add(way) };
        let (ns, its_key) = read(place);
        if ns != 0 && its_key == key {
            // SAFETY: the same.
            change(unsafe { &raw mut (*place).value });
        }
    }
}

/// Takes out what is there of this number.
#[inline(always)]
pub fn forget<V, const MASK: u64>(table: &Array<Row<V>>, key: u64) {
    let Some(row) = row::<V, MASK>(table, key) else { return };
    for way in 0..WAYS {
        // SAFETY: map memory; a row has that many places.
        let place = unsafe { row.add(way) };
        if read(place).1 == key {
            // SAFETY: the same.
            unsafe { (&raw mut (*place).ns).write_volatile(0) };
        }
    }
}
