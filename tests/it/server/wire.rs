//! The server's wire, byte for byte: what is sent, all that is answered, and whether the connection
//! lives on. The same in one piece, in two, byte by byte, and with other requests before and behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::*;

/// In answers `|` is a line's end and `~` the place of what is said of the connection.
const INDEX: &str = "HTTP/1.1 200 OK|Content-Length: LENGTH|Content-Type: text/plain; charset=utf-8|~|psync VERSION\n";
pub const BLOCK: &str = "HTTP/1.1 200 OK|Content-Length: 4096|Content-Type: application/octet-stream|ETag: \"HASH\"|Cache-Control: public, max-age=31536000, immutable|~|BYTES";
const FRAMES: &str = "HTTP/1.1 200 OK|Content-Type: application/octet-stream|Transfer-Encoding: chunked|~|1002|\x10\0BYTES|0||";
const PEERS: &str = "HTTP/1.1 200 OK|Content-Length: 27|Content-Type: text/plain; charset=utf-8|~|# near\nbox:8080\n\nhttp://x/y";
const NO_FRAMES: &str =
    "HTTP/1.1 200 OK|Content-Type: application/octet-stream|Transfer-Encoding: chunked|~|0||";
const BARE_FRAMES: &str = "HTTP/1.1 200 OK|Content-Type: application/octet-stream|~|\x10\0BYTES";
const MALFORMED: &str = "HTTP/1.1 400 Bad Request|Content-Length: 12|Content-Type: text/plain; charset=utf-8|~|Bad Request\n";
const ABSENT: &str = "HTTP/1.1 404 Not Found|Content-Length: 10|Content-Type: text/plain; charset=utf-8|~|Not Found\n";
const ONLY_GET: &str = "HTTP/1.1 405 Method Not Allowed|Allow: GET, HEAD|Content-Length: 19|Content-Type: text/plain; charset=utf-8|~|Method Not Allowed\n";
const ONLY_POST: &str = "HTTP/1.1 405 Method Not Allowed|Allow: POST|Content-Length: 19|Content-Type: text/plain; charset=utf-8|~|Method Not Allowed\n";
const LENGTHLESS: &str = "HTTP/1.1 411 Length Required|Content-Length: 16|Content-Type: text/plain; charset=utf-8|~|Length Required\n";
const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large|Content-Length: 18|Content-Type: text/plain; charset=utf-8|~|Content Too Large\n";
const LONG_LINE: &str = "HTTP/1.1 414 URI Too Long|Content-Length: 13|Content-Type: text/plain; charset=utf-8|~|URI Too Long\n";
const LONG_HEAD: &str = "HTTP/1.1 431 Request Header Fields Too Large|Content-Length: 32|Content-Type: text/plain; charset=utf-8|~|Request Header Fields Too Large\n";
const UNKNOWN: &str = "HTTP/1.1 501 Not Implemented|Content-Length: 16|Content-Type: text/plain; charset=utf-8|~|Not Implemented\n";
const VERSION: &str = "HTTP/1.1 505 HTTP Version Not Supported|Content-Length: 27|Content-Type: text/plain; charset=utf-8|~|HTTP Version Not Supported\n";

/// What is said of the connection.
const LIVES: &str = "";
const ENDS: &str = "Connection: close|";
const KEPT: &str = "Connection: keep-alive|";

/// Follows each request: answered only where the connection lives on.
const PROBE: &str = "GET / HTTP/1.1\r\nHost: probe\r\n\r\n";

/// Something of a request, its answer, and what becomes of the connection. HASH is that of the one
/// block there is, BYTES the block.
type Table = &'static [(&'static str, &'static str, &'static str)];

