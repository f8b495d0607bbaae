//! The running kernel's layout, from its BTF. Never from its version.

use std::{collections::HashMap, fs::File, path::Path};

use btf_rs::{Backend, Btf, Type};
use wire::{COMMON_LEN, Layout, MISSING, READ_ONLY_CAST};

use super::{callable, given};
use crate::model::failure::Failure;

/// A function that every kernel has, for a program that is never attached.
pub(super) const FUNCTION: &str = "tcp_connect";

/// The types of a kernel. They are read where they lie, for there are some 150,000, and a hundred are asked for.
pub(super) struct Kernel {
    btf: Btf,
    /// The numbers of the types of each name that is asked for.
    named: HashMap<String, Vec<u32>>,
    /// Whether their numbers are the running kernel's.
    has_numbers: bool,
}

/// The name of the type that an entry of [`Layout::NAMES`] begins with.
fn type_name(entry: &str) -> String {
    let name = entry.trim_start_matches('?');
    let (kind, name) = name.split_once(':').unwrap_or(("", name));
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    if kind == "arg" { format!("{TRACEPOINT}{name}") } else { name.to_owned() }
}

/// Maps the types, or a copy of them where sysfs cannot be mapped (before 6.16).
fn map(path: &Path, file: &mut File) -> Result<Btf, String> {
    if let Ok(btf) = Btf::from_file_with_backend(path, Backend::Mmap) {
        return Ok(btf);
    }
    let copy = given::kept(file).map_err(|error| error.to_string())?;
    Btf::from_file_with_backend(given::path_of(&copy), Backend::Mmap).map_err(|error| error.to_string())
}

/// Finds the types that are asked for, in one pass: each search by name is one.
fn index(btf: &Btf) -> HashMap<String, Vec<u32>> {
    let names = Layout::NAMES.iter().map(|entry| type_name(entry));
    let names = names.chain(callable::names().chain([FUNCTION]).map(str::to_owned));
    let mut named: HashMap<_, Vec<u32>> = names.map(|name| (name, Vec::new())).collect();
    for id in 1.. {
        let Ok(found) = btf.resolve_type_by_id(id) else { break };
        let name = found.as_btf_type().and_then(|found| btf.resolve_name(found).ok());
        if let Some(ids) = name.and_then(|name| named.get_mut(&name)) {
            ids.push(id);
        }
    }
    named
}

/// So many types lie around each other at most, in a file that may say that one lies in itself.
const DEEPEST: u32 = 32;

/// Begins the name of a raw tracepoint's type.
const TRACEPOINT: &str = "btf_trace_";

impl Kernel {
    /// The running kernel's types.
    ///
    /// # Errors
    /// Where the kernel was built without BTF.
    pub(super) fn running() -> Result<Self, Failure> {
        Self::read(&given::types_in_use())
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let mut file = File::open(path)
            .map_err(|error| Failure::CannotTrace(format!("{} cannot be read: {error}", path.display())))?;
        let btf = map(path, &mut file).map_err(|error| {
            Failure::CannotTrace(format!("{} cannot be understood: {error}", path.display()))
        })?;
        let named = index(&btf);
        Ok(Self { btf, named, has_numbers: given::are_own() })
    }

    /// The types of this name.
    fn types(&self, name: &str) -> Vec<Type> {
        match self.named.get(name) {
            Some(ids) => ids.iter().filter_map(|id| self.btf.resolve_type_by_id(*id).ok()).collect(),
            None => self.btf.resolve_types_by_name(name).unwrap_or_default(),
        }
    }

    /// Whether the kernel has a type of this name, which must be one of those asked for.
    pub(super) fn has(&self, name: &str) -> bool {
        self.named.get(name).is_some_and(|ids| !ids.is_empty())
    }

