//! Many connections of nginx's from the same port of its own, each to another upstream.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, process};

#[test]
fn connections_from_one_port_each_have_their_own_worker() -> Result<()> {
    const SERVERS: u16 = 12;
    let namespace = Namespace::new()?;
    let mut servers = (0..SERVERS)
        .map(|number| FaultyServer::start(&namespace, Fault::AnswerWhenTold, Endpoint::v4(9100 + number), 4))
        .collect::<Result<Vec<_>>>()?;
    let nginx = servers
        .iter()
        .enumerate()
        .fold(Nginx::on(&namespace), |nginx, (number, server)| {
            nginx.location(Location::http(&format!("/{number}/"), server.endpoint()))
        })
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    // The clients have their ports already; nginx's connections have two among them.
    let clients = servers.iter().map(|_| nginx.client().connected()).collect::<Result<Vec<_>>>()?;
    namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40001")?;
    let mut asked = Vec::new();
    for (number, (client, server)) in clients.into_iter().zip(&servers).enumerate() {
        asked.push(client.ask(&format!("/{number}/"))?);
        server.wait_read(1)?;
    }
    // From the newest back, so that those whose place another has by now are among both.
    for (number, (server, asked)) in servers.iter_mut().zip(asked).enumerate().rev() {
        if number % 3 == 0 {
            server.answer()?;
            ensure!(asked.answer()?.status == 200);
        } else {
            process::send(server.pid(), Signal::SIGTERM)?;
            ensure!(asked.answer()?.status == 502);
        }
    }
    let killed = servers.iter().enumerate().filter(|(number, _)| number % 3 != 0);
    tracer.wait_for(killed.clone().count())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let mut ports = Vec::new();
    for (_, server) in killed {
        let verdict = account.only(server.endpoint())?;
        verdict.says("premature_close/worker_killed", "proven", 502, None)?;
        verdict.blames(Some(server.pid()), Some("SIGTERM"), Some(std::process::id().cast_signed()))?;
        ports.extend(verdict.nginx.local.clone());
    }
    let all = ports.len();
    ports.sort();
    ports.dedup();
    ensure!(ports.len() <= 2 && all == 8, "{ports:?}");
    Ok(())
}