/// Request lines, with a `Host` behind them.
const LINES: Table = &[
    ("GET / HTTP/1.1", INDEX, LIVES),
    ("GET /HASH HTTP/1.1", BLOCK, LIVES),
    ("GET /HASH HTTP/1.9", BLOCK, LIVES),
    ("GET /HASH HTTP/1.0", BLOCK, ENDS),
    // Versions.
    ("GET /HASH HTTP/0.9", VERSION, ENDS),
    ("GET /HASH HTTP/2.0", VERSION, ENDS),
    ("PRI * HTTP/2.0", VERSION, ENDS),
    ("GET /HASH HTTP/9.9", VERSION, ENDS),
    ("GET /HASH", MALFORMED, ENDS),
    ("GET /HASH ", MALFORMED, ENDS),
    ("GET /HASH http/1.1", MALFORMED, ENDS),
    ("GET /HASH HTTP/1", MALFORMED, ENDS),
    ("GET /HASH HTTP/1.", MALFORMED, ENDS),
    ("GET /HASH HTTP/1.10", MALFORMED, ENDS),
    ("GET /HASH HTTP/01.1", MALFORMED, ENDS),
    ("GET /HASH HTTP/1,1", MALFORMED, ENDS),
    ("GET /HASH HTTP/-1.1", MALFORMED, ENDS),
    ("GET /HASH HTTPS/1.1", MALFORMED, ENDS),
    ("GET /HASH ICY/1.1", MALFORMED, ENDS),
    // Methods.
    ("POST /HASH HTTP/1.1", ONLY_GET, LIVES),
    ("PUT /HASH HTTP/1.1", ONLY_GET, LIVES),
    ("DELETE /HASH HTTP/1.1", ONLY_GET, LIVES),
    ("PATCH /HASH HTTP/1.1", ONLY_GET, LIVES),
    ("TRACE / HTTP/1.1", ONLY_GET, LIVES),
    ("OPTIONS / HTTP/1.1", ONLY_GET, LIVES),
    ("OPTIONS * HTTP/1.1", ONLY_GET, LIVES),
    ("DELETE /nothing HTTP/1.1", ONLY_GET, LIVES),
    ("POST / HTTP/1.0", ONLY_GET, ENDS),
    ("PROPFIND / HTTP/1.1", UNKNOWN, ENDS),
    ("BREW / HTTP/1.1", UNKNOWN, ENDS),
    ("get / HTTP/1.1", UNKNOWN, ENDS),
    ("GETT / HTTP/1.1", UNKNOWN, ENDS),
    ("G@T / HTTP/1.1", MALFORMED, ENDS),
    ("G:T / HTTP/1.1", MALFORMED, ENDS),
    ("\u{c9} / HTTP/1.1", MALFORMED, ENDS),
    // Spaces.
    (" GET / HTTP/1.1", MALFORMED, ENDS),
    (" / HTTP/1.1", MALFORMED, ENDS),
    ("GET  / HTTP/1.1", MALFORMED, ENDS),
    ("GET /  HTTP/1.1", MALFORMED, ENDS),
    ("GET / HTTP/1.1 ", MALFORMED, ENDS),
    ("GET / x HTTP/1.1", MALFORMED, ENDS),
    ("GET\t/\tHTTP/1.1", MALFORMED, ENDS),
    ("GET HTTP/1.1", MALFORMED, ENDS),
    ("GET", MALFORMED, ENDS),
    ("\u{16}\u{3}\u{1}", MALFORMED, ENDS),
    ("SSH-2.0-OpenSSH_9.9", MALFORMED, ENDS),
    // Bare CR and LF, NUL.
    ("GET / HTTP/1.1\nX: y", MALFORMED, ENDS),
    ("GET / HTTP/1.1\rX: y", MALFORMED, ENDS),
    ("GET /\0 HTTP/1.1", MALFORMED, ENDS),
    ("GET / HTTP/1.1\0", MALFORMED, ENDS),
    ("\nGET / HTTP/1.1", MALFORMED, ENDS),
    // One empty line before a request is passed over.
    ("\r\nGET / HTTP/1.1", INDEX, LIVES),
    ("CONNECT test:443 HTTP/1.1", ONLY_GET, LIVES),
    ("CONNECT  HTTP/1.1", MALFORMED, ENDS),
    ("CONNECT \0 HTTP/1.1", MALFORMED, ENDS),
    ("CONNECT \u{e9} HTTP/1.1", MALFORMED, ENDS),
    // The list of blocks takes one method, and its name is one word.
    ("GET /blocks HTTP/1.1", ONLY_POST, LIVES),
    ("HEAD /blocks HTTP/1.1", ONLY_POST, LIVES),
    ("PUT /blocks HTTP/1.1", ONLY_POST, LIVES),
    ("DELETE /blocks HTTP/1.1", ONLY_POST, LIVES),
    ("OPTIONS http://test/blocks HTTP/1.1", ONLY_POST, LIVES),
    ("GET /blocks HTTP/1.0", ONLY_POST, ENDS),
    ("POST /blocks/ HTTP/1.1", ONLY_GET, LIVES),
    ("POST /blocks? HTTP/1.1", ONLY_GET, LIVES),
    ("POST /Blocks HTTP/1.1", ONLY_GET, LIVES),
    ("POST //blocks HTTP/1.1", ONLY_GET, LIVES),
    ("POST * HTTP/1.1", ONLY_GET, LIVES),
    ("GET /blocks/ HTTP/1.1", ABSENT, LIVES),
    ("GET /block HTTP/1.1", ABSENT, LIVES),
    ("BREW /blocks HTTP/1.1", UNKNOWN, ENDS),
    ("post /blocks HTTP/1.1", UNKNOWN, ENDS),
    ("POST /blocks HTTP/1.1", LENGTHLESS, ENDS),
    ("POST /blocks HTTP/1.0", LENGTHLESS, ENDS),
    // The list of peers.
    ("GET /peers HTTP/1.1", PEERS, LIVES),
    ("GET /peers HTTP/1.0", PEERS, ENDS),
    ("HEAD /peers HTTP/1.1", PEERS, LIVES),
    ("GET http://test/peers HTTP/1.1", PEERS, LIVES),
    ("POST /peers HTTP/1.1", ONLY_GET, LIVES),
    ("PUT /peers HTTP/1.1", ONLY_GET, LIVES),
    ("OPTIONS /peers HTTP/1.1", ONLY_GET, LIVES),
    ("GET /peers/ HTTP/1.1", ABSENT, LIVES),
    ("GET /peers? HTTP/1.1", ABSENT, LIVES),
    ("GET /Peers HTTP/1.1", ABSENT, LIVES),
    ("GET /peer HTTP/1.1", ABSENT, LIVES),
    // HEAD is GET without the body, also where it is refused.
    ("HEAD / HTTP/1.1", INDEX, LIVES),
    ("HEAD /HASH HTTP/1.1", BLOCK, LIVES),
    ("HEAD /HASH HTTP/1.0", BLOCK, ENDS),
    ("\r\nHEAD /HASH HTTP/1.1", BLOCK, LIVES),
    ("HEAD /nothing HTTP/1.1", ABSENT, LIVES),
    ("HEAD * HTTP/1.1", ABSENT, LIVES),
    ("HEAD /HASH HTTP/2.0", VERSION, ENDS),
    ("HEAD HASH HTTP/1.1", MALFORMED, ENDS),
    ("HEAD /HASH", MALFORMED, ENDS),
    ("head /HASH HTTP/1.1", UNKNOWN, ENDS),
    ("HEADER /HASH HTTP/1.1", UNKNOWN, ENDS),
];

