//! Asks a server for blocks, and takes its answers for what they are. A status is not believed, nor
//! is a length: the hash decides.

use std::time::Instant;

use super::outcome::{BatchRefusal, Pace};
use super::visit::Visit;
use crate::block::BLOCK_SIZE;
use crate::frames;
use crate::get::client::failure::{ServerFailure, is_transient};
use crate::get::client::{RequestError, RequestResult, Response};
use crate::get::output::sink::Origin;
use crate::hashlist::{LINE, push_line};

/// Asks for the current block alone.
///
/// # Errors
/// When it does not come; and what fails on this machine.
pub fn receive_one(visit: &mut Visit) -> RequestResult<()> {
    let wanted = &visit.left[0];
    let mut answer = visit.client.block(visit.url, &wanted.hash)?;
    match answer.status() {
        200 => {}
        403 | 404 | 410 => {
            let reason = answer.refusal()?;
            visit.miss_rest(&reason);
            return Ok(());
        }
        status => {
            return Err(ServerFailure::strike(answer.refusal()?, is_transient(status)).into());
        }
    }
    if let Some(length) = answer.length().filter(|&length| length > BLOCK_SIZE as u64) {
        let reason = format_args!("{length} bytes, which no block has");
        return Err(ServerFailure::strike(reason, false).into());
    }
    let mut slot = visit.sink.slot(wanted, Origin::Fetched);
    // The room is longer than a block, so this reads the end of the body too: its connection can be
    // used again.
    let length = answer.fill(slot.room())?;
    slot.accept(length, &wanted.hash);
    if visit.sink.commit()? {
        visit.finish_current();
        visit.outcome.hit();
        return Ok(());
    }
    let reason = match length {
        0 => "an empty answer".to_owned(),
        1..=BLOCK_SIZE => format!("wrong bytes ({length})"),
        _ => "more bytes than a block has".to_owned(),
    };
    Err(ServerFailure::strike(reason, false).into())
}

/// Asks for all blocks in one request: `POST /blocks`, whose answer has a frame for each in order
/// (`frames.rs`).
///
/// # Errors
/// When no answer comes, or it breaks off or stops coming; and what fails on this machine. An answer that ends
/// in order, but before its frames do, is no error: the server refuses batches.
pub fn receive_many(visit: &mut Visit) -> RequestResult<()> {
    let mut list = Vec::with_capacity(visit.left.len() * LINE);
    for wanted in visit.left {
        push_line(&mut list, &wanted.hash);
    }
    let (begun, wanted) = (Instant::now(), visit.left.len());
    let answer = visit.client.blocks(visit.url, &list);
    let head = Instant::now();
    let refusal = match answer.and_then(|answer| receive_frames(answer, visit)) {
        // The server may answer a request for a single block in an orderly way.
        Err(RequestError::Server(failure))
            if !failure.is_transient() && visit.outcome.given == 0 =>
        {
            Some(BatchRefusal::Permanent)
        }
        received => received?,
    };
    match refusal {
        Some(refusal) => visit.outcome.refuse_batch(visit.left, refusal),
        // A frame without a block counts: it comes as quickly.
        None => {
            visit.outcome.pace = Some(Pace {
                blocks: wanted - visit.left.len(),
                body: head.elapsed(),
                whole: begun.elapsed(),
            });
        }
    }
    Ok(())
}

/// Takes frame after frame. Returns how the server refuses the batch, if it does.
fn receive_frames(mut answer: Response, visit: &mut Visit) -> RequestResult<Option<BatchRefusal>> {
    if answer.status() != 200 {
        answer.refusal()?;
        return Ok(Some(batch_refusal(answer.status())));
    }
    while let Some(wanted) = visit.left.first()
        && !visit.outcome.reached_strike_limit()
    {
        let mut length = [0; frames::LENGTH];
        if answer.fill(&mut length)? < frames::LENGTH {
            break;
        }
        let length = frames::decode_length(length);
        if length > BLOCK_SIZE {
            break;
        }
        let mut slot = visit.sink.slot(wanted, Origin::Fetched);
        if answer.fill(&mut slot.room()[..length])? < length {
            break;
        }
        slot.accept(length, &wanted.hash);
        let is_given = visit.sink.commit()?;
        let current = visit.finish_current();
        if is_given {
            visit.outcome.hit();
        } else if length == 0 {
            visit.outcome.miss(current, "it has not got it");
        } else {
            let failure = ServerFailure::strike(format_args!("wrong bytes ({length})"), false);
            visit.outcome.fail(current, failure);
        }
    }
    if visit.outcome.reached_strike_limit() {
        visit.outcome.rest.extend_from_slice(visit.left);
        return Ok(None);
    }
    // More bytes, or silence, after the last frame: the server does not understand batches. A connection
    // that breaks only there has done no harm.
    let is_understood = visit.left.is_empty()
        && match answer.ends() {
            Ok(ended) => ended,
            Err(failure) => !failure.is_outage(),
        };
    Ok((!is_understood).then_some(BatchRefusal::Permanent))
}

/// What a status that is not 200 says of later batches.
fn batch_refusal(status: u16) -> BatchRefusal {
    // Not implemented; not in this version of HTTP.
    let is_permanent = matches!(status, 501 | 505) || !is_transient(status);
    if is_permanent {
        BatchRefusal::Permanent
    } else {
        BatchRefusal::Temporary
    }
}
