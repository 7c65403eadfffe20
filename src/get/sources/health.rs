//! One server's record: what its answers say about it, and how the next request should ask.
//!
//! This is a state machine and nothing else. It knows no lock, no URL, no socket and no clock:
//! `servers.rs` keeps one record per server under a lock, and does the waiting. Its rules:
//!
//! 1. One request probes a server that has not answered yet; all others wait for its outcome. So a
//!    dead server costs its timeout once, whatever the number of jobs.
//! 2. An unreachable or silent server is given up at once, one that answers wrongly after [`STRIKES`]
//!    wrong answers in a row. A block, or a plain no, clears the strikes.
//! 3. A server that was given up for a transient reason gets another chance in the next round.
//! 4. A batch is as long as what the server delivers in [`RUN_TIME`].
//! 5. A server that refuses batches is asked for single blocks: for good, or for a number of
//!    requests. Silence in answer to a batch refuses batches for now, and is an outage too.
//! 6. What was in flight when the server was given up changes neither that nor the reason.

use std::time::Duration;

use super::outcome::{BatchRefusal, Outcome, Pace, Pending, RequestKind, STRIKES};
use crate::get::block_ref::BlockRef;
use crate::get::client::failure::ServerFailure;

/// Blocks of the first batch: 32 KiB, four seconds of a line of 64 kbit/s, and the time of one
/// request on a fast line.
pub const FIRST_BATCH: usize = 8;

/// A batch is at most this many times as long as the one before it: one batch that came fast must not
/// decide too much. Where a round trip is long, each longer batch costs one.
const GROWTH: usize = 16;

/// The time that a batch should take: long enough for the other workers to fill the pause before the
/// next one where a round trip takes less, and short enough not to block a slow line.
const RUN_TIME: Duration = Duration::from_millis(500);

/// No longer batch follows one that took longer than this from request to end, however fast its
/// blocks came: it waited for a line that is full.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// Blocks that a worker takes at once where each block is a request.
pub const SINGLES: usize = 4;

/// Single requests after a batch that was refused for now, and how many times as many after each
/// further refusal in a row. They grow without a limit: a server that leaves every batch without an
/// answer costs 4 timeouts for 1,000 blocks, 7 for 60,000, and 10 for 4 million.
const FIRST_BACKOFF: usize = 16;
const BACKOFF_GROWTH: usize = 4;

/// One server's record.
///
/// It does not keep three things yet, which have their place here:
///
/// - How many requests are in flight, and how many may be: beside `run`. [`Health::begin`] adds one and
///   [`Health::end`] takes it off. [`Health::revive`] must keep the count, since a request may be in flight
///   meanwhile. `servers.rs` wakes waiting workers at each end, but they wait for that of the probe alone.
/// - Until when the server asked to be left alone: beside `standing`. `Response` reads that, [`Outcome`]
///   carries it, and `begin` gets the time as an argument, since there is no clock here.
/// - How long the server has taken without giving a block: an argument of [`Health::record`].
#[derive(Default)]
pub struct Health {
    standing: Standing,
    batches: BatchSupport,
    run: RunLength,
    /// Why the server did not give the last block that it was asked for in vain.
    reason: Option<String>,
}

/// Whether the server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Standing {
    /// It has not been asked: the next request is the probe.
    #[default]
    Untried,
    /// The probe is in flight.
    Probing,
    /// It answers. `strikes` counts the wrong answers since the last right one. `transient`: each of them
    /// may be right at a later request, such as a 503.
    Reachable { strikes: u32, transient: bool },
    /// It is not asked. `transient`: it gets another chance in the next round.
    GivenUp { transient: bool },
}

/// Whether the server answers `POST /blocks`.
#[derive(Default)]
enum BatchSupport {
    #[default]
    Unknown,
    Works,
    /// It refused a batch for now, or fell silent. After the first refusal `singles` is 16 and
    /// `singles_left` falls from 16 to 0; then comes a batch, and if that is refused, `singles` is 64.
    NotNow {
        /// Single requests still to come before the next batch.
        singles_left: usize,
        /// Single requests that the last refusal asked for.
        singles: usize,
    },
    Never,
    /// It is a mirror, and asked for ranges of the file instead.
    Mirror,
}

