//! `--spread`: each request begins at another server, for their joint speed, and goes on to the
//! others with what is left, as ever.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::get::mirror::{asked_blocks, honest, mirror};
use crate::support::*;

/// Who was asked for how many blocks, in order, by their numbers.
type Log = Arc<Mutex<Vec<(usize, usize)>>>;

/// A server that notes what it is asked for before it answers.
fn noting(log: &Log, number: usize, blocks: BlockMap, takes_runs: bool) -> HostileServer {
    let log = Arc::clone(log);
    let server = HostileServer::http(move |request| {
        log.lock().unwrap().push((number, request.hashes().len()));
        Reply::psync(&blocks, request)
    });
    if takes_runs {
        server.taking_runs()
    } else {
        server
    }
}

/// So many servers that have everything.
fn equals(sample: &Sample, count: usize, takes_runs: bool) -> (Log, Vec<HostileServer>) {
    let log = Log::default();
    let server = |number| noting(&log, number, sample.map(), takes_runs);
    let servers = (0..count).map(server).collect();
    (log, servers)
}

fn spread(sample: &Sample, servers: &[HostileServer], jobs: &str) -> Run {
    let servers: Vec<_> = servers
        .iter()
        .map(|server| server as &dyn Display)
        .collect();
    sample.get(&servers).args(["--spread", "-j", jobs])
}

fn asked(servers: &[HostileServer]) -> Vec<usize> {
    servers.iter().map(|server| server.asked().len()).collect()
}

#[test]
fn one_job_asks_them_in_turn() {
    let sample = Sample::new(399);
    for (count, takes_runs) in [(1, true), (2, true), (3, true), (2, false), (3, false)] {
        let (log, servers) = equals(&sample, count, takes_runs);
        sample.is_whole(spread(&sample, &servers, "1").run());
        let mut turns: Vec<_> = log
            .lock()
            .unwrap()
            .iter()
            .map(|(number, _)| *number)
            .collect();
        turns.dedup();
        let in_turn: Vec<_> = (0..count).cycle().take(turns.len()).collect();
        assert!(turns == in_turn, "{count}: {turns:?}");
        let asked = asked(&servers);
        assert_eq!(asked.iter().sum::<usize>(), 400, "each block once");
        assert!(
            asked.iter().all(|&blocks| blocks >= 40),
            "{count}: {asked:?}"
        );
    }
}

