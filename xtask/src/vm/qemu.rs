//! One boot of the guest, in software: no hardware virtualisation is needed.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{kernels::Image, tools::Tools};
use crate::{
    arch::Arch,
    interrupt::{End, Group, OnSignal},
};

/// Boots a kernel and hands each line of the second serial line to `on_line`. What the kernel itself says goes to `console`. Returns what
/// went wrong, if the machine did not switch itself off.
pub(crate) fn boot(
    tools: &Tools,
    image: &Image,
    initramfs: &Path,
    console: &Path,
    limit: Duration,
    mut on_line: impl FnMut(&str) -> Result<()>,
) -> Result<Option<String>> {
    let console_line = match tools.arch() {
        Arch::X86_64 => "ttyS0",
        Arch::Arm64 => "ttyAMA0",
    };
    let mut command = tools.qemu();
    command
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "4G"])
        .args(["-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&image.vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        // A panic is an end, too. Warnings are for the log; what is less is not worth the slow line. The emulated counter is the
        // host's, whatever the kernel finds when it compares it with slower clocks: without it reading the time is slow.
        .arg("-append")
        .arg(format!("console={console_line} panic=-1 loglevel=5 tsc=reliable"))
        .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut group = Group::spawn(&mut command)?;
    let output = group.take_stdout().context("the emulator's output is not piped")?;
    let (send, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });

    let mut hear = || lines.try_iter().try_for_each(|line| on_line(&line));
    let mut heard = Ok(());
    let end = group.wait(OnSignal::Pass, Some(limit), |_| {
        if heard.is_ok() {
            heard = hear();
        }
    })?;
    let failed = match end {
        End::Exited(status) if status.success() => None,
        End::Exited(status) => Some(format!("the emulator ended with {status}")),
        End::TimedOut => Some(format!("no end after {} s", limit.as_secs())),
        End::Interrupted(signal) => bail!("interrupted by {signal}"),
    };
    heard?;
    // It ends when the emulator has gone.
    let _ = reader.join();
    hear()?;
    Ok(failed)
}
