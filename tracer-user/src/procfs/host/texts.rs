//! Texts in a process's memory.

use std::io::IoSliceMut;

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

/// Nothing is mapped in smaller pieces.
const PAGE: usize = 4_096;

/// The text at an address of a process, which a zero closes, or as much of it as there is room for before the last byte. The process must
/// be one that is believed: it says where to read.
///
/// # Errors
/// The kernel's, if the process has ended or has nothing there.
pub(crate) fn text_of<const LEN: usize>(pid: u32, address: u64) -> Result<[u8; LEN], Errno> {
    let mut text = [0; LEN];
    let address = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    // What lies beyond a page's end may not be there.
    let first = (LEN - 1).min(PAGE - address % PAGE);
    let pieces = [(address, first), (address.wrapping_add(first), LEN - 1 - first)];
    let pieces = pieces.map(|(base, len)| RemoteIoVec { base, len });
    let mut room = [IoSliceMut::new(&mut text[..LEN - 1])];
    process_vm_readv(Pid::from_raw(pid.cast_signed()), &mut room, &pieces)?;
    if let Some(end) = text.iter().position(|&byte| byte == 0) {
        text[end..].fill(0);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_up_to_its_zero_or_as_far_as_there_is_room() {
        let own = std::process::id();
        let there = c"upstream timed out";
        let address = there.as_ptr() as u64;
        let whole: [u8; 40] = text_of(own, address).unwrap();
        assert_eq!(&whole[..20], b"upstream timed out\0\0");
        assert_eq!(&text_of::<9>(own, address).unwrap(), b"upstream\0");
        assert_eq!(text_of::<9>(own, 8), Err(Errno::EFAULT));
    }
}