#[test]
fn eight_jobs_ask_them_all() {
    let sample = Sample::new(1999);
    for (count, takes_runs) in [(2, true), (3, true), (2, false), (5, false)] {
        let (_, servers) = equals(&sample, count, takes_runs);
        sample.is_whole(spread(&sample, &servers, "8").run());
        let asked = asked(&servers);
        assert_eq!(asked.iter().sum::<usize>(), 2000, "each block once");
        assert!(
            asked.iter().all(|&blocks| blocks >= 2000 / count / 8),
            "{asked:?}"
        );
        let file = sample.dir.join("file");
        spread(&sample, &servers, "8")
            .arg("-o")
            .arg(&file)
            .run()
            .ok();
        assert!(std::fs::read(&file).unwrap() == sample.bytes);
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn nobody_spreads_unasked() {
    let sample = Sample::new(399);
    let (_, servers) = equals(&sample, 2, true);
    for jobs in ["1", "8"] {
        sample.is_whole(
            sample
                .get(&[&servers[0], &servers[1]])
                .args(["-j", jobs])
                .run(),
        );
    }
    assert_eq!(servers[1].connections(), 0);
}

/// Has everything, and gives a block each `pace`.
fn slow(sample: &Sample, pace: Duration) -> HostileServer {
    let blocks = sample.map();
    let slow = HostileServer::start(move |conn, _| {
        while let Some(request) = conn.request() {
            let hashes = request.hashes();
            let length = frames(&blocks, &hashes).len();
            let give = |conn: &mut Conn, hash| conn.pause(pace) && conn.send(frame(&blocks[hash]));
            let sent = conn.send(Reply::begun(length, "").bytes())
                && hashes.iter().all(|hash| give(conn, hash));
            if !sent {
                return;
            }
        }
    });
    slow.taking_runs()
}

/// Whoever is quick is asked again sooner.
#[test]
fn a_slow_server_serves_few() {
    let sample = Sample::new(1999);
    let slow = slow(&sample, Duration::from_millis(10));
    let quick = HostileServer::psync(sample.map());
    let get = sample.get(&[&slow, &quick]).args(["--spread", "-j", "8"]);
    sample.is_whole(get.run());
    let (slow, quick) = (slow.asked().len(), quick.asked().len());
    assert!(
        slow + quick == 2000 && slow * 2 < quick,
        "{slow} and {quick}"
    );
}

/// A frame takes it a long time, as if its line were full.
#[test]
fn a_very_slow_server_serves_a_handful() {
    let sample = Sample::new(1999);
    for first in [true, false] {
        let slow = slow(&sample, Duration::from_millis(50));
        let quick = HostileServer::psync(sample.map());
        let servers: [&dyn Display; 2] = if first {
            [&slow, &quick]
        } else {
            [&quick, &slow]
        };
        sample.is_whole(sample.get(&servers).args(["--spread", "-j", "8"]).run());
        let (slow, quick) = (slow.asked().len(), quick.asked().len());
        assert!(
            slow + quick == 2000 && slow * 12 < quick,
            "{slow} and {quick}"
        );
    }
}

/// What begins at the slow one is no longer than suits it, however much the quick one is worth.
#[test]
fn one_job_does_not_wait_for_long_runs_of_a_slow_server() {
    let sample = Sample::new(299);
    let slow = slow(&sample, Duration::from_millis(40));
    let quick = HostileServer::psync(sample.map());
    sample.is_whole(sample.get(&[&slow, &quick]).arg("--spread").run());
    let (slow, quick) = (slow.asked().len(), quick.asked().len());
    assert!(
        slow + quick == 300 && slow * 2 < quick,
        "{slow} and {quick}"
    );
}

#[test]
fn a_server_that_has_nothing_costs_few_requests() {
    let sample = Sample::new(1999);
    for takes_runs in [true, false] {
        for jobs in ["1", "8"] {
            let log = Log::default();
            let servers = [
                noting(&log, 0, BlockMap::new(), takes_runs),
                noting(&log, 1, sample.map(), takes_runs),
                noting(&log, 2, sample.map(), takes_runs),
            ];
            let out = spread(&sample, &servers, jobs).arg("-v").run();
            assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
            assert!(!out.stderr.contains("give up"), "{out}");
            let asked = asked(&servers);
            assert_eq!(asked[1] + asked[2], 2000);
            // About a third of all runs begin at it.
            assert!(asked[0] <= 2000 / 2, "-j {jobs}, {takes_runs}: {asked:?}");
        }
    }
}

#[test]
fn a_dead_server_costs_its_timeout_once() {
    let sample = Sample::new(1999);
    let silent = || HostileServer::http(|_| Reply::raw("").then_silence()).taking_runs();
    for jobs in ["1", "8"] {
        let good = [HostileServer::psync(sample.map()), sample.honest()];
        let (silent, refusing) = (silent(), Refusing::new());
        let servers: [&dyn Display; 4] = [&good[0], &silent, &refusing, &good[1]];
        let get = sample.get(&servers).args(["--spread", "-v", "-j", jobs]);
        let out = get.args(["--timeout", "1"]).run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        assert_eq!(out.stderr.matches("give up").count(), 2, "{out}");
        assert_eq!(silent.requests().len(), 1, "-j {jobs}");
    }
}

#[test]
fn a_lying_server_is_given_up_after_three() {
    let sample = Sample::new(1999);
    let lies: BlockMap = sample
        .map()
        .into_keys()
        .map(|hash| (hash, vec![7; 100]))
        .collect();
    for jobs in ["1", "8"] {
        let servers = [
            HostileServer::psync(sample.map()),
            HostileServer::psync(lies.clone()),
            HostileServer::psync(sample.map()),
        ];
        let out = spread(&sample, &servers, jobs).arg("-v").run();
        assert!(out.status == 0 && out.stdout == sample.bytes, "{out}");
        assert_eq!(out.stderr.matches("give up").count(), 1, "{out}");
        // A run, three singly, and what the others had asked by then.
        let requests = servers[1].requests().len();
        assert!(requests <= 4 + 8, "-j {jobs}: {requests}");
    }
}

#[test]
fn what_one_has_not_got_is_asked_of_all_the_others() {
    let sample = Sample::new(399);
    for takes_runs in [true, false] {
        for jobs in ["1", "8", "64"] {
            let log = Log::default();
            let quarter = |q| noting(&log, q, sample.having(|n| n % 4 == q), takes_runs);
            let servers: Vec<_> = (0..4).map(quarter).collect();
            sample.is_whole(spread(&sample, &servers, jobs).run());
            // No server twice for the same block.
            for server in &servers {
                let mut asked = server.asked();
                let all = asked.len();
                asked.sort();
                asked.dedup();
                assert_eq!(asked.len(), all, "-j {jobs}");
            }
            // A block that nobody has: each of them is asked, once, and says so.
            let lacking = |q| noting(&log, q, sample.having(|n| n != 9), takes_runs);
            let servers: Vec<_> = (0..3).map(lacking).collect();
            let out = spread(&sample, &servers, jobs).run();
            assert!(
                out.status == 3 && out.stdout == sample.bytes[..9 * BLOCK_SIZE],
                "{out}"
            );
            assert_eq!(out.stderr.matches("psync: ask http://").count(), 3, "{out}");
            for server in &servers {
                let asked = server.asked();
                let count = asked.iter().filter(|hash| **hash == sample.hash(9)).count();
                assert_eq!(count, 1, "-j {jobs}");
            }
        }
    }
}

#[test]
fn mirrors_are_still_the_last() {
    let sample = Sample::new(399);
    for jobs in ["1", "8"] {
        let mirror = mirror(&sample.bytes, honest);
        let url = mirror.url() + "/file";
        let some = [
            HostileServer::psync(sample.having(|n| n % 100 != 7)),
            HostileServer::psync(sample.having(|n| n % 100 != 7 && n % 3 != 0)),
        ];
        sample.is_whole(spread(&sample, &some, jobs).args(["-m", &url]).run());
        let mut asked = asked_blocks(&mirror);
        asked.sort_unstable();
        assert_eq!(asked, [7, 107, 207, 307], "-j {jobs}");
        // A mirror alone, which is nobody to begin at.
        sample.is_whole(spread(&sample, &[], jobs).args(["-m", &url]).run());
    }
}