/// Targets of a GET. Nothing is named by one but a hash: there is no path, no query, no decoding.
pub const TARGETS: Table = &[
    ("//HASH", ABSENT, LIVES),
    ("/HASH/", ABSENT, LIVES),
    ("/HASH?", ABSENT, LIVES),
    ("/HASH?x", ABSENT, LIVES),
    ("/HASH#x", ABSENT, LIVES),
    ("/HASH;x", ABSENT, LIVES),
    ("/HASH%00", ABSENT, LIVES),
    ("/HASH.", ABSENT, LIVES),
    ("/./HASH", ABSENT, LIVES),
    ("/../HASH", ABSENT, LIVES),
    ("/x/../HASH", ABSENT, LIVES),
    ("/../x", ABSENT, LIVES),
    ("/..", ABSENT, LIVES),
    ("/.", ABSENT, LIVES),
    ("//", ABSENT, LIVES),
    ("/?", ABSENT, LIVES),
    ("/%2e%2e/x", ABSENT, LIVES),
    ("/%2FHASH", ABSENT, LIVES),
    ("/other", ABSENT, LIVES),
    ("/.psync-0-0", ABSENT, LIVES),
    ("/.psync-0", ABSENT, LIVES),
    ("/etc/passwd", ABSENT, LIVES),
    ("*", ABSENT, LIVES),
    ("HASH", MALFORMED, ENDS),
    ("?", MALFORMED, ENDS),
    ("..", MALFORMED, ENDS),
    ("test:80", MALFORMED, ENDS),
    ("ftp://test/HASH", MALFORMED, ENDS),
    ("file:///HASH", MALFORMED, ENDS),
    ("http:///HASH", MALFORMED, ENDS),
    ("http:/HASH", MALFORMED, ENDS),
    ("/HASH0", ABSENT, LIVES),
    (
        "/0000000000000000000000000000000000000000000000000000000000000000",
        ABSENT,
        LIVES,
    ),
    (
        "/ABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCD",
        ABSENT,
        LIVES,
    ),
    ("http://test/HASH", BLOCK, LIVES),
    ("HTTP://other:80/HASH", BLOCK, LIVES),
    ("http://[::1]:80/HASH", BLOCK, LIVES),
    ("http://test/", INDEX, LIVES),
    // An empty path is the root (RFC 9110, section 4.2.3).
    ("http://test", INDEX, LIVES),
    ("http://test/x", ABSENT, LIVES),
    ("http://test//HASH", ABSENT, LIVES),
    ("http://test?/HASH", MALFORMED, ENDS),
    ("http://test#/HASH", MALFORMED, ENDS),
    ("http://te\"st/HASH", MALFORMED, ENDS),
    ("http://user@test/HASH", MALFORMED, ENDS),
    ("https://test/HASH", MALFORMED, ENDS),
    ("/\u{e9}", MALFORMED, ENDS),
    ("/\x7f", MALFORMED, ENDS),
    ("/\x01", MALFORMED, ENDS),
];

