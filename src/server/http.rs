//! The HTTP that the server speaks: bytes to requests, and requests to the heads of answers.
//!
//! This file owns the grammar and its refusals. It is pure: it touches no socket, no file and no clock.
//! The parser yields a [`Hash`] or one of a few words, so a request cannot express a path. It refuses
//! whatever is not wholly regular (RFC 9112, sections 3, 5, 6 and 11.2): requests are smuggled where a proxy
//! in front reads the same bytes another way.

use std::fmt;
use std::io::{self, Write};

use crate::frames::MAX_LINES;
use crate::hash::{HEX_LEN, Hash};

/// Bytes of a request line without its CRLF (RFC 9112, section 3, recommends at least 8,000).
pub const MAX_LINE: usize = 8_000;

/// Bytes of a whole head.
pub const MAX_HEAD: usize = 16 * 1024;

/// Bytes of the hashlist that a `POST /blocks` brings: a hash and CRLF a line.
pub const MAX_LIST: usize = MAX_LINES * (HEX_LEN + 2);

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// `/`: name and version.
    Index,
    Block(Hash),
    /// `POST /blocks`: those of the hashlist that follows the head.
    Blocks(ListHead),
    /// `/peers`: the servers that this one names.
    Peers,
    /// Its target takes only these methods.
    NotAllowed(&'static str),
    /// Anything else: the server knows no path, no query and no percent decoding.
    Refusal(Status),
}

/// What the head of a `POST /blocks` says of its body and of the answer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListHead {
    /// Bytes of the body.
    pub length: usize,
    /// Whether the client may hold the body back until the server asks for it (RFC 9110, section 10.1.1).
    pub awaits_continue: bool,
    /// Whether the client understands an answer in chunks. For HTTP/1.0 the end of the connection
    /// ends it.
    pub chunked: bool,
}

impl ListHead {
    /// The most lines that a body of its length has: the last may lack its end.
    pub fn max_lines(&self) -> usize {
        ((self.length + 1) / (HEX_LEN + 1)).min(MAX_LINES)
    }
}

/// A request, as far as its answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    pub wanted: Wanted,
    /// `HEAD`: the answer without its body.
    pub head_only: bool,
    pub after: After,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    KeepAlive,
    /// It lives on, and the answer says so: an HTTP/1.0 client expects its end (RFC 9112, section 9.3).
    AnnouncedKeepAlive,
    /// It ends, while more bytes may follow the request.
    Close,
    /// It ends, and no byte should follow the request: the client asked for the end, or expects it since it
    /// speaks HTTP/1.0 (RFC 9112, sections 9.3 and 9.6).
    CloseNothingFollows,
}

impl Request {
    /// Stands for bytes that are no request. Where the next one would begin is uncertain.
    pub fn broken(status: Status) -> Self {
        Request {
            wanted: Wanted::Refusal(status),
            head_only: false,
            after: After::Close,
        }
    }
}

/// The status of an answer: its code and reason (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status(pub u16, &'static str);

impl Status {
    pub const OK: Status = Status(200, "OK");
    pub const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub const NOT_FOUND: Status = Status(404, "Not Found");
    pub const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
    pub const REQUEST_TIMEOUT: Status = Status(408, "Request Timeout");
    pub const LENGTH_REQUIRED: Status = Status(411, "Length Required");
    pub const CONTENT_TOO_LARGE: Status = Status(413, "Content Too Large");
    pub const URI_TOO_LONG: Status = Status(414, "URI Too Long");
    pub const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
    pub const UNAVAILABLE: Status = Status(503, "Service Unavailable");
    pub const VERSION_NOT_SUPPORTED: Status = Status(505, "HTTP Version Not Supported");

    /// The body of a refusal.
    pub fn text(self) -> String {
        format!("{}\n", self.1)
    }
}

/// Why a request does not get what it asks for, found while it is received or while it is answered. What the
/// head alone refuses is in [`Wanted`].
pub enum Interruption {
    Refused(Status),
    /// The client left, or the connection fails.
    Disconnected(io::Error),
}

impl From<Status> for Interruption {
    fn from(status: Status) -> Self {
        Interruption::Refused(status)
    }
}

impl From<io::Error> for Interruption {
    fn from(e: io::Error) -> Self {
        Interruption::Disconnected(e)
    }
}