    /// The number of a function's type, by which programs call it, where the running kernel's are known; the name must be one of those asked for.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        if !self.has_numbers {
            return None;
        }
        let mut ids = self.named.get(name)?.iter().copied();
        ids.find(|id| matches!(self.btf.resolve_type_by_id(*id), Ok(Type::Func(_))))
    }

    /// Whether programs may look at kernel memory by plain instructions ([`READ_ONLY_CAST`]).
    pub(super) fn casts(&self) -> bool {
        self.function(READ_ONLY_CAST.name).is_some() && !callable::interprets()
    }

    /// The number of a struct that programs may look at kernel memory as, where they may at all; the name must be one of those asked for.
    fn number_of(&self, structure: &str) -> Option<u32> {
        if !self.casts() {
            return None;
        }
        let mut ids = self.named.get(structure)?.iter().copied();
        ids.find(|id| matches!(self.btf.resolve_type_by_id(*id), Ok(Type::Struct(_))))
    }

    /// Every offset and number that the kernel side needs.
    ///
    /// # Errors
    /// Names the first one that this kernel does not have, unless the program can do without.
    pub(super) fn layout(&self) -> Result<Layout, Failure> {
        let values = Layout::NAMES.iter().map(|name| self.value(name)).collect::<Result<Vec<_>, _>>()?;
        let layout = Layout::from_values(&values)
            .ok_or_else(|| Failure::Run(anyhow::anyhow!("the layout has more fields than names")))?;
        if layout.ends_of_common().into_iter().any(|end| end > COMMON_LEN) {
            return Err(Failure::CannotTrace(
                "this kernel's sockets have their addresses further back than why502 reads: please report its version".to_owned(),
            ));
        }
        Ok(layout)
    }

    fn value(&self, name: &str) -> Result<u32, Failure> {
        if let Some(argument) = name.strip_prefix("arg:") {
            return Ok(self.argument(argument).unwrap_or(MISSING));
        }
        if let Some(function) = name.strip_prefix("args:") {
            return Ok(self.parameters(function).unwrap_or(MISSING));
        }
        if let Some(enumerator) = name.strip_prefix("enum:") {
            return Ok(self.enumerator(enumerator).unwrap_or(MISSING));
        }
        if let Some(structure) = name.strip_prefix("type:") {
            return Ok(self.number_of(structure).unwrap_or(MISSING));
        }
        let (name, is_optional) = name.strip_prefix('?').map_or((name, false), |name| (name, true));
        let mut path = name.split('.');
        let structure = path.next().unwrap_or_default();
        let members: Vec<&str> = path.collect();
        match self.offset(structure, &members)? {
            Some(offset) => Ok(offset),
            None if is_optional => Ok(MISSING),
            None => Err(Failure::CannotTrace(format!("this kernel's BTF has no {name}, which why502 needs"))),
        }
    }

    /// The position of a raw tracepoint's argument, as in `tcp_send_reset.2`, if the tracepoint has it.
    fn argument(&self, name: &str) -> Option<u32> {
        let (tracepoint, position) = name.split_once('.')?;
        let position: u32 = position.parse().ok()?;
        (position < self.arguments(tracepoint)?).then_some(position)
    }

    /// The number of `type.NAME`, if the kernel has it.
    fn enumerator(&self, name: &str) -> Option<u32> {
        let (enumeration, name) = name.split_once('.')?;
        self.types(enumeration).iter().find_map(|candidate| match candidate {
            Type::Enum(candidate) => candidate
                .members
                .iter()
                .find(|member| self.btf.resolve_name(*member).is_ok_and(|found| found == name))
                .map(btf_rs::EnumMember::val),
            _ => None,
        })
    }

    /// The number of an enumerator whose type has no name, if the kernel has it. Looks at every type there is.
    pub(super) fn unnamed_enumerator(&self, name: &str) -> Option<u32> {
        (1..).map_while(|id| self.btf.resolve_type_by_id(id).ok()).find_map(|candidate| match candidate {
            Type::Enum(candidate) => candidate
                .members
                .iter()
                .find(|member| self.btf.resolve_name(*member).is_ok_and(|found| found == name))
                .map(btf_rs::EnumMember::val),
            _ => None,
        })
    }

    /// How many parameters a function has, if the kernel has it.
    fn parameters(&self, function: &str) -> Option<u32> {
        self.types(function).iter().find_map(|candidate| match candidate {
            Type::Func(function) => match self.btf.resolve_chained_type(function).ok()? {
                Type::FuncProto(prototype) => u32::try_from(prototype.parameters.len()).ok(),
                _ => None,
            },
            _ => None,
        })
    }

    /// How many arguments a raw tracepoint has, if the kernel has the tracepoint.
    fn arguments(&self, tracepoint: &str) -> Option<u32> {
        let types = self.types(&format!("{TRACEPOINT}{tracepoint}"));
        let typedef = types.into_iter().find_map(|found| match found {
            Type::Typedef(typedef) => Some(typedef),
            _ => None,
        })?;
        let Type::Ptr(pointer) = self.btf.resolve_chained_type(&typedef).ok()? else { return None };
        let Type::FuncProto(function) = self.btf.resolve_chained_type(&pointer).ok()? else { return None };
        // The first one is the tracepoint's own data.
        u32::try_from(function.parameters.len()).ok()?.checked_sub(1)
    }

    /// The offset in bytes of `structure.member.member`, looking through unnamed structs and unions; none if no struct of this
    /// name has it.
    ///
    /// # Errors
    /// If there are several, of which nobody could say which one a pointer in the kernel means.
    fn offset(&self, structure: &str, members: &[&str]) -> Result<Option<u32>, Failure> {
        let mut found = self
            .types(structure)
            .into_iter()
            .filter(|candidate| matches!(candidate, Type::Struct(_)))
            .filter_map(|candidate| self.path_bits(&candidate, members))
            .collect::<Vec<u32>>();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [] => Ok(None),
            [bits] => Ok(Some(bits / 8)),
            _ => Err(Failure::CannotTrace(format!(
                "this kernel's BTF has several structs {structure} that disagree about {}, so why502 cannot tell where to read: \
                 please report this kernel's version",
                members.join(".")
            ))),
        }
    }

    fn path_bits(&self, container: &Type, members: &[&str]) -> Option<u32> {
        let (first, rest) = members.split_first()?;
        let (bits, member_type) = self.member(container, first, DEEPEST)?;
        if rest.is_empty() { Some(bits) } else { bits.checked_add(self.path_bits(&member_type, rest)?) }
    }

    /// The offset in bits and the type of a member; `deepest` is how many types may lie around it yet.
    fn member(&self, container: &Type, name: &str, deepest: u32) -> Option<(u32, Type)> {
        let deepest = deepest.checked_sub(1)?;
        let (Type::Struct(container) | Type::Union(container)) = container else { return None };
        container.members.iter().find_map(|member| {
            let member_name = self.btf.resolve_name(member).unwrap_or_default();
            let mut member_type = self.btf.resolve_chained_type(member).ok()?;
            for _ in 0..DEEPEST {
                let (Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::TypeTag(_)) = member_type
                else {
                    break;
                };
                member_type = self.btf.resolve_chained_type(member_type.as_btf_type()?).ok()?;
            }
            if member_name == name {
                return Some((member.bit_offset(), member_type));
            }
            let (bits, inner) =
                if member_name.is_empty() { self.member(&member_type, name, deepest) } else { None }?;
            Some((member.bit_offset().checked_add(bits)?, inner))
        })
    }
}