/// Header fields of a `GET /HASH`.
const FIELDS: Table = &[
    ("Host: test", BLOCK, LIVES),
    ("host:test", BLOCK, LIVES),
    ("HOST:\t test \t", BLOCK, LIVES),
    ("Host:", BLOCK, LIVES),
    ("Host: [::1]:8080", BLOCK, LIVES),
    ("X: y", MALFORMED, ENDS),
    ("Host: test\r\nHost: test", MALFORMED, ENDS),
    ("Host: test\r\nX: y\r\nhOST: other", MALFORMED, ENDS),
    ("Host: te st", MALFORMED, ENDS),
    ("Host: test/x", MALFORMED, ENDS),
    ("Host: user@test", MALFORMED, ENDS),
    // The grammar of a field.
    ("Host: test\r\nX:", BLOCK, LIVES),
    ("Host: test\r\nX:::", BLOCK, LIVES),
    ("Host: test\r\nX: a\tb \u{e9}", BLOCK, LIVES),
    ("Host: test\r\n!#$%&'*+-.^_`|~09aZ: x", BLOCK, LIVES),
    ("Host : test", MALFORMED, ENDS),
    ("Host\t: test", MALFORMED, ENDS),
    ("Host: test\r\nX : y", MALFORMED, ENDS),
    ("Host: test\r\n: y", MALFORMED, ENDS),
    ("Host: test\r\nX", MALFORMED, ENDS),
    ("Host: test\r\nX y", MALFORMED, ENDS),
    ("Host: test\r\nX(: y", MALFORMED, ENDS),
    ("Host: test\r\n\u{e9}: y", MALFORMED, ENDS),
    ("Host: test\r\nX: y\r\n folded", MALFORMED, ENDS),
    ("Host: test\r\nX: y\r\n\tfolded: z", MALFORMED, ENDS),
    (" Host: test", MALFORMED, ENDS),
    ("Host: test\r\n \r\nX: y", MALFORMED, ENDS),
    ("Host: test\nX: y", MALFORMED, ENDS),
    ("Host: test\rX: y", MALFORMED, ENDS),
    ("Host: test\r\nX: a\rb", MALFORMED, ENDS),
    ("Host: test\r\nX: a\nb", MALFORMED, ENDS),
    ("Host: test\r\r\nX: y", MALFORMED, ENDS),
    ("Host: test\n\r\nX: y", MALFORMED, ENDS),
    ("Host: test\r\nX: a\0b", MALFORMED, ENDS),
    ("Host: test\r\nX\0: y", MALFORMED, ENDS),
    ("Host: test\r\nX: a\x7fb", MALFORMED, ENDS),
    ("Host: test\r\nX: a\x1bb", MALFORMED, ENDS),
    ("Host: test\r\nX: \x0b", MALFORMED, ENDS),
    // Bodies, which no request here has use for.
    ("Host: test\r\nContent-Length: 0", BLOCK, LIVES),
    ("Host: test\r\nContent-Length: 000", BLOCK, LIVES),
    ("Host: test\r\nContent-Length: 5", BLOCK, ENDS),
    ("Host: test\r\nContent-Length: 1000000000000", BLOCK, ENDS),
    (
        "Host: test\r\nContent-Length: 99999999999999999999",
        TOO_LARGE,
        ENDS,
    ),
    ("Host: test\r\nContent-Length:", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: +5", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: -5", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0x0", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0 0", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0,", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0, 0", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0.0", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: x", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: \u{661}", MALFORMED, ENDS),
    (
        "Host: test\r\nContent-Length: 0\r\nContent-Length: 0",
        MALFORMED,
        ENDS,
    ),
    (
        "Host: test\r\nContent-Length: 0\r\ncontent-length: 5",
        MALFORMED,
        ENDS,
    ),
    ("Host: test\r\nContent-Length : 0", MALFORMED, ENDS),
    ("Host: test\r\nTransfer-Encoding: chunked", UNKNOWN, ENDS),
    ("Host: test\r\nTransfer-Encoding: identity", UNKNOWN, ENDS),
    ("Host: test\r\nTransfer-Encoding:", UNKNOWN, ENDS),
    (
        "Host: test\r\nTransfer-Encoding: chunked\r\nContent-Length: 0",
        MALFORMED,
        ENDS,
    ),
    (
        "Host: test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
        MALFORMED,
        ENDS,
    ),
    (
        "Host: test\r\nContent-Length: 5\r\ntransfer-encoding: x",
        MALFORMED,
        ENDS,
    ),
    // How long the connection lives.
    ("Host: test\r\nConnection: keep-alive", BLOCK, LIVES),
    ("Host: test\r\nConnection: close", BLOCK, ENDS),
    ("Host: test\r\nConnection: CLOSE", BLOCK, ENDS),
    ("Host: test\r\nConnection: x, ,close,y", BLOCK, ENDS),
    (
        "Host: test\r\nConnection: x\r\nConnection: close",
        BLOCK,
        ENDS,
    ),
    ("Host: test\r\nConnection: keep-alive, close", BLOCK, ENDS),
    ("Host: test\r\nConnection: closed", BLOCK, LIVES),
    // What other servers act on, and this one does not.
    ("Host: test\r\nRange: bytes=0-0", BLOCK, LIVES),
    ("Host: test\r\nAccept-Encoding: gzip", BLOCK, LIVES),
    (
        "Host: test\r\nUpgrade: h2c\r\nConnection: upgrade",
        BLOCK,
        LIVES,
    ),
    ("Host: test\r\nX-HTTP-Method-Override: DELETE", BLOCK, LIVES),
    // A form feed is no white space: another reader would see another length, another host.
    ("Host: test\r\nContent-Length: \x0c0", MALFORMED, ENDS),
    ("Host: test\r\nContent-Length: 0\x0c", MALFORMED, ENDS),
    ("Host: test\r\nConnection: \x0cclose", MALFORMED, ENDS),
    ("Host: test\r\nX: \x0c", MALFORMED, ENDS),
    ("Host: \x0ctest", MALFORMED, ENDS),
];

/// Header fields of a `POST /blocks`, whose body is the one hash and a line's end: 65 bytes.
const POSTS: Table = &[
    ("Content-Length: 65", FRAMES, LIVES),
    ("content-length:0065", FRAMES, LIVES),
    ("Content-Length: 65\r\nConnection: close", FRAMES, ENDS),
    (
        "Content-Length: 65\r\nConnection: keep-alive",
        FRAMES,
        LIVES,
    ),
    (
        "Content-Length: 65\r\nContent-Type: text/html",
        FRAMES,
        LIVES,
    ),
    (
        "Content-Length: 65\r\nContent-Encoding: gzip",
        FRAMES,
        LIVES,
    ),
    (
        "Content-Length: 65\r\nExpect: the unexpected",
        FRAMES,
        LIVES,
    ),
    ("X: y", LENGTHLESS, ENDS),
    ("Expect: 100-continue", LENGTHLESS, ENDS),
    ("Content-Length: 67585", TOO_LARGE, ENDS),
    ("Content-Length: 4294967361", TOO_LARGE, ENDS),
    ("Content-Length: 18446744073709551681", TOO_LARGE, ENDS),
    ("Content-Length: -1", MALFORMED, ENDS),
    ("Content-Length: +65", MALFORMED, ENDS),
    ("Content-Length: 0x41", MALFORMED, ENDS),
    ("Content-Length:", MALFORMED, ENDS),
    ("Content-Length: 65\r\nContent-Length: 65", MALFORMED, ENDS),
    ("Content-Length: 65, 65", MALFORMED, ENDS),
    ("Transfer-Encoding: chunked", UNKNOWN, ENDS),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 65",
        MALFORMED,
        ENDS,
    ),
];

