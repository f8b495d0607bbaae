//! An object's maps, by name.

use aya::{Ebpf, maps::Map};

use crate::model::failure::Failure;

pub(super) fn take(object: &mut Ebpf, name: &str) -> Result<Map, Failure> {
    object.take_map(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}

pub(super) fn map<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, Failure> {
    object.map_mut(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}