/// Asks these types, whatever they are, for all that is asked of a kernel's.
#[cfg(test)]
pub(super) fn try_all(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("why502-types-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let kernel = Kernel::read(&path);
    std::fs::remove_file(&path).unwrap();
    let Ok(kernel) = kernel else { return };
    for name in Layout::NAMES {
        // Any answer will do.
        let _value = kernel.value(name);
    }
    let _none = kernel.unnamed_enumerator("LINUX_MIB_LISTENOVERFLOWS");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_everything() {
        let kernel = Kernel::running().unwrap();
        let layout = kernel.layout().unwrap();
        // struct sock begins with struct sock_common, and that with the peer's address.
        assert_eq!(layout.daddr, 0);
        assert_eq!(layout.saddr, 4);
        assert!(layout.snd_una != MISSING && layout.snd_una > layout.sk_err);
    }

    #[test]
    fn types_that_cannot_be_mapped_are_copied() {
        let btf = map(Path::new("/nonexistent"), &mut File::open(given::PATH).unwrap()).unwrap();
        let named = index(&btf);
        assert_eq!(Kernel { btf, named, has_numbers: true }.layout().unwrap().daddr, 0);
    }

    #[test]
    fn a_missing_member_is_named() {
        let kernel = Kernel::running().unwrap();
        let error = kernel.value("sock.sk_nonsense").unwrap_err().to_string();
        assert!(error.contains("sock.sk_nonsense"), "{error}");
        assert_eq!(kernel.value("?sock.sk_nonsense").unwrap(), MISSING);
    }

    /// The types of a kernel with two structs `pair`, whose member `value` lies at these bits.
    fn two_pairs(first_bits: u32, second_bits: u32) -> Kernel {
        const INT: u32 = 1 << 24;
        const STRUCT_OF_ONE: u32 = 4 << 24 | 1;
        let strings = b"\0int\0pair\0value\0";
        let (int, pair, value) = (1_u32, 5_u32, 10_u32);
        let integer = [int, INT, 4, 32];
        let structure = |bits: u32| [pair, STRUCT_OF_ONE, 16, value, 1, bits];
        let types: Vec<u8> = [&integer[..], &structure(first_bits), &structure(second_bits)]
            .concat()
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let length = u32::try_from(types.len()).unwrap();
        for field in [24, 0, length, length, u32::try_from(strings.len()).unwrap()] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        Kernel { btf: Btf::from_bytes(&bytes).unwrap(), named: HashMap::new(), has_numbers: true }
    }

    #[test]
    fn structs_of_one_name_that_disagree_are_rejected_also_where_one_could_do_without() {
        for name in ["pair.value", "?pair.value"] {
            let error = two_pairs(0, 64).value(name).unwrap_err().to_string();
            assert!(error.contains("several structs pair") && error.contains("value"), "{error}");
            assert_eq!(two_pairs(64, 64).value(name).unwrap(), 8);
        }
    }

    #[test]
    fn drop_reasons_are_known_by_name() {
        let kernel = Kernel::running().unwrap();
        assert!(
            kernel
                .enumerator("skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP")
                .is_some_and(|number| number > 2)
        );
        assert_eq!(kernel.enumerator("skb_drop_reason.SKB_DROP_REASON_NONSENSE"), None);
        assert!(kernel.unnamed_enumerator("LINUX_MIB_LISTENOVERFLOWS").is_some_and(|number| number > 2));
        assert_eq!(kernel.unnamed_enumerator("LINUX_MIB_NONSENSE"), None);
    }

    #[test]
    fn tracepoints_show_their_arguments() {
        let kernel = Kernel::running().unwrap();
        assert_eq!(kernel.arguments("inet_sock_set_state"), Some(3));
        assert_eq!(kernel.arguments("no_such_tracepoint"), None);
        assert_eq!(kernel.parameters("tcp_sendmsg"), Some(3));
        assert_eq!(kernel.parameters("no_such_function"), None);
    }
}