impl Health {
    pub fn of_mirror() -> Self {
        Health {
            batches: BatchSupport::Mirror,
            ..Health::default()
        }
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub fn is_given_up(&self) -> bool {
        matches!(self.standing, Standing::GivenUp { .. })
    }

    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Blocks that a worker should take at once for this server; none if it is given up.
    pub fn run_length(&self) -> Option<usize> {
        let length = match self.batches {
            BatchSupport::Never => SINGLES,
            _ => self.run.0,
        };
        (!self.is_given_up()).then_some(length)
    }

    /// Begins a request of a worker that wants `wanted` blocks. Returns how it asks, and for how many of
    /// them. It is a probe where the server has not answered yet.
    pub fn begin(&mut self, wanted: usize) -> (RequestKind, usize) {
        if self.standing == Standing::Untried {
            self.standing = Standing::Probing;
        }
        let length = self.run.0.min(wanted);
        let is_batch = match &mut self.batches {
            BatchSupport::Mirror => return (RequestKind::Range, length),
            // For one block too: there a batch costs what a single request does.
            BatchSupport::Works => true,
            BatchSupport::NotNow { singles_left, .. } if *singles_left > 0 => {
                *singles_left -= 1;
                false
            }
            // For one block a batch gains nothing, and if refused costs a request more.
            BatchSupport::Unknown | BatchSupport::NotNow { .. } => length > 1,
            BatchSupport::Never => false,
        };
        if is_batch {
            (RequestKind::Batch, length)
        } else {
            (RequestKind::Single, 1)
        }
    }

    /// Ends a request; its outcome is recorded next. If that outcome says nothing of the server, or there is
    /// none since this machine failed, then the next request is the probe.
    pub fn end(&mut self) {
        if matches!(self.standing, Standing::Probing) {
            self.standing = Standing::Untried;
        }
    }

    /// Records what a request brought. Adds the blocks that the server did not give to `pending`, for the
    /// next server. Returns the blocks of a refused batch, for which the same server is asked again.
    pub fn record(
        &mut self,
        kind: RequestKind,
        outcome: Outcome,
        pending: &mut Pending,
    ) -> Vec<BlockRef> {
        let refusal = match kind {
            RequestKind::Batch => self.batches.record(&outcome),
            RequestKind::Single | RequestKind::Range => None,
        };
        if outcome.is_answered() && !self.is_given_up() {
            self.standing = Standing::Reachable {
                strikes: 0,
                transient: true,
            };
        }
        if let Some(pace) = outcome.pace {
            self.run.fit(pace);
        }
        if let Some(reason) = outcome.reason
            && !self.is_given_up()
        {
            self.reason = Some(reason);
        }
        if refusal.is_some() {
            return outcome.rest;
        }
        pending.blocks.extend(outcome.rest);
        for failure in outcome.failures {
            pending.transient |= failure.is_transient();
            self.count_failure(failure);
        }
        Vec::new()
    }

    fn count_failure(&mut self, failure: ServerFailure) {
        let (strikes, transient) = match self.standing {
            Standing::GivenUp { .. } => return,
            Standing::Reachable { strikes, transient } => (strikes + 1, transient),
            Standing::Untried | Standing::Probing => (1, true),
        };
        self.standing = if failure.is_outage() {
            // The last word: the wrong answers before it are no reason never to ask again.
            Standing::GivenUp { transient: true }
        } else {
            let transient = transient && failure.is_transient();
            match strikes {
                STRIKES.. => Standing::GivenUp { transient },
                _ => Standing::Reachable { strikes, transient },
            }
        };
        self.reason = Some(failure.reason);
    }

    /// Gives the server another chance, if it was given up for a transient reason. The line may be another
    /// one by now.
    pub fn revive(&mut self) {
        if matches!(self.standing, Standing::GivenUp { transient: true }) {
            self.standing = Standing::Untried;
            self.run = RunLength::default();
        }
    }
}

impl BatchSupport {
    /// Records what a batch brought. Returns the refusal, if the server did not answer the batch.
    fn record(&mut self, outcome: &Outcome) -> Option<BatchRefusal> {
        let is_outage = outcome.failures.iter().any(ServerFailure::is_outage);
        // Unless batches are known to work, a wrong answer refuses the batch and is no strike: the
        // answers to single requests count.
        let refusal = outcome.batch_refusal.or(match self {
            _ if is_outage || outcome.is_answered() => None,
            BatchSupport::Unknown | BatchSupport::Never => Some(BatchRefusal::Permanent),
            BatchSupport::NotNow { .. } => Some(BatchRefusal::Temporary),
            BatchSupport::Works | BatchSupport::Mirror => None,
        });
        match refusal {
            Some(BatchRefusal::Permanent) => *self = BatchSupport::Never,
            Some(BatchRefusal::Temporary) => self.back_off(),
            // Single requests find out whether the server is away, or silent to batches alone.
            None if outcome.failures.iter().any(ServerFailure::is_silence) => self.back_off(),
            None if outcome.is_answered() && !self.is_backing_off() => *self = BatchSupport::Works,
            None => {}
        }
        refusal
    }

