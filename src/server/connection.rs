//! One connection, from its first request to its last answer, on a thread of its own: an answer is sent
//! whole before the next request is looked at.

use std::io;
use std::time::{Duration, Instant};

use super::answers::{self, Answered, Answers};
use super::clients::Client;
use super::http::{self, Request};
use super::input::Input;
use super::log::Log;
use crate::console;

pub struct Connection<'a> {
    client: &'a Client,
    input: Input<'a>,
    answers: Answers<'a>,
    log: Option<&'a Log>,
}

impl<'a> Connection<'a> {
    pub fn new(
        client: &'a Client,
        input: Input<'a>,
        answers: Answers<'a>,
        log: Option<&'a Log>,
    ) -> Self {
        Connection {
            client,
            input,
            answers,
            log,
        }
    }

    /// Answers requests until the client, a deadline or a refusal ends it.
    pub fn run(&mut self) {
        // How a connection fails is its client's affair.
        let _ = self.serve();
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let request = self.answer_next()?;
            let asks_on = !self.input.bytes().is_empty();
            if !request.keep_alive {
                let nothing_follows = request.is_last && !asks_on;
                return if nothing_follows {
                    Ok(())
                } else {
                    self.input.linger()
                };
            }
            if asks_on {
                answers::let_others_go_first();
            }
        }
    }

    /// Receives a request and answers it.
    fn answer_next(&mut self) -> io::Result<Request> {
        let received = self.input.next_request()?;
        let request = received.request;
        self.client.begin_answer();
        let started = self.log.map(|log| (log, Instant::now()));
        let (head, parsed) = self.input.bytes()[..received.end].split_at(received.head);
        let answered = self.answers.answer(&request, parsed);
        if let Some((log, started)) = started {
            log.add(&line(self.client, head, &answered, started.elapsed()));
        }
        answered.sent?;
        self.client.end_answer();
        self.input.consume(received.end);
        Ok(request)
    }
}

/// The log's line of a request: client, request line, status, bytes of the body or - where the client
/// was gone, microseconds. The request line is escaped, so that it cannot be taken for more.
fn line(client: &Client, head: &[u8], answered: &Answered, time: Duration) -> String {
    let head = head.trim_ascii_start();
    let line = head.split(|&c| c == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(http::MAX_LINE)]);
    let sent = answered
        .sent
        .as_ref()
        .map_or("-".to_owned(), usize::to_string);
    let (address, micros, status) = (client.address, time.as_micros(), answered.status);
    console::message(&format_args!("{address} {line:?} {status} {sent} {micros}"))
}
