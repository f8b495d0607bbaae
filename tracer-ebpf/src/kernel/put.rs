//! Putting an entry into a map of either binary: never without counting what finds no room.

/// Puts an entry into a map. One that finds no room is counted under that name of the binary's `Stats`. Returns whether it is there.
macro_rules! put {
    ($map:expr, $key:expr, $value:expr, $unkept:ident) => {{
        let is_kept = $map.insert($key, $value, 0).is_ok();
        if !is_kept {
            $crate::maps::count!($unkept, 1);
        }
        is_kept
    }};
}
pub(crate) use put;
