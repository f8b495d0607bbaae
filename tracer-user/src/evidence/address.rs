//! Addresses with their ports.

use std::net::{IpAddr, SocketAddr};

use wire::{Endpoint, FAMILY_INET, FAMILY_INET6};

use super::codec::{Bad, Base, Codec, Context, bad};
use crate::model::from_wire::address;

/// An address and port, as in `10.0.0.1:80` or `[::1]:80`; null for none. A socket that was made for IPv6 keeps that form for
/// IPv4 addresses. Of other families only the family's number is written, as in `family 1`.
pub(super) struct Address;

impl Codec<Endpoint> for Address {
    type Json = Option<String>;

    fn encode(endpoint: &Endpoint, Context { names, .. }: Context<'_>) -> Option<String> {
        match endpoint.family {
            0 if *endpoint == Endpoint::default() => None,
            FAMILY_INET | FAMILY_INET6 => Some(names.address(address(endpoint)).to_string()),
            family => Some(format!("family {family}")),
        }
    }

    fn decode(json: Option<String>, _: Base) -> Result<Endpoint, Bad> {
        let Some(text) = json else { return Ok(Endpoint::default()) };
        if let Some(family) = text.strip_prefix("family ").and_then(|number| number.parse().ok()) {
            return Ok(Endpoint { family, ..Endpoint::default() });
        }
        let address: SocketAddr = text.parse().map_err(|_| bad("an address is none"))?;
        let (octets, family) = match address.ip() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), FAMILY_INET),
            IpAddr::V6(v6) => (v6.octets(), FAMILY_INET6),
        };
        let mut addr = [0; 4];
        for (word, bytes) in addr.iter_mut().zip(octets.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Ok(Endpoint { addr, port: address.port(), family })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::names::Names;

    #[test]
    fn addresses_come_back_as_they_were_and_other_families_say_nothing() {
        let (base, names) = (Base { started_ns: 0 }, Names::new(false));
        let context = Context { base, names: &names };
        for text in ["10.0.0.1:80", "[::1]:0", "[::ffff:10.0.0.1]:9000", "0.0.0.0:0", "family 1"] {
            let endpoint = Address::decode(Some(text.to_owned()), base).unwrap();
            assert_eq!(Address::encode(&endpoint, context).as_deref(), Some(text));
        }
        let unix = Endpoint { addr: [0xdead_beef; 4], port: 7, family: 1 };
        assert_eq!(Address::encode(&unix, context).as_deref(), Some("family 1"));
        assert_eq!(Address::encode(&Endpoint::default(), context), None);
    }
}
