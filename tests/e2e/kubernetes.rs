//! packaging/kubernetes: its manifests as kubectl renders them, held against Kubernetes's own schemas; whether their parts fit together;
//! and whether what they give why502 is enough for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::libc;
use rig::service::{Service, series, verdicts};
use rig::tracer::{Run, run};
use rig::{Endpoint, Location, Namespace, Nginx, process};
use serde_json::{Value, json};

/// The oldest version of Kubernetes that has every field: 1.30 made `appArmorProfile` one.
const OLDEST: u32 = 30;

/// The number of each capability, as the kernel counts them (include/uapi/linux/capability.h).
const CAPABILITIES: [(&str, libc::c_ulong); 6] = [
    ("DAC_READ_SEARCH", 2),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("SYS_RESOURCE", 24),
    ("PERFMON", 38),
    ("BPF", 39),
];
const LAST_CAPABILITY: libc::c_ulong = 63;

fn packaging() -> Result<PathBuf> {
    Ok(fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging"))?)
}

/// The objects that a folder's kustomization makes.
fn rendered(folder: &str) -> Result<Vec<Value>> {
    let mut kubectl = process::command(process::find_program(&["kubectl"])?);
    kubectl.arg("kustomize").arg(packaging()?.join(folder));
    Ok(serde_saphyr::from_multiple(&process::output(kubectl)?)?)
}

/// The one object of a kind.
fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().with_context(|| format!("no {kind} in {objects:#?}"))?;
    ensure!(found.next().is_none(), "several of {kind}");
    Ok(one)
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a Vec<Value>> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .with_context(|| format!("no list at {pointer}: {value:#}"))
}

fn texts(value: &Value, pointer: &str) -> Result<BTreeSet<String>> {
    list(value, pointer)?.iter().map(|one| Ok(one.as_str().context("a text")?.to_owned())).collect()
}

