//! The HTTP that the server speaks: bytes to requests, and the heads of answers. Pure: no
//! sockets, no files, no clock.
//!
//! The parser yields a [`Hash`] or one of a few words, so a path cannot be said. Everything that
//! is not wholly regular is refused (RFC 9112, sections 3, 5, 6 and 11.2): a second reading of the
//! same bytes, by a proxy in front, is how requests are smuggled.

use std::io::Write;

use crate::frames::MAX_LINES;
use crate::hash::{HEX_LEN, Hash};

/// Bytes of a request line without its CRLF (RFC 9112, section 3, recommends at least 8,000).
pub const MAX_LINE: usize = 8_000;

/// Bytes of a whole head.
pub const MAX_HEAD: usize = 16 * 1024;

/// Bytes of the hashlist that a `POST /blocks` brings: a hash and CRLF a line.
pub const MAX_LIST: usize = MAX_LINES * (HEX_LEN + 2);

/// What is to be answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// `/`: name and version.
    Index,
    Block(Hash),
    /// `POST /blocks`: those of the hashlist that follows the head.
    Blocks(List),
    /// `/peers`: the servers that this one names.
    Peers,
    /// What is there takes only these methods.
    NotAllowed(&'static str),
    /// There is no path, no query, no percent decoding: anything else is refused.
    Refusal(Status),
}

/// What the head of a `POST /blocks` says of its body and of the answer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct List {
    /// Bytes of the body.
    pub length: usize,
    /// Whether the client may hold the body back until it is told to go on (RFC 9110, section
    /// 10.1.1).
    pub awaits_continue: bool,
    /// Whether the client understands an answer in chunks. To HTTP/1.0 the end of the connection
    /// ends it.
    pub chunked: bool,
}

impl List {
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
    /// Whether the connection may live on after the answer.
    pub keep_alive: bool,
    /// Whether the client must be told that it does (RFC 9112, section 9.3).
    pub say_keep_alive: bool,
    /// Whether the client has said that nothing follows (RFC 9112, section 9.6).
    pub is_last: bool,
}

impl Request {
    /// Stands for bytes that are no request: it is not certain where the next one would begin.
    pub fn broken(status: Status) -> Self {
        Request {
            wanted: Wanted::Refusal(status),
            head_only: false,
            keep_alive: false,
            say_keep_alive: false,
            is_last: false,
        }
    }
}

/// Why there is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    RequestTimeout = 408,
    LengthRequired = 411,
    ContentTooLarge = 413,
    UriTooLong = 414,
    HeadTooLarge = 431,
    NotImplemented = 501,
    Unavailable = 503,
    VersionNotSupported = 505,
}

impl Status {
    pub fn reason(self) -> &'static str {
        match self {
            Status::BadRequest => "Bad Request",
            Status::NotFound => "Not Found",
            Status::MethodNotAllowed => "Method Not Allowed",
            Status::RequestTimeout => "Request Timeout",
            Status::LengthRequired => "Length Required",
            Status::ContentTooLarge => "Content Too Large",
            Status::UriTooLong => "URI Too Long",
            Status::HeadTooLarge => "Request Header Fields Too Large",
            Status::NotImplemented => "Not Implemented",
            Status::Unavailable => "Service Unavailable",
            Status::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// Parses the first request in `bytes`; tells the length of its head. None when the head is not
/// complete, and nothing is wrong with it yet.
pub fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    parse_head(bytes).unwrap_or_else(|status| {
        // Whatever else is wrong, to HEAD there is no body (RFC 9110, section 9.3.2).
        let head_only = skip_empty_line(bytes).starts_with(b"HEAD ");
        Some((
            Request {
                head_only,
                ..Request::broken(status)
            },
            bytes.len(),
        ))
    })
}

/// One empty line before a request is to be ignored (RFC 9112, section 2.2).
fn skip_empty_line(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes)
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize)>, Status> {
    let mut rest = skip_empty_line(bytes);
    let Some(line) = take_line(&mut rest, MAX_LINE, Status::UriTooLong)? else {
        return Ok(None);
    };
    let line = RequestLine::parse(line)?;
    let mut fields = Fields::default();
    loop {
        let room = MAX_HEAD.saturating_sub(bytes.len() - rest.len());
        match take_line(&mut rest, room, Status::HeadTooLarge)? {
            None => return Ok(None),
            Some([]) => break,
            Some(field) => fields.add(field)?,
        }
    }
    let length = bytes.len() - rest.len();
    if length > MAX_HEAD {
        return Err(Status::HeadTooLarge);
    }
    Ok(Some((fields.finish(&line)?, length)))
}

