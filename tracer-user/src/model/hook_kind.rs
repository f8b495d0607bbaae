//! Kinds of hooks.

/// A way to hook the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// Raw tracepoints by name; no tracefs needed.
    RawTracepoint,
    /// fentry and fexit, since 5.5 where the kernel allows them.
    Function,
    /// kprobes and kretprobes.
    Kprobe,
    /// Tracepoints on system calls: they tax every system call of the host, so they wait until they are needed.
    SystemCall,
}

impl HookKind {
    /// Every kind with its name for `--hooks-only`.
    pub const ALL: [(&'static str, Self); 4] = [
        ("raw_tp", Self::RawTracepoint),
        ("fentry", Self::Function),
        ("kprobe", Self::Kprobe),
        ("syscall", Self::SystemCall),
    ];

    /// As the name of a source begins, as in `raw_tp/signal_generate`.
    pub const fn of_source(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw_tp",
            Self::Function => "fentry",
            Self::Kprobe => "kprobe",
            Self::SystemCall => "tracepoint/syscalls",
        }
    }

    /// Whether a section of a BPF object holds programs of this kind, as the loader names sections.
    pub(crate) fn is_of(self, section: &str) -> bool {
        let programs = section.split('/').next().unwrap_or(section);
        match self {
            Self::RawTracepoint => programs == "raw_tp",
            Self::Function => matches!(programs, "fentry" | "fexit"),
            Self::Kprobe => matches!(programs, "kprobe" | "kretprobe"),
            Self::SystemCall => programs == "tracepoint",
        }
    }
}