    /// Puts off the next batch.
    fn back_off(&mut self) {
        let singles = match self {
            // This batch was in flight at the last refusal.
            _ if self.is_backing_off() => return,
            BatchSupport::Never | BatchSupport::Mirror => return,
            BatchSupport::NotNow { singles, .. } => singles.saturating_mul(BACKOFF_GROWTH),
            BatchSupport::Unknown | BatchSupport::Works => FIRST_BACKOFF,
        };
        *self = BatchSupport::NotNow {
            singles_left: singles,
            singles,
        };
    }

    fn is_backing_off(&self) -> bool {
        matches!(self, BatchSupport::NotNow { singles_left, .. } if *singles_left > 0)
    }
}

/// How many blocks one request asks for.
struct RunLength(usize);

impl Default for RunLength {
    fn default() -> Self {
        RunLength(FIRST_BATCH)
    }
}

impl RunLength {
    /// Fits the length to a batch that came: longer after a fast one, shorter after a slow one, as
    /// many blocks as come in [`RUN_TIME`]. The rate is the line's, whatever else it carries.
    fn fit(&mut self, pace: Pace) {
        let fit = pace.blocks as u128 * RUN_TIME.as_micros() / pace.body.as_micros().max(1);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        if pace.body > RUN_TIME {
            self.0 = fit.clamp(1, self.0);
        } else if pace.blocks >= self.0 && pace.whole < LONG_WAIT {
            self.0 = fit.clamp(self.0, pace.blocks * GROWTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get::sources::outcome::answers::*;

    fn silent(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, ServerFailure::silent("nothing came"));
    }

    fn not_now(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.refuse_batch(wanted, BatchRefusal::Temporary);
    }

    fn never(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.refuse_batch(wanted, BatchRefusal::Permanent);
    }

    fn outcome(answer: Answer, blocks: usize) -> Outcome {
        let mut outcome = Outcome::default();
        answer(&mut outcome, &wanted(blocks));
        outcome
    }

    /// Records the answer to a single request.
    fn single(health: &mut Health, answer: Answer) -> Pending {
        let mut missing = Pending::default();
        health.record(RequestKind::Single, outcome(answer, 1), &mut missing);
        missing
    }

    /// Records the answer to a batch; returns the blocks to ask for again.
    fn batch(health: &mut Health, answer: Answer, blocks: usize) -> usize {
        let mut missing = Pending::default();
        let again = health.record(RequestKind::Batch, outcome(answer, blocks), &mut missing);
        again.len()
    }

    /// Asks for `blocks` blocks until the server is given up. Batches are answered with `batch`, single
    /// requests with `single`. Returns the requests: `B` for a batch, `S` for a single one.
    fn ask(health: &mut Health, blocks: usize, batch: Answer, single: Answer) -> String {
        let (mut left, mut requests) = (blocks, String::new());
        while left > 0 && !health.is_given_up() {
            let (kind, length) = health.begin(left);
            let is_batch = kind == RequestKind::Batch;
            requests.push(if is_batch { 'B' } else { 'S' });
            let outcome = outcome(if is_batch { batch } else { single }, length);
            left -= length;
            health.end();
            left += health.record(kind, outcome, &mut Pending::default()).len();
        }
        requests
    }

    #[test]
    fn one_request_probes_and_the_others_wait() {
        let mut health = Health::default();
        health.begin(1);
        assert_eq!(health.standing(), Standing::Probing);
        // A probe that brought nothing to judge by leaves it to the next.
        health.end();
        assert_eq!(health.standing(), Standing::Untried);
        health.begin(1);
        health.end();
        single(&mut health, lack);
        health.begin(1);
        assert_ne!(health.standing(), Standing::Probing, "it answers");
    }

    #[test]
    fn an_outage_or_three_wrong_answers_in_a_row_close_it() {
        let closed = |answers: &[Answer]| {
            let mut health = Health::default();
            for (count, answer) in answers.iter().cycle().take(30).enumerate() {
                single(&mut health, *answer);
                if health.is_given_up() {
                    return Some((count + 1, health.standing()));
                }
            }
            None
        };
        let for_now = Standing::GivenUp { transient: true };
        let for_good = Standing::GivenUp { transient: false };
        assert_eq!(closed(&[gone]), Some((1, for_now)));
        assert_eq!(closed(&[silent]), Some((1, for_now)));
        assert_eq!(closed(&[wrong]), Some((3, for_good)));
        assert_eq!(closed(&[busy]), Some((3, for_now)));
        assert_eq!(closed(&[busy, busy, wrong]), Some((3, for_good)));
        assert_eq!(closed(&[wrong, busy, busy]), Some((3, for_good)));
        assert_eq!(closed(&[wrong, gone]), Some((2, for_now)));
        assert_eq!(closed(&[lack]), None);
        assert_eq!(closed(&[wrong, wrong, give]), None);
        assert_eq!(closed(&[wrong, wrong, lack]), None);
        assert_eq!(closed(&[give, wrong, wrong, wrong]), Some((4, for_good)));
    }

    #[test]
    fn what_was_in_flight_when_it_was_given_up_changes_nothing() {
        let mut health = Health::default();
        single(&mut health, gone);
        for late in [give as Answer, lack, wrong, silent] {
            single(&mut health, late);
            batch(&mut health, silent, 9);
            assert_eq!(health.standing(), Standing::GivenUp { transient: true });
            assert_eq!(health.reason(), Some("refused"));
        }
        health.revive();
        assert_eq!(health.standing(), Standing::Untried);
    }

    #[test]
    fn a_failure_tells_whether_the_rest_may_come_later() {
        for (answer, transient) in [
            (busy as Answer, true),
            (gone, true),
            (wrong, false),
            (lack, false),
        ] {
            let missing = single(&mut Health::default(), answer);
            assert_eq!((missing.blocks.len(), missing.transient), (1, transient));
        }
    }

    #[test]
    fn another_chance_keeps_the_reason_and_what_is_known_of_batches() {
        let mut health = Health::default();
        ask(&mut health, 8, never, give);
        single(&mut health, gone);
        assert_eq!(health.run_length(), None);
        health.revive();
        assert_eq!(health.standing(), Standing::Untried);
        assert_eq!(health.reason(), Some("refused"));
        assert_eq!(health.run_length(), Some(SINGLES));
        assert_eq!(ask(&mut health, 4, never, give), "SSSS");
        (0..3).for_each(|_| drop(single(&mut health, wrong)));
        health.revive();
        assert_eq!(health.standing(), Standing::GivenUp { transient: false });
    }

    #[test]
    fn the_last_reason_stays() {
        let mut health = Health::default();
        for (answer, due) in [(busy as Answer, "busy"), (lack, "no"), (give, "no")] {
            single(&mut health, answer);
            assert_eq!(health.reason(), Some(due));
        }
    }

    /// The requests of two workers, one after the other, for four blocks each.
    #[test]
    fn a_server_that_refuses_batches_is_asked_for_single_blocks() {
        let requests = |batch| {
            let mut health = Health::default();
            [(); 2].map(|()| ask(&mut health, 4, batch, give))
        };
        let singly = ["BSSSS", "SSSS"];
        assert_eq!(requests(never), singly);
        assert_eq!(requests(not_now), singly, "for a while");
        assert_eq!(
            requests(wrong),
            singly,
            "a first answer that makes no sense"
        );
        assert_eq!(requests(busy), singly);
        assert_eq!(requests(give), ["B", "B"]);
        assert_eq!(requests(lack), ["B", "B"]);
        assert_eq!(requests(gone), ["B", ""]);
        let half: Answer = |outcome, wanted| {
            outcome.hit();
            never(outcome, &wanted[1..]);
        };
        assert_eq!(requests(half), ["BSSS", "SSSS"]);
    }

    #[test]
    fn one_block_does_not_tell_whether_batches_work() {
        let mut health = Health::default();
        assert_eq!(ask(&mut health, 1, never, give), "S");
        assert_eq!(ask(&mut health, 8, give, give), "B");
        assert_eq!(ask(&mut health, 1, give, give), "B");
    }

    #[test]
    fn wrong_blocks_where_batches_work_are_strikes() {
        let lying: Answer = |outcome, wanted| {
            outcome.hit();
            wanted[1..].chunks(1).for_each(|one| wrong(outcome, one));
        };
        let mut health = Health::default();
        assert_eq!(ask(&mut health, 8, lying, give), "B");
        assert_eq!(health.standing(), Standing::GivenUp { transient: false });
        assert_eq!(health.reason(), Some("wrong"));
        let mut health = Health::default();
        assert_eq!(ask(&mut health, 24, give, give), "BBB");
        ask(&mut health, 24, wrong, give);
        assert_eq!(health.standing(), Standing::GivenUp { transient: false });
    }

    /// Single requests after each batch, where these are answered with `answers` and then with blocks.
    fn backoffs(answers: &[Answer]) -> Vec<usize> {
        let mut health = Health::default();
        let singles = answers.iter().map(|answer| {
            // Answers this batch alone, and looks how many single requests come before the next.
            batch(&mut health, *answer, 8);
            health.revive();
            let is_single = |health: &mut Health| health.begin(8).0 == RequestKind::Single;
            (0..).take_while(|_| is_single(&mut health)).count()
        });
        singles.collect()
    }

    #[test]
    fn batches_that_are_refused_for_now_are_tried_ever_more_seldom() {
        assert_eq!(backoffs(&[not_now as Answer; 5]), [16, 64, 256, 1024, 4096]);
        let due = [16, 64, 0, 16];
        assert_eq!(backoffs(&[not_now, not_now, give, not_now]), due);
        assert_eq!(backoffs(&[not_now, not_now, lack, not_now]), due);
        // Where batches are in doubt, an answer that makes no sense is another refusal.
        assert_eq!(backoffs(&[give, not_now, busy, not_now]), [0, 16, 64, 256]);
        assert_eq!(backoffs(&[give, busy, not_now]), [0, 0, 16]);
        // Eight workers that are refused at once count once.
        let mut health = Health::default();
        assert_eq!([(); 8].map(|()| batch(&mut health, not_now, 8)), [8; 8]);
        assert_eq!(ask(&mut health, 24, give, give), "S".repeat(16) + "B");
    }

    #[test]
    fn silence_to_a_batch_is_a_refusal_for_now() {
        assert_eq!(backoffs(&[silent, not_now, silent]), [16, 64, 256]);
        assert_eq!(backoffs(&[silent, give, silent]), [16, 0, 16]);
        assert_eq!(
            backoffs(&[gone as Answer; 3]),
            [0; 3],
            "no server was there"
        );
        // A server that is still away is asked for a single block in vain, which says nothing.
        let mut health = Health::default();
        assert_eq!(ask(&mut health, 8, silent, give), "B");
        for _ in 0..5 {
            health.revive();
            assert_eq!(ask(&mut health, 8, silent, silent), "S");
        }
        health.revive();
        assert_eq!(ask(&mut health, 12, give, give), "S".repeat(11) + "S");
        assert_eq!(ask(&mut health, 8, give, give), "B");
    }

    /// A server that is silent to batches alone costs few timeouts, whatever the number of blocks.
    #[test]
    fn silence_to_batches_costs_few_timeouts() {
        for (blocks, timeouts) in [(41, 2), (1_000, 4), (60_000, 7)] {
            let mut health = Health::default();
            let (mut singles, mut batches) = (0, 0);
            while singles < blocks {
                let (kind, length) = health.begin(8);
                let is_batch = kind == RequestKind::Batch;
                let answer: Answer = if is_batch { silent } else { give };
                health.record(kind, outcome(answer, length), &mut Pending::default());
                health.revive();
                batches += usize::from(is_batch);
                singles += usize::from(!is_batch);
            }
            assert_eq!(batches, timeouts, "{blocks} blocks");
        }
    }

    /// A long download over outages goes on in batches.
    #[test]
    fn outages_do_not_end_batches() {
        let mut health = Health::default();
        for _ in 0..20 {
            let requests = ask(&mut health, 1200, give, give);
            assert!(requests.len() < 200, "{requests}");
            ask(&mut health, 8, silent, silent);
            health.revive();
        }
    }

    #[test]
    fn runs_fit_the_line() {
        let mut health = Health::default();
        let mut fit = |blocks, body, whole| {
            let mut outcome = outcome(give, blocks);
            outcome.pace = Some(Pace {
                blocks,
                body: Duration::from_millis(body),
                whole: Duration::from_millis(whole),
            });
            health.record(RequestKind::Batch, outcome, &mut Pending::default());
            health.run_length().unwrap()
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
}