/// Parses the first request in `bytes`; returns the length of its head too. None while the head is
/// incomplete and regular so far.
pub fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    parse_head(bytes).unwrap_or_else(|status| {
        let mut request = Request::broken(status);
        // Even a broken HEAD gets no body (RFC 9110, section 9.3.2).
        request.head_only = skip_empty_line(bytes).starts_with(b"HEAD ");
        Some((request, bytes.len()))
    })
}

/// A server ignores one empty line before a request (RFC 9112, section 2.2).
fn skip_empty_line(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes)
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, Status> {
    let mut rest = skip_empty_line(bytes);
    let Some(line) = take_line(&mut rest, MAX_LINE, Status::URI_TOO_LONG)? else {
        return Ok(None);
    };
    let line = RequestLine::parse(line)?;
    let mut fields = Fields::default();
    loop {
        let room = MAX_HEAD.saturating_sub(bytes.len() - rest.len());
        match take_line(&mut rest, room, Status::HEAD_TOO_LARGE)? {
            None => return Ok(None),
            Some([]) => break,
            Some(field) => fields.add(field)?,
        }
    }
    let length = bytes.len() - rest.len();
    if length > MAX_HEAD {
        return Err(Status::HEAD_TOO_LARGE);
    }
    Ok(Some((fields.finish(&line)?, length)))
}

/// Takes a line of at most `limit` bytes off `rest`, without its CRLF. None while its end is still to
/// come. Refuses a CR or LF alone as soon as it sees it.
fn take_line<'a>(
    rest: &mut &'a [u8],
    limit: usize,
    too_long: Status,
) -> Result<Option<&'a [u8]>, Status> {
    let bytes = *rest;
    let line_end = bytes.iter().position(|c| matches!(c, b'\r' | b'\n'));
    let (line, end) = bytes.split_at(line_end.unwrap_or(bytes.len()));
    if line.len() > limit {
        return Err(too_long);
    }
    match end {
        [b'\r', b'\n', after @ ..] => {
            *rest = after;
            Ok(Some(line))
        }
        [] | [b'\r'] => Ok(None),
        _ => Err(Status::BAD_REQUEST),
    }
}

/// Refuses what is not regular.
fn require(is_regular: bool) -> Result<(), Status> {
    is_regular.then_some(()).ok_or(Status::BAD_REQUEST)
}

/// A request line whose words are regular, and whose method exists.
struct RequestLine<'a> {
    method: &'a [u8],
    /// The target's path, without its first slash.
    path: &'a [u8],
    /// HTTP/1.1 or later: connections live on unless the client says otherwise.
    persistent: bool,
}

impl<'a> RequestLine<'a> {
    /// `METHOD SP TARGET SP HTTP/1.x` (RFC 9112, section 3).
    fn parse(line: &'a [u8]) -> Result<Self, Status> {
        let mut words = line.split(|&c| c == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Status::BAD_REQUEST);
        };
        require(!method.is_empty() && method.iter().all(is_token))?;
        require(!target.is_empty() && target.iter().all(u8::is_ascii_graphic))?;
        let persistent = match version.strip_prefix(b"HTTP/") {
            Some([b'1', b'.', minor @ b'0'..=b'9']) => *minor > b'0',
            Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(Status::VERSION_NOT_SUPPORTED),
            _ => return Err(Status::BAD_REQUEST),
        };
        let path = match method {
            b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"TRACE" => {
                path(target)?
            }
            // Its target is a host and a port (RFC 9112, section 3.2.3).
            b"CONNECT" => b"",
            _ => return Err(Status::NOT_IMPLEMENTED),
        };
        Ok(RequestLine {
            method,
            path,
            persistent,
        })
    }
}

