//! WebSockets over TLS, by the client's side and by the upstream's: what holds of those without (`upgraded`) holds of them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::web_socket::{greet, read_to_end};
use rig::{Certificate, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, process, wait};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::{Message, WebSocket};

/// Where clients ask, and where the upstream takes TLS.
const FRONT: u16 = 8443;
const UPSTREAM: u16 = 9443;
/// Behind that.
const SERVER: u16 = 9100;
/// A real failure beside the others.
const NOBODY: u16 = 9109;

type Client = WebSocket<StreamOwned<ClientConnection, TcpStream>>;

struct Site {
    namespace: Namespace,
    certificate: Certificate,
    server: FaultyServer,
    /// Takes TLS for the server, and is not traced.
    upstream: Nginx,
    nginx: Nginx,
}

impl Site {
    fn start() -> Result<Site> {
        let namespace = Namespace::new()?;
        let certificate = Certificate::of_server(&namespace, "rig")?;
        let server = FaultyServer::start(&namespace, Fault::WebSocket, Endpoint::v4(SERVER), 64)?;
        let passes_on = |to: &str| {
            format!(
                "location / {{ proxy_pass {to}; proxy_http_version 1.1;
                   proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
            )
        };
        let to_server = passes_on(&format!("http://127.0.0.1:{SERVER}"));
        let to_upstream = passes_on(&format!("https://127.0.0.1:{UPSTREAM}"));
        let upstream =
            Nginx::on(&namespace).port(8090).block(&certificate.server(UPSTREAM, &to_server)).start()?;
        let nginx = Nginx::on(&namespace)
            .block(&certificate.server(FRONT, &to_upstream))
            .location(Location::http("/nobody/", &Endpoint::v4(NOBODY)))
            .start()?;
        Ok(Site { namespace, certificate, server, upstream, nginx })
    }

    /// A client that has been greeted, and has exchanged so many messages.
    fn client(&self, messages: usize) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate.path())?)?;
        let settings = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(settings), ServerName::try_from("rig")?)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FRONT));
        let stream = self.namespace.run(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        greet(StreamOwned::new(connection, stream), "wss://rig/web-socket/", messages)
    }
}

#[test]
fn only_the_death_of_its_worker_is_a_failure() -> Result<()> {
    let site = Site::start()?;
    let tracer = Tracer::of(site.nginx.master())?;
    for messages in [0, 1, 5] {
        // The client says goodbye.
        let mut client = site.client(messages)?;
        client.close(None)?;
        read_to_end(client);
        // It is gone without a word, to TLS as well.
        drop(site.client(messages)?);
        // The server leaves.
        let mut client = site.client(messages)?;
        client.send(Message::text("leave"))?;
        read_to_end(client);
    }
    let clients = [site.client(0)?, site.client(3)?];
    let worker = *site.upstream.workers()?.first().context("a worker")?;
    process::send(worker, Signal::SIGKILL)?;
    clients.into_iter().for_each(read_to_end);
    let accesses = site.nginx.wait_for_accesses(11)?;
    ensure!(accesses.iter().all(|access| access.status == 101), "{accesses:#?}");
    ensure!(site.nginx.client().get("/nobody/")?.status == 502);
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(&Endpoint::v4(NOBODY))?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    let cut = account.about(&Endpoint::v4(UPSTREAM));
    ensure!((cut.len(), account.verdicts.len()) == (2, 3), "{:#?}", account.verdicts);
    for verdict in cut {
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
        ensure!(said == ("upgraded/worker_killed".to_owned(), "proven", None), "{verdict:#?}");
        verdict.blames(Some(worker), Some("SIGKILL"), Some(std::process::id().cast_signed()))?;
    }
    drop(site.server);
    Ok(())
}
