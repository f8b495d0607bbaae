//! What a worker was found doing, as a person would say it.

use std::{net::SocketAddr, path::Path};

use super::{Activity, Doing, Peer, Target};
use crate::model::words::count;

/// Different things that are named in one sentence.
const MOST_NAMED: usize = 3;

impl Activity {
    /// One sentence on the worker, which it calls `who`, as in `In 58 of 60 samples it waited on 10.0.0.5:3306, in 2 it
    /// ran on the CPU.`
    pub fn sentence(&self, who: &str) -> String {
        let all = self.samples();
        let who = if self.has_other_threads() { "the thread that took the request up" } else { who };
        let found = self.found();
        let Some((first, samples)) = found.first() else { return String::new() };
        let first_words = first.in_words();
        let in_all = if all == 2 { "both".to_owned() } else { format!("all {all}") };
        if *samples == all {
            return match first {
                _ if all == 1 => format!("In the one sample taken, {who} {first_words}."),
                Doing::Running => format!("{} {first_words} throughout ({all} samples).", capital(who)),
                Doing::Waiting(Target::Sleep(_) | Target::Stopped | Target::Thaw) => {
                    format!("{} {first_words} in {in_all} samples.", capital(who))
                }
                Doing::Waiting(_) => format!("In {in_all} samples {who} {first_words}."),
            };
        }
        let mut sentence = format!("In {samples} of {all} samples {who} {first_words}");
        for (doing, samples) in found.iter().skip(1).take(MOST_NAMED - 1) {
            sentence += &format!(", in {samples} it {}", doing.in_words());
        }
        let named: u32 = found.iter().take(MOST_NAMED).map(|(_, samples)| samples).sum();
        if named < all {
            sentence += &format!(", in {} something else", all - named);
        }
        sentence + "."
    }

    /// The figures alone, as in `in 60 samples: 58 waited on 10.0.0.5:3306, 2 ran on the CPU`.
    pub fn figures(&self) -> String {
        let found = self.found();
        let figures = found.iter().map(|(doing, samples)| format!("{samples} {}", doing.in_words()));
        format!("in {}: {}", count(self.samples().into(), "sample"), figures.collect::<Vec<_>>().join(", "))
    }

    /// What to look at, if one thing took at least half of the samples: a phrase to follow "Look at:".
    pub fn advice(&self) -> Option<String> {
        let found = self.found();
        let (doing, samples) = found.first()?;
        if samples * 2 < self.samples() {
            return None;
        }
        let target = match doing {
            Doing::Running => {
                return Some(
                    "the code that the worker ran: request_slowlog_timeout or a profiler shows where"
                        .to_owned(),
                );
            }
            Doing::Waiting(target) => target,
        };
        Some(match target {
            Target::Peer(Peer::Tcp(address)) => service(&address.to_string(), by_port(*address)),
            Target::Peer(Peer::Unix(path)) => service(&path.display().to_string(), by_path(path)),
            Target::Peer(peer @ Peer::Udp(address)) if address.port() == 53 => {
                format!("name resolution: the DNS server {peer}, and resolv.conf")
            }
            Target::Peer(peer) => service(&peer.to_string(), None),
            Target::Connecting(peer) => format!("why {peer} accepts no connection: whether it is up, and what lies on the way"),
            Target::Request => "what keeps nginx, or its client, from sending the rest of the request".to_owned(),
            Target::ResponseTaken => "what keeps nginx, or its client, from taking the response".to_owned(),
            Target::FileLock(path) if is_session(path) => {
                "PHP's sessions: another request of the same visitor held the session's file; session_write_close \
                 lets go of it early"
                    .to_owned()
            }
            Target::FileLock(_) => format!("who else holds {target}: /proc/locks names the process"),
            Target::File(path) => format!("the file system of {}", path.display()),
            Target::Disk(_) => "the disk's load, as iostat shows it".to_owned(),
            Target::Pipe(Some(child)) | Target::Child(Some(child)) => {
                format!("the program {child} that the worker ran")
            }
            Target::Sleep(_) => "the code that sleeps: request_slowlog_timeout shows where".to_owned(),
            Target::Cpu => "what else keeps the CPUs busy: there are more runnable threads than CPUs".to_owned(),
            Target::Stopped => "who stopped the worker (SIGSTOP), or traces it: a debugger, or php-fpm's slow log".to_owned(),
            Target::Thaw => "who froze the worker's cgroup: `docker pause`, `systemctl freeze`, a job that was suspended".to_owned(),
            Target::Connection
            | Target::Socket
            | Target::Lock
            | Target::Pipe(None)
            | Target::Child(None)
            | Target::Signal
            | Target::Events(_)
            | Target::Kernel(_) => return None,
        })
    }

