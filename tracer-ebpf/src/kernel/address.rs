//! Where one listens, as a key.

/// An upstream's address as seen from one network namespace; namespace zero stands for any.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ListenerKey {
    pub net: u64,
    pub addr: [u32; 4],
    pub port: u32,
    pub reserved: u32,
}

/// The unspecified IPv4 address, mapped; the IPv6 one is all zeroes.
pub const ANY4: [u32; 4] = [0, 0, 0xffff_u32.to_be(), 0];

/// The key of an address in a network namespace.
#[inline(always)]
pub fn key(net: u64, addr: [u32; 4], port: u16) -> ListenerKey {
    ListenerKey { net, addr, port: u32::from(port), reserved: 0 }
}

/// Whether an address means the same in every network namespace, so that one can look for it in all.
#[inline(always)]
pub fn is_global(addr: &[u32; 4]) -> bool {
    let is_mapped = addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be();
    let first_octet = u32::from_be(addr[3]) >> 24;
    let is_loopback_or_any6 = addr[0] == 0 && addr[1] == 0 && addr[2] == 0;
    !(is_loopback_or_any6 || is_mapped && (first_octet == 127 || first_octet == 0))
}