/// Whole requests.
const REQUESTS: Table = &[
    // HTTP/1.0 lives on only when asked to, and is told so. It needs no Host, but has at most one.
    ("GET / HTTP/1.0\r\n\r\n", INDEX, ENDS),
    (
        "GET /HASH HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        BLOCK,
        KEPT,
    ),
    (
        "HEAD /HASH HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        BLOCK,
        KEPT,
    ),
    (
        "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ABSENT,
        KEPT,
    ),
    (
        "PUT / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ONLY_GET,
        KEPT,
    ),
    (
        "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        INDEX,
        ENDS,
    ),
    (
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
        INDEX,
        ENDS,
    ),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        MALFORMED,
        ENDS,
    ),
    (
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        MALFORMED,
        ENDS,
    ),
    // Nor does it know chunks: the end of the connection ends the frames.
    (
        "POST /blocks HTTP/1.0\r\nContent-Length: 65\r\n\r\nHASH\n",
        BARE_FRAMES,
        ENDS,
    ),
    (
        "POST /blocks HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 64\r\n\r\nHASH",
        BARE_FRAMES,
        ENDS,
    ),
    // From HTTP/1.1 on there is one.
    ("GET / HTTP/1.1\r\n\r\n", MALFORMED, ENDS),
    ("HEAD / HTTP/1.1\r\n\r\n", MALFORMED, ENDS),
    (
        "POST /blocks HTTP/1.1\r\nContent-Length: 65\r\n\r\nHASH\n",
        MALFORMED,
        ENDS,
    ),
    // Only one empty line before a request is passed over.
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED, ENDS),
    // Lists.
    (
        "POST http://test/blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\nHASH\n",
        FRAMES,
        LIVES,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 66\r\n\r\nHASH\r\n",
        FRAMES,
        LIVES,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\n\r\nHASH",
        FRAMES,
        LIVES,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        NO_FRAMES,
        LIVES,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 63\r\n\r\nHASH",
        MALFORMED,
        ENDS,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 66\r\n\r\nHASH\n\n",
        MALFORMED,
        ENDS,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        MALFORMED,
        ENDS,
    ),
    // A body elsewhere is not read, and so nothing behind it either.
    (
        "GET /HASH HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /",
        BLOCK,
        ENDS,
    ),
    (
        "POST /HASH HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\nHASH\n",
        ONLY_GET,
        ENDS,
    ),
    (
        "GET /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\nHASH\n",
        ONLY_POST,
        ENDS,
    ),
    (
        "BREW / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /",
        UNKNOWN,
        ENDS,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        UNKNOWN,
        ENDS,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        MALFORMED,
        ENDS,
    ),
];

