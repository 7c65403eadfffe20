//! What a mirror sends: a range of the file, or the file as a whole. Blocks are taken out of it in the
//! order of the file; which of them are asked for, and when, is up to `mirror.rs` and
//! `mirror_stream.rs`.

use super::visit::Visit;
use crate::block::BLOCK_SIZE;
use crate::get::client::failure::{ServerFailure, is_transient};
use crate::get::client::{RequestResult, Response, ServerResult};
use crate::get::output::sink::Origin;

/// Why a mirror lacks what lies behind the end of its copy.
pub const SHORTER: &str = "its copy of the file is shorter";

/// The body of an answer, of which byte `at` of the file comes next.
pub struct Body {
    pub answer: Response,
    pub at: u64,
}

impl Body {
    /// The body of an answer to a request for what begins at `offset`. None where the copy ends
    /// before that.
    ///
    /// # Errors
    /// When the answer is none.
    pub fn open(mut answer: Response, offset: u64) -> RequestResult<Option<Self>> {
        let at = match answer.status() {
            200 => 0,
            206 if answer.range_start() == Some(offset) => offset,
            206 => return Err(ServerFailure::strike("it gave another range", false).into()),
            416 => {
                answer.refusal()?;
                return Ok(None);
            }
            status => {
                return Err(ServerFailure::strike(answer.refusal()?, is_transient(status)).into());
            }
        };
        Ok(Some(Body { answer, at }))
    }

    /// Whether it is the whole file.
    pub fn is_whole(&self) -> bool {
        self.answer.status() == 200
    }

    /// Reads up to `offset`, that of a block.
    ///
    /// # Errors
    /// When the body breaks off or stops coming.
    pub fn skip_to(&mut self, offset: u64) -> ServerResult<()> {
        while self.at < offset && self.fill(&mut [0; BLOCK_SIZE])? > 0 {}
        Ok(())
    }

    /// Takes blocks out of the body, as long as it goes on with the current one.
    ///
    /// # Errors
    /// As [`Body::skip_to`], and what fails on this machine.
    pub fn take(&mut self, visit: &mut Visit) -> RequestResult<()> {
        while let Some(wanted) = visit.left.first()
            && self.at == wanted.offset()
        {
            let mut slot = visit.sink.slot(wanted, Origin::Fetched);
            // What came before it broke off may be the last block, if a short one.
            let failure = self.fill(&mut slot.room()[..BLOCK_SIZE]).err();
            let filled = self.answer.filled();
            // The copy may go on after the file's end.
            wanted.accept(filled, &mut slot);
            if visit.sink.commit()? {
                visit.finish_current();
                visit.outcome.hit();
            } else if let Some(failure) = failure {
                return Err(failure.into());
            } else if filled < BLOCK_SIZE {
                break;
            } else {
                let reason = "its copy of the file has other bytes there";
                let current = visit.finish_current();
                visit.outcome.miss(current, reason);
            }
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> ServerResult<usize> {
        let filled = self.answer.fill(buffer)?;
        self.at += filled as u64;
        Ok(filled)
    }
}
