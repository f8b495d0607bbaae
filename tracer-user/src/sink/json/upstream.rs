//! Where an exchange went, or the name that nothing was attempted for.

use serde::Serialize;

use crate::model::upstream;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Upstream {
    #[cfg_attr(test, schemars(extend("enum" = ["inet", "inet6", "unix"])))]
    family: &'static str,
    addr: String,
}

impl Upstream {
    /// Where an exchange went; none where nothing was attempted.
    pub(super) fn of(upstream: &upstream::Upstream) -> Option<Self> {
        (!matches!(upstream, upstream::Upstream::Named(_))).then(|| upstream.into())
    }
}

impl From<&upstream::Upstream> for Upstream {
    fn from(upstream: &upstream::Upstream) -> Self {
        let family = match upstream {
            upstream::Upstream::Inet(address) if address.is_ipv4() => "inet",
            upstream::Upstream::Inet(_) => "inet6",
            upstream::Upstream::Unix(_) => "unix",
            upstream::Upstream::Named(_) => "none",
        };
        Self { family, addr: upstream.to_string() }
    }
}

/// The name that nothing was attempted for.
pub(super) fn group(upstream: &upstream::Upstream) -> Option<&str> {
    match upstream {
        upstream::Upstream::Named(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}
