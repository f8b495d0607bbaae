//! Where signals came from, by name.

use serde::{Deserialize, Serialize};

use super::codec::{Bad, Base, Codec, Context};

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A process sent it.
    Process,
    /// A timer.
    Timer,
    /// The kernel.
    Kernel,
    /// A fault of the process's own.
    Fault,
    /// Its parent's death.
    ParentDeath,
    /// An event on a file or a message queue, or a process that forged its code.
    Event,
    /// It is not known any more.
    Lost,
}

const ORIGINS: [(wire::Origin, Origin); 7] = [
    (wire::Origin::Process, Origin::Process),
    (wire::Origin::Timer, Origin::Timer),
    (wire::Origin::Kernel, Origin::Kernel),
    (wire::Origin::Fault, Origin::Fault),
    (wire::Origin::ParentDeath, Origin::ParentDeath),
    (wire::Origin::Event, Origin::Event),
    (wire::Origin::Lost, Origin::Lost),
];

/// A signal's origin by name; null where it is not known.
pub(super) struct Origins;

impl Codec<u16> for Origins {
    type Json = Option<Origin>;

    fn encode(origin: &u16, _: Context<'_>) -> Option<Origin> {
        let number = wire::Origin::from_u16(*origin)?;
        ORIGINS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    }

    fn decode(json: Option<Origin>, _: Base) -> Result<u16, Bad> {
        let number =
            |name| ORIGINS.iter().find(|(_, known)| *known == name).map_or(0, |(number, _)| *number as u16);
        Ok(json.map_or(0, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::names::Names;

    #[test]
    fn every_origin_comes_back_as_it_was() {
        let (base, names) = (Base { started_ns: 0 }, Names::new(false));
        let context = Context { base, names: &names };
        let encoded: Vec<_> = (0..10).map(|number| Origins::encode(&number, context)).collect();
        assert_eq!(encoded.iter().flatten().count(), 7);
        for (number, json) in (0..8).zip(encoded) {
            assert_eq!(Origins::decode(json, base).unwrap(), number);
        }
    }
}
