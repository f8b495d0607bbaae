//! Several exchanges of one request, each with its own verdict (issue 20).

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::error_log::Failure;
use rig::reconcile::pair_off_words;
use rig::tracer::Account;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, wait};

const SHORT: Duration = Duration::from_millis(600);
/// Where nobody fails.
const PLAIN: u16 = 9202;

fn plain(namespace: &Namespace) -> Result<Nginx> {
    let block = format!("server {{ listen 127.0.0.1:{PLAIN}; location / {{ return 200 \"plain\\n\"; }} }}");
    Nginx::on(namespace).port(8090).block(&block).start()
}

/// A location of its own, for subrequests.
fn internal(name: &str, upstream: &Endpoint) -> String {
    let (ms, upstream) = (SHORT.as_millis(), upstream.for_nginx());
    // Whether its client stays changes nothing.
    format!(
        "location = {name} {{ proxy_pass http://{upstream}; proxy_read_timeout {ms}ms; proxy_ignore_client_abort on; }}"
    )
}

/// Each was waited for until nginx's timer ended it.
fn are_all_slow(failures: &[Failure], account: &Account, server: &FaultyServer, count: usize) -> Result<()> {
    account.is_orderly()?;
    pair_off_words(failures, &account.verdicts)?;
    let about = account.about(server.endpoint());
    ensure!(about.len() == count && account.verdicts.len() == count, "{:#?}", account.verdicts);
    for verdict in about {
        verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
        verdict.blames(Some(server.pid()), None, None)?;
    }
    Ok(())
}

#[test]
fn subrequests_of_one_page_that_time_out_together_are_each_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 64)?;
    let folder = namespace.folder("pages")?;
    let includes: String = (0..4).map(|n| format!("<!--#include virtual=\"/part{n}\" -->\n")).collect();
    fs::write(folder.join("page.html"), includes)?;
    let parts: String = (0..4).map(|n| internal(&format!("/part{n}"), mute.endpoint())).collect();
    let page = format!(
        "server {{ listen 127.0.0.1:8081; root {}; default_type text/html; ssi on; location / {{ }} {parts} }}",
        folder.display()
    );
    let nginx = Nginx::on(&namespace).block(&page).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = rig::Client::new(&namespace, ([127, 0, 0, 1], 8081).into());
    for _ in 0..3 {
        ensure!(client.get("/page.html")?.status == 200);
    }
    tracer.wait_for(12)?;
    are_all_slow(&nginx.failures(), &tracer.stop()?, &mute, 12)
}

#[test]
fn a_mirror_that_times_out_is_reported_though_its_client_has_its_answer() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 64)?;
    let _plain = plain(&namespace)?;
    let block = format!(
        "server {{ listen 127.0.0.1:8081; {}
           location / {{ mirror /copy; proxy_pass http://127.0.0.1:{PLAIN}; }} }}",
        internal("/copy", mute.endpoint())
    );
    let nginx = Nginx::on(&namespace).block(&block).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = rig::Client::new(&namespace, ([127, 0, 0, 1], 8081).into());
    // Some wait for the end, as the mirror lets them; some go once they have what they want.
    ensure!(client.get("/")?.status == 200);
    for round in 2..=4 {
        let asked = client.ask("/")?;
        asked.wait_for(20)?;
        mute.wait_read(round)?;
        drop(asked);
    }
    tracer.wait_for(4)?;
    are_all_slow(&nginx.failures(), &tracer.stop()?, &mute, 4)
}

#[test]
fn an_authorization_that_times_out_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 64)?;
    let _plain = plain(&namespace)?;
    let block = format!(
        "server {{ listen 127.0.0.1:8081; {}
           location / {{ auth_request /authorize; proxy_pass http://127.0.0.1:{PLAIN}; }} }}",
        internal("/authorize", mute.endpoint())
    );
    let nginx = Nginx::on(&namespace).block(&block).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = rig::Client::new(&namespace, ([127, 0, 0, 1], 8081).into());
    for _ in 0..2 {
        ensure!(client.get("/")?.status == 500);
    }
    tracer.wait_for(2)?;
    are_all_slow(&nginx.failures(), &tracer.stop()?, &mute, 2)
}

#[test]
fn an_update_of_the_cache_in_the_background_that_times_out_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let folder = namespace.folder("cache")?;
    let endpoint = Endpoint::v4(9100);
    let answers = FaultyServer::start(&namespace, Fault::Answer, endpoint.clone(), 64)?;
    let cached = Location::http("/cached/", &endpoint)
        .read_timeout(SHORT)
        .directive("proxy_cache zone")
        .directive("proxy_cache_valid 200 1s")
        .directive("proxy_cache_use_stale updating")
        .directive("proxy_cache_background_update on");
    let nginx = Nginx::on(&namespace)
        .block(&format!("proxy_cache_path {} keys_zone=zone:1m;", folder.display()))
        .location(cached)
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/cached/")?.status == 200);
    drop(answers);
    let mute = FaultyServer::start(&namespace, Fault::Mute, endpoint, 64)?;
    // Until it is stale, it is not asked for.
    wait::until_true("an update of the cache", || {
        ensure!(nginx.client().get("/cached/")?.status == 200);
        Ok(!nginx.failures().is_empty())
    })?;
    // One more may be under way.
    let failures = nginx.failures();
    tracer.wait_for(failures.len())?;
    are_all_slow(&failures, &tracer.stop()?, &mute, failures.len())
}