/// Requests with 8,000 bytes for each `*`.
const LONG: Table = &[
    ("GET /*", LONG_LINE, ENDS),
    ("GET /* HTTP/1.1\r\nHost: a\r\n\r\n", LONG_LINE, ENDS),
    ("HEAD /* HTTP/1.1\r\nHost: a\r\n\r\n", LONG_LINE, ENDS),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: *\r\n\r\n", INDEX, LIVES),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: **\r\n\r\n", INDEX, LIVES),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: *\r\nY: *\r\n\r\n",
        INDEX,
        LIVES,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: ***\r\n\r\n",
        LONG_HEAD,
        ENDS,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: *\r\nY: *\r\nZ: *\r\n\r\n",
        LONG_HEAD,
        ENDS,
    ),
    ("HEAD / HTTP/1.1\r\nHost: a\r\nX: ***", LONG_HEAD, ENDS),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nX: *\r\nContent-Length: 65\r\n\r\nHASH\n",
        FRAMES,
        LIVES,
    ),
    (
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n*",
        MALFORMED,
        ENDS,
    ),
];

/// What is sent, and what is due.
struct Row {
    request: Vec<u8>,
    to_head: bool,
    answer: Vec<u8>,
    lives: bool,
    /// Sent behind it: nothing where the client itself says that nothing follows, since the server
    /// then closes at once, and bytes unread would reset the connection.
    behind: &'static [u8],
}

struct Served {
    server: Server,
    _dir: TempDir,
    rows: Vec<Row>,
    /// What is answered to the probe.
    index: Vec<u8>,
}

