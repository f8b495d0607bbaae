//! What calls itself nginx or php-fpm, and files and pages that never end.

use std::io::{ErrorKind, Read, Write, stdin};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Executed as `nginx`, by someone else than this program: leaves a mark beside the executable.
pub fn mark_execution(arguments: &[String]) -> Result<()> {
    let me = env::current_exe()?;
    if me.file_name().is_some_and(|name| name == "nginx")
        && arguments.first().is_none_or(|first| first != "kept")
    {
        fs::write(me.with_file_name("executed"), arguments.join(" "))?;
    }
    Ok(())
}

pub fn play(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["nginx", folder, port] => {
            // Its name comes from its file.
            let nginx = Path::new(folder).join("nginx");
            fs::copy("/proc/self/exe", &nginx)?;
            fs::set_permissions(&nginx, fs::Permissions::from_mode(0o755))?;
            Err(Command::new(nginx).args(["kept", "configuration", "listen", port]).exec().into())
        }
        ["listen", port] => {
            let _listener = listen(port)?;
            rest()
        }
        ["traps", folder] => {
            let folder = Path::new(folder);
            symlink("/etc/shadow", folder.join("shadow"))?;
            symlink("/dev/zero", folder.join("zero"))?;
            mkfifo(&folder.join("pipe"), Mode::S_IRWXU)?;
            fs::File::create(folder.join("sparse"))?.set_len(2 << 30)?;
            rest()
        }
        ["endless", port, ..] => {
            let listener = listen(port)?;
            thread::spawn(move || {
                listener.incoming().flatten().for_each(|stream| endless(stream, &[b'x'; 0xffff]))
            });
            rest()
        }
        _ => bail!("no such attack: {arguments:?}"),
    }
}

/// FastCGI's standard output, frame by frame, for as long as somebody reads it.
fn endless(mut stream: impl Write, content: &[u8]) {
    // Version, kind, request, length, padding, reserved.
    let frame = [&[1, 6, 0, 1, 0xff, 0xff, 0, 0], content].concat();
    while stream.write_all(&frame).is_ok() {}
}

fn listen(port: &str) -> Result<TcpListener> {
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    match TcpListener::bind(address) {
        // In a network of one's own nothing is up.
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let status =
                Command::new("ip").args(["link", "set", "lo", "up"]).status().context("running ip")?;
            ensure!(status.success(), "ip: {status}");
            Ok(TcpListener::bind(address)?)
        }
        bound => Ok(bound?),
    }
}

fn rest() -> Result<()> {
    println!("ready");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
