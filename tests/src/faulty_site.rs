//! An nginx in front of faulty servers, one for each fault.

use anyhow::{Context, Result, ensure};

use crate::error_log::Failure;
use crate::nginx::Builder;
use crate::reconcile::pair_off_words;
use crate::tracer::Account;
use crate::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict};

/// An nginx that passes `/FAULT/` on to a server with that fault.
#[derive(Debug)]
pub struct FaultySite {
    nginx: Nginx,
    servers: Vec<(Fault, FaultyServer)>,
}

/// How nginx and its servers are to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Over TCP on the loopback.
    Tcp,
    /// Over unix sockets.
    Unix,
}

impl FaultySite {
    /// Starts it; `arrange` adds to each location what it needs.
    pub fn start(
        namespace: &Namespace,
        by: By,
        faults: impl IntoIterator<Item = Fault>,
        arrange: impl Fn(Location) -> Location,
    ) -> Result<FaultySite> {
        FaultySite::on(namespace, Nginx::on(namespace), by, faults, arrange)
    }

    /// The same with an nginx of one's own.
    pub fn on(
        namespace: &Namespace,
        mut nginx: Builder,
        by: By,
        faults: impl IntoIterator<Item = Fault>,
        arrange: impl Fn(Location) -> Location,
    ) -> Result<FaultySite> {
        let mut servers = Vec::new();
        for (port, fault) in (9100..).zip(faults) {
            let endpoint = match by {
                By::Tcp => Endpoint::v4(port),
                By::Unix => Endpoint::Unix(namespace.scratch().join(format!("{fault}.sock"))),
            };
            let server = FaultyServer::start(namespace, fault, endpoint, 64)?;
            nginx = nginx.location(arrange(server.location()));
            servers.push((fault, server));
        }
        Ok(FaultySite { nginx: nginx.start()?, servers })
    }

    /// The nginx.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The server with a fault.
    pub fn server(&self, fault: Fault) -> Result<&FaultyServer> {
        let found = self.servers.iter().find(|(its, _)| *its == fault);
        found.map(|(_, server)| server).with_context(|| format!("no server has the fault {fault}"))
    }

    /// Asks each server once, and returns what nginx has logged of each: what is cut off may have no header even.
    pub fn ask_each(&self) -> Result<Vec<(Fault, Vec<Failure>)>> {
        let mut said = Vec::new();
        let (mut asked, mut seen) = (self.nginx.wait_for_accesses(0)?.len(), self.nginx.failures().len());
        for (fault, _) in &self.servers {
            let _ = self.nginx.client().get(&format!("/{fault}/"));
            asked += 1;
            self.nginx.wait_for_accesses(asked)?;
            let mut failures = self.nginx.failures();
            said.push((*fault, failures.split_off(seen)));
            seen += said.last().map_or(0, |(_, failures)| failures.len());
        }
        Ok(said)
    }

    /// Asks each server once under a tracer's eyes, and holds its verdicts against nginx's lines one to one, and each against the name that
    /// `name` has for what nginx said. Returns the tracer's account.
    pub fn is_explained(&self, name: impl Fn(Fault, &Failure) -> &'static str) -> Result<Account> {
        let tracer = Tracer::of(self.nginx.master())?;
        let said = self.ask_each()?;
        tracer.wait_for(said.iter().filter(|(_, lines)| !lines.is_empty()).count())?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        let held = said.iter().filter_map(|(fault, lines)| {
            let expected = lines.first().map(|line| name(*fault, line));
            self.is_named(&account, *fault, expected).with_context(|| format!("{fault}")).err()
        });
        let wrong: Vec<String> = held.map(|error| format!("{error:#}")).collect();
        ensure!(wrong.is_empty(), "{} of {} faults: {}", wrong.len(), said.len(), wrong.join("\n"));
        pair_off_words(&self.nginx.failures(), &account.verdicts)?;
        Ok(account)
    }

    /// Checks the only verdict on a fault, or that there is none.
    fn is_named(&self, account: &Account, fault: Fault, name: Option<&str>) -> Result<()> {
        let server = self.server(fault)?;
        let about = account.about(server.endpoint());
        let names: Vec<_> = about.iter().map(|verdict| verdict.name()).collect();
        ensure!(names == Vec::from_iter(name), "{names:?} should be {name:?}");
        for verdict in about {
            let said = (verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
            let right = ("proven", self.status(fault)?, None);
            ensure!(said == right, "{said:?} should be {right:?}: {verdict:#?}");
            verdict.blames(Some(server.pid()), None, None)?;
        }
        Ok(())
    }

    /// The verdict on a fault's only exchange.
    pub fn verdict<'a>(&self, account: &'a Account, fault: Fault) -> Result<&'a Verdict> {
        account.only(self.server(fault)?.endpoint())
    }

    /// What nginx has answered with in place of the server's response: nothing, if that had begun.
    fn status(&self, fault: Fault) -> Result<Option<u16>> {
        let uri = format!("/{fault}/");
        let accesses = self.nginx.wait_for_accesses(1)?;
        let access = accesses.iter().find(|access| access.uri == uri);
        let status = access.with_context(|| format!("no request for {uri}"))?.status;
        Ok(Some(status).filter(|status| *status >= 400))
    }
}
