//! Certificates for servers that speak TLS, made by the `openssl` program, and such a server: an nginx.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{Namespace, process};

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    /// One for a name, which vouches for itself and for others.
    pub fn self_signed(namespace: &Namespace, name: &str) -> Result<Certificate> {
        Certificate::make(namespace, name, &[])
    }

    /// One for a server, which vouches for itself alone.
    pub fn of_server(namespace: &Namespace, name: &str) -> Result<Certificate> {
        Certificate::make(namespace, name, &["-addext", "basicConstraints=critical,CA:FALSE"])
    }

    fn make(namespace: &Namespace, name: &str, more: &[&str]) -> Result<Certificate> {
        let certificate = Certificate { folder: namespace.folder("tls")? };
        let mut command = openssl(namespace, "req")?;
        command.args(["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
        command.args(more);
        command.arg("-keyout").arg(certificate.key()).arg("-out").arg(certificate.path());
        process::output(command)?;
        Ok(certificate)
    }

    /// Revokes it, by itself: returns the list that says so.
    pub fn revoke(&self, namespace: &Namespace) -> Result<PathBuf> {
        let list = self.folder.join("revoked.pem");
        let settings = self.folder.join("ca.conf");
        fs::write(self.folder.join("index"), "")?;
        fs::write(
            &settings,
            format!(
                "[ca]\ndefault_ca = rig\n[rig]\ndatabase = {}\ndefault_md = sha256\ndefault_crl_days = 1\n",
                self.folder.join("index").display()
            ),
        )?;
        for step in
            [["-revoke".as_ref(), self.path().as_os_str()], ["-gencrl -out".as_ref(), list.as_os_str()]]
        {
            let mut command = openssl(namespace, "ca")?;
            command
                .arg("-config")
                .arg(&settings)
                .arg("-cert")
                .arg(self.path())
                .arg("-keyfile")
                .arg(self.key());
            let [option, value] = step;
            command.args(option.to_string_lossy().split(' ')).arg(value);
            process::output(command)?;
        }
        Ok(list)
    }

    /// The certificate's file.
    pub fn path(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// A `server` block for an nginx that shows it at a port of 127.0.0.1, and does with every request what `directives` say.
    pub fn server(&self, port: u16, directives: &str) -> String {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; \
             ssl_protocols TLSv1.2 TLSv1.3; location / {{ {directives} }} }}",
            self.path().display(),
            self.key().display(),
        )
    }

    /// Its key's file.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}

fn openssl(namespace: &Namespace, command: &str) -> Result<Command> {
    let mut openssl = namespace.command(process::find_program(&["openssl"])?);
    openssl.arg(command);
    Ok(openssl)
}
