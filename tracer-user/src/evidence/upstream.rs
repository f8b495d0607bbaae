//! What upstreams are called.

use wire::PATH_LEN;

use super::{
    codec::{Bad, bad},
    names::Names,
};
use crate::model::upstream::Upstream;

/// What an upstream is called.
pub(super) fn named(names: &Names, upstream: &Upstream) -> String {
    match upstream {
        Upstream::Inet(address) => names.address(*address).to_string(),
        Upstream::Unix(path) => names.path(&path.to_string_lossy()).into_owned(),
        // Exchanges are counted by where they went.
        Upstream::Named(name) => name.clone(),
    }
}

/// The same, or the name of a group.
pub(super) fn upstream_or_group(name: &str) -> Result<Upstream, Bad> {
    let upstream = upstream(name)?;
    let is_name = matches!(upstream, Upstream::Unix(_)) && !name.starts_with(['/', '@']);
    Ok(if is_name { Upstream::Named(name.to_owned()) } else { upstream })
}

/// An address and port, or a path, which is no longer than any escaped one of a unix socket is.
pub(super) fn upstream(name: &str) -> Result<Upstream, Bad> {
    if name.len() > 4 * PATH_LEN {
        return Err(bad("an upstream's name is longer than any is"));
    }
    Ok(name.parse().map_or_else(|_| Upstream::Unix(name.into()), Upstream::Inet))
}
