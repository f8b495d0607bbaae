//! Which hook tells which fact, and attaching them.

use aya::{
    Ebpf,
    programs::{RawTracePoint, TracePoint},
};
use tracer_ebpf::{Layout, MISSING};

use super::{refused, tracefs};
use crate::failure::Failure;

/// Something that a hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// Connections come and go.
    States,
    /// Bytes go out, and what nginx does after it closed.
    Sends,
    /// Bytes are read, and by whom first.
    Receives,
    /// A reset was sent, and why.
    ResetSent,
    /// A reset arrived.
    ResetReceived,
    /// A SYN went out again.
    Retransmits,
    /// A socket that was reset earlier is closed.
    Destroys,
    /// Who sent a signal to whom.
    Signals,
    /// How a process ended.
    Deaths,
    /// A packet was dropped, and why.
    PacketDrops,
    /// Connections to unix sockets, and connects that fail at once.
    SystemCalls,
}

/// A BPF program, the fact it tells, and whether the program can do without.
struct Hook {
    fact: Fact,
    tracepoint: &'static str,
    is_required: bool,
}

const HOOKS: &[Hook] = &[
    Hook { fact: Fact::States, tracepoint: "inet_sock_set_state", is_required: true },
    Hook { fact: Fact::Sends, tracepoint: "sock_send_length", is_required: true },
    Hook { fact: Fact::Receives, tracepoint: "sock_recv_length", is_required: true },
    Hook { fact: Fact::Signals, tracepoint: "signal_generate", is_required: true },
    Hook { fact: Fact::ResetReceived, tracepoint: "tcp_receive_reset", is_required: true },
    Hook { fact: Fact::Retransmits, tracepoint: "tcp_retransmit_skb", is_required: true },
    Hook { fact: Fact::ResetSent, tracepoint: "tcp_send_reset", is_required: false },
    Hook { fact: Fact::Deaths, tracepoint: "sched_process_exit", is_required: false },
    Hook { fact: Fact::PacketDrops, tracepoint: "kfree_skb", is_required: false },
    Hook { fact: Fact::Destroys, tracepoint: "tcp_destroy_sock", is_required: false },
];

/// The hooks in use, and the facts that this kernel does not let the program see.
#[derive(Clone, Debug, Default)]
pub struct HookPlan {
    /// Each fact in use with its source, as in `raw_tp/tcp_send_reset`.
    pub in_use: Vec<(Fact, String)>,
    /// Each fact without a source, with the reason.
    pub missing: Vec<(Fact, String)>,
}

/// Attaches each hook. An optional one that the kernel refuses is noted and left out.
///
/// # Errors
/// Names the first required hook that the kernel refuses.
pub(super) fn attach(object: &mut Ebpf, layout: &Layout) -> Result<HookPlan, Failure> {
    let mut plan = HookPlan::default();
    for hook in HOOKS {
        if hook.fact == Fact::PacketDrops && layout.drop_reason_arg == MISSING {
            plan.missing.push((hook.fact, "this kernel's kfree_skb gives no reason".to_owned()));
            continue;
        }
        let source = format!("raw_tp/{}", hook.tracepoint);
        match attach_one(object, hook.tracepoint, &source) {
            Ok(()) => plan.in_use.push((hook.fact, source)),
            Err(error) if hook.is_required => return Err(error),
            Err(error) => plan.missing.push((hook.fact, error.to_string())),
        }
    }
    Ok(plan)
}

fn attach_one(object: &mut Ebpf, tracepoint: &str, source: &str) -> Result<(), Failure> {
    let program: &mut RawTracePoint = object
        .program_mut(tracepoint)
        .ok_or_else(|| anyhow::anyhow!("the BPF object has no program {tracepoint}"))?
        .try_into()
        .map_err(anyhow::Error::from)?;
    program.load().map_err(|error| {
        if std::env::var_os("WHY502_VERIFIER_LOG").is_some() {
            eprintln!("{error:?}");
        }
        refused(source, &error)
    })?;
    program.attach(tracepoint).map_err(|error| refused(source, &error))?;
    Ok(())
}

/// The system calls that tell of unix sockets.
const SYSTEM_CALLS: [&str; 3] = ["sys_enter_connect", "sys_exit_connect", "sys_enter_close"];

/// Attaches the hooks on system calls.
///
/// # Errors
/// If the kernel refuses one, or its tracefs cannot be had.
pub(super) fn attach_system_calls(object: &mut Ebpf) -> Result<(), Failure> {
    tracefs::with(|| {
        for name in SYSTEM_CALLS {
            let source = format!("tracepoint/syscalls/{name}");
            let program: &mut TracePoint = object
                .program_mut(name)
                .ok_or_else(|| anyhow::anyhow!("the BPF object has no program {name}"))?
                .try_into()
                .map_err(anyhow::Error::from)?;
            program.load().map_err(|error| refused(&source, &error))?;
            program.attach("syscalls", name).map_err(|error| refused(&source, &error))?;
        }
        Ok(())
    })
}