/// Takes a line of at most `limit` bytes off `rest`, without its CRLF. None when its end is not
/// there yet. A CR or LF alone is refused as soon as it is seen.
fn take_line<'a>(
    rest: &mut &'a [u8],
    limit: usize,
    too_long: Status,
) -> Result<Option<&'a [u8]>, Status> {
    let bytes = *rest;
    let Some(end) = bytes.iter().position(|c| matches!(c, b'\r' | b'\n')) else {
        return if bytes.len() > limit {
            Err(too_long)
        } else {
            Ok(None)
        };
    };
    if end > limit {
        return Err(too_long);
    }
    match bytes[end..] {
        [b'\r', b'\n', ..] => {
            *rest = &bytes[end + 2..];
            Ok(Some(&bytes[..end]))
        }
        [b'\r'] => Ok(None),
        _ => Err(Status::BadRequest),
    }
}

struct RequestLine {
    method: Method,
    target: Target,
    /// HTTP/1.1 or later: connections live on unless said otherwise.
    persistent: bool,
}

impl RequestLine {
    /// `METHOD SP TARGET SP HTTP/1.x` (RFC 9112, section 3).
    fn parse(line: &[u8]) -> Result<Self, Status> {
        let mut words = line.split(|&c| c == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Status::BadRequest);
        };
        if method.is_empty()
            || !method.iter().all(|&c| is_token(c))
            || target.is_empty()
            || !target.iter().all(u8::is_ascii_graphic)
        {
            return Err(Status::BadRequest);
        }
        let persistent = match version {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                minor @ b'0'..=b'9',
            ] => *minor > b'0',
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Status::VersionNotSupported);
            }
            _ => return Err(Status::BadRequest),
        };
        let (method, target) = match method {
            b"GET" => (Method::Get, Target::parse(target)?),
            b"HEAD" => (Method::Head, Target::parse(target)?),
            b"POST" => (Method::Post, Target::parse(target)?),
            // Its target is a host and a port (RFC 9112, section 3.2.3).
            b"CONNECT" => (Method::Other, Target::Nothing),
            b"PUT" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"TRACE" => {
                (Method::Other, Target::parse(target)?)
            }
            _ => return Err(Status::NotImplemented),
        };
        Ok(RequestLine {
            method,
            target,
            persistent,
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Get,
    Head,
    Post,
    /// Known, and not allowed anywhere.
    Other,
}

#[derive(Clone, Copy)]
enum Target {
    Index,
    Block(Hash),
    Blocks,
    Peers,
    Nothing,
}

impl Target {
    /// Origin form, or absolute form, which every server must take (RFC 9112, section 3.2.2).
    fn parse(target: &[u8]) -> Result<Self, Status> {
        let path = match target {
            [b'/', path @ ..] => path,
            // The server as a whole, of which nothing but its options can be asked.
            b"*" => return Ok(Target::Nothing),
            _ => {
                let scheme = target.get(..7).ok_or(Status::BadRequest)?;
                if !scheme.eq_ignore_ascii_case(b"http://") {
                    return Err(Status::BadRequest);
                }
                let rest = &target[7..];
                let slash = rest.iter().position(|&c| c == b'/').unwrap_or(rest.len());
                let (host, path) = rest.split_at(slash);
                if host.is_empty() || !host.iter().all(|&c| is_host_byte(c)) {
                    return Err(Status::BadRequest);
                }
                // An empty path is the root (RFC 9110, section 4.2.3).
                path.strip_prefix(b"/").unwrap_or(path)
            }
        };
        Ok(match path {
            b"" => Target::Index,
            b"blocks" => Target::Blocks,
            b"peers" => Target::Peers,
            _ => Hash::parse(path).map_or(Target::Nothing, Target::Block),
        })
    }
}

/// What the header fields say, of the few that matter here.
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
        let colon = field
            .iter()
            .position(|&c| c == b':')
            .ok_or(Status::BadRequest)?;
        let (name, value) = (&field[..colon], trim(&field[colon + 1..]));
        // A fold begins with white space, so it ends here, as does white space before the colon.
        if name.is_empty()
            || !name.iter().all(|&c| is_token(c))
            || !value.iter().all(|&c| is_field_byte(c))
        {
            return Err(Status::BadRequest);
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            if !value.iter().all(|&c| is_host_byte(c)) {
                return Err(Status::BadRequest);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(Status::BadRequest);
            }
            let digits = std::str::from_utf8(value).map_err(|_| Status::BadRequest)?;
            self.length = Some(digits.parse().map_err(|_| Status::ContentTooLarge)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"expect") {
            // Whoever expects anything else is answered as if not.
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
        if self.hosts > 1 || (line.persistent && self.hosts == 0) {
            return Err(Status::BadRequest);
        }
        if self.encoded {
            // With a length too, or from HTTP/1.0, it is an attack (RFC 9112, section 6.1).
            let forged = self.length.is_some() || !line.persistent;
            return Err(if forged {
                Status::BadRequest
            } else {
                Status::NotImplemented
            });
        }
        let wanted = self.wanted(line)?;
        let is_last = self.close || !(line.persistent || self.keep_alive);
        let (may_stay, is_whole) = match wanted {
            // Without a length, only its end ends an answer that is not in chunks.
            Wanted::Blocks(list) => (list.chunked && !self.close, true),
            // No other request has use for a body: rather than read it, the connection ends.
            _ => (!is_last, self.length.unwrap_or(0) == 0),
        };
        let keep_alive = may_stay && is_whole;
        Ok(Request {
            wanted,
            head_only: line.method == Method::Head,
            keep_alive,
            say_keep_alive: keep_alive && !line.persistent,
            is_last: is_last && is_whole,
        })
    }

    fn wanted(&self, line: &RequestLine) -> Result<Wanted, Status> {
        Ok(match (line.method, line.target) {
            (Method::Get | Method::Head, Target::Index) => Wanted::Index,
            (Method::Get | Method::Head, Target::Block(hash)) => Wanted::Block(hash),
            (Method::Get | Method::Head, Target::Peers) => Wanted::Peers,
            (Method::Get | Method::Head, Target::Nothing) => Wanted::Refusal(Status::NotFound),
            (Method::Post, Target::Blocks) => Wanted::Blocks(self.list(line)?),
            (_, Target::Blocks) => Wanted::NotAllowed("POST"),
            _ => Wanted::NotAllowed("GET, HEAD"),
        })
    }

    fn list(&self, line: &RequestLine) -> Result<List, Status> {
        // By the letter there is no body then, but some bytes may well be meant as one.
        let length = self.length.ok_or(Status::LengthRequired)?;
        let length = usize::try_from(length).map_err(|_| Status::ContentTooLarge)?;
        if length > MAX_LIST {
            return Err(Status::ContentTooLarge);
        }
        Ok(List {
            length,
            awaits_continue: self.awaits_continue && line.persistent,
            chunked: line.persistent,
        })
    }
}

/// A token's characters (RFC 9110, section 5.6.2).
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

/// Those of a host and a port (RFC 3986, section 3.2): no user, no query.
fn is_host_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&c)
}

