//! The servers of one `get`: who is asked first, who next, and who waits.
//!
//! This file owns the policy: order, fallback to the next server, `--spread`, the probe that all
//! workers wait for, and another chance in the next round. `health.rs` judges each server by its
//! answers. There is no socket here: a closure makes the requests, so the tests need none. All workers share one
//! `Servers`; the mirrors are another one.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::health::{FIRST_BATCH, Health, Standing};
use super::mirror::Mirror;
use super::outcome::{Outcome, Pending, RequestKind};
use crate::error::Result;
use crate::get::block_ref::BlockRef;
use crate::get::client::url::Url;
use crate::mutex::{lock, unpoisoned};

pub struct Server {
    pub url: Url,
    /// What is known of its copy of the file, if it is a mirror.
    pub mirror: Option<Mirror>,
    health: Mutex<Health>,
    /// The probe of this server has ended.
    probe_ended: Condvar,
}

impl Server {
    fn new(url: Url) -> Self {
        Server {
            url,
            mirror: None,
            health: Mutex::default(),
            probe_ended: Condvar::new(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// As [`Health::begin`]. None if the server is given up: then it notes in `pending` whether the server may
    /// give blocks in a later round. Waits for the outcome of a probe that is in flight.
    fn begin(&self, wanted: usize, pending: &mut Pending) -> Option<(RequestKind, usize)> {
        let is_probing = |health: &mut Health| health.standing() == Standing::Probing;
        let mut health = unpoisoned(self.probe_ended.wait_while(self.health(), is_probing));
        if let Standing::GivenUp { transient } = health.standing() {
            pending.transient |= transient;
            return None;
        }
        Some(health.begin(wanted))
    }
}

/// Servers in the order in which they are asked: those listed, then the peers.
pub struct Servers {
    listed: Vec<Server>,
    peers: Vec<Server>,
    /// Most blocks asked for at once.
    longest: usize,
    /// None where all runs begin at the first server.
    spread: Option<Mutex<Spread>>,
    /// Reports each server that is given up.
    report_given_up: fn(String),
}

/// Where each run begins, so that all listed servers work at once.
struct Spread {
    /// The server after the one at which the last run began.
    next: usize,
    /// Runs in flight, by the servers at which they began.
    in_flight: Vec<usize>,
}

impl Spread {
    /// The server at which fewest runs are in flight; of equals, the next in turn.
    fn begin(&mut self, servers: &[Server]) -> usize {
        let places = (0..servers.len()).map(|place| (self.next + place) % servers.len());
        let fewest = places.min_by_key(|&place| {
            let is_given_up = servers[place].health().is_given_up();
            (is_given_up, self.in_flight[place])
        });
        let place = fewest.unwrap_or(0);
        self.next = place + 1;
        self.in_flight[place] += 1;
        place
    }
}

impl Servers {
    /// A server listed twice is asked once, for at most `longest` blocks at a time.
    pub fn new(
        listed: Vec<Url>,
        peers: Vec<Url>,
        longest: usize,
        spread: bool,
        report_given_up: fn(String),
    ) -> Self {
        let servers = |urls: Vec<Url>| urls.into_iter().map(Server::new).collect::<Vec<_>>();
        let listed = servers(Url::distinct(listed));
        let new_spread = || Spread {
            next: 0,
            in_flight: vec![0; listed.len()],
        };
        Servers {
            spread: (spread && !listed.is_empty()).then(|| Mutex::new(new_spread())),
            listed,
            peers: servers(peers),
            longest,
            report_given_up,
        }
    }

    /// Mirrors, each of which is asked for ranges of the file.
    pub fn mirrors(listed: Vec<Url>, longest: usize, report_given_up: fn(String)) -> Self {
        let mut mirrors = Servers::new(listed, Vec::new(), longest, false, report_given_up);
        for server in &mut mirrors.listed {
            server.mirror = Some(Mirror::default());
            server.health = Mutex::new(Health::of_mirror());
        }
        mirrors
    }

    /// All servers, where the listed server `first` is asked first.
    fn in_order(&self, first: usize) -> impl Iterator<Item = &Server> {
        let (before, from) = self.listed.split_at(first);
        from.iter().chain(before).chain(&self.peers)
    }

    /// Begins a run, at the first server or at the one that `spread` chooses. The `mirrors` are asked after
    /// these servers.
    pub fn begin_run(&self, mirrors: &Servers) -> RunStart<'_> {
        let spread = self.spread.as_ref();
        let first = spread.map_or(0, |spread| lock(spread).begin(&self.listed));
        let mut lengths = self.in_order(first).chain(mirrors.in_order(0));
        let length = lengths.find_map(|server| server.health().run_length());
        RunStart {
            spread,
            first,
            length: length.unwrap_or(FIRST_BATCH).min(self.longest),
        }
    }

    /// Asks one server after the other for the `pending` blocks, until each is given. `request` makes one
    /// request for some of them and returns its outcome.
    ///
    /// # Errors
    /// Those of `request`: what fails on this machine.
    pub fn fetch(
        &self,
        pending: &mut Pending,
        start: RunStart,
        mut request: impl FnMut(&Server, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Result<()> {
        for server in self.in_order(start.first) {
            let mut left = mem::take(&mut pending.blocks);
            while !left.is_empty()
                && let Some((kind, length)) = server.begin(left.len(), pending)
            {
                let later = left.split_off(length.min(self.longest));
                let outcome = request(server, kind, &left);
                let mut health = server.health();
                health.end();
                server.probe_ended.notify_all();
                let was_given_up = health.is_given_up();
                let again = health.record(kind, outcome?, pending);
                left = later;
                left.splice(0..0, again);
                if health.is_given_up() && !was_given_up {
                    let reason = health.reason().unwrap_or_default();
                    (self.report_given_up)(format!("give up {}: {reason}", server.url));
                }
            }
            pending.blocks.append(&mut left);
        }
        Ok(())
    }

    /// Gives each server that was given up for a transient reason another chance.
    pub fn revive(&self) {
        for server in self.in_order(0) {
            server.health().revive();
        }
    }

    /// Each server's reason for the last block that it did not give, as `ask SERVER: REASON`. The
    /// peers, which the user did not list, have one line together, unless `each_peer` has its own.
    pub fn reasons(&self, each_peer: bool) -> Vec<String> {
        let reason = |server: &Server| {
            let health = server.health();
            let given_up = health.is_given_up().then_some(" (given up)");
            let given_up = given_up.unwrap_or_default();
            let reason = health.reason()?;
            Some(format!("ask {}: {reason}{given_up}", server.url))
        };
        let mut reasons: Vec<String> = self.listed.iter().filter_map(reason).collect();
        let count = self.peers.len();
        if each_peer {
            reasons.extend(self.peers.iter().filter_map(reason));
        } else if count > 0 {
            reasons.push(format!("ask {count} peers: none gave it; see -v"));
        }
        reasons
    }
}

/// Where a run begins.
#[derive(Default)]
pub struct RunStart<'a> {
    /// Counts this run until its end.
    spread: Option<&'a Mutex<Spread>>,
    first: usize,
    /// Blocks that are worth asking for at once.
    pub length: usize,
}

impl Drop for RunStart<'_> {
    fn drop(&mut self) {
        if let Some(spread) = self.spread {
            lock(spread).in_flight[self.first] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::sources::health::SINGLES;
    use crate::get::sources::outcome::answers::*;
    use crate::get::sources::outcome::{BatchRefusal, Pace};
    use std::cell::RefCell;
    use std::thread;
    use std::time::Duration;

    fn urls(names: &[&str]) -> Vec<Url> {
        names.iter().map(|name| Url::parse(name).unwrap()).collect()
    }

    fn servers(names: &[&str]) -> Servers {
        Servers::new(urls(names), Vec::new(), 64, false, |_| {})
    }

    /// Begins a run where there are no mirrors.
    fn begin(servers: &Servers) -> RunStart<'_> {
        servers.begin_run(&Servers::mirrors(Vec::new(), 64, |_| {}))
    }

    /// Fetches `blocks` blocks; returns those that no server gave.
    fn fetch(
        servers: &Servers,
        blocks: usize,
        mut answer: impl FnMut(&Url, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Pending {
        let mut missing = Pending {
            blocks: wanted(blocks),
            transient: false,
        };
        let request =
            |server: &Server, kind, wanted: &[BlockRef]| answer(&server.url, kind, wanted);
        servers
            .fetch(&mut missing, begin(servers), request)
            .unwrap();
        missing
    }

    fn answer(answer: Answer, wanted: &[BlockRef]) -> Outcome {
        let mut outcome = Outcome::default();
        answer(&mut outcome, wanted);
        outcome
    }

    #[test]
    fn asks_in_order_until_one_gives_it() {
        let servers = servers(&["a", "b", "a:80", "c"]);
        let mut asked = Vec::new();
        let missing = fetch(&servers, 1, |url, kind, wanted| {
            assert_eq!(kind, RequestKind::Single, "one block is no run");
            asked.push(url.to_string());
            let is_last = asked.len() == 3;
            Ok(answer(if is_last { give } else { lack }, wanted))
        });
        assert!(missing.blocks.is_empty() && !missing.transient);
        assert_eq!(asked, ["http://a", "http://b", "http://c"]);
        assert_eq!(
            servers.reasons(false),
            ["ask http://a: no", "ask http://b: no"]
        );
    }

    #[test]
    fn the_next_is_asked_for_the_rest() {
        let servers = servers(&["a", "b"]);
        let mut asked = Vec::new();
        let missing = fetch(&servers, 6, |url, kind, wanted| {
            asked.push((url.to_string(), kind, wanted.len()));
            let mut answer = Outcome::default();
            for (place, one) in wanted.iter().enumerate() {
                match place % 2 {
                    0 => answer.hit(),
                    _ => answer.miss(&[*one], "no"),
                }
            }
            Ok(answer)
        });
        let left: Vec<u64> = missing.blocks.iter().map(|left| left.number).collect();
        assert_eq!(left, [3]);
        let due = [("a", 6), ("b", 3)];
        let due = due.map(|(name, count)| (format!("http://{name}"), RequestKind::Batch, count));
        assert_eq!(asked, due);
    }

    /// How often servers are asked by ten fetches of a block, each answered with the next of `answers`,
    /// and whether the last of them may do better later.
    fn asked_of(servers: &Servers, answers: &[Answer]) -> (usize, bool) {
        let (mut count, mut later) = (0, false);
        for turn in 0..10 {
            let missing = fetch(servers, 1, |_, _, wanted| {
                count += 1;
                Ok(answer(answers[turn % answers.len()], wanted))
            });
            later = missing.transient;
        }
        (count, later)
    }

    #[test]
    fn a_bad_server_costs_its_failure_once_or_thrice() {
        let asked = |answers: &[Answer]| asked_of(&servers(&["a"]), answers);
        assert_eq!(asked(&[gone]), (1, true));
        assert_eq!(asked(&[wrong]), (3, false));
        assert_eq!(asked(&[busy]), (3, true));
        assert_eq!(asked(&[busy, busy, wrong]), (3, false));
        assert_eq!(asked(&[wrong, gone]), (2, true));
        assert_eq!(asked(&[lack]), (10, false));
        assert_eq!(
            asked(&[wrong, wrong, give]).0,
            10,
            "only three in a row are too many"
        );
        assert_eq!(asked(&[wrong, wrong, lack]).0, 10);
        assert_eq!(asked(&[give, wrong, wrong, wrong]).0, 4);
    }

    #[test]
    fn what_may_have_passed_is_given_another_chance() {
        for (answer, again) in [(gone as Answer, 1), (busy, 3), (wrong, 0)] {
            let servers = servers(&["a"]);
            asked_of(&servers, &[answer]);
            servers.revive();
            assert_eq!(asked_of(&servers, &[answer]).0, again);
        }
    }

    #[test]
    fn a_failure_tells_at_once_whether_it_may_pass() {
        for (failing, later) in [(busy as Answer, true), (gone, true), (wrong, false)] {
            let servers = servers(&["a", "b"]);
            let missing = fetch(&servers, 1, |url, _, wanted| {
                let is_last = url.host() == "b";
                Ok(answer(if is_last { lack } else { failing }, wanted))
            });
            assert_eq!(missing.transient, later);
        }
    }

    #[test]
    fn a_mirror_is_asked_for_ranges() {
        let mirrors = Servers::mirrors(urls(&["m", "n", "m"]), 64, |_| {});
        let mut asked = Vec::new();
        let missing = fetch(&mirrors, 1, |url, kind, wanted| {
            asked.push((url.to_string(), kind));
            Ok(answer(lack, wanted))
        });
        assert_eq!(missing.blocks.len(), 1);
        let due = ["m", "n"].map(|name| (format!("http://{name}"), RequestKind::Range));
        assert_eq!(asked, due);
        assert_eq!(asked_of(&mirrors, &[wrong]), (6, false));
    }

    /// Who is asked by each of `fetches` fetches with `spread`, all of `lacking` lacking everything.
    fn spread(names: &[&str], fetches: usize, lacking: &[&str]) -> Vec<String> {
        let servers = Servers::new(urls(names), Vec::new(), 64, true, |_| {});
        let mut asked = Vec::new();
        for _ in 0..fetches {
            let missing = fetch(&servers, 2, |url, _, wanted| {
                let name = url.host().to_owned();
                let is_lacking = lacking.contains(&name.as_str());
                asked.push(name);
                Ok(answer(if is_lacking { lack } else { give }, wanted))
            });
            assert!(missing.blocks.is_empty());
        }
        asked
    }

    #[test]
    fn with_spread_each_run_begins_at_another() {
        assert_eq!(spread(&["a", "b", "c"], 4, &[]), ["a", "b", "c", "a"]);
        let lacking = spread(&["a", "b"], 4, &["a"]);
        assert_eq!(lacking, ["a", "b", "b", "a", "b", "b"]);
    }

    #[test]
    fn one_worker_finds_out_for_all_whether_a_server_answers() {
        let servers = servers(&["a"]);
        let count = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    fetch(&servers, 1, |_, _, wanted| {
                        *count.lock().unwrap() += 1;
                        // Long enough for all to come here, were they let in.
                        thread::sleep(Duration::from_millis(50));
                        Ok(answer(gone, wanted))
                    })
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), 1);
        assert_eq!(servers.reasons(false), ["ask http://a: refused (given up)"]);
    }

    #[test]
    fn tells_once_who_is_given_up_and_why() {
        thread_local! {
            static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        }
        let tell = |text| TOLD.with_borrow_mut(|told| told.push(text));
        let servers = Servers::new(urls(&["a"]), Vec::new(), 64, false, tell);
        asked_of(&servers, &[gone]);
        TOLD.with_borrow(|told| assert_eq!(*told, ["give up http://a: refused"]));
    }

    /// A refused batch is asked of the same server again; what that server lacks, of the next.
    #[test]
    fn a_server_that_refuses_batches_is_asked_again_before_the_next() {
        let servers = servers(&["a", "b"]);
        let mut asked = String::new();
        let missing = fetch(&servers, 3, |url, kind, wanted| {
            let refuse: Answer = |outcome, wanted| {
                outcome.refuse_batch(wanted, BatchRefusal::Permanent);
            };
            let is_batch = kind == RequestKind::Batch;
            asked += url.host();
            asked += if is_batch { "* " } else { " " };
            Ok(match (url.host(), is_batch) {
                ("a", true) => answer(refuse, wanted),
                ("a", false) if wanted[0].number == 1 => answer(lack, wanted),
                _ => answer(give, wanted),
            })
        });
        assert!(missing.blocks.is_empty());
        assert_eq!(asked, "a* a a a b ");
        assert_eq!(begin(&servers).length, SINGLES);
    }

    #[test]
    fn as_much_is_taken_at_once_as_is_asked_of_the_first_that_is_not_given_up() {
        let servers = Servers::new(urls(&["a", "b"]), vec![], 100, false, |_| {});
        let quick = |blocks| Outcome {
            given: blocks,
            pace: Some(Pace {
                blocks,
                body: Duration::from_millis(50),
                whole: Duration::from_millis(60),
            }),
            ..Outcome::default()
        };
        let fetch = |host: &'static str, blocks| {
            fetch(&servers, blocks, |url, _, wanted| {
                Ok(match url.host() == host {
                    true => quick(wanted.len()),
                    false => answer(lack, wanted),
                })
            });
        };
        assert_eq!(begin(&servers).length, FIRST_BATCH);
        fetch("b", 8);
        assert_eq!(begin(&servers).length, FIRST_BATCH, "that of a");
        fetch("a", 8);
        assert_eq!(begin(&servers).length, 80, "what comes in half a second");
        fetch("a", 80);
        assert_eq!(begin(&servers).length, 100, "at most");
        hosts(&servers, &[("a", gone)]);
        assert_eq!(begin(&servers).length, 80, "that of b");
        hosts(&servers, &[("b", gone)]);
        assert_eq!(begin(&servers).length, FIRST_BATCH);
    }

    /// Whom a fetch of one block asks, where each answers as `answers` says of it, or lacks it.
    fn hosts(servers: &Servers, answers: &[(&str, Answer)]) -> String {
        let mut hosts = String::new();
        fetch(servers, 1, |url, _, wanted| {
            let name = url.host();
            hosts += name;
            let given = answers.iter().find(|(host, _)| *host == name);
            let given = given.map_or(lack as Answer, |(_, answer)| *answer);
            Ok(answer(given, wanted))
        });
        hosts
    }

    #[test]
    fn peers_are_asked_after_the_listed_servers() {
        let servers = Servers::new(urls(&["a"]), urls(&["b", "c"]), 64, true, |_| {});
        assert_eq!(hosts(&servers, &[("a", give)]), "a");
        assert_eq!(hosts(&servers, &[("c", give)]), "abc");
        assert_eq!(hosts(&servers, &[("b", gone)]), "abc");
        assert_eq!(hosts(&servers, &[]), "ac");
        let together = "ask 2 peers: none gave it; see -v";
        assert_eq!(servers.reasons(false), ["ask http://a: no", together]);
        let [a, c] = ["a", "c"].map(|name| format!("ask http://{name}: no"));
        let b = "ask http://b: refused (given up)".to_owned();
        assert_eq!(servers.reasons(true), [a, b, c]);
        servers.revive();
        assert_eq!(hosts(&servers, &[]), "abc");
    }
}