impl Served {
    #[track_caller]
    fn start() -> Self {
        let (dir, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
        write_blocks(&dir, &block);
        // There, under names that are no hashes.
        for name in ["other", ".psync-0-0", ".psync-0", "x"] {
            dir.file(name, &block);
        }
        let list = dir.file("list", "# near\nbox:8080\n\nhttp://x/y");
        let mut rows = Vec::new();
        let mut add = |table: Table, frame: &dyn Fn(&str) -> String| {
            for (text, answer, connection) in table {
                let request = frame(text).replace("HASH", &hash_hex(&block));
                let says_last = request.to_ascii_lowercase().contains("close")
                    || request.contains(" HTTP/1.0\r\n");
                let is_last = says_last && *connection == ENDS;
                let to_head = request.trim_start().starts_with("HEAD ");
                rows.push(Row {
                    answer: due(answer, connection, to_head, &block),
                    lives: *connection != ENDS,
                    behind: if is_last { b"" } else { PROBE.as_bytes() },
                    to_head,
                    request: request.into_bytes(),
                });
            }
        };
        add(LINES, &|line| format!("{line}\r\nHost: test\r\n\r\n"));
        add(TARGETS, &|target| {
            format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
        });
        add(FIELDS, &|fields| {
            format!("GET /HASH HTTP/1.1\r\n{fields}\r\n\r\n")
        });
        add(POSTS, &|fields| {
            format!("POST /blocks HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\nHASH\n")
        });
        add(REQUESTS, &str::to_owned);
        add(LONG, &|request| request.replace('*', &"x".repeat(8_000)));
        Self {
            server: Server::with(&dir, &["--peers", &list.to_string_lossy()]),
            _dir: dir,
            rows,
            index: due(INDEX, LIVES, false, &block),
        }
    }

    /// Calls `check` with every row and its number, several at once: most of the time is waiting.
    fn every(&self, check: impl Fn(usize, &Row) + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(row) = self.rows.get(n) else { return };
                        check(n, row);
                    }
                });
            }
        });
    }

    /// Sends the row's request, cut at these offsets, and the probe right behind it. All that comes
    /// back must be the row's answer, and one to the probe where the connection lives.
    #[track_caller]
    fn check(&self, row: &Row, cuts: &[usize]) {
        let bytes = [&row.request, row.behind].concat();
        let mut client = Client::connect(self.server.addr());
        client.send_until_answered(&bytes, cuts, !row.lives);
        let seen = client.half_close().read_to_end();
        let probe = if row.lives { &self.index[..] } else { &[] };
        assert_same(&row.request, cuts, &seen, &[&row.answer, probe].concat());
    }
}

/// The bytes of an answer.
fn due(answer: &str, connection: &str, to_head: bool, block: &[u8]) -> Vec<u8> {
    let index = format!("psync {}\n", env!("CARGO_PKG_VERSION"));
    let text = answer
        .replace('~', connection)
        .replace('|', "\r\n")
        .replace("LENGTH", &index.len().to_string())
        .replace("VERSION", env!("CARGO_PKG_VERSION"))
        .replace("HASH", &hash_hex(block));
    let text = match text.split_once("\r\n\r\n") {
        Some((head, _)) if to_head => format!("{head}\r\n\r\n"),
        _ => text,
    };
    match text.split_once("BYTES") {
        Some((before, behind)) => [before.as_bytes(), block, behind.as_bytes()].concat(),
        None => text.into_bytes(),
    }
}

#[track_caller]
fn assert_same(request: &[u8], cuts: &[usize], seen: &[u8], due: &[u8]) {
    let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
    assert!(
        seen == due,
        "{:?} cut at {cuts:?}\nis answered {:?}\ninstead of {:?}",
        show(request),
        show(seen),
        show(due)
    );
}

#[test]
fn every_request_has_its_one_answer_to_the_byte() {
    let served = Served::start();
    assert!(served.rows.len() > 200);
    served.every(|_, row| served.check(row, &[]));
}

#[test]
fn every_answer_is_one_that_a_strict_client_understands() {
    let served = Served::start();
    served.every(|_, row| {
        let Row {
            request, answer, ..
        } = row;
        let shown = String::from_utf8_lossy(request);
        if shown.starts_with("POST /blocks HTTP/1.0") && answer.starts_with(b"HTTP/1.1 200 ") {
            // The end of the connection ends it, which the parser takes for no end.
            return;
        }
        let (response, length) = Response::parse(answer, row.to_head).unwrap();
        assert_eq!(length, answer.len(), "{shown:?}");
        let says_close = response.header("Connection") == Some("close");
        assert_eq!(says_close, !row.lives, "{shown:?}");
    });
}

#[test]
fn every_request_byte_by_byte_has_the_same_answer() {
    let served = Served::start();
    served.every(|_, row| {
        // As many pieces as a client may send before the time for a head is up.
        let pieces = row.request.len().min(400);
        let cuts: Vec<_> = (1..pieces).collect();
        served.check(row, &cuts);
    });
}

/// Of the places where a request can be cut, so many are tried: others in each row.
const CUTS: usize = 100;