/// Kubernetes's schemas, in which what is not named is forbidden: those of each version from the oldest on.
fn schemas() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/kubernetes-validate/kubernetes_validate/kubernetes-json-schema");
    let entries =
        fs::read_dir(&folder).context("Kubernetes's schemas are not there: run cargo xtask setup")?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let minor = name.strip_prefix("v1.").and_then(|rest| rest.strip_suffix(".0-local-strict"));
        if minor.and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| minor >= OLDEST) {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// What a version's schema says against an object.
fn complaints(schemas: &Path, object: &Value) -> Result<Vec<String>> {
    let kind = object["kind"].as_str().context("no kind")?.to_lowercase();
    let version = object["apiVersion"].as_str().context("no apiVersion")?;
    // `rbac.authorization.k8s.io/v1` is a file of `rbac-v1`.
    let version = match version.split_once('/') {
        Some((group, version)) => format!("{}-{version}", group.split('.').next().unwrap_or_default()),
        None => version.to_owned(),
    };
    let read = |name: &str| -> Result<String> {
        let path = schemas.join(name);
        fs::read_to_string(&path).with_context(|| format!("no schema in {}", path.display()))
    };
    // The definitions become part of the one schema, for nothing is fetched.
    let text = read(&format!("{kind}-{version}.json"))?.replace("/api/_definitions.json#", "#");
    let mut schema: Value = serde_json::from_str(&text)?;
    let definitions: Value = serde_json::from_str(&read("_definitions.json")?)?;
    schema["$defs"] = definitions["$defs"].clone();
    let validator = jsonschema::validator_for(&schema)?;
    Ok(validator.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect())
}

#[test]
fn the_manifests_are_as_each_version_of_kubernetes_wants_them() -> Result<()> {
    let objects = rendered("kubernetes")?;
    let kinds: BTreeSet<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    ensure!(kinds == ["ConfigMap", "DaemonSet", "Namespace"].into(), "{kinds:?}");
    let schemas = schemas()?;
    ensure!(schemas.len() >= 8, "{schemas:?}");
    for folder in &schemas {
        for object in &objects {
            let wrong = complaints(folder, object)?;
            ensure!(wrong.is_empty(), "{}: {}: {wrong:#?}", folder.display(), object["kind"]);
        }
    }
    Ok(())
}

#[test]
fn a_broken_manifest_is_found_out() -> Result<()> {
    let objects = rendered("kubernetes")?;
    let daemons = only(&objects, "DaemonSet")?;
    let newest = schemas()?.pop().context("a version")?;
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let breaks: [(&str, &str, Value); 7] = [
        (pod, "hostPid", json!(true)),
        (pod, "hostPID", json!("true")),
        (&format!("{container}/ports/0"), "containerPort", json!("9502")),
        (&format!("{container}/securityContext/capabilities"), "add", json!("BPF")),
        (&format!("{container}/livenessProbe/httpGet"), "port", json!([9502])),
        ("/spec", "selector", Value::Null),
        ("", "apiVersion", json!("apps/v2")),
    ];
    for (at, name, value) in breaks {
        let mut broken = daemons.clone();
        let place = broken.pointer_mut(at).and_then(Value::as_object_mut);
        let place = place.with_context(|| format!("nothing at {at}"))?;
        match &value {
            Value::Null => drop(place.remove(name).context(name)?),
            _ => drop(place.insert(name.to_owned(), value)),
        }
        // Of what does not exist there is no schema.
        let found = complaints(&newest, &broken).map_or(true, |wrong| !wrong.is_empty());
        ensure!(found, "nothing is said against {at}/{name}");
    }
    Ok(())
}

#[test]
fn the_parts_of_the_manifests_fit_together() -> Result<()> {
    let objects = rendered("kubernetes")?;
    let (daemons, map) = (only(&objects, "DaemonSet")?, only(&objects, "ConfigMap")?);
    let pod = &daemons["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let labels = &pod["metadata"]["labels"];
    ensure!(daemons["spec"]["selector"]["matchLabels"] == *labels, "{labels}");
    ensure!(pod["spec"]["hostPID"] == true && container["securityContext"]["privileged"] == false, "{pod:#}");

    // What the configuration says, and what the pod has.
    let text = map["data"]["why502.toml"].as_str().context("a configuration")?;
    let port = container["ports"][0]["containerPort"].as_u64().context("a port")?;
    ensure!(text.contains(&format!("\naddress = \"0.0.0.0:{port}\"\n")), "{text}");
    let annotated = pod["metadata"]["annotations"]["prometheus.io/port"].as_str();
    ensure!(annotated.and_then(|text| text.parse().ok()) == Some(port), "{annotated:?}");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        ensure!(get["path"] == "/healthz" && get["port"] == container["ports"][0]["name"], "{probe}: {get}");
    }
    let mounts = list(container, "/volumeMounts")?;
    let mounted: BTreeSet<_> = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    ensure!(mounted == ["/etc/why502", "/sys/kernel/tracing", "/var/lib/why502", "/var/log/why502"].into());
    for folder in ["/var/lib/why502", "/var/log/why502"] {
        ensure!(text.contains(&format!("\"{folder}")), "nothing is written to {folder}");
    }
    let volumes = list(&pod["spec"], "/volumes")?;
    let named = |all: &[Value]| all.iter().map(|one| one["name"].to_string()).collect::<BTreeSet<_>>();
    ensure!(named(mounts) == named(volumes), "{mounts:?} {volumes:?}");
    let of_map = volumes.iter().find_map(|volume| volume.pointer("/configMap/name"));
    ensure!(of_map == Some(&map["metadata"]["name"]), "{of_map:?}");

    let Run { stderr, status, .. } = run(&[
        "serve",
        "--check",
        "--config",
        packaging()?.join("kubernetes/why502.toml").to_str().context("UTF-8")?,
    ])?;
    ensure!(status.success() && stderr.contains("nothing is wrong"), "{status}: {stderr}");
    let words = texts(container, "/args")?;
    ensure!(words == ["--config", "/etc/why502/why502.toml", "serve"].map(str::to_owned).into(), "{words:?}");

    // The unit says what each capability is for.
    let unit = fs::read_to_string(packaging()?.join("why502.service"))?;
    let line =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("capabilities")?;
    let of_unit: BTreeSet<_> =
        line.split(' ').map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    ensure!(texts(container, "/securityContext/capabilities/add")? == of_unit, "the unit has {of_unit:?}");
    ensure!(texts(container, "/securityContext/capabilities/drop")? == ["ALL".to_owned()].into());

    let monitors = rendered("kubernetes/prometheus-operator")?;
    let monitor = only(&monitors, "PodMonitor")?;
    ensure!(monitor["spec"]["selector"]["matchLabels"] == *labels, "{monitor:#}");
    ensure!(
        monitor["spec"]["podMetricsEndpoints"][0]["port"] == container["ports"][0]["name"],
        "{monitor:#}"
    );
    ensure!(monitor["metadata"]["namespace"] == daemons["metadata"]["namespace"], "{monitor:#}");
    Ok(())
}

/// Leaves a command that is run as root these capabilities, as a container's runtime does.
fn leave(command: &mut std::process::Command, kept: Vec<libc::c_ulong>) {
    // SAFETY: prctl(2) is async-signal-safe, and nothing here allocates.
    unsafe {
        command.pre_exec(move || {
            for capability in (0..=LAST_CAPABILITY).filter(|number| !kept.contains(number)) {
                // Beyond the last one that the kernel knows it says EINVAL.
                let dropped = libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;
                let error = io::Error::last_os_error();
                if !dropped && error.raw_os_error() != Some(libc::EINVAL) {
                    return Err(error);
                }
            }
            Ok(())
        });
    }
}

#[test]
fn what_the_daemon_set_gives_it_is_enough_to_explain_a_failure_of_another_pods_nginx() -> Result<()> {
    let objects = rendered("kubernetes")?;
    let container = &only(&objects, "DaemonSet")?["spec"]["template"]["spec"]["containers"][0];
    let mut kept = Vec::new();
    for name in texts(container, "/securityContext/capabilities/add")? {
        let (_, number) = CAPABILITIES.iter().find(|(known, _)| *known == name).context(name)?;
        kept.push(*number);
    }
    // Two networks: nginx's pod, and why502's own.
    let (pod, other) = (Namespace::new()?, Namespace::new()?);
    let listener = other.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9010")?))?;
    let nginx = Nginx::on(&other)
        .location(Location::fastcgi("/none/", &Endpoint::v4(9009)))
        .location(
            Location::fastcgi("/queued/", &Endpoint::v4(9010))
                .read_timeout(std::time::Duration::from_secs(1)),
        )
        .start()?;
    let folder = Service::folder()?;
    let json = folder.path().join("verdicts.json");
    let words = ["-p", &nginx.master().to_string(), "--json-path", json.to_str().context("UTF-8")?];
    let service = Service::in_surroundings(folder, &words, |command| {
        pod.hold(command);
        leave(command, kept.clone());
    })?;
    let has = |pid| Ok::<_, anyhow::Error>(procfs::process::Process::new(pid)?.status()?.capeff);
    // What it has begun with, as far as this machine has it: of that it has given up what it does not need any more.
    let most = kept.iter().fold(0, |all, number| all | 1 << number) & has(std::process::id().cast_signed())?;
    let left = has(service.pid())?;
    ensure!(left != 0 && left & !most == 0, "{left:x}, of {most:x}");
    ensure!(nginx.client().get("/none/")?.status == 502);
    ensure!(nginx.client().get("/queued/")?.status == 504);
    let metrics = service.metrics()?;
    let page = || pod.run(|| Ok(rig::service::get(metrics, "/metrics")?.1));
    // Both ends are seen: who listens in another network namespace, and how full its queue is.
    rig::wait::until_true("both failures, and the accept queue", || {
        let page = page()?;
        let failures: f64 = series(&page, "why502_failures_total")?.iter().map(|(_, value)| value).sum();
        let queues = series(&page, "why502_accept_queue_limit")?;
        Ok(failures == 2.0 && queues.iter().any(|(labels, _)| labels["listener"] == "127.0.0.1:9010"))
    })?;
    let emitted = verdicts(&json)?;
    let names: BTreeSet<_> = emitted.iter().map(rig::Verdict::name).collect();
    ensure!(
        names == ["read_timeout/nobody_accepts", "refused/no_listener"].map(str::to_owned).into(),
        "{emitted:#?}"
    );
    ensure!(emitted.iter().all(|verdict| verdict.confidence == "proven"), "{emitted:#?}");
    drop(listener);
    service.stop().map(drop)
}
