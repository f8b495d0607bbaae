//! The kernel's own functions that programs call where it offers them (kfuncs). A compiled program cannot know their numbers, which are
//! those of the running kernel's BTF: it calls marks, and userspace puts the functions there, or nothing, before it loads the programs.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// Its name in the kernel's BTF.
    pub name: &'static str,
    /// What a compiled program calls instead: no helper has such a number.
    pub mark: u32,
}

/// `void bpf_preempt_disable(void)`, since 6.10.
pub const PREEMPT_DISABLE: KernelFunction = KernelFunction { name: "bpf_preempt_disable", mark: 0x7502_0001 };
/// `void bpf_preempt_enable(void)`, since 6.10.
pub const PREEMPT_ENABLE: KernelFunction = KernelFunction { name: "bpf_preempt_enable", mark: 0x7502_0002 };
/// `void bpf_local_irq_save(unsigned long *flags)`, since 6.14.
pub const IRQ_SAVE: KernelFunction = KernelFunction { name: "bpf_local_irq_save", mark: 0x7502_0003 };
/// `void bpf_local_irq_restore(unsigned long *flags)`, since 6.14.
pub const IRQ_RESTORE: KernelFunction = KernelFunction { name: "bpf_local_irq_restore", mark: 0x7502_0004 };

/// `void *bpf_rdonly_cast(const void *obj, u32 btf_id)`, since 6.2: an address becomes one of that type, which may be looked at by a plain
/// instruction (a fault reads as zero). It is no call but a move once the verifier is through.
pub const READ_ONLY_CAST: KernelFunction = KernelFunction { name: "bpf_rdonly_cast", mark: 0x7502_0005 };

/// [`PREEMPT_DISABLE`], where a program's stack belongs to the CPU and several tasks may be inside of the program.
pub const SHARED_STACK_BEGIN: KernelFunction = KernelFunction { mark: 0x7502_0006, ..PREEMPT_DISABLE };
/// [`PREEMPT_ENABLE`], where it does.
pub const SHARED_STACK_END: KernelFunction = KernelFunction { mark: 0x7502_0007, ..PREEMPT_ENABLE };

/// All of them.
pub const KERNEL_FUNCTIONS: [KernelFunction; 7] = [
    PREEMPT_DISABLE,
    PREEMPT_ENABLE,
    IRQ_SAVE,
    IRQ_RESTORE,
    READ_ONLY_CAST,
    SHARED_STACK_BEGIN,
    SHARED_STACK_END,
];
