//! The server: a thread of its own, with bounds for whoever asks: connections, bytes of a request, time.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle as Task,
    time::{sleep, timeout},
};

use super::{
    Shared, bpf,
    page::{self, Format},
};
use crate::{confine, model::clock::monotonic_ns};

/// Connections at a time. One more takes the place of the oldest: who asks at once is served, however many only hold theirs open.
const CONNECTIONS: usize = 32;

/// How long one may take, from its beginning to its end.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a request's head, and headers in it.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;

/// A page is written at most once in this time, however often it is asked for.
const FRESH: Duration = Duration::from_millis(250);

/// The event loop turns at least once a second; after so long (ns) without, it is not well.
const STUCK_NS: u64 = 15_000_000_000;

/// A server of metrics. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves at an address from now on.
    ///
    /// # Errors
    /// If nobody may listen there.
    pub fn start(address: SocketAddr, shared: &Arc<Shared>) -> anyhow::Result<Self> {
        let bound = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>((listener, address))
        };
        let (listener, address) =
            bound().with_context(|| format!("metrics cannot be served at {address}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("metrics cannot be served")?;
        let (stop, stopped) = oneshot::channel();
        let cache = Arc::new(Cache { shared: Arc::clone(shared), pages: Mutex::default() });
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                // Where the kernel has less to confine it with, doctor says so.
                let _lacking = confine::serving(Path::new(bpf::SETTING));
                let serving = async {
                    tokio::select! {
                        served = serve(listener, cache) => served,
                        _ = stopped => Ok(()),
                    }
                };
                if let Err(error) = runtime.block_on(serving) {
                    crate::notice!("metrics are not served any more: {error}");
                }
            })
            .context("metrics cannot be served")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropped, it says so as well.
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            crate::notice!("the thread that served metrics has panicked");
        }
    }
}

async fn serve(listener: TcpListener, cache: Arc<Cache>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut open: VecDeque<Task<()>> = VecDeque::new();
    let mut has_failed = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // It had gone again; or there is no descriptor left, which others may give back.
                if !std::mem::replace(&mut has_failed, true) {
                    crate::notice!("a scraper of metrics could not be let in: {error}");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        open.retain(|task| !task.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let cache = Arc::clone(&cache);
        open.push_back(tokio::spawn(async move {
            let answer = service_fn(move |request| answer(Arc::clone(&cache), request));
            let mut connection = http1::Builder::new();
            connection.keep_alive(false).max_buf_size(HEAD).max_headers(HEADERS);
            // Whoever is too slow, too long or gone has no answer: that is no news.
            let _ = timeout(LIMIT, connection.serve_connection(TokioIo::new(stream), answer)).await;
        }));
    }
}

async fn answer(cache: Arc<Cache>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&(Method::GET | Method::HEAD), "/metrics") => {
            let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::asked_for(&accept.collect::<Vec<_>>().join(","));
            (StatusCode::OK, format.content_type(), cache.page(format).await)
        }
        (&(Method::GET | Method::HEAD), "/healthz") => match stuck_s(&cache.shared) {
            None => (StatusCode::OK, TEXT, Bytes::from_static(b"ok\n")),
            Some(seconds) => (
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("the event loop has not turned for {seconds} s\n").into(),
            ),
        },
        (_, "/metrics" | "/healthz") => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"ask by GET\n"))
        }
        _ => (StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"there are /metrics and /healthz\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

/// For how many seconds the event loop has not turned, if that is too long.
fn stuck_s(shared: &Shared) -> Option<u64> {
    let still_ns = monotonic_ns().saturating_sub(shared.turned_ns.load(Ordering::Relaxed));
    (still_ns > STUCK_NS).then_some(still_ns / 1_000_000_000)
}

/// The pages that were written last, which all connections share: a hundred that are read slowly take no more memory than one.
#[derive(Debug)]
struct Cache {
    shared: Arc<Shared>,
    pages: Mutex<Vec<(Format, Instant, Bytes)>>,
}

impl Cache {
    async fn page(&self, format: Format) -> Bytes {
        let mut pages = self.pages.lock().await;
        pages.retain(|(_, at, _)| at.elapsed() < FRESH);
        if let Some((.., page)) = pages.iter().find(|(one, ..)| *one == format) {
            return page.clone();
        }
        let page = Bytes::from(page::write(&self.shared, format));
        pages.push((format, Instant::now(), page.clone()));
        page
    }
}
