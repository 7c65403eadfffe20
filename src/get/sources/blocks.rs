//! Asks a server for blocks, and takes its answers for what they are. A status is not believed, nor
//! is a length: the hash decides.

use std::time::Instant;

use super::outcome::{BatchRefusal, Outcome, Pace};
use crate::block::BLOCK_SIZE;
use crate::error::Result;
use crate::frames;
use crate::get::block_ref::BlockRef;
use crate::get::client::failure::{Failure, is_transient};
use crate::get::client::url::Url;
use crate::get::client::{Answered, Client, Fault, Response};
use crate::get::output::sink::{Origin, Sink};
use crate::hashlist::LINE;

/// Asks for one block.
///
/// # Errors
/// What fails on this machine.
pub fn for_one(
    client: &Client,
    server: &Url,
    wanted: &BlockRef,
    sink: &mut Sink,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let whole = std::slice::from_ref(wanted);
    match receive_one(client.block(server, &wanted.hash), wanted, sink) {
        Ok(One::Given) => outcome.hit(),
        Ok(One::Lacking(reason)) => outcome.miss(whole, reason),
        Err(fault) => outcome.fail(whole, fault.failure()?),
    }
    Ok(outcome)
}

enum One {
    Given,
    Lacking(String),
}

fn receive_one(answer: Answered<Response>, wanted: &BlockRef, sink: &mut Sink) -> Answered<One> {
    let mut answer = answer?;
    match answer.status() {
        200 => {}
        403 | 404 | 410 => return Ok(One::Lacking(answer.refusal()?)),
        status => {
            return Err(Failure::strike(answer.refusal()?, is_transient(status)).into());
        }
    }
    if let Some(length) = answer.length().filter(|&length| length > BLOCK_SIZE as u64) {
        let reason = format_args!("{length} bytes, which no block has");
        return Err(Failure::strike(reason, false).into());
    }
    let mut slot = sink.slot(wanted, Origin::Fetched);
    // To the end of the body, which lets its connection be used again.
    let length = answer.fill(&mut slot.room()[..=BLOCK_SIZE])?;
    slot.accept(length, &wanted.hash);
    if sink.commit()? {
        return Ok(One::Given);
    }
    let reason = match length {
        0 => "an empty answer".to_owned(),
        1..=BLOCK_SIZE => format!("wrong bytes ({length})"),
        _ => "more bytes than a block has".to_owned(),
    };
    Err(Failure::strike(reason, false).into())
}

/// Asks for many blocks in one request: `POST /blocks`, whose answer has, for each in order, two
/// bytes of length, big-endian, and so many bytes; none for one that is not there.
///
/// # Errors
/// What fails on this machine.
pub fn for_many(
    client: &Client,
    server: &Url,
    wanted: &[BlockRef],
    sink: &mut Sink,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut list = Vec::with_capacity(wanted.len() * LINE);
    for wanted in wanted {
        crate::hashlist::push_line(&mut list, &wanted.hash);
    }
    let begun = Instant::now();
    let mut left = wanted;
    match receive_many(client.blocks(server, &list), &mut left, sink, &mut outcome) {
        Ok(Some(head)) => {
            // One that is not there comes quickly as well.
            outcome.pace = Some(Pace {
                blocks: wanted.len() - left.len(),
                body: head.elapsed(),
                whole: begun.elapsed(),
            });
        }
        Ok(None) => {}
        // What is no answer at all may be one to a request for a single block.
        Err(Fault::Failed(failure)) if failure.is_misunderstanding() && outcome.given == 0 => {
            outcome.refuse_batch(left, BatchRefusal::Permanent);
        }
        Err(Fault::Failed(failure)) => outcome.fail(left, failure),
        Err(Fault::Local(error)) => return Err(error),
    }
    Ok(outcome)
}

/// Takes frame after frame, of the blocks in `left`. Tells when they began to come; none if they are
/// no frames.
fn receive_many<'w>(
    answer: Answered<Response>,
    left: &mut &'w [BlockRef],
    sink: &mut Sink,
    outcome: &mut Outcome,
) -> Answered<Option<Instant>> {
    let mut answer = answer?;
    if answer.status() != 200 {
        answer.refusal()?;
        outcome.refuse_batch(left, unfit(answer.status()));
        return Ok(None);
    }
    let head = Instant::now();
    while !outcome.reached_strike_limit() {
        let frames: &'w [BlockRef] = left;
        let Some((wanted, later)) = frames.split_first() else {
            break;
        };
        let mut length = [0; frames::LENGTH];
        let mut is_whole = answer.fill(&mut length)? == frames::LENGTH;
        let length = frames::decode_length(length);
        if !is_whole || length > BLOCK_SIZE {
            break;
        }
        let mut slot = sink.slot(wanted, Origin::Fetched);
        is_whole = answer.fill(&mut slot.room()[..length])? == length;
        let given = is_whole && slot.accept(length, &wanted.hash) && sink.commit()?;
        let this = std::slice::from_ref(wanted);
        if given {
            outcome.hit();
        } else if !is_whole {
            break;
        } else if length == 0 {
            outcome.miss(this, "it has not got it");
        } else {
            let reason = format_args!("wrong bytes ({length})");
            outcome.fail(this, Failure::strike(reason, false));
        }
        *left = later;
    }
    if outcome.reached_strike_limit() {
        outcome.rest.extend_from_slice(left);
        return Ok(Some(head));
    }
    // All that was wanted may have come, and then more, or nothing for as long as a server may take.
    // That the connection broke only then is nothing to hold against it.
    let has_end = |answer: &mut Response| match answer.ends() {
        Ok(ended) => ended,
        Err(failure) => !failure.is_outage(),
    };
    if !left.is_empty() || !has_end(&mut answer) {
        outcome.refuse_batch(left, BatchRefusal::Permanent);
        return Ok(None);
    }
    Ok(Some(head))
}

/// What a status that is not 200 says of later requests for many.
fn unfit(status: u16) -> BatchRefusal {
    match status {
        // Not implemented; not in this version of HTTP.
        501 | 505 => BatchRefusal::Permanent,
        status if is_transient(status) => BatchRefusal::Temporary,
        _ => BatchRefusal::Permanent,
    }
}
