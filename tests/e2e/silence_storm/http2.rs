//! Visitors that speak HTTP/2, plainly or over TLS, and cancel some of what they ask for.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use rig::Namespace;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Who trusts the certificate in a file, and speaks HTTP/2.
pub fn trusting(certificate: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let mut settings = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    settings.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(settings)))
}

/// A connection, and what is asked for on it and not answered.
pub struct Visitor {
    requests: SendRequest<Bytes>,
    unanswered: Vec<(ResponseFuture, SendStream<Bytes>)>,
    driven: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Visitor {
    /// Connects; over TLS if it trusts somebody for that.
    pub async fn connect(
        namespace: &Namespace,
        server: SocketAddr,
        tls: Option<&TlsConnector>,
    ) -> Result<Visitor> {
        let stream = namespace.run(|| Ok(TcpStream::connect(server)?))?;
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        match tls {
            Some(tls) => {
                let stream = tls.connect(ServerName::try_from("rig")?, stream).await?;
                ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "nginx does not speak h2");
                Visitor::on(stream).await
            }
            None => Visitor::on(stream).await,
        }
    }

    async fn on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Visitor> {
        let (requests, connection) = h2::client::handshake(stream).await?;
        Ok(Visitor { requests, unanswered: Vec::new(), driven: tokio::spawn(connection) })
    }

    async fn send(&mut self, path: &str) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let request = Request::get(format!("https://rig{path}")).body(())?;
        let mut requests = self.requests.clone().ready().await?;
        Ok(requests.send_request(request, true)?)
    }

    /// Asks, and leaves the answer for later.
    pub async fn ask(&mut self, path: &str) -> Result<()> {
        let asked = self.send(path).await?;
        self.unanswered.push(asked);
        Ok(())
    }

    /// Asks, waits for the answer to its end, and gives its status.
    pub async fn get(&mut self, path: &str) -> Result<u16> {
        let (response, _) = self.send(path).await?;
        let response = response.await.with_context(|| path.to_owned())?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        while let Some(some) = body.data().await {
            let length = some?.len();
            body.flow_control().release_capacity(length)?;
        }
        Ok(status)
    }

    /// Cancels one of those that are not answered, and goes on.
    pub fn cancel(&mut self) -> Result<()> {
        let (_, mut stream) = self.unanswered.pop().context("nothing to cancel")?;
        stream.send_reset(Reason::CANCEL);
        Ok(())
    }

    /// Leaves, whatever is not answered.
    pub async fn leave(self) {
        self.driven.abort();
        // The socket goes with the task.
        drop(self.driven.await);
    }
}
