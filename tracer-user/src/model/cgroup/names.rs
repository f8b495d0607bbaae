//! The names in a control group's path. The forms are those that the makers write:
//! systemd (`unit_name_is_valid`, src/basic/unit-name.c), runc and crun with either driver (`docker-ID.scope`, `/docker/ID`), containerd's CRI
//! (`cri-containerd-ID.scope`, `SLICE:cri-containerd:ID`), CRI-O (`crio-ID.scope`), Podman (`libpod-ID.scope`, `libpod-payload-ID`), the kubelet
//! (`podUID`, with underscores in a slice: pkg/kubelet/cm), LXC (`lxc.payload.NAME`).

/// What a path says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) unit: Option<String>,
    pub(super) container: Option<String>,
    pub(super) pod: Option<String>,
}

/// Bytes of a unit's name (`UNIT_NAME_MAX`, src/basic/unit-def.h).
pub(super) const UNIT: usize = 255;

/// Letters of a container's id: a SHA-256 in hexadecimal.
const ID: usize = 64;

/// Of a path. Of several of a kind, the innermost counts.
pub(super) fn of(path: &str) -> Names {
    let mut names = Names::default();
    for folder in path.split('/') {
        if let Some(pod) = pod(folder) {
            names.pod = Some(pod);
        }
        match container(folder) {
            Found::Container(id) => {
                names.container = Some(id);
                // What systemd runs for a runtime says no more than the container does: a service (Podman's) was asked for by its name.
                if names.unit.as_deref().is_some_and(is_runtime) {
                    names.unit = None;
                }
            }
            // Its scope bears the container's name.
            Found::Helper => {}
            Found::Nothing => names.unit = unit(folder).or(names.unit),
        }
    }
    names
}

enum Found {
    Container(String),
    /// What watches a container from outside (conmon).
    Helper,
    Nothing,
}

/// The id that ends a folder's name, before or without `.scope`.
fn container(folder: &str) -> Found {
    if let Some(name) = folder.strip_prefix("lxc.payload.").or_else(|| folder.strip_prefix("lxc.payload@")) {
        return match is_plain(name) {
            true => Found::Container(name.to_owned()),
            false => Found::Nothing,
        };
    }
    let name = folder.strip_suffix(".scope").unwrap_or(folder);
    let id = name.rsplit(['-', ':']).next().unwrap_or(name);
    if id.len() != ID || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Found::Nothing;
    }
    if name.contains("conmon") { Found::Helper } else { Found::Container(id.to_owned()) }
}

/// A runtime's own unit, or what is the same in every host and container.
fn is_runtime(unit: &str) -> bool {
    ["docker.service", "containerd.service", "crio.service", "kubelet.service", "k3s.service", "init.scope"]
        .contains(&unit)
        || unit.starts_with("user@")
}

/// The uid of a pod: `podUID`, `kubepods-burstable-podUID.slice`, `kubepods-podUID.slice:cri-containerd:ID`. A static pod's has no dashes.
fn pod(folder: &str) -> Option<String> {
    let name = folder.split(':').next().unwrap_or(folder);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    let is_hex = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    (is_hex && matches!((uid.len(), dashes), (36, 4) | (32, 0))).then_some(uid)
}

/// A service or a scope of systemd's.
fn unit(folder: &str) -> Option<String> {
    let is_kind = folder.ends_with(".service") || folder.ends_with(".scope");
    (is_kind && folder.len() <= UNIT && is_plain(folder)).then(|| folder.to_owned())
}

