//! The servers of one `get`: who is asked first, who next, and who waits.
//!
//! This file owns the policy: order, fallback to the next server, `--spread`, the probe that all
//! workers wait for, and another chance in the next round. `health.rs` judges each server by its
//! answers. There is no socket here: a closure asks, so the tests need none. All workers share one
//! `Servers`.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::health::{FIRST_RUN, Health, Standing, Verdict};
use super::outcome::{Outcome, RequestKind};
use crate::error::Result;
use crate::get::block_ref::BlockRef;
use crate::get::client::url::Url;
use crate::mutex::lock;

struct Server {
    url: Url,
    /// Its number, if it is a mirror.
    mirror: Option<usize>,
    health: Mutex<Health>,
    /// The probe of this server has ended.
    probed: Condvar,
}

impl Server {
    fn new(url: Url, mirror: Option<usize>) -> Self {
        Server {
            url,
            mirror,
            health: Mutex::default(),
            probed: Condvar::new(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// Begins a request for some of `wanted`: how it asks, and for how many blocks; none if the server
    /// is given up. Waits for the outcome of a probe that is in flight.
    fn begin(&self, wanted: &[BlockRef], transient: &mut bool) -> Option<(RequestKind, usize)> {
        let mut health = self.health();
        while health.standing() == Standing::Probed {
            let woken = self.probed.wait(health);
            health = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if let Standing::GivenUp {
            transient: may_pass,
        } = health.standing()
        {
            *transient |= may_pass;
            return None;
        }
        health.begin();
        let Some(number) = self.mirror else {
            return Some(health.plan(wanted.len()));
        };
        let in_order = wanted
            .windows(2)
            .take_while(|pair| pair[0].number < pair[1].number);
        let length = health.batch_length(in_order.count() + 1);
        Some((RequestKind::Range(number), length))
    }

    /// Ends a request.
    fn end(&self) -> MutexGuard<'_, Health> {
        let mut health = self.health();
        health.end();
        self.probed.notify_all();
        health
    }
}

/// All servers in the order in which they are asked: listed servers, peers, mirrors.
pub struct Servers {
    list: Vec<Server>,
    peers_from: usize,
    mirrors_from: usize,
    /// Most blocks asked for at once.
    longest: usize,
    /// None where all runs begin at the first server.
    spread: Option<Mutex<Spread>>,
    /// Reports each server that is given up.
    give_up: fn(String),
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
    fn begin(&mut self, servers: &[Server]) -> Option<usize> {
        let places = (0..servers.len()).map(|place| (self.next + place) % servers.len());
        let place = places.min_by_key(|&place| {
            let is_given_up = servers[place].health().is_given_up();
            (is_given_up, self.in_flight[place])
        })?;
        self.next = place + 1;
        self.in_flight[place] += 1;
        Some(place)
    }
}

impl Servers {
    /// A server listed twice is asked once, for at most `longest` blocks at a time.
    pub fn new(
        listed: Vec<Url>,
        peers: Vec<Url>,
        mirrors: Vec<Url>,
        longest: usize,
        spread: bool,
        give_up: fn(String),
    ) -> Self {
        let mut list: Vec<Server> = Vec::new();
        for url in listed {
            if !list.iter().any(|server| server.url == url) {
                list.push(Server::new(url, None));
            }
        }
        let peers_from = list.len();
        list.extend(peers.into_iter().map(|url| Server::new(url, None)));
        let mirrors_from = list.len();
        for (number, url) in mirrors.into_iter().enumerate() {
            if !list[mirrors_from..].iter().any(|mirror| mirror.url == url) {
                list.push(Server::new(url, Some(number)));
            }
        }
        let new_spread = || Spread {
            next: 0,
            in_flight: vec![0; peers_from],
        };
        Servers {
            list,
            peers_from,
            mirrors_from,
            longest,
            spread: spread.then(|| Mutex::new(new_spread())),
            give_up,
        }
    }

    fn listed(&self) -> &[Server] {
        &self.list[..self.peers_from]
    }

    /// All servers, where the listed server `first` is asked first.
    fn in_order(&self, first: usize) -> impl Iterator<Item = &Server> {
        let (before, from) = self.listed().split_at(first);
        from.iter()
            .chain(before)
            .chain(&self.list[self.peers_from..])
    }

    /// Begins a run: at the first server, or where `spread` has it begin.
    pub fn turn(&self) -> RunStart<'_> {
        let spread = self.spread.as_ref();
        let begun = spread.and_then(|spread| Some((spread, lock(spread).begin(self.listed())?)));
        let first = begun.map_or(0, |(_, place)| place);
        RunStart {
            spread: begun.map(|(spread, _)| spread),
            first,
            length: self
                .in_order(first)
                .find_map(|server| server.health().run_length())
                .unwrap_or(FIRST_RUN)
                .min(self.longest),
        }
    }

    /// Asks one server after the other for `wanted`, in the order of this `turn`, until nothing is
    /// left; the mirrors only where they have `wanted`, as `mirrored` says. Returns the blocks that no
    /// server gave, and whether a server may give them a little later.
    ///
    /// # Errors
    /// Those of `ask`: what fails on this machine.
    pub fn fetch(
        &self,
        wanted: Vec<BlockRef>,
        turn: RunStart,
        mirrored: bool,
        mut ask: impl FnMut(&Url, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Result<(Vec<BlockRef>, bool)> {
        let (mut left, mut transient) = (wanted, false);
        for server in self.in_order(turn.first) {
            if left.is_empty() || (server.mirror.is_some() && !mirrored) {
                break;
            }
            left = self.ask(server, left, &mut transient, &mut ask)?;
        }
        Ok((left, transient))
    }

    /// Asks one server for `wanted`; returns what it did not give.
    fn ask(
        &self,
        server: &Server,
        wanted: Vec<BlockRef>,
        transient: &mut bool,
        ask: &mut impl FnMut(&Url, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Result<Vec<BlockRef>> {
        let (mut left, mut rest) = (wanted, Vec::new());
        while !left.is_empty()
            && let Some((kind, length)) = server.begin(&left, transient)
        {
            let later = left.split_off(length.min(self.longest));
            let outcome = ask(&server.url, kind, &left);
            let mut health = server.end();
            left = match health.record(kind, outcome?) {
                Verdict::AskAgain(mut again) => {
                    again.extend(later);
                    again
                }
                Verdict::AskNext {
                    rest: mut next,
                    transient: may_pass,
                    gives_up,
                } => {
                    if gives_up {
                        let reason = health.reason().unwrap_or_default();
                        (self.give_up)(format!("give up {}: {reason}", server.url));
                    }
                    *transient |= may_pass;
                    rest.append(&mut next);
                    later
                }
            };
        }
        rest.append(&mut left);
        Ok(rest)
    }

    /// Gives each server that was given up for a transient reason another chance.
    pub fn revive(&self) {
        for server in &self.list {
            server.health().revive();
        }
    }

    /// Each server's reason for the last block that it did not give, as `ask SERVER: REASON`. The
    /// peers, which the user did not list, have one line together, unless `each_peer` has its own.
    pub fn reasons(&self, each_peer: bool) -> Vec<String> {
        let reason = |server: &Server| {
            let health = server.health();
            let given_up = if health.is_given_up() {
                " (given up)"
            } else {
                ""
            };
            let reason = health.reason()?;
            Some(format!("ask {}: {reason}{given_up}", server.url))
        };
        let peers = &self.list[self.peers_from..self.mirrors_from];
        let mut reasons: Vec<String> = self.listed().iter().filter_map(reason).collect();
        if each_peer {
            reasons.extend(peers.iter().filter_map(reason));
        } else if !peers.is_empty() {
            let count = peers.len();
            reasons.push(format!("ask {count} peers: none gave it; see -v"));
        }
        reasons.extend(self.list[self.mirrors_from..].iter().filter_map(reason));
        reasons
    }
}

/// Where a run begins.
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
        Servers::new(urls(names), Vec::new(), Vec::new(), 64, false, |_| {})
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
        let fetched = servers.fetch(wanted(1), servers.turn(), true, |url, way, wanted| {
            assert_eq!(way, RequestKind::Single, "one block is no run");
            asked.push(url.to_string());
            let is_last = asked.len() == 3;
            Ok(answer(if is_last { give } else { lack }, wanted))
        });
        let (left, passing) = fetched.unwrap();
        assert!(left.is_empty() && !passing);
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
        let fetched = servers.fetch(wanted(6), servers.turn(), true, |url, way, wanted| {
            asked.push((url.to_string(), way, wanted.len()));
            let mut answer = Outcome::default();
            for (place, one) in wanted.iter().enumerate() {
                match place % 2 {
                    0 => answer.hit(),
                    _ => answer.miss(&[*one], "no"),
                }
            }
            Ok(answer)
        });
        let left: Vec<u64> = fetched.unwrap().0.iter().map(|left| left.number).collect();
        assert_eq!(left, [3]);
        let due = [("a", 6), ("b", 3)];
        let due = due.map(|(name, count)| (format!("http://{name}"), RequestKind::Batch, count));
        assert_eq!(asked, due);
    }

    /// How often a lone server is asked by ten fetches of `blocks`, each answered with the next of
    /// `answers`, and whether the last of them may do better later.
    fn asked(servers: &Servers, blocks: usize, answers: &[Answer]) -> (usize, bool) {
        let (mut count, mut later) = (0, false);
        for turn in 0..10 {
            let fetched = servers.fetch(wanted(blocks), servers.turn(), true, |_, _, wanted| {
                count += 1;
                Ok(answer(answers[turn % answers.len()], wanted))
            });
            later = fetched.unwrap().1;
        }
        (count, later)
    }

    #[test]
    fn a_bad_server_costs_its_failure_once_or_thrice() {
        let asked = |answers: &[Answer]| asked(&servers(&["a"]), 1, answers);
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
            asked(&servers, 1, &[answer]);
            servers.revive();
            assert_eq!(asked(&servers, 1, &[answer]).0, again);
        }
    }

    #[test]
    fn a_failure_tells_at_once_whether_it_may_pass() {
        for (failing, later) in [(busy as Answer, true), (gone, true), (wrong, false)] {
            let servers = servers(&["a", "b"]);
            let fetched = servers.fetch(wanted(1), servers.turn(), true, |url, _, wanted| {
                let is_last = url.host() == "b";
                Ok(answer(if is_last { lack } else { failing }, wanted))
            });
            assert_eq!(fetched.unwrap().1, later);
        }
    }

    #[test]
    fn a_mirror_is_asked_last_and_in_order() {
        let servers = Servers::new(urls(&["a"]), Vec::new(), urls(&["m"]), 64, false, |_| {});
        let mut left = wanted(5);
        left.swap(0, 2);
        let mut asked = Vec::new();
        let fetched = servers.fetch(left, servers.turn(), true, |_, way, wanted| {
            asked.push((way, wanted[0].number, wanted.len()));
            Ok(answer(
                if way == RequestKind::Batch {
                    lack
                } else {
                    give
                },
                wanted,
            ))
        });
        assert!(fetched.unwrap().0.is_empty());
        let mirror = RequestKind::Range(0);
        let parts = [(mirror, 2, 1), (mirror, 1, 1), (mirror, 0, 3)];
        assert_eq!(asked, [&[(RequestKind::Batch, 2, 5)][..], &parts].concat());
    }

    /// Who is asked by each of so many fetches with `spread`, all of `lacking` lacking everything.
    fn spread(names: &[&str], fetches: usize, lacking: &[&str]) -> Vec<String> {
        let servers = Servers::new(urls(names), Vec::new(), Vec::new(), 64, true, |_| {});
        let mut asked = Vec::new();
        for _ in 0..fetches {
            let fetched = servers.fetch(wanted(2), servers.turn(), true, |url, _, wanted| {
                let name = url.host().to_owned();
                let is_lacking = lacking.contains(&name.as_str());
                asked.push(name);
                Ok(answer(if is_lacking { lack } else { give }, wanted))
            });
            assert!(fetched.unwrap().0.is_empty());
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
                    servers.fetch(wanted(1), servers.turn(), true, |_, _, wanted| {
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
        let servers = Servers::new(urls(&["a"]), Vec::new(), Vec::new(), 64, false, tell);
        asked(&servers, 1, &[gone]);
        TOLD.with_borrow(|told| assert_eq!(*told, ["give up http://a: refused"]));
    }

    /// A refused batch is asked of the same server again; what that server lacks, of the next.
    #[test]
    fn a_server_that_refuses_batches_is_asked_again_before_the_next() {
        let servers = servers(&["a", "b"]);
        let mut asked = String::new();
        let fetched = servers.fetch(wanted(3), servers.turn(), true, |url, kind, wanted| {
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
        assert!(fetched.unwrap().0.is_empty());
        assert_eq!(asked, "a* a a a b ");
        assert_eq!(servers.turn().length, SINGLES);
    }

    #[test]
    fn as_much_is_taken_at_once_as_is_asked_of_the_first_that_is_not_given_up() {
        let servers = Servers::new(urls(&["a", "b"]), vec![], vec![], 100, false, |_| {});
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
            let fetched = servers.fetch(wanted(blocks), servers.turn(), true, |url, _, wanted| {
                Ok(match url.host() == host {
                    true => quick(wanted.len()),
                    false => answer(lack, wanted),
                })
            });
            fetched.unwrap();
        };
        assert_eq!(servers.turn().length, FIRST_RUN);
        fetch("b", 8);
        assert_eq!(servers.turn().length, FIRST_RUN, "that of a");
        fetch("a", 8);
        assert_eq!(servers.turn().length, 80, "what comes in half a second");
        fetch("a", 80);
        assert_eq!(servers.turn().length, 100, "at most");
        hosts(&servers, &[("a", gone)]);
        assert_eq!(servers.turn().length, 80, "that of b");
        hosts(&servers, &[("b", gone)]);
        assert_eq!(servers.turn().length, FIRST_RUN);
    }

    /// Whom a fetch of one block asks, where each answers as `answers` says of it, or lacks it.
    fn hosts(servers: &Servers, answers: &[(&str, Answer)]) -> String {
        let mut hosts = String::new();
        let fetched = servers.fetch(wanted(1), servers.turn(), true, |url, _, wanted| {
            hosts += url.host();
            let given = answers.iter().find(|(host, _)| *host == url.host());
            Ok(answer(given.map_or(lack, |(_, answer)| *answer), wanted))
        });
        fetched.unwrap();
        hosts
    }

    #[test]
    fn peers_are_asked_between_servers_and_mirrors() {
        let (peers, mirrors) = (urls(&["b", "c"]), urls(&["m"]));
        let servers = Servers::new(urls(&["a"]), peers, mirrors, 64, true, |_| {});
        assert_eq!(hosts(&servers, &[("a", give)]), "a");
        assert_eq!(hosts(&servers, &[("c", give)]), "abc");
        assert_eq!(hosts(&servers, &[("b", gone)]), "abcm");
        assert_eq!(hosts(&servers, &[]), "acm");
        let together = "ask 2 peers: none gave it; see -v";
        let [a, m] = ["a", "m"].map(|name| format!("ask http://{name}: no"));
        assert_eq!(servers.reasons(false), [&a, together, &m]);
        let [b, c] = ["b: refused (given up)", "c: no"].map(|told| format!("ask http://{told}"));
        assert_eq!(servers.reasons(true), [a, b, c, m]);
        servers.revive();
        assert_eq!(hosts(&servers, &[]), "abcm");
    }
}
