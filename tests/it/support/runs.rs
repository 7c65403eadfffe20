//! Requests for many blocks at once, `POST /blocks`: read by the letter of the protocol, and
//! answered as it says or nearly so.

use super::{BlockMap, HostileServer, Reply, Request};

/// Lines of one request, at most.
const MAX_LINES: usize = 1024;

impl Request {
    pub fn is_run(&self) -> bool {
        self.method == "POST"
    }

    /// The hashes of a request for many blocks; fails unless it is one by the letter.
    #[track_caller]
    pub fn run(&self) -> Vec<String> {
        let length = self.header("Content-Length").map(str::parse);
        let plain = self.is_run()
            && self.target.ends_with("/blocks")
            && self.header("Transfer-Encoding").is_none()
            && self.header("Expect").is_none()
            && length == Some(Ok(self.body.len()));
        assert!(plain, "{}", self.head);
        let text = str::from_utf8(&self.body).unwrap();
        let hashes: Vec<_> = text.split_terminator('\n').map(str::to_owned).collect();
        let is_hash = |hash: &String| {
            hash.len() == 64 && hash.bytes().all(|c| b"0123456789abcdef".contains(&c))
        };
        let is_list = text.ends_with('\n') && hashes.iter().all(is_hash);
        assert!(is_list && hashes.len() <= MAX_LINES, "{text}");
        hashes
    }

    /// What is asked for, singly or not.
    #[track_caller]
    pub fn hashes(&self) -> Vec<String> {
        if self.is_run() {
            self.run()
        } else {
            vec![self.hash().to_owned()]
        }
    }
}

/// One block as it goes into the answer.
pub fn frame(block: &[u8]) -> Vec<u8> {
    [&(block.len() as u16).to_be_bytes(), block].concat()
}

/// Those of the blocks, in order, none of what is not there.
pub fn frames<'a>(blocks: &BlockMap, hashes: impl IntoIterator<Item = &'a String>) -> Vec<u8> {
    let block = |hash| blocks.get(hash).map_or(&[][..], Vec::as_slice);
    let frames = hashes.into_iter().map(|hash| frame(block(hash)));
    frames.collect::<Vec<_>>().concat()
}

/// A body in chunks of that size.
pub fn in_chunks(bytes: &[u8], size: usize) -> Vec<u8> {
    chunks(bytes, size, "0\r\n\r\n")
}

/// Bytes in chunks of that size, and then `end`.
pub fn chunks(bytes: &[u8], size: usize, end: &str) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let mut chunks: Vec<u8> = bytes.chunks(size).flat_map(chunk).collect();
    chunks.extend_from_slice(end.as_bytes());
    chunks
}

impl Reply {
    /// What psync's own server answers.
    pub fn psync(blocks: &BlockMap, request: &Request) -> Self {
        if request.is_run() {
            Self::ok(frames(blocks, &request.run()))
        } else {
            Self::honest(blocks, request)
        }
    }

    /// What begins like the 200 of that length, with this much of its body.
    pub fn begun(length: usize, body: impl AsRef<[u8]>) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        Self::raw([head.as_bytes(), body.as_ref()].concat())
    }
}

impl HostileServer {
    /// Keeps the rules for runs too.
    pub fn psync(blocks: BlockMap) -> Self {
        Self::http(move |request| Reply::psync(&blocks, request)).taking_runs()
    }

    /// What was asked for in runs, one by one.
    pub fn runs(&self) -> Vec<Vec<String>> {
        let requests = self.requests();
        let runs = requests.iter().filter(|request| request.is_run());
        runs.map(Request::run).collect()
    }

    /// What was asked for singly.
    pub fn singles(&self) -> Vec<String> {
        let requests = self.requests();
        let singles = requests.iter().filter(|request| !request.is_run());
        singles.map(|request| request.hash().to_owned()).collect()
    }

    /// All that was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.requests().iter().flat_map(Request::hashes).collect()
    }
}
