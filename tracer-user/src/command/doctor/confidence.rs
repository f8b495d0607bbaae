//! How sure each cause can be here: the one table of what proves it, and of what is left without.

use super::sight::{Proof, Seen, Sight};
use crate::model::{cause::Cause, facts::Fact};

/// How sure verdicts of one cause are on this kernel; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Proven, from the start.
    Proven,
    /// Proven, but not in the case that the reason names.
    Partly,
    /// Proven, but only while system calls are watched.
    OnDemand,
    /// Inferred by a rule.
    Inferred,
    /// Not named, or named as another cause.
    NotSeen,
}

/// Where one cause stands on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The cause.
    pub cause: Cause,
    /// How sure its verdicts are.
    pub level: Level,
    /// Whether no kernel would make it better.
    pub everywhere: bool,
    /// Why it is not simply proven.
    pub reason: Option<&'static str>,
}

impl Standing {
    /// Whether another kernel would make this better.
    pub fn is_worse_here(&self) -> bool {
        !self.everywhere && self.level != Level::Proven
    }
}

/// What a cause needs to be proven: any one of the proofs.
struct Need {
    any: &'static [Proof],
    /// What is left without.
    without: Level,
    because: &'static str,
}

/// The best that a cause gets on any kernel.
enum Best {
    Proven,
    /// By a rule, and why there is no proof.
    Inferred(&'static str),
}

/// Why what only system calls show is not seen from the start.
pub(super) const ON_DEMAND: &str = "Proven while system calls are watched: from the start where nginx's configuration or an open \
                                    connection says that unix sockets are used, with -u and the path of one, or with \
                                    --connect-errors; otherwise from the first use that is seen. The same goes for every other cause on \
                                    a unix socket.";

const RESETS: Need = Need {
    any: &[Proof::ResetWithoutSocket],
    without: Level::Inferred,
    because: "This kernel does not show that it answers for a closed port, so a firewall could have sent the reset, too.",
};
const UNIX: Need = Need {
    any: &[Proof::Fact(Fact::UnixSockets)],
    without: Level::NotSeen,
    because: "Unix sockets are not seen here, and no other cause on them either.",
};
const CONNECT_ERRORS: Need = Need {
    any: &[Proof::Fact(Fact::ConnectErrors)],
    without: Level::NotSeen,
    because: "A connect that fails before a packet is sent is not seen here.",
};
const SYN_DROPS: Need = Need {
    any: &[Proof::Fact(Fact::SynDrops)],
    without: Level::Partly,
    because: "Proven by the listener's own counts at each SYN, but inferred where another socket may have answered (SO_REUSEPORT, \
              address translation).",
};
const HANDSHAKE_DROPS: Need = Need {
    any: &[Proof::Fact(Fact::HandshakeDrops), Proof::OverflowDrop],
    without: Level::Inferred,
    because: "The drop itself is not seen here: told where the listener's queue is still full when nginx gives up.",
};
const LISTENER_RESETS: Need = Need {
    any: &[Proof::Fact(Fact::ResetsSent)],
    without: Level::Inferred,
    because: "The reset is not seen to be sent here: told where the listener's queue is still full when it arrives.",
};
const NEIGHBOURS: Need = Need {
    any: &[Proof::NeighbourDrop],
    without: Level::Partly,
    because: "Proven where connect fails at once; a neighbour that does not answer is told from the error alone.",
};
const ICMP: Need = Need {
    any: &[Proof::Fact(Fact::Icmp)],
    without: Level::Partly,
    because: "Proven where a rule of this host rejects; without the ICMP message one elsewhere may be told as refused/no_route.",
};
const REJECTS: Need = Need {
    any: &[Proof::NetfilterDrop],
    without: Level::Inferred,
    because: "This kernel does not say why it drops a packet; the rule goes by what answered the SYN.",
};
const FIREWALL_DROPS: Need = Need {
    any: &[Proof::NetfilterDrop],
    without: Level::NotSeen,
    because: "This kernel does not say why it drops a packet: told as connect_timeout/syn_unanswered.",
};
const REJECTS_LATER: Need = Need {
    any: &[Proof::NetfilterDrop],
    without: Level::Partly,
    because: "This kernel does not say why it drops a packet: a rule's reset is told as reset/by_remote, or as unknown.",
};
const REVERSE_PATH_DROPS: Need = Need { any: &[Proof::ReversePathDrop], ..FIREWALL_DROPS };
const DEATHS: Need = Need {
    any: &[Proof::Fact(Fact::Deaths), Proof::UnixRelease],
    without: Level::Partly,
    because: "Proven on TCP; on a unix socket a worker's death is not seen here, and told as if it had closed by itself.",
};
const NGINX_DEATHS: Need = Need {
    any: &[Proof::UnixRelease],
    without: Level::Partly,
    because: "Proven on TCP; on a unix socket not seen, for a dying process makes no system call.",
};
const CLIENT_RESETS: Need = Need {
    any: &[Proof::Fact(Fact::Destroys)],
    without: Level::Partly,
    because: "Proven of a client that closes; one that resets its connection is not seen to leave.",
};

/// Without it the kernel's SIGKILL to a worker is named as `worker_killed`, and the kernel as its sender.
const OOM: Need = Need {
    any: &[Proof::Fact(Fact::OomVictims)],
    without: Level::NotSeen,
    because: "Why the kernel kills a process is not seen here: told as worker_killed, by the kernel.",
};

/// What proves a cause, and the best it gets then. None for those that say that nothing is known, and for those that nginx names: its own
/// word proves them, on any kernel with uprobes, and what its log would say that it does.
fn rule(cause: Cause) -> Option<(&'static [Need], Best)> {
    use Best::{Inferred, Proven};
    const ELSEWHERE: Best = Inferred("The other end is on another host: only why502 there would see it.");
    const LOST: Best = Inferred("Packets that are lost on the way are seen by nobody.");
    Some(match cause {
        Cause::RefusedNoListener => (&[RESETS], Proven),
        Cause::RefusedSocketMissing | Cause::RefusedPermission | Cause::QueueUnixFull => (&[UNIX], Proven),
        Cause::RefusedDeniedByLsm => {
            (&[], Inferred("It is what is left where owner, mode and routes allow it."))
        }
        Cause::RefusedByFirewall => (&[REJECTS, ICMP], Proven),
        Cause::RefusedNoRoute => (&[CONNECT_ERRORS, NEIGHBOURS], Proven),
        Cause::QueueSynDropped => (&[SYN_DROPS], Proven),
        Cause::QueueAckDropped => (&[HANDSHAKE_DROPS], Proven),
        Cause::QueueAborted => (&[LISTENER_RESETS], Proven),
        Cause::ConnectDroppedFirewall | Cause::ConnectDroppedKernel => (&[FIREWALL_DROPS], Proven),
        Cause::ConnectConntrackFull => {
            (&[FIREWALL_DROPS], Inferred("A rule may drop what the full table let through."))
        }
        Cause::ConnectDroppedRpFilter => (&[REVERSE_PATH_DROPS], Proven),
        // By the listener's own counts, read when a SYN goes out.
        Cause::ConnectSynQueueFull => (&[], Proven),
        Cause::ConnectSynUnanswered | Cause::KernelRetransmits | Cause::KernelSynRetries => (&[], LOST),
        Cause::TimeoutUnacked | Cause::TimeoutAnswerLost => (&[], LOST),
        Cause::ResetByOwnHost => (&[REJECTS_LATER], Proven),
        Cause::ResetWorkerOom | Cause::PrematureWorkerOom => (&[OOM, DEATHS], Proven),
        Cause::ResetWorkerKilled
        | Cause::ResetWorkerCrashed
        | Cause::ResetWorkerStopped
        | Cause::ResetWorkerExited
        | Cause::PrematureWorkerKilled
        | Cause::PrematureWorkerCrashed
        | Cause::PrematureWorkerStopped
        | Cause::PrematureWorkerExited
        | Cause::TimeoutWorkerGone => (&[DEATHS], Proven),
        Cause::ResetListenerClosed
        | Cause::ResetPeerAborted
        | Cause::ResetStaleKeepalive
        | Cause::PrematureStaleKeepalive
        | Cause::PrematurePeerClosed => (&[], Proven),
        Cause::ResetByRemote | Cause::TimeoutNoAnswer => (&[], ELSEWHERE),
        // Where accept is not hooked, the worker's first read stands for it, and the socket's own state.
        Cause::TimeoutNeverAccepted
        | Cause::TimeoutNobodyAccepts
        | Cause::TimeoutSlowWorker
        | Cause::SendTimeout => (&[], Proven),
        Cause::TimeoutStalledResponse => {
            (&[], Inferred("A kept-alive connection that was idle for too long looks nearly the same."))
        }
        Cause::TimeoutIdleUpgraded => (&[], Inferred("nginx says it at level info only.")),
        Cause::ClientAbortBefore | Cause::ClientAbortMid => (&[CLIENT_RESETS], Proven),
        // nginx's own sockets show these.
        Cause::RejectedResponse | Cause::LocalPorts => (&[], Proven),
        Cause::ClientCancelled
        | Cause::ClientBodyTimeout
        | Cause::ClientNotReading
        | Cause::ClientHttp2Error => (&[], Proven),
        Cause::NginxShutdownTimeout => (&[], Proven),
        Cause::ClientBodyInvalid => {
            (&[], Inferred("What nginx refuses of a client's body it says at level info only."))
        }
        Cause::LocalError => (&[CONNECT_ERRORS], Proven),
        Cause::NginxKilled | Cause::NginxExited => (&[NGINX_DEATHS], Proven),
        Cause::UpgradedKilled
        | Cause::UpgradedCrashed
        | Cause::UpgradedExited
        | Cause::ConnectTlsHandshake
        | Cause::TlsHandshake
        | Cause::TlsCertificate
        | Cause::ResetHttp2Stream
        | Cause::ResetHttp2Goaway
        | Cause::ResponseCutShort
        | Cause::ClientBodyTooLarge
        | Cause::HeaderTooBig
        | Cause::InvalidHeader
        | Cause::WrongProtocol
        | Cause::Http2Error
        | Cause::NoLiveUpstreams
        | Cause::Unresolved
        | Cause::TooManyOpenFiles
        | Cause::WorkerConnections
        | Cause::LocalCertificate
        | Cause::LocalTempFile
        | Cause::EvidenceLost
        | Cause::NotEnoughFacts
        | Cause::NginxSays => return None,
    })
}

/// How sure each cause can be, in the order of the table of causes.
pub fn standings(sight: &Sight) -> Vec<Standing> {
    Cause::ALL.iter().filter_map(|cause| standing(*cause, sight)).collect()
}

fn standing(cause: Cause, sight: &Sight) -> Option<Standing> {
    let (needs, best) = rule(cause)?;
    let (level, reason) = match best {
        Best::Proven => (Level::Proven, None),
        Best::Inferred(reason) => (Level::Inferred, Some(reason)),
    };
    let at_best = Standing { cause, level, everywhere: reason.is_some(), reason };
    let unmet = needs.iter().find_map(|need| {
        let seen = need.any.iter().map(|proof| sight.of(*proof)).max().unwrap_or(Seen::Never);
        (seen != Seen::Always).then_some((need, seen))
    });
    Some(match unmet {
        None => at_best,
        Some((_, Seen::OnDemand)) => {
            Standing { level: Level::OnDemand, everywhere: false, reason: Some(ON_DEMAND), ..at_best }
        }
        Some((need, _)) => {
            Standing { level: need.without, everywhere: false, reason: Some(need.because), ..at_best }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{super::sight::samples, *};

    fn of(cause: Cause, sight: &Sight) -> Standing {
        standing(cause, sight).unwrap()
    }

    fn worse(sight: &Sight) -> Vec<Cause> {
        standings(sight)
            .iter()
            .filter(|standing| standing.is_worse_here())
            .map(|standing| standing.cause)
            .collect()
    }

    #[test]
    fn a_kernel_that_shows_everything_lacks_nothing() {
        let sight = samples::sight(&[], &[]);
        assert_eq!(worse(&sight), []);
        let mut not_proven = standings(&sight).into_iter().filter(|standing| standing.reason.is_some());
        assert!(not_proven.all(|standing| standing.everywhere));
    }

    #[test]
    fn every_optional_fact_but_two_costs_something() {
        let cost = |fact| worse(&samples::sight(&[fact], &[]));
        assert_eq!(cost(Fact::SynDrops), [Cause::QueueSynDropped]);
        assert_eq!(cost(Fact::ResetsSent), [Cause::RefusedNoListener, Cause::QueueAborted]);
        assert_eq!(cost(Fact::Icmp), [Cause::RefusedByFirewall]);
        assert_eq!(cost(Fact::Destroys), [Cause::ClientAbortBefore, Cause::ClientAbortMid]);
        assert_eq!(cost(Fact::ConnectErrors), [Cause::RefusedNoRoute, Cause::LocalError]);
        assert_eq!(
            cost(Fact::PacketDrops),
            [
                Cause::RefusedByFirewall,
                Cause::RefusedNoRoute,
                Cause::ConnectDroppedFirewall,
                Cause::ConnectDroppedRpFilter,
                Cause::ConnectConntrackFull,
                Cause::ConnectDroppedKernel,
                Cause::ResetByOwnHost
            ]
        );
        // The first read stands for accept, and a packet drop's reason for the handshake's end.
        assert_eq!((cost(Fact::Accepts), cost(Fact::HandshakeDrops)), (vec![], vec![]));
        let inferred = of(Cause::QueueAckDropped, &samples::without_drop_reasons());
        assert_eq!(inferred.level, Level::Inferred);
    }

    #[test]
    fn what_system_calls_show_is_proven_but_not_from_the_start() {
        let sight = samples::sight(&[], &[Fact::UnixSockets, Fact::ConnectErrors]);
        for cause in [Cause::RefusedSocketMissing, Cause::RefusedNoRoute, Cause::LocalError] {
            assert_eq!(of(cause, &sight).level, Level::OnDemand);
            assert!(of(cause, &sight).is_worse_here());
        }
        assert_eq!(of(Cause::NginxKilled, &sight).level, Level::Partly);
        assert_eq!(of(Cause::ResetWorkerKilled, &sight).level, Level::Proven);
    }

    #[test]
    fn honest_answers_are_no_causes() {
        assert!(rule(Cause::NotEnoughFacts).is_none() && rule(Cause::EvidenceLost).is_none());
        let of_nginx = Cause::ALL.iter().filter(|cause| rule(**cause).is_none()).count();
        assert_eq!(standings(&samples::sight(&[], &[])).len(), Cause::ALL.len() - of_nginx);
    }
}
