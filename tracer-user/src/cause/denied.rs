//! A connect that failed with EACCES: owner and mode, a route, or what confines nginx's processes beyond that.

use super::{Cause, Finding};
use crate::model::{
    inquiry::{Denial, Ordinary},
    upstream::Upstream,
};

/// What the ordinary rules forbid is theirs; what they allow, something else forbade. None where they were not asked, or do not say.
pub(super) fn judge(upstream: &Upstream, denial: &Denial) -> Option<Finding> {
    match (denial.ordinary, upstream) {
        (Ordinary::Allow, _) => Some(by_policy(upstream, denial)),
        (Ordinary::Forbid, Upstream::Inet(_)) => Some(Finding::proven(
            Cause::RefusedNoRoute,
            format!(
                "{upstream} cannot be reached: a route or rule of this host prohibits it, and connect said so at once."
            ),
            "`ip rule` and `ip route get` in nginx's network namespace: an entry of type prohibit.",
        )),
        (Ordinary::Forbid | Ordinary::Unknown | Ordinary::LeftOut, _) => None,
    }
}

fn by_policy(upstream: &Upstream, denial: &Denial) -> Finding {
    let allowed = match upstream {
        Upstream::Unix(_) => "its owner and mode allow it",
        Upstream::Inet(_) | Upstream::Named(_) => "no route of this host prohibits it",
    };
    Finding::inferred(
        Cause::RefusedDeniedByLsm,
        format!(
            "This host forbids nginx's process to connect to {upstream} (EACCES), though {allowed}: {} does.",
            who(denial)
        ),
        advice(upstream, denial),
    )
}

/// What confines the process, as far as it shows.
fn who(denial: &Denial) -> String {
    let label = denial.label.as_deref().unwrap_or_default();
    let mut likely = match (denial.selinux, label) {
        (true, "") => "SELinux".to_owned(),
        (true, context) => format!("SELinux, which has it as {context}"),
        (false, "") => "a security module (Landlock, or one of BPF's)".to_owned(),
        (false, profile) => format!("AppArmor's profile {profile}"),
    };
    if denial.seccomp {
        likely += ", or its seccomp filter,";
    }
    likely
}

fn advice(upstream: &Upstream, denial: &Denial) -> String {
    let mut advice = match (denial.selinux, denial.label.is_some(), upstream) {
        (true, _, Upstream::Unix(path)) => format!(
            "`ausearch -m avc -c nginx`; the label of the socket and its folder (`ls -Z`, `restorecon -v {}`), and the boolean \
             httpd_can_network_connect where the listener's domain has no rule.",
            path.display()
        ),
        (true, _, _) => "`ausearch -m avc -c nginx`; `setsebool -P httpd_can_network_connect on` (or httpd_can_network_relay), or the \
                         upstream's port among http_port_t (`semanage port`)."
            .to_owned(),
        (false, true, _) => "`journalctl -k | grep apparmor`, and nginx's profile in /etc/apparmor.d.".to_owned(),
        (false, false, _) => {
            "what starts nginx, and what it forbids it: Landlock, a BPF program of the host's; the kernel's audit log says which.".to_owned()
        }
    };
    if denial.seccomp {
        advice += " The seccomp filter: SystemCallFilter= of its unit, or its container's profile.";
    }
    advice
}

/// What to add where it was not looked up.
pub(super) fn not_asked(denial: Option<&Denial>) -> &'static str {
    match denial.map(|denial| denial.ordinary) {
        Some(Ordinary::LeftOut) => {
            " Whether owner and mode would allow it was left out: there were too many failures at a time to look. A security module may \
             have forbidden it."
        }
        Some(Ordinary::Unknown) | None => {
            " Whether owner and mode would allow it is not known: a security module may have forbidden it."
        }
        Some(Ordinary::Allow | Ordinary::Forbid) => "",
    }
}
