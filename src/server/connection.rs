//! One connection, from its first request to its last answer, on a thread of its own. It sends an answer
//! whole before it looks at the next request.
//!
//! This file owns the order of these steps, and the log's line of a request. It parses nothing and sends
//! nothing itself.

use std::io;
use std::time::{Duration, Instant};

use super::answers::{self, Answered, Answers};
use super::clients::Client;
use super::http::{After, MAX_LINE};
use super::input::Input;
use super::log::Log;
use crate::console;

/// Answers requests until the client, a deadline or a refusal ends the connection.
///
/// # Errors
/// When the client has left, or the connection fails.
pub fn serve(
    client: &Client,
    input: &mut Input,
    answers: &mut Answers,
    log: Option<&Log>,
) -> io::Result<()> {
    loop {
        let (request, list) = input.next_request()?;
        client.begin_answer();
        let started = log.map(|log| (log, Instant::now()));
        let answered = answers.answer(&request, &input.bytes()[list.clone()]);
        if let Some((log, started)) = started {
            log.add(&line(client, input.bytes(), &answered, started.elapsed()));
        }
        answered.sent?;
        client.end_answer();
        input.consume(list.end);
        let has_more_input = !input.bytes().is_empty();
        match request.after {
            After::KeepAlive | After::AnnouncedKeepAlive if has_more_input => {
                answers::let_others_go_first();
            }
            After::KeepAlive | After::AnnouncedKeepAlive => {}
            After::CloseNothingFollows if !has_more_input => return Ok(()),
            After::Close | After::CloseNothingFollows => return input.linger(),
        }
    }
}

/// The log's line of the request with which `input` begins: client, request line, status, bytes of the body
/// or - where the client was gone, microseconds. It escapes the request line, which could hold anything.
fn line(client: &Client, input: &[u8], answered: &Answered, time: Duration) -> String {
    let input = input.trim_ascii_start();
    let line = input.split(|&c| c == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]);
    let sent = answered.sent.as_ref();
    let sent = sent.map_or("-".to_owned(), usize::to_string);
    let (address, micros, status) = (client.address, time.as_micros(), answered.status.0);
    console::message(&format_args!("{address} {line:?} {status} {sent} {micros}"))
}