#[test]
fn every_request_cut_in_two_has_the_same_answer() {
    let served = Served::start();
    served.every(|n, row| {
        let step = row.request.len().div_ceil(CUTS);
        for cut in (1 + n % step..row.request.len()).step_by(step) {
            served.check(row, &[cut]);
        }
    });
}

#[test]
fn requests_one_behind_the_other_have_their_answers_in_order() {
    let served = Served::start();
    let (living, ending): (Vec<_>, Vec<_>) = served.rows.iter().partition(|row| row.lives);
    let mut living = living.into_iter().cycle();
    for last in ending {
        let packet: Vec<_> = living.by_ref().take(5).chain([last]).collect();
        let requests: Vec<_> = packet.iter().flat_map(|row| row.request.clone()).collect();
        let answers: Vec<_> = packet.iter().flat_map(|row| row.answer.clone()).collect();
        let bytes = [&requests, last.behind].concat();
        let seen = exchange(served.server.addr(), bytes);
        assert_same(&requests, &[], &seen, &answers);
    }
}

/// How curl is called, URL is the server's, and what it then receives.
const CURL: Table = &[
    ("URL", INDEX, LIVES),
    ("URL/HASH", BLOCK, LIVES),
    ("--http1.1 URL/HASH", BLOCK, LIVES),
    ("--http1.0 URL/HASH", BLOCK, ENDS),
    ("--http1.0 -H Connection:keep-alive URL/HASH", BLOCK, KEPT),
    ("-H Connection:close URL/HASH", BLOCK, ENDS),
    ("-I URL", INDEX, LIVES),
    ("-I URL/HASH", BLOCK, LIVES),
    ("-I --http1.0 URL/HASH", BLOCK, ENDS),
    ("-I URL/nothing", ABSENT, LIVES),
    ("-I URL/blocks", ONLY_POST, LIVES),
    ("-I -H Host: URL/HASH", MALFORMED, ENDS),
    ("--compressed URL/HASH", BLOCK, LIVES),
    ("-r 0-0 URL/HASH", BLOCK, LIVES),
    ("-u user:word URL/HASH", BLOCK, LIVES),
    ("--http2 URL/HASH", BLOCK, LIVES),
    // In absolute form.
    ("-x URL http://psync.invalid/HASH", BLOCK, LIVES),
    ("-x URL http://psync.invalid:8080", INDEX, LIVES),
    ("-x URL -I http://psync.invalid/x", ABSENT, LIVES),
    ("--path-as-is URL/../HASH", ABSENT, LIVES),
    ("URL/HASH?x", ABSENT, LIVES),
    ("--request-target * URL", ABSENT, LIVES),
    ("-X OPTIONS --request-target * URL", ONLY_GET, LIVES),
    ("--request-target HASH URL", MALFORMED, ENDS),
    ("-X PUT URL/HASH", ONLY_GET, LIVES),
    ("-X BREW URL/HASH", UNKNOWN, ENDS),
    ("-d x URL/HASH", ONLY_GET, ENDS),
    ("-H Host: URL/HASH", MALFORMED, ENDS),
    ("-H Transfer-Encoding:chunked -d x URL", UNKNOWN, ENDS),
    ("-d HASH URL/blocks", FRAMES, LIVES),
    ("-d HASH --http1.0 URL/blocks", BARE_FRAMES, ENDS),
    ("-d HASH -H Connection:close URL/blocks", FRAMES, ENDS),
    ("-H Content-Length:0 -X POST URL/blocks", NO_FRAMES, LIVES),
    (
        "-H Transfer-Encoding:chunked -d HASH URL/blocks",
        UNKNOWN,
        ENDS,
    ),
    ("-d x URL/blocks", MALFORMED, ENDS),
    ("-X POST URL/blocks", LENGTHLESS, ENDS),
];

#[test]
fn curl_receives_every_answer_as_it_is() {
    let served = Served::start();
    let (block, url) = (random(BLOCK_SIZE, 1), served.server.url());
    for (call, answer, connection) in CURL {
        let call = call.replace("HASH", &hash_hex(&block)).replace("URL", &url);
        let to_head = call.split(' ').any(|word| word == "-I");
        // Heads and bodies as they come; with `-f` unset no status is an error.
        let out = tool!("curl", "-sS", "-i", "--raw").args(call.split(' '));
        let seen = out.no_env("http_proxy").run().ok().stdout;
        let due = due(answer, connection, to_head, &block);
        assert_same(call.as_bytes(), &[], &seen, &due);
    }
}
