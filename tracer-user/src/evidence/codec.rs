//! How values are written, and read again as they were: moments, names of the kernel's objects, numbers.

use super::names::Names;

/// Moments are earlier than this (ns, monotonic), so that no difference of two overflows: 146 years.
pub const LATEST_NS: u64 = 1 << 62;

/// Counters are smaller than this: every reader of JSON takes them for what they are.
const MOST: u64 = 1 << 53;

/// Why a line of evidence cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// It is no JSON, or not of this form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

pub(super) fn bad(what: impl Into<String>) -> Bad {
    Bad::Value(what.into())
}

/// What a recording's values are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// When it began (ns, monotonic).
    pub(super) started_ns: u64,
}

/// What values are written by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) base: Base,
    pub(super) names: &'a Names,
}

/// One kind of value.
pub(super) trait Codec<T> {
    type Json;

    fn encode(value: &T, context: Context<'_>) -> Self::Json;

    fn decode(json: Self::Json, base: Base) -> Result<T, Bad>;
}

/// Nanoseconds since the recording began; null for what did not happen.
pub(super) struct Moment;

impl Codec<u64> for Moment {
    type Json = Option<i64>;

    fn encode(ns: &u64, Context { base, .. }: Context<'_>) -> Option<i64> {
        (*ns != 0).then(|| ns.cast_signed().wrapping_sub(base.started_ns.cast_signed()))
    }

    fn decode(json: Option<i64>, base: Base) -> Result<u64, Bad> {
        let Some(ns) = json else { return Ok(0) };
        let ns = base.started_ns.checked_add_signed(ns).filter(|ns| *ns < LATEST_NS && *ns != 0);
        ns.ok_or_else(|| bad("a moment lies before the machine's start or beyond all time"))
    }
}

/// The name of a kernel's object; null for none.
pub(super) struct Id;

impl Codec<u64> for Id {
    type Json = Option<u64>;

    fn encode(address: &u64, Context { names, .. }: Context<'_>) -> Option<u64> {
        (*address != 0).then(|| names.id(*address))
    }

    fn decode(json: Option<u64>, _: Base) -> Result<u64, Bad> {
        Ok(json.unwrap_or(0))
    }
}

/// A number as it is.
pub(super) struct Number;

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Codec<$type> for Number {
            type Json = $type;

            fn encode(value: &$type, _: Context<'_>) -> $type {
                *value
            }

            fn decode(json: $type, _: Base) -> Result<$type, Bad> {
                Ok(json)
            }
        }
    )*};
}
number!(u8, u16, u32, i32);

impl Codec<u64> for Number {
    type Json = u64;

    fn encode(value: &u64, _: Context<'_>) -> u64 {
        (*value).min(MOST - 1)
    }

    fn decode(json: u64, _: Base) -> Result<u64, Bad> {
        if json < MOST { Ok(json) } else { Err(bad("a counter is larger than any can be")) }
    }
}

/// A truth, which the kernel side keeps as one or zero.
pub(super) struct Truth;

macro_rules! truth {
    ($($type:ty),*) => {$(
        impl Codec<$type> for Truth {
            type Json = bool;

            fn encode(value: &$type, _: Context<'_>) -> bool {
                *value != 0
            }

            fn decode(json: bool, _: Base) -> Result<$type, Bad> {
                Ok(json.into())
            }
        }
    )*};
}
truth!(u16, u32);

/// The handshake's two sequence numbers: nginx's and the worker's; null before it was over.
pub(super) struct Handshake;

impl Codec<u64> for Handshake {
    type Json = Option<[u32; 2]>;

    fn encode(value: &u64, _: Context<'_>) -> Option<[u32; 2]> {
        (*value != 0).then_some([(*value >> 32) as u32, *value as u32])
    }

    fn decode(json: Option<[u32; 2]>, _: Base) -> Result<u64, Bad> {
        Ok(json.map_or(0, |[nginx, worker]| u64::from(nginx) << 32 | u64::from(worker)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_relative_and_bounded() {
        let (base, names) = (Base { started_ns: 1_000 }, Names::new(false));
        let context = Context { base, names: &names };
        for (ns, json) in [(0, None), (1, Some(-999)), (1_000, Some(0)), (5_000, Some(4_000))] {
            assert_eq!(Moment::encode(&ns, context), json);
            assert_eq!(Moment::decode(json, base).unwrap(), ns);
        }
        for json in [i64::MAX, i64::MIN, -1_000, -1_001] {
            assert!(Moment::decode(Some(json), base).is_err(), "{json}");
        }
    }
}