    /// Everything it was found doing, the most frequent first.
    fn found(&self) -> Vec<(Doing, u32)> {
        let running = (self.running() > 0).then_some((Doing::Running, self.running()));
        let waits =
            self.waits().into_iter().map(|(target, samples)| (Doing::Waiting(target.clone()), samples));
        let mut found: Vec<_> = running.into_iter().chain(waits).collect();
        found.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
        found
    }
}

fn capital(who: &str) -> String {
    let mut chars = who.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A kind of server, and where it shows what holds it up.
type Kind = (&'static str, &'static str);

const MYSQL: Kind = ("MySQL or MariaDB", "SHOW FULL PROCESSLIST shows its locks and slow queries");
const POSTGRESQL: Kind = ("PostgreSQL", "pg_stat_activity shows its locks and slow queries");
const REDIS: Kind = ("Redis", "SLOWLOG GET shows its slow commands");
const MEMCACHED: Kind = ("memcached", "its stats show its load");
const MONGODB: Kind = ("MongoDB", "db.currentOp() shows its slow operations");
const DNS: Kind = ("a DNS server", "resolv.conf says who is asked, and how often");
const WEB: Kind = ("a web server", "its own logs show what it was doing");

/// What usually listens on a port.
fn by_port(address: SocketAddr) -> Option<Kind> {
    match address.port() {
        3306 => Some(MYSQL),
        5432 => Some(POSTGRESQL),
        6379 => Some(REDIS),
        11211 => Some(MEMCACHED),
        27017 => Some(MONGODB),
        53 => Some(DNS),
        80 | 443 => Some(WEB),
        _ => None,
    }
}

/// Whose socket usually has such a name.
fn by_path(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    [
        ("mysql", MYSQL),
        ("mariadb", MYSQL),
        (".s.PGSQL.", POSTGRESQL),
        ("redis", REDIS),
        ("memcached", MEMCACHED),
    ]
    .into_iter()
    .find_map(|(part, kind)| name.contains(part).then_some(kind))
}

fn service(peer: &str, kind: Option<Kind>) -> String {
    match kind {
        Some((name, hint)) => format!("the server at {peer}, by its address {name}: {hint}"),
        None => format!("the server at {peer}, and what this request asks of it"),
    }
}

/// PHP's own session files, as the looks name them.
fn is_session(path: &Path) -> bool {
    path.ends_with("sess_*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting_on(address: &str) -> Doing {
        Doing::Waiting(Target::Peer(Peer::Tcp(address.parse().unwrap())))
    }

    fn activity(looks: &[(Doing, u32)]) -> Activity {
        let mut all = looks.iter().flat_map(|(doing, samples)| (0..*samples).map(|_| doing.clone()));
        let mut activity = Activity::new(0, &all.next().unwrap().into(), false);
        all.for_each(|doing| activity.add(0, &doing.into(), false));
        activity
    }

    #[test]
    fn one_thing_all_the_time_is_said_so() {
        let sentences = [
            (waiting_on("10.0.0.5:3306"), "In all 5 samples it waited on 10.0.0.5:3306."),
            (Doing::Running, "It ran on the CPU throughout (5 samples)."),
            (
                Doing::Waiting(Target::Sleep("clock_nanosleep".into())),
                "It slept (clock_nanosleep) in all 5 samples.",
            ),
            (
                Doing::Waiting(Target::Request),
                "In all 5 samples it waited for nginx to send the rest of the request.",
            ),
            (
                Doing::Waiting(Target::FileLock("/srv/lock".into())),
                "In all 5 samples it waited for a lock on /srv/lock.",
            ),
            (
                Doing::Waiting(Target::Stopped),
                "It was stopped, by a signal or by a debugger in all 5 samples.",
            ),
            (Doing::Waiting(Target::Cpu), "In all 5 samples it waited for a free CPU."),
        ];
        for (doing, sentence) in sentences {
            assert_eq!(activity(&[(doing, 5)]).sentence("it"), sentence);
        }
    }

    #[test]
    fn one_and_two_samples_are_said_in_words() {
        let twice = activity(&[(waiting_on("10.0.0.5:3306"), 2)]);
        assert_eq!(twice.sentence("it"), "In both samples it waited on 10.0.0.5:3306.");
        let once = activity(&[(Doing::Running, 1)]);
        assert_eq!(once.sentence("it"), "In the one sample taken, it ran on the CPU.");
    }

    #[test]
    fn several_things_are_counted_the_most_frequent_first() {
        let mixed = activity(&[(Doing::Running, 2), (waiting_on("10.0.0.5:3306"), 58)]);
        assert_eq!(
            mixed.sentence("it"),
            "In 58 of 60 samples it waited on 10.0.0.5:3306, in 2 it ran on the CPU."
        );
        assert_eq!(mixed.figures(), "in 60 samples: 58 waited on 10.0.0.5:3306, 2 ran on the CPU");

        assert!(mixed.sentence("the worker 7").starts_with("In 58 of 60 samples the worker 7 waited on"));

        let many = activity(&[
            (Doing::Waiting(Target::Lock), 1),
            (Doing::Waiting(Target::Cpu), 1),
            (Doing::Running, 2),
            (waiting_on("[2001:db8::7]:5432"), 4),
        ]);
        assert_eq!(
            many.sentence("it"),
            "In 4 of 8 samples it waited on [2001:db8::7]:5432, in 2 it ran on the CPU, \
             in 1 it waited for a lock (futex), in 1 something else."
        );
    }

    #[test]
    fn one_thread_of_many_is_not_the_whole_worker() {
        let thread = Activity::new(0, &Doing::Waiting(Target::Lock).into(), true);
        assert_eq!(
            thread.sentence("it"),
            "In the one sample taken, the thread that took the request up waited for a lock (futex)."
        );
    }

    #[test]
    fn advice_names_what_took_most_of_the_time() {
        let advice = |looks: &[(Doing, u32)]| activity(looks).advice().unwrap_or_default();
        assert_eq!(
            advice(&[(waiting_on("10.0.0.5:3306"), 3), (Doing::Running, 2)]),
            "the server at 10.0.0.5:3306, by its address MySQL or MariaDB: SHOW FULL PROCESSLIST shows its locks and \
             slow queries"
        );
        let socket = Peer::Unix("/run/postgresql/.s.PGSQL.5432".into());
        assert!(advice(&[(Doing::Waiting(Target::Peer(socket)), 1)]).contains("PostgreSQL"));
        let resolver = Peer::Udp("10.0.0.2:53".parse().unwrap());
        assert_eq!(
            advice(&[(Doing::Waiting(Target::Peer(resolver)), 1)]),
            "name resolution: the DNS server 10.0.0.2:53 (UDP), and resolv.conf"
        );
        let session = Target::FileLock("/var/lib/php/sessions/sess_*".into());
        assert!(advice(&[(Doing::Waiting(session), 1)]).contains("session_write_close"));
        let nothing_in_particular =
            [(Doing::Running, 2), (waiting_on("10.0.0.5:1"), 2), (Doing::Waiting(Target::Cpu), 1)];
        assert_eq!(advice(&nothing_in_particular), "");
    }
}
