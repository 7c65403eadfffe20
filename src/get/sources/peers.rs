//! Asks servers for the servers that they know (`--peers`).
//!
//! This file owns how much of what strangers write is taken: names of servers that may be asked for
//! blocks, a bounded number of them, found in a bounded time. It asks for no block and gives nobody
//! up: `servers.rs` does, which is told who did not answer.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::servers::Find;
use crate::get::client::url::Url;
use crate::get::client::{Answered, Client, Fault};
use crate::mutex::lock;
use crate::spawn::{ASKING_STACK, spawn};

/// Servers in all, those of the command line among them.
const MAX_SERVERS: usize = 256;

/// Bytes of a list that are read.
const MAX_TEXT: usize = 64 * 1024;

/// The servers of the command line are asked, then those that they name; not those that these name.
const STEPS: usize = 2;

/// Servers asked at once, whatever `--jobs` says: one that is silent must not take the time in which
/// the others would answer.
const AT_ONCE: usize = 32;

/// What `Servers` finds peers by: takes at most `timeout` for each step.
pub fn finder(client: Arc<Client>, timeout: Duration) -> Find {
    Box::new(move |mut asked, known| {
        let mut silent = Vec::new();
        for _ in 0..STEPS {
            let step = ask_all(&client, asked, timeout);
            let before = known.len();
            add(known, &step.named);
            asked = known[before..].to_vec();
            for (server, named) in step.servers.iter().zip(&step.named) {
                if named.is_none() {
                    silent.push(server.clone());
                }
            }
        }
        silent
    })
}

/// Adds what is not known yet. One of each list in turn: whoever names many takes no place from those
/// that name few.
fn add(known: &mut Vec<Url>, named: &[Option<Vec<Url>>]) {
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

/// Servers that are asked at the same time, as far as there may be threads for that.
#[derive(Default)]
struct Step {
    servers: Vec<Url>,
    /// Whom each of them names, as far as they have been asked. None as long as there is no answer.
    named: Vec<Option<Vec<Url>>>,
    /// Those that are not done with.
    open: usize,
}

/// Asks all `servers`, until they have answered or time is up. The threads are then left to
/// themselves: one may wait for a name to be looked up, which has no bound.
fn ask_all(client: &Arc<Client>, servers: Vec<Url>, timeout: Duration) -> Step {
    let open = servers.len();
    let step = Step {
        servers,
        named: Vec::new(),
        open,
    };
    let shared = Arc::new((Mutex::new(step), Condvar::new()));
    let mut started = 0;
    while started < AT_ONCE.min(open) {
        let (client, shared) = (Arc::clone(client), Arc::clone(&shared));
        let work = Box::new(move || ask_next(&client, &shared));
        if spawn(ASKING_STACK, work).is_err() {
            break;
        }
        started += 1;
    }
    let (step, done) = &*shared;
    let is_under_way = |step: &mut Step| started > 0 && step.open > 0;
    let step = done.wait_timeout_while(lock(step), timeout, is_under_way);
    mem::take(&mut *step.unwrap_or_else(PoisonError::into_inner).0)
}

/// Asks one server after the other, as long as there are any.
fn ask_next(client: &Client, (shared, done): &(Mutex<Step>, Condvar)) {
    loop {
        let mut step = lock(shared);
        let number = step.named.len();
        let Some(server) = step.servers.get(number).cloned() else {
            return;
        };
        step.named.push(None);
        drop(step);
        let named = match ask(client, &server) {
            Err(Fault::Failed(failure)) if failure.is_outage() => None,
            // Whatever else is wrong with it, it has named nobody.
            named => Some(named.unwrap_or_default()),
        };
        let mut step = lock(shared);
        // Unless time was up.
        if let Some(place) = step.named.get_mut(number) {
            *place = named;
            step.open -= 1;
            done.notify_one();
        }
    }
}

fn ask(client: &Client, server: &Url) -> Answered<Vec<Url>> {
    let mut answer = client.peers(server)?;
    if answer.status() != 200 {
        answer.refusal()?;
        return Ok(Vec::new());
    }
    let mut text = vec![0; MAX_TEXT];
    let length = answer.fill(&mut text).map_err(|e| answer.failure(&e))?;
    text.truncate(length);
    if length == MAX_TEXT {
        // Its last line may go on.
        let line_end = text.iter().rposition(|&c| c == b'\n');
        text.truncate(line_end.unwrap_or(0));
    }
    let mut named = Vec::new();
    for (_, url) in Url::list(&text) {
        if let Ok(url) = url
            && named.len() < MAX_SERVERS
        {
            named.push(url);
        }
    }
    Ok(named)
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
    fn whoever_names_many_leaves_room_for_others() {
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
