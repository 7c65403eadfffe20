//! The servers of one `get`: in which order they are asked, how, for how much at once, and which
//! are given up.
//!
//! No socket here: how a server is asked is a closure's affair, so all of this is tested without
//! one. A `Servers` is shared by all workers.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outcome::{BatchRefusal, Outcome, Pace, STRIKES};
use crate::error::Result;
use crate::get::block_ref::BlockRef;
use crate::get::client::failure::Failure;
use crate::get::client::url::Url;
use crate::mutex::lock;

/// Blocks asked for at once of a server of which nothing is known: 32 KiB, four seconds of a line
/// of 64 kbit/s, and the time of a request where it is quick.
const FIRST_RUN: usize = 8;

/// Times as many are asked for after a run that came quickly, at most: where a round trip is long,
/// each longer run costs one.
const GROWTH: usize = 16;

/// Blocks of a run are to come in this time: so long that the pause before the next run is filled by
/// those of the other workers where a round trip takes less, and so short that a slow line is not
/// taken up for long.
const RUN_TIME: Duration = Duration::from_millis(500);

/// A run that took longer from request to end is followed by none that is longer, however quickly
/// its blocks came once they did: what it waited for is a line that is full.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// Lines that a worker takes at once where each block is a request.
const SINGLES: usize = 4;

/// Single requests after a refusal, for now, of one for many. Twice as many after each, up to the
/// blocks of the longest run.
const SINGLES_DUE: usize = 16;
const MAX_SINGLES_DUE: usize = 1024;

/// Times that a server may fall silent in answers to requests for many blocks, and be revived, before
/// it is asked for single ones, which it may be better at. Those before an answer with as many blocks
/// do not count: a server that was only away for a while is asked as before.
const SILENCES: u32 = 2;

/// With `--spread`, one run in so many begins at a server that had nothing of the last it was asked
/// for.
const BARREN_TURNS: usize = 16;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RequestKind {
    /// For one block.
    Single,
    /// For many blocks at once.
    Batch,
    /// For parts of the whole file, in order, of the mirror of this number.
    Range(usize),
}

struct Server {
    url: Url,
    /// Its number, if it is a mirror.
    mirror: Option<usize>,
    state: Mutex<State>,
    /// A worker that was the first to ask this server has heard from it, or has not.
    tried: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether it ever answered, since it was last given another chance.
    reachable: bool,
    /// Whether a worker is finding that out.
    being_probed: bool,
    /// Failures in a row, and whether any of them will last.
    strikes: u32,
    lasting: bool,
    given_up: bool,
    /// Why it did not give the block that it was last asked for in vain.
    reason: Option<String>,
    /// Whether it answers requests for many blocks, once that is known.
    posts: Option<bool>,
    /// Single requests before the next for many, where it refused one for now, and how many there
    /// were the last time.
    singles_due: usize,
    singles: usize,
    /// How often it was given up for falling silent in an answer to one for many, and for how many
    /// the last was.
    silences: u32,
    silent_run: usize,
    run: Run,
    /// Runs that began here and are being asked for.
    begun: usize,
    /// Whether it had nothing of what it was last asked for.
    barren: bool,
}

/// How many blocks a server is asked for at once.
struct Run(usize);

impl Default for Run {
    fn default() -> Self {
        Run(FIRST_RUN)
    }
}

impl Run {
    /// Longer after a run that came quickly, shorter after one that came slowly, as many blocks as
    /// come in [`RUN_TIME`]: the rate is the line's, whatever else it carries.
    fn fit(&mut self, pace: Pace) {
        let seconds = pace.body.as_secs_f64().max(f64::EPSILON);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is clamped"
        )]
        let fit = (pace.blocks as f64 * RUN_TIME.as_secs_f64() / seconds) as usize;
        if pace.body > RUN_TIME {
            self.0 = fit.clamp(1, self.0);
        } else if pace.blocks >= self.0 && pace.whole < LONG_WAIT {
            self.0 = fit.clamp(self.0, pace.blocks * GROWTH);
        }
    }
}

