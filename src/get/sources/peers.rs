//! Finds peers (`--peers`): servers that other servers name, before any block is asked for.
//!
//! This file bounds what a stranger's word can cost:
//!
//! 1. All listed servers are asked at once, then all servers that these name. The servers that the
//!    latter name are not asked.
//! 2. Each of the two steps takes at most `--connect-timeout`.
//! 3. There are at most 64 servers in all. The lists take turns, one name each, so that a long list
//!    leaves room for the others.
//! 4. 64 KiB of each list are read.
//! 5. A peer that was asked and did not answer is not used. A listed server stays.

use std::mem;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::get::client::url::Url;
use crate::get::client::{Client, RequestError, RequestResult};
use crate::mutex::{lock, unpoisoned};
use crate::peers_text::{MAX_TEXT, cut_to_whole_lines};
use crate::spawn::{ASKING_STACK, spawn};

/// Servers in all, the listed ones among them.
const MAX_SERVERS: usize = 64;

/// The servers that one server names; none if it did not answer.
type Named = Option<Vec<Url>>;

/// Asks the `listed` servers for peers, and those for more, `timeout` for each of the two steps.
/// Reports each peer that is not used to `report_given_up`.
pub fn find(
    client: &Arc<Client>,
    listed: &[Url],
    timeout: Duration,
    report_given_up: fn(String),
) -> Vec<Url> {
    let mut known = Url::distinct(listed.to_vec());
    let listed = known.len();
    if listed >= MAX_SERVERS {
        return Vec::new();
    }
    let named = ask_all(client, &known, timeout);
    add(&mut known, &named);
    let asked = known[listed..].to_vec();
    let named = ask_all(client, &asked, timeout);
    add(&mut known, &named);
    let mut peers = known.split_off(listed);
    for (peer, named) in asked.iter().zip(&named) {
        if named.is_none() {
            report_given_up(format!("give up {peer}: no answer to a request for peers"));
            peers.retain(|other| other != peer);
        }
    }
    peers
}

/// Adds the servers that are not known yet, as far as there is room: one of each list in turn.
fn add(known: &mut Vec<Url>, named: &[Named]) {
    for place in 0..MAX_SERVERS {
        for list in named.iter().flatten() {
            if let Some(url) = list.get(place)
                && known.len() < MAX_SERVERS
                && !known.contains(url)
            {
                known.push(url.clone());
            }
        }
    }
}

/// What the servers of one step have answered so far: none where the answer is not there yet.
type Step = (Mutex<Vec<Option<Named>>>, Condvar);

/// Asks all `servers` at once, and waits until they have answered or time is up. It does not wait for a
/// late thread, which may be looking up a name: that has no bound.
fn ask_all(client: &Arc<Client>, servers: &[Url], timeout: Duration) -> Vec<Named> {
    let step: Step = (Mutex::new(vec![None; servers.len()]), Condvar::new());
    let step = Arc::new(step);
    for (number, server) in servers.iter().enumerate() {
        let (client, server, answers) = (Arc::clone(client), server.clone(), Arc::clone(&step));
        let work = move || record(&answers, number, ask(&client, &server));
        if let Err(shortage) = spawn(ASKING_STACK, Box::new(work)) {
            record(&step, number, Err(shortage.into()));
        }
    }
    let (answers, changed) = &*step;
    let is_open = |answers: &mut Vec<_>| answers.contains(&None);
    let waited = changed.wait_timeout_while(lock(answers), timeout, is_open);
    let answers = mem::take(&mut *unpoisoned(waited).0);
    answers.into_iter().map(Option::flatten).collect()
}

fn record((answers, changed): &Step, number: usize, answer: RequestResult<Vec<Url>>) {
    // Once time is up, there is no place for it.
    if let Some(place) = lock(answers).get_mut(number) {
        *place = Some(match answer {
            Ok(named) => Some(named),
            Err(RequestError::Server(_)) => None,
            // A shortage on this machine says nothing about the server.
            Err(RequestError::Local(_)) => Some(Vec::new()),
        });
    }
    changed.notify_one();
}

fn ask(client: &Client, server: &Url) -> RequestResult<Vec<Url>> {
    let mut answer = client.peers(server)?;
    if answer.status() != 200 {
        answer.refusal()?;
        return Ok(Vec::new());
    }
    let mut text = vec![0; MAX_TEXT];
    let length = answer.fill(&mut text)?;
    text.truncate(length);
    if length == MAX_TEXT {
        cut_to_whole_lines(&mut text);
    }
    let named = Url::list(&text).into_iter().filter_map(|(_, url)| url.ok());
    Ok(named.take(MAX_SERVERS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(names: &[&str]) -> Vec<Url> {
        names.iter().map(|name| Url::parse(name).unwrap()).collect()
    }

    #[test]
    fn one_of_each_list_in_turn_is_added() {
        let mut known = urls(&["a", "b"]);
        let named = [
            Some(urls(&["x", "a", "y", "x"])),
            None,
            Some(urls(&["b", "z"])),
            Some(urls(&["x", "p", "q", "r"])),
        ];
        add(&mut known, &named);
        assert_eq!(known, urls(&["a", "b", "x", "z", "p", "y", "q", "r"]));
    }

    #[test]
    fn a_server_that_names_many_leaves_room_for_others() {
        let many = |host: &str| {
            let name = |port| Url::parse(&format!("{host}:{port}")).unwrap();
            Some((1..=MAX_SERVERS).map(name).collect())
        };
        let mut known = urls(&["one", "two"]);
        add(&mut known, &[many("liar"), many("good")]);
        assert_eq!(known.len(), MAX_SERVERS);
        let good = known.iter().filter(|url| url.host() == "good").count();
        assert_eq!(good, (MAX_SERVERS - 2) / 2);
    }
}
