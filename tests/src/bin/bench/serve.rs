//! What `why502 serve` takes while nothing happens, and how long a scrape of it does.

use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::prctl;
use nix::sys::socket::SockaddrIn;
use rig::service::{self, Service, series};

use crate::figure::{emit, progress};
use crate::process::{self, begin_peak};
use crate::stage::Stage;
use crate::storm::refused;

/// How many upstreams have labels of their own: as many as there are by default.
const UPSTREAMS: u16 = 100;
/// The first of their ports, at none of which somebody listens.
const PORT: u16 = 20_001;
/// How long nothing happens, but that it is scraped.
const IDLE: Duration = Duration::from_secs(60);
/// How often: as Prometheus does where it is told to be quick.
const INTERVAL: Duration = Duration::from_secs(15);
/// Scrapes, one after the other.
const SCRAPES: usize = 200;

/// Measures both.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    let service = Service::start(Service::folder()?, &[])?;
    progress(&format!("why502 serve, with {UPSTREAMS} upstreams that have failed"));
    stage.namespace.run(|| {
        prctl::set_name(c"nginx")?;
        (0..UPSTREAMS).try_for_each(|number| {
            refused(&SockaddrIn::from(SocketAddrV4::new([127, 0, 0, 1].into(), PORT + number)))
        })
    })?;
    service.wait_for("why502_failures_total", &[], UPSTREAMS.into())?;
    let page = service.page()?;
    let upstreams = series(&page, "why502_exchanges_total")?.len();
    ensure!(upstreams == usize::from(UPSTREAMS), "{upstreams} upstreams on the page");

    progress(&format!("why502 serve, while nothing happens for {} s", IDLE.as_secs()));
    let at_start = begin_peak(service.pid())?;
    let (started, before) = (Instant::now(), process::cpu_ns(service.pid())?);
    while started.elapsed() < IDLE {
        thread::sleep(INTERVAL);
        service.page()?;
    }
    let busy = process::cpu_ns(service.pid())? - before;
    let memory = process::memory(service.pid())?;
    let emit_it = |measure, value| emit("idle", "serve", measure, value);
    emit_it("cpu_percent", 100.0 * busy as f64 / started.elapsed().as_nanos() as f64)?;
    emit_it("start_peak_mib", at_start)?;
    emit_it("resident_mib", memory.resident)?;
    emit_it("peak_mib", memory.peak)?;
    emit_it("maps_mib", memory.maps)?;

    progress(&format!("{SCRAPES} scrapes"));
    let server = service.metrics()?;
    for _ in 0..SCRAPES {
        let asked = Instant::now();
        let (status, page) = service::get(server, "/metrics")?;
        let took = asked.elapsed();
        ensure!(status == 200 && page.len() > 10_000, "{status}: {page}");
        emit("scrape", "serve", "scrape_ms", took.as_secs_f64() * 1e3)?;
    }
    emit("scrape", "serve", "page_kib", page.len() as f64 / 1024.0)?;
    ensure!(service.sum("why502_lost_records_total", &[])? == 0.0, "records were lost");
    service.stop().map(drop)
}