impl Server {
    fn new(url: Url, mirror: Option<usize>) -> Self {
        Server {
            url,
            mirror,
            state: Mutex::default(),
            tried: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Lines that are worth taking at once for this server, if it is not given up.
    fn run_length(&self) -> Option<usize> {
        let state = self.state();
        let single = self.mirror.is_none() && state.posts == Some(false);
        let length = if single { SINGLES } else { state.run.0 };
        (!state.given_up).then_some(length)
    }

    /// Waits until it is known whether this server answers at all, or until it is the caller's
    /// turn to find out. So one that does not costs its timeout once, not once a worker. Tells how
    /// it is to be asked for `wanted`, and for how many of them; none if it is given up.
    fn plan_request(
        &self,
        wanted: &[BlockRef],
        singly: bool,
        passing: &mut bool,
    ) -> Option<(RequestKind, usize)> {
        let mut state = self.state();
        while state.being_probed && !state.given_up {
            state = self
                .tried
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.given_up {
            *passing |= !state.lasting;
            return None;
        }
        state.being_probed = !state.reachable;
        let most = state.run.0.min(wanted.len());
        if let Some(number) = self.mirror {
            let in_order = wanted
                .windows(2)
                .take_while(|pair| pair[0].number < pair[1].number);
            return Some((RequestKind::Range(number), most.min(in_order.count() + 1)));
        }
        // Nothing is to be gained by finding out for one block.
        let single = singly || state.posts == Some(false) || (state.posts.is_none() && most == 1);
        let is_due = state.singles_due > 0;
        state.singles_due -= usize::from(is_due);
        Some(if single || is_due {
            (RequestKind::Single, 1)
        } else {
            (RequestKind::Batch, most)
        })
    }
}

/// All servers in the order in which they are asked: listed servers, peers, mirrors.
pub struct Servers {
    list: Vec<Server>,
    peers_from: usize,
    mirrors_from: usize,
    /// Most blocks asked for at once.
    longest: usize,
    /// Where the next run begins, if each is to begin at another server, and how many did so.
    spread: Option<Mutex<(usize, usize)>>,
    /// Is told of each server that is given up.
    give_up: fn(String),
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
        Servers {
            list,
            peers_from,
            mirrors_from,
            longest,
            spread: spread.then(Mutex::default),
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

    /// Whose turn it is to be asked first: the first server, or with `spread` the one at which
    /// fewest runs are under way, of equals the next.
    pub fn turn(&self) -> RunStart<'_> {
        let servers = self.listed();
        let begun = self.spread.as_ref().and_then(|spread| {
            let mut turn = lock(spread);
            let (next, turns) = &mut *turn;
            *turns += 1;
            let try_barren = turns.is_multiple_of(BARREN_TURNS);
            let places = (0..servers.len()).map(|place| (*next + place) % servers.len());
            let place = places.min_by_key(|&place| {
                let state = servers[place].state();
                (state.given_up, state.barren && !try_barren, state.begun)
            })?;
            *next = place + 1;
            servers[place].state().begun += 1;
            Some((&servers[place], place))
        });
        let (server, first) = begun.map_or((None, 0), |(server, place)| (Some(server), place));
        RunStart {
            server,
            first,
            length: self
                .in_order(first)
                .find_map(Server::run_length)
                .unwrap_or(FIRST_RUN)
                .min(self.longest),
        }
    }

    /// Asks one server after the other for `wanted`, in the order of this `turn`, until nothing is
    /// left that was not given; the mirrors only where `wanted` is `mirrored`. Returns what nobody
    /// gave, and whether somebody may do so a little later.
    ///
    /// # Errors
    /// Those of `ask`, for what is wrong on this side.
    pub fn fetch(
        &self,
        wanted: Vec<BlockRef>,
        mut turn: RunStart,
        mirrored: bool,
        mut ask: impl FnMut(&Url, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Result<(Vec<BlockRef>, bool)> {
        let (mut left, mut passing) = (wanted, false);
        for server in self.in_order(turn.first) {
            if left.is_empty() || (server.mirror.is_some() && !mirrored) {
                break;
            }
            left = self.ask(server, left, &mut passing, &mut ask)?;
            turn.end();
        }
        Ok((left, passing))
    }

    /// Asks one server for `wanted`; returns what it did not give.
    fn ask(
        &self,
        server: &Server,
        wanted: Vec<BlockRef>,
        passing: &mut bool,
        ask: &mut impl FnMut(&Url, RequestKind, &[BlockRef]) -> Result<Outcome>,
    ) -> Result<Vec<BlockRef>> {
        let (mut left, mut rest) = (wanted, Vec::new());
        let mut singly = false;
        while !left.is_empty() {
            let Some((way, most)) = server.plan_request(&left, singly, passing) else {
                break;
            };
            let later = left.split_off(most.min(self.longest));
            let outcome = ask(&server.url, way, &left);
            let mut state = server.state();
            state.being_probed = false;
            server.tried.notify_all();
            let mut outcome = outcome?;
            if state.learn(way, &mut outcome) {
                singly = true;
                left = mem::take(&mut outcome.rest);
                left.extend(later);
            } else {
                rest.append(&mut outcome.rest);
                left = later;
            }
            for failure in outcome.failures {
                *passing |= failure.is_transient();
                self.fail(server, &mut state, failure);
            }
        }
        rest.append(&mut left);
        Ok(rest)
    }

    fn fail(&self, server: &Server, state: &mut State, failure: Failure) {
        if state.fail(failure) {
            let reason = state.reason.as_deref().unwrap_or_default();
            (self.give_up)(format!("give up {}: {reason}", server.url));
        }
    }

    /// Gives every server another chance that was given up for what may have passed.
    pub fn revive(&self) {
        for server in &self.list {
            let mut state = server.state();
            if state.given_up && !state.lasting {
                *state = State {
                    reason: state.reason.take(),
                    posts: state.posts,
                    // Whether it is back is asked by a single one: silence tells nothing against
                    // those for many then.
                    singles_due: usize::from(state.silences > 0),
                    silences: state.silences,
                    silent_run: state.silent_run,
                    begun: state.begun,
                    ..State::default()
                };
            }
        }
    }

    /// Each server's reason for the last block that it did not give, as `ask SERVER: REASON`. The
    /// peers, which the user did not list, have one line together, unless `each_peer` has its own.
    pub fn reasons(&self, each_peer: bool) -> Vec<String> {
        let reason = |server: &Server| {
            let state = server.state();
            let given_up = if state.given_up { " (given up)" } else { "" };
            Some(format!(
                "ask {}: {}{given_up}",
                server.url,
                state.reason.as_ref()?
            ))
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
    /// Counts this run until it is over; those that fall back to it are not counted.
    server: Option<&'a Server>,
    first: usize,
    /// Blocks that are worth asking for at once.
    pub length: usize,
}

impl RunStart<'_> {
    fn end(&mut self) {
        if let Some(server) = self.server.take() {
            server.state().begun -= 1;
        }
    }
}

impl Drop for RunStart<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    /// Takes note of what an answer says of the server, but for its failures. True if what it did
    /// not give is to be asked for singly: where it is not known to answer requests for many, all
    /// that is wrong with its answer is that it does not.
    fn learn(&mut self, way: RequestKind, outcome: &mut Outcome) -> bool {
        if outcome.given > 0 || outcome.lacks {
            self.succeed();
        }
        if outcome.reason.is_some() && !self.given_up {
            self.reason = outcome.reason.take();
        }
        self.barren = outcome.given == 0;
        if let Some(pace) = outcome.pace {
            self.run.fit(pace);
        }
        if way != RequestKind::Batch {
            return false;
        }
        let is_first = self.posts.is_none() && outcome.given == 0 && !outcome.lacks;
        // Nobody there, and silence, are that whatever was asked for.
        let is_gone = outcome.failures.iter().any(Failure::is_outage);
        if is_first && !is_gone && outcome.batch_refusal.is_none() {
            outcome.batch_refusal = Some(BatchRefusal::Permanent);
            outcome.failures.clear();
        }
        if !self.given_up {
            self.count_silence(outcome);
        }
        if outcome.batch_refusal == Some(BatchRefusal::Permanent) || self.silences == SILENCES {
            self.posts = Some(false);
        } else if outcome.batch_refusal == Some(BatchRefusal::Temporary) {
            self.singles = (2 * self.singles).clamp(SINGLES_DUE, MAX_SINGLES_DUE);
            self.singles_due = self.singles;
        } else if outcome.given > 0 || outcome.lacks {
            self.posts = Some(true);
            self.singles = 0;
        }
        outcome.batch_refusal.is_some()
    }

    fn count_silence(&mut self, outcome: &Outcome) {
        if outcome.failures.iter().any(Failure::is_silence) {
            self.silences += 1;
            self.silent_run = outcome.given + outcome.rest.len();
        } else if outcome.given >= self.silent_run {
            self.silences = 0;
        } else {
            // So do a few with fewer.
            self.silent_run /= 2;
        }
    }

    /// An answer that was under way as the server was given up changes nothing.
    fn succeed(&mut self) {
        if self.given_up {
            return;
        }
        self.reachable = true;
        self.strikes = 0;
        self.lasting = false;
    }

    /// Counts a failure; true if it is the one for which the server is given up. What was under way
    /// then changes nothing.
    fn fail(&mut self, failure: Failure) -> bool {
        if self.given_up {
            return false;
        }
        self.reachable |= !failure.is_outage();
        self.strikes += if failure.is_outage() { STRIKES } else { 1 };
        // Silence is the last word: what went before it is no reason never to ask again.
        self.lasting = !failure.is_transient() || (self.lasting && !failure.is_outage());
        self.reason = Some(failure.reason);
        self.given_up = self.strikes >= STRIKES;
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use std::cell::RefCell;
    use std::thread;

    fn urls(names: &[&str]) -> Vec<Url> {
        names.iter().map(|name| Url::parse(name).unwrap()).collect()
    }

    fn servers(names: &[&str]) -> Servers {
        Servers::new(urls(names), Vec::new(), Vec::new(), 64, false, |_| {})
    }

    /// So many blocks in a row.
    fn wanted(count: u64) -> Vec<BlockRef> {
        let hash = Hash::of(b"block");
        let wanted = (0..count).map(|number| BlockRef {
            number,
            hash,
            last: false,
        });
        wanted.collect()
    }

    type Answer = fn(&mut Outcome, &[BlockRef]);

    fn give(outcome: &mut Outcome, wanted: &[BlockRef]) {
        wanted.iter().for_each(|_| outcome.hit());
    }

    fn lack(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.miss(wanted, "no");
    }

    fn wrong(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::strike("wrong", false));
    }

    fn busy(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::strike("busy", true));
    }

    fn gone(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::unreachable("refused"));
    }

    fn silent(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::silent("nothing came"));
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
    fn asked(servers: &Servers, blocks: u64, answers: &[Answer]) -> (usize, bool) {
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
    fn another_chance_forgets_the_failures_and_nothing_else() {
        let servers = Servers::new(urls(&["a"]), Vec::new(), Vec::new(), 64, true, |_| {});
        let under_way = servers.turn();
        let lone = &servers.list[0];
        let mut state = lone.state();
        (state.posts, state.silences) = (Some(false), 1);
        assert!(state.fail(Failure::unreachable("refused")));
        drop(state);
        servers.revive();
        assert_eq!(servers.reasons(false), ["ask http://a: refused"]);
        let state = lone.state();
        assert!(!state.given_up && state.strikes == 0);
        let kept = (state.posts, state.silences, state.begun);
        assert_eq!(kept, (Some(false), 1, 1));
        drop(state);
        drop(under_way);
        assert_eq!(lone.state().begun, 0);
    }

    #[test]
    fn what_was_under_way_as_a_server_was_given_up_changes_no_reason() {
        let mut state = State::default();
        assert!(!state.fail(Failure::strike("busy", true)) && state.reachable);
        assert!(!state.learn(RequestKind::Single, &mut answer(lack, &wanted(1))));
        assert!(!state.learn(RequestKind::Single, &mut answer(give, &wanted(1))));
        assert_eq!(state.reason.as_deref(), Some("no"), "the last one stays");
        let mut state = State::default();
        assert!(state.fail(Failure::unreachable("refused")) && !state.reachable);
        assert!(!state.learn(RequestKind::Single, &mut answer(lack, &wanted(1))));
        assert_eq!(state.reason.as_deref(), Some("refused"));
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

    /// In which ways a server is asked for four blocks twice, where it answers requests for many
    /// with `answer` and gives every single block.
    fn ways(posted: Answer) -> Vec<RequestKind> {
        let servers = servers(&["a"]);
        let mut ways = Vec::new();
        for _ in 0..2 {
            let fetched = servers.fetch(wanted(4), servers.turn(), true, |_, way, wanted| {
                ways.push(way);
                Ok(answer(
                    if way == RequestKind::Batch {
                        posted
                    } else {
                        give
                    },
                    wanted,
                ))
            });
            fetched.unwrap();
        }
        assert!(!servers.list[0].state().given_up || ways.len() == 1);
        ways
    }

    #[test]
    fn a_server_that_does_not_take_requests_for_many_is_asked_singly() {
        const SINGLY: [RequestKind; 4] = [RequestKind::Single; 4];
        let once = [&[RequestKind::Batch][..], &SINGLY, &SINGLY].concat();
        let never: Answer = |outcome, wanted| outcome.refuse_batch(wanted, BatchRefusal::Permanent);
        assert_eq!(ways(never), once);
        assert_eq!(ways(wrong), once);
        assert_eq!(ways(busy), once);
        let not_now: Answer =
            |outcome, wanted| outcome.refuse_batch(wanted, BatchRefusal::Temporary);
        assert_eq!(ways(not_now), once, "for a while");
        assert_eq!(ways(give), [RequestKind::Batch; 2]);
        assert_eq!(ways(lack), [RequestKind::Batch; 2]);
        assert_eq!(ways(gone), [RequestKind::Batch]);
        let half: Answer = |outcome, wanted| {
            outcome.hit();
            outcome.refuse_batch(&wanted[1..], BatchRefusal::Permanent);
        };
        let after = [
            &[RequestKind::Batch][..],
            &[RequestKind::Single; 3],
            &SINGLY,
        ]
        .concat();
        assert_eq!(ways(half), after);
    }

    /// In which ways a server is asked for four blocks, where it answers requests for many with `posted`
    /// and single ones with `got`.
    fn ways_now(servers: &Servers, posted: Answer, got: Answer) -> Vec<RequestKind> {
        let mut ways = Vec::new();
        let fetched = servers.fetch(wanted(4), servers.turn(), true, |_, way, wanted| {
            ways.push(way);
            Ok(answer(
                if way == RequestKind::Batch {
                    posted
                } else {
                    got
                },
                wanted,
            ))
        });
        fetched.unwrap();
        ways
    }

    #[test]
    fn a_server_that_was_away_is_asked_for_many_again() {
        let servers = servers(&["a"]);
        for _ in 0..2 * SILENCES {
            assert_eq!(ways_now(&servers, give, give), [RequestKind::Batch]);
            assert_eq!(ways_now(&servers, silent, silent), [RequestKind::Batch]);
            for _ in 0..2 * SILENCES {
                servers.revive();
                assert_eq!(
                    ways_now(&servers, silent, silent),
                    [RequestKind::Single],
                    "still away"
                );
            }
            servers.revive();
            assert_eq!(
                ways_now(&servers, give, give),
                [RequestKind::Single, RequestKind::Batch]
            );
        }
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_asked_for_many() {
        let servers = servers(&["a"]);
        for _ in 0..2 * SILENCES {
            assert_eq!(ways_now(&servers, gone, gone), [RequestKind::Batch]);
            servers.revive();
        }
        assert_eq!(ways_now(&servers, give, give), [RequestKind::Batch]);
    }

    #[test]
    fn a_server_that_is_silent_at_first_is_asked_for_many_again() {
        let servers = servers(&["a"]);
        assert_eq!(ways_now(&servers, silent, silent), [RequestKind::Batch]);
        servers.revive();
        assert_eq!(
            ways_now(&servers, give, give),
            [RequestKind::Single, RequestKind::Batch]
        );
    }

    #[test]
    fn a_few_short_answers_make_good_for_silence_too() {
        let after = |short_answers: usize| {
            let servers = servers(&["a"]);
            let ask = |blocks, posted: Answer| {
                let turn = servers.turn();
                let fetched = servers.fetch(wanted(blocks), turn, true, |_, way, wanted| {
                    Ok(answer(
                        if way == RequestKind::Batch {
                            posted
                        } else {
                            give
                        },
                        wanted,
                    ))
                });
                fetched.unwrap();
            };
            for _ in 0..3 * SILENCES {
                ask(8, silent);
                servers.revive();
                (0..short_answers).for_each(|_| ask(3, give));
            }
            ways_now(&servers, give, give)
        };
        assert_eq!(after(4), [RequestKind::Batch]);
        assert_eq!(after(2), [RequestKind::Single; 4]);
    }

    #[test]
    fn a_server_that_is_silent_to_many_is_asked_singly_in_the_end() {
        let servers = servers(&["a"]);
        assert_eq!(ways_now(&servers, give, give), [RequestKind::Batch]);
        assert_eq!(ways_now(&servers, silent, give), [RequestKind::Batch]);
        for _ in 1..SILENCES {
            servers.revive();
            assert_eq!(
                ways_now(&servers, silent, give),
                [RequestKind::Single, RequestKind::Batch]
            );
        }
        servers.revive();
        assert_eq!(ways_now(&servers, silent, give), [RequestKind::Single; 4]);
    }

    #[test]
    fn wrong_blocks_among_others_are_no_misunderstanding() {
        let servers = servers(&["a"]);
        let lying: Answer = |outcome, wanted| {
            outcome.hit();
            wanted[1..].chunks(1).for_each(|one| wrong(outcome, one));
        };
        assert_eq!(asked(&servers, 4, &[lying]), (1, false));
        assert_eq!(servers.reasons(false), ["ask http://a: wrong (given up)"]);
    }

    #[test]
    fn runs_fit_the_line() {
        let pace = |blocks, body, whole| Pace {
            blocks,
            body: Duration::from_millis(body),
            whole: Duration::from_millis(whole),
        };
        let mut run = Run::default();
        let mut fit = |blocks, body, whole| {
            run.fit(pace(blocks, body, whole));
            run.0
        };
        assert_eq!(fit(8, 125, 200), 32);
        assert_eq!(fit(8, 1, 100), 32, "a short one says little");
        assert_eq!(fit(32, 1, 400), 512);
        assert_eq!(fit(512, 2_000, 2_300), 128);
        assert_eq!(fit(128, 400, 700), 160, "what comes in half a second");
        assert_eq!(fit(160, 1_000, 1_300), 80);
        assert_eq!(fit(80, 100, 2_000), 80, "the line is full");
        assert_eq!(fit(40, 500, 800), 80, "in time");
        assert_eq!(fit(2, 60_000, 60_000), 1);
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
        let mostly = spread(&["a", "b"], BARREN_TURNS - 1, &["a"]);
        assert_eq!(mostly.iter().filter(|name| *name == "a").count(), 1);
        let again = spread(&["a", "b"], BARREN_TURNS, &["a"]);
        assert_eq!(again.iter().filter(|name| *name == "a").count(), 2);
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

    #[test]
    fn three_failures_are_hopeless() {
        let mut outcome = Outcome::default();
        let hopeless = (0..3).map(|_| {
            busy(&mut outcome, &wanted(1));
            outcome.reached_strike_limit()
        });
        assert_eq!(hopeless.collect::<Vec<_>>(), [false, false, true]);
    }

    /// How many blocks are asked for singly between one request for many and the next, where each
    /// of those is answered by the next of `answers`.
    fn singles(answers: &[Answer]) -> Vec<usize> {
        let (servers, mut posts, mut singles) = (servers(&["a"]), 0, vec![]);
        for _ in 0..2000 {
            let fetched = servers.fetch(wanted(2), servers.turn(), true, |_, way, wanted| {
                if way == RequestKind::Single {
                    *singles.last_mut().unwrap() += 1;
                    return Ok(answer(give, wanted));
                }
                let posted = answers.get(posts).copied().unwrap_or(give);
                posts += 1;
                singles.push(0);
                Ok(answer(posted, wanted))
            });
            fetched.unwrap();
        }
        singles.truncate(answers.len());
        singles
    }

    #[test]
    fn who_refuses_requests_for_many_for_now_is_asked_for_them_ever_more_seldom() {
        let not_now: Answer =
            |outcome, wanted| outcome.refuse_batch(wanted, BatchRefusal::Temporary);
        let due = [16, 32, 64, 128, 256, 512, 1024, 1024];
        assert_eq!(singles(&[not_now; 8]), due);
        let due = [16, 32, 0, 16];
        assert_eq!(singles(&[not_now, not_now, give, not_now]), due);
        assert_eq!(singles(&[not_now, not_now, lack, not_now]), due);
        let due = [0, 16, 0, 32];
        assert_eq!(singles(&[give, not_now, busy, not_now]), due);
    }

    #[test]
    fn as_much_is_taken_at_once_as_is_asked_of_the_first_that_is_not_given_up() {
        let servers = Servers::new(urls(&["a", "b"]), Vec::new(), Vec::new(), 10, false, |_| {});
        let [a, b] = &servers.list[..] else {
            unreachable!()
        };
        assert_eq!(servers.turn().length, FIRST_RUN);
        b.state().run = Run(9);
        assert_eq!(servers.turn().length, FIRST_RUN);
        a.state().run = Run(11);
        assert_eq!(servers.turn().length, 10, "the most that was said");
        a.state().posts = Some(true);
        assert_eq!(servers.turn().length, 10);
        a.state().posts = Some(false);
        assert_eq!(servers.turn().length, SINGLES);
        a.state().given_up = true;
        assert_eq!(servers.turn().length, 9);
        b.state().given_up = true;
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