/// The path of a target in origin form, or in absolute form, which every server must take (RFC 9112,
/// section 3.2.2).
fn path(target: &[u8]) -> Result<&[u8], Status> {
    match target {
        [b'/', path @ ..] => Ok(path),
        // The server as a whole, which has no block.
        b"*" => Ok(target),
        _ => {
            let (scheme, rest) = target.split_at_checked(7).ok_or(Status::BAD_REQUEST)?;
            require(scheme.eq_ignore_ascii_case(b"http://"))?;
            let slash = rest.iter().position(|&c| c == b'/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(slash);
            require(!host.is_empty() && host.iter().all(is_host_byte))?;
            // An empty path is the root (RFC 9110, section 4.2.3).
            Ok(path.strip_prefix(b"/").unwrap_or(path))
        }
    }
}

/// The header fields that matter here.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    encoded: bool,
    awaits_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    fn add(&mut self, field: &[u8]) -> Result<(), Status> {
        let colon = field.iter().position(|&c| c == b':');
        let (name, value) = field.split_at(colon.ok_or(Status::BAD_REQUEST)?);
        let value = trim(&value[1..]);
        // No white space is part of a token: neither that of a fold nor that before a colon.
        require(!name.is_empty() && name.iter().all(is_token))?;
        require(value.iter().all(is_field_byte))?;
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            require(value.iter().all(is_host_byte))?;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            require(self.length.is_none() && !value.is_empty())?;
            require(value.iter().all(u8::is_ascii_digit))?;
            let digits = std::str::from_utf8(value).map_err(|_| Status::BAD_REQUEST)?;
            self.length = Some(digits.parse().map_err(|_| Status::CONTENT_TOO_LARGE)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"expect") {
            // The server ignores any other expectation.
            self.awaits_continue |= value.eq_ignore_ascii_case(b"100-continue");
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|&c| c == b',').map(trim) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    fn finish(&self, line: &RequestLine) -> Result<Request, Status> {
        require(self.hosts == 1 || (self.hosts == 0 && !line.persistent))?;
        if self.encoded {
            // With a length too, or from HTTP/1.0, it is an attack (RFC 9112, section 6.1).
            require(self.length.is_none() && line.persistent)?;
            return Err(Status::NOT_IMPLEMENTED);
        }
        let wanted = self.wanted(line)?;
        Ok(Request {
            wanted,
            head_only: line.method == b"HEAD",
            after: self.after(line, matches!(wanted, Wanted::Blocks(_))),
        })
    }

    fn wanted(&self, line: &RequestLine) -> Result<Wanted, Status> {
        Ok(match (line.method, line.path) {
            (b"POST", b"blocks") => Wanted::Blocks(self.list(line)?),
            (_, b"blocks") => Wanted::NotAllowed("POST"),
            (b"GET" | b"HEAD", b"") => Wanted::Index,
            (b"GET" | b"HEAD", b"peers") => Wanted::Peers,
            (b"GET" | b"HEAD", path) => {
                Hash::parse(path).map_or(Wanted::Refusal(Status::NOT_FOUND), Wanted::Block)
            }
            _ => Wanted::NotAllowed("GET, HEAD"),
        })
    }

    fn list(&self, line: &RequestLine) -> Result<ListHead, Status> {
        // Without a length there is no body, but the client may well mean some bytes as one.
        let length = self.length.ok_or(Status::LENGTH_REQUIRED)?;
        let length = usize::try_from(length).ok().filter(|&n| n <= MAX_LIST);
        let length = length.ok_or(Status::CONTENT_TOO_LARGE)?;
        Ok(ListHead {
            length,
            awaits_continue: self.awaits_continue && line.persistent,
            chunked: line.persistent,
        })
    }

    fn after(&self, line: &RequestLine, has_list: bool) -> After {
        let close = self.close || !(line.persistent || self.keep_alive);
        match self.length {
            // Only a list is of use as a body. The server does not read any other.
            Some(1..) if !has_list => After::Close,
            _ if close => After::CloseNothingFollows,
            _ if line.persistent => After::KeepAlive,
            // Without chunks, only the end of the connection ends the blocks.
            _ if has_list => After::Close,
            _ => After::AnnouncedKeepAlive,
        }
    }
}

/// A token's characters (RFC 9110, section 5.6.2).
fn is_token(c: &u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(c)
}

/// Those of a host and a port (RFC 3986, section 3.2): no user, no query.
fn is_host_byte(c: &u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(c)
}

/// Those of a field's value (RFC 9110, section 5.5).
fn is_field_byte(c: &u8) -> bool {
    matches!(c, b'\t' | b' '..=b'~' | 0x80..)
}

/// Takes off the white space that may surround a field's value, and no other (RFC 9110, section
/// 5.6.3): std's counts a form feed too.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Appends the head of a block's answer. It has no `Date`, which is for servers with a trustworthy clock
/// (RFC 9110, section 6.6.1): small boxes lack one, and a block does not age.
pub fn push_block_head(out: &mut Vec<u8>, request: &Request, hash: &Hash, length: usize) {
    let fields = format_args!(
        "Content-Length: {length}\r\n\
         Content-Type: application/octet-stream\r\n\
         ETag: \"{hash}\"\r\n\
         Cache-Control: public, max-age=31536000, immutable\r\n"
    );
    push_head(out, request, Status::OK, fields);
}

/// Appends the head of the answer to `POST /blocks`, which caches keep only where they are told to.
pub fn push_blocks_head(out: &mut Vec<u8>, request: &Request, list: ListHead) {
    let encoding = if list.chunked {
        "Transfer-Encoding: chunked\r\n"
    } else {
        ""
    };
    let fields = format_args!("Content-Type: application/octet-stream\r\n{encoding}");
    push_head(out, request, Status::OK, fields);
}

/// Asks the client for the body that it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The text at `/`.
pub const INDEX: &str = concat!("psync ", env!("CARGO_PKG_VERSION"), "\n");

/// Appends a whole answer that is `text`; returns the length of its body.
pub fn push_text(out: &mut Vec<u8>, request: &Request, status: Status, text: &[u8]) -> usize {
    let allow = match request.wanted {
        Wanted::NotAllowed(methods) => format!("Allow: {methods}\r\n"),
        _ => String::new(),
    };
    let length = text.len();
    let fields = format_args!(
        "{allow}Content-Length: {length}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    );
    push_head(out, request, status, fields);
    let body = if request.head_only { b"" } else { text };
    out.extend_from_slice(body);
    body.len()
}

fn push_head(out: &mut Vec<u8>, request: &Request, status: Status, fields: fmt::Arguments) {
    let Status(code, reason) = status;
    let connection = match request.after {
        After::KeepAlive => "",
        After::AnnouncedKeepAlive => "Connection: keep-alive\r\n",
        After::Close | After::CloseNothingFollows => "Connection: close\r\n",
    };
    // Writing to memory does not fail.
    let _ = write!(out, "HTTP/1.1 {code} {reason}\r\n{fields}{connection}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_for_as_many_lines_as_a_list_can_have() {
        for (length, lines) in [
            (0, 0),
            (64, 1),
            (65, 1),
            (66, 1),
            (129, 2),
            (130, 2),
            (65 * MAX_LINES, MAX_LINES),
            (65 * 100, 100),
            (MAX_LIST, MAX_LINES),
        ] {
            let list = ListHead {
                length,
                awaits_continue: false,
                chunked: true,
            };
            assert_eq!(list.max_lines(), lines, "{length}");
        }
    }

    #[test]
    fn the_longest_line_may_come_in_parts() {
        let refusal = |text: &[u8]| parse(text).map(|(request, _)| request.wanted);
        let line = |length| format!("GET /{:x<1$} HTTP/1.1", "", length - 14);
        let text = line(MAX_LINE) + "\r\nHost: a\r\n\r\n";
        let text = text.as_bytes();
        for cut in MAX_LINE - 1..text.len() {
            assert_eq!(refusal(&text[..cut]), None, "{cut}");
        }
        assert_eq!(refusal(text), Some(Wanted::Refusal(Status::NOT_FOUND)));
        let longer = refusal(line(MAX_LINE + 1).as_bytes());
        assert_eq!(longer, Some(Wanted::Refusal(Status::URI_TOO_LONG)));
    }

    #[test]
    fn a_client_is_done_where_it_says_so_and_has_sent_all() {
        let (get, post) = ("GET / HTTP/1", "POST /blocks HTTP/1");
        for (head, is_last) in [
            (format!("{get}.1\r\nHost: a\r\n"), false),
            (format!("{get}.1\r\nHost: a\r\nConnection: close\r\n"), true),
            (
                format!("{get}.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n"),
                false,
            ),
            (format!("{get}.0\r\n"), true),
            (format!("{get}.0\r\nConnection: keep-alive\r\n"), false),
            (format!("{get}.0\r\nContent-Length: 5\r\n"), false),
            (format!("{post}.0\r\nContent-Length: 5\r\n"), true),
            (
                format!("{post}.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n"),
                false,
            ),
        ] {
            let (request, _) = parse(format!("{head}\r\n").as_bytes()).unwrap();
            assert_eq!(
                request.after == After::CloseNothingFollows,
                is_last,
                "{head:?}"
            );
        }
    }
}