/// Takes off the white space that may surround a field's value, and no other (RFC 9110, section
/// 5.6.3): std's counts a form feed too.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A field value's (RFC 9110, section 5.5).
fn is_field_byte(c: u8) -> bool {
    c == b'\t' || (c >= b' ' && c != 0x7f)
}

/// Appends the head of a block's answer. No `Date`: it is for servers with a clock that can be
/// trusted (RFC 9110, section 6.6.1), which small boxes lack, and a block does not age.
pub fn push_block_head(out: &mut Vec<u8>, request: &Request, hash: &Hash, length: usize) {
    push_line(out, format_args!("HTTP/1.1 200 OK"));
    push_line(out, format_args!("Content-Length: {length}"));
    out.extend_from_slice(b"Content-Type: application/octet-stream\r\nETag: \"");
    out.extend_from_slice(&hash.to_hex());
    out.extend_from_slice(b"\"\r\nCache-Control: public, max-age=31536000, immutable\r\n");
    push_connection(out, request);
}

/// Appends the head of the answer to `POST /blocks`. Caches keep no such answer unless told to.
pub fn push_blocks_head(out: &mut Vec<u8>, request: &Request, list: List) {
    push_line(out, format_args!("HTTP/1.1 200 OK"));
    push_line(out, format_args!("Content-Type: application/octet-stream"));
    if list.chunked {
        push_line(out, format_args!("Transfer-Encoding: chunked"));
    }
    push_connection(out, request);
}

