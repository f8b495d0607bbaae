//! What lies between two ends: veth pairs and nftables.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::Namespace;
use crate::process;

impl Namespace {
    /// Joins two namespaces by a veth pair: `here` and `there` are the addresses of the two ends, in one /24.
    /// The interface is called `name` on both sides.
    pub fn join(&self, other: &Namespace, name: &str, here: Ipv4Addr, there: Ipv4Addr) -> Result<()> {
        // `ip` knows a namespace by a pid in it or a file; /proc/PID/fd/N is one that needs no name.
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.net().as_raw_fd());
        fs::metadata(&path).with_context(|| path.clone())?;
        self.ip(&format!("link add {name} type veth peer name {name} netns {path}"))?;
        for (end, address) in [(self, here), (other, there)] {
            end.ip(&format!("address add {address}/24 dev {name}"))?;
            end.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }

    /// Loads nftables rules, in the language of `nft -f`.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut command = self.command(process::find_program(&["nft"])?);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = command.spawn().context("starting nft")?;
        if let Some(mut stdin) = nft.stdin.take() {
            stdin.write_all(rules.as_bytes()).context("handing rules to nft")?;
        }
        let output = nft.wait_with_output()?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}
