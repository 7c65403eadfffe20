//! Mirrors: plain copies of the whole file on any web server, read by byte ranges (RFC 9110, section
//! 14). A block whose bytes differ, since the copy is of another version, say, counts as missing: a
//! mirror has promised nothing. `mirror_stream.rs` reads from a mirror that ignores ranges.

use std::sync::Mutex;
use std::time::Instant;

use super::mirror_body::{Body, SHORTER};
use super::mirror_stream::MirrorStream;
use super::outcome::Pace;
use super::visit::Visit;
use crate::block;
use crate::get::block_ref::BlockRef;
use crate::get::client::url::Url;
use crate::get::client::{RequestError, RequestResult};
use crate::mutex::lock;

/// What is known of a mirror. All workers share it.
#[derive(Default)]
pub struct Mirror {
    /// Where redirects led to, so that the next request goes there at once.
    place: Mutex<Option<Url>>,
    stream: MirrorStream,
}

impl Mirror {
    /// Asks for all blocks, which are in the order of the file.
    ///
    /// # Errors
    /// When they do not come.
    pub fn receive(&self, visit: &mut Visit) -> RequestResult<()> {
        let Some(place) = lock(&self.place).clone() else {
            return self.receive_from(visit.url, visit);
        };
        match self.receive_from(&place, visit) {
            Err(RequestError::Server(_)) => {
                // The redirect may lead elsewhere by now.
                lock(&self.place).take_if(|known| *known == place);
                self.receive_from(visit.url, visit)
            }
            received => received,
        }
    }

    fn receive_from(&self, url: &Url, visit: &mut Visit) -> RequestResult<()> {
        // A mirror that gives less than it is asked for is asked for the rest.
        while !visit.left.is_empty() {
            if self.stream.ignores_ranges() {
                return self.stream.read(url, visit);
            }
            self.receive_range(url, visit)?;
        }
        Ok(())
    }

    /// Asks for the next blocks that lie together, with one request.
    fn receive_range(&self, url: &Url, visit: &mut Visit) -> RequestResult<()> {
        let (first, length) = neighbours(visit.left);
        let (begun, before) = (Instant::now(), visit.left.len());
        let last = first + length - 1;
        let answer = visit.client.range(url, first, Some(last))?;
        let head = Instant::now();
        let Some(mut body) = Body::open(answer, first)? else {
            visit.miss_rest(SHORTER);
            return Ok(());
        };
        if body.is_whole() {
            self.stream.begin(body);
            return Ok(());
        }
        let place = body.answer.place();
        if place != *url {
            *lock(&self.place) = Some(place);
        }
        body.take(visit)?;
        let blocks = before - visit.left.len();
        if blocks == 0 {
            visit.miss_rest("it gave less than a block");
            return Ok(());
        }
        visit.outcome.pace = Some(Pace {
            blocks,
            body: head.elapsed(),
            whole: begun.elapsed(),
        });
        // After the end its connection can be used again. An end that is not there yet would cost a wait.
        if body.answer.length() == Some(body.at - first) {
            let _ = body.answer.ends();
        }
        Ok(())
    }
}

/// Where the first of `wanted` and those that follow it lie: the first byte, and how many.
fn neighbours(wanted: &[BlockRef]) -> (u64, u64) {
    let together = wanted
        .iter()
        .zip(wanted[0].number..)
        .take_while(|(wanted, number)| wanted.number == *number);
    (wanted[0].offset(), block::offset(together.count() as u64))
}