/// What tells a client to go on with the body that it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends what stands before a chunk of `length` bytes, which is none where that is 0.
pub fn push_chunk_start(out: &mut Vec<u8>, length: usize) {
    if length > 0 {
        push_line(out, format_args!("{length:x}"));
    }
}

/// What ends a chunk of `length` bytes, and with the last the answer (RFC 9112, section 7.1).
pub fn chunk_end(length: usize, last: bool) -> &'static [u8] {
    match (length, last) {
        (0, true) => b"0\r\n\r\n",
        (0, false) => b"",
        (_, true) => b"\r\n0\r\n\r\n",
        (_, false) => b"\r\n",
    }
}

/// What `/` is answered with.
pub const INDEX: &str = concat!("psync ", env!("CARGO_PKG_VERSION"), "\n");

/// Appends a whole answer that is `text`; tells the length of its body.
pub fn push_found(out: &mut Vec<u8>, request: &Request, text: &[u8]) -> usize {
    push_line(out, format_args!("HTTP/1.1 200 OK"));
    push_text(out, request, text)
}

/// Appends a whole refusal; tells the length of its body.
pub fn push_refusal(out: &mut Vec<u8>, request: &Request, status: Status) -> usize {
    push_line(
        out,
        format_args!("HTTP/1.1 {} {}", status as u16, status.reason()),
    );
    if let Wanted::NotAllowed(methods) = request.wanted {
        push_line(out, format_args!("Allow: {methods}"));
    }
    push_text(out, request, format!("{}\n", status.reason()).as_bytes())
}

fn push_text(out: &mut Vec<u8>, request: &Request, text: &[u8]) -> usize {
    push_line(out, format_args!("Content-Length: {}", text.len()));
    push_line(out, format_args!("Content-Type: text/plain; charset=utf-8"));
    push_connection(out, request);
    let body = if request.head_only { b"" } else { text };
    out.extend_from_slice(body);
    body.len()
}

/// Ends the head.
fn push_connection(out: &mut Vec<u8>, request: &Request) {
    if !request.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if request.say_keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn push_line(out: &mut Vec<u8>, line: std::fmt::Arguments) {
    // Writing to memory does not fail.
    let _ = write!(out, "{line}\r\n");
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
            let list = List {
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
        assert_eq!(refusal(text), Some(Wanted::Refusal(Status::NotFound)));
        let longer = refusal(line(MAX_LINE + 1).as_bytes());
        assert_eq!(longer, Some(Wanted::Refusal(Status::UriTooLong)));
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
            assert_eq!(request.is_last, is_last, "{head:?}");
        }
    }
}