/// Letters that a unit's name may have (`VALID_CHARS_WITH_AT`, src/basic/unit-name.c): none that a terminal would act on.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID1: &str = "3f1c2b7a9d10e4b85c6f70a1928374655647382910afbecd1122334455667788";
    const ID2: &str = "aa1c2b7a9d10e4b85c6f70a1928374655647382910afbecd1122334455667788";
    const UID: &str = "2f5c0f1e-8a47-4b6e-9d0c-1b2a3c4d5e6f";

    fn names(unit: Option<&str>, container: Option<&str>, pod: Option<&str>) -> Names {
        Names {
            unit: unit.map(str::to_owned),
            container: container.map(str::to_owned),
            pod: pod.map(str::to_owned),
        }
    }

    #[track_caller]
    fn says(path: &str, unit: Option<&str>, container: Option<&str>, pod: Option<&str>) {
        let path = path
            .replace("ID1", ID1)
            .replace("ID2", ID2)
            .replace("U_ID", &UID.replace('-', "_"))
            .replace("UID", UID);
        assert_eq!(of(&path), names(unit, container, pod), "{path}");
    }

    #[test]
    fn systemd_units_are_named() {
        says("/system.slice/php8.2-fpm.service", Some("php8.2-fpm.service"), None, None);
        says(
            "/system.slice/system-php\\x2dfpm.slice/php-fpm@www.service",
            Some("php-fpm@www.service"),
            None,
            None,
        );
        says("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), None, None);
        says(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app.service",
            Some("app.service"),
            None,
            None,
        );
        says("/system.slice/uwsgi.service/workers", Some("uwsgi.service"), None, None);
        says("/init.scope", Some("init.scope"), None, None);
    }

    #[test]
    fn docker_is_named_with_either_driver() {
        says("/docker/ID1", None, Some(ID1), None);
        says("/system.slice/docker-ID1.scope", None, Some(ID1), None);
        says("/system.slice/docker-ID1.scope/init.scope", Some("init.scope"), Some(ID1), None);
        says("/docker/ID1/system.slice/nginx.service", Some("nginx.service"), Some(ID1), None);
        says("/docker/ID1/docker/ID2", None, Some(ID2), None);
        says(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID1.scope",
            None,
            Some(ID1),
            None,
        );
        says("/ecs/0123456789abcdef0123456789abcdef/ID1", None, Some(ID1), None);
        says("/system.slice/nerdctl-ID1.scope", None, Some(ID1), None);
    }

    #[test]
    fn pods_and_their_containers_are_named() {
        says("/kubepods/burstable/podUID/ID1", None, Some(ID1), Some(UID));
        says("/kubepods/podUID/ID1", None, Some(ID1), Some(UID));
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice";
        says(&format!("{slice}/cri-containerd-ID1.scope"), None, Some(ID1), Some(UID));
        says(&format!("{slice}/crio-ID1.scope"), None, Some(ID1), Some(UID));
        says(&format!("{slice}/docker-ID1.scope"), None, Some(ID1), Some(UID));
        says(&format!("{slice}/crio-ID1.scope/container"), None, Some(ID1), Some(UID));
        says(&format!("{slice}/crio-conmon-ID1.scope"), None, None, Some(UID));
        says("/kubepods.slice/kubepods-podU_ID.slice/crio-ID1.scope", None, Some(ID1), Some(UID));
        says(
            "/system.slice/containerd.service/kubepods-besteffort-podU_ID.slice:cri-containerd:ID1",
            None,
            Some(ID1),
            Some(UID),
        );
        says(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podU_ID.slice/\
             cri-containerd-ID1.scope",
            None,
            Some(ID1),
            Some(UID),
        );
        let fixed = "0123456789abcdef0123456789abcdef";
        says(&format!("/kubepods/burstable/pod{fixed}/ID1"), None, Some(ID1), Some(fixed));
        // As a process in the pod's own namespace is seen from beside it.
        says("/../../podUID/ID1", None, Some(ID1), Some(UID));
    }

    #[test]
    fn podman_is_named_and_a_service_around_it() {
        says("/machine.slice/libpod-ID1.scope", None, Some(ID1), None);
        says("/machine.slice/libpod-ID1.scope/container", None, Some(ID1), None);
        says("/machine.slice/libpod-conmon-ID1.scope", None, None, None);
        says("/libpod_parent/libpod-ID1", None, Some(ID1), None);
        says(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID1.scope/container",
            None,
            Some(ID1),
            None,
        );
        says("/system.slice/web.service/libpod-payload-ID1", Some("web.service"), Some(ID1), None);
        says("/machine.slice/machine-libpod_pod_ID2.slice/libpod-ID1.scope", None, Some(ID1), None);
    }

    #[test]
    fn lxc_is_named() {
        says("/lxc.payload.web1", None, Some("web1"), None);
        says("/lxc.payload.web1/system.slice/nginx.service", Some("nginx.service"), Some("web1"), None);
        says("/lxc.monitor.web1", None, None, None);
    }

    #[test]
    fn foreign_text_is_no_name() {
        let long = format!("/{}.service", "a".repeat(300));
        for path in [
            "",
            "/",
            "/\u{1b}]0;gone\u{7}.service",
            "/a b.service",
            "/käse.service",
            "/lxc.payload.\u{1b}[2J",
            "/lxc.payload.",
            "/podgone",
            "/pod----------------------------zzzz",
            "/docker/3F1C2B7A",
            "/docker/3f1c2b7a9d10",
            "/system.slice",
            long.as_str(),
        ] {
            assert_eq!(of(path), Names::default(), "{path:?}");
        }
    }
}
