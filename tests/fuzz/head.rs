//! Heads of requests: whatever the parser makes of them must be what a second, plain reading of the
//! same bytes finds there, and must not change with what follows.

use crate::http::{self, After, MAX_HEAD, Request, Status, Wanted};
use crate::mutate::Dice;

const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Good heads, of every kind.
pub fn good() -> Vec<Vec<u8>> {
    [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /HASH HTTP/1.1\r\nHost: box.example:8080\r\nUser-Agent: psync\r\nAccept: */*\r\n\r\n",
        "HEAD /HASH HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
        "GET /HASH HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        "GET /HASH HTTP/1.0\r\n\r\n",
        "\r\nGET http://a:80/HASH HTTP/1.1\r\nHost: a\r\nConnection: x, keep-alive\r\n\r\n",
        "GET /peers HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\nHASH\n",
        "POST /blocks HTTP/1.1\r\nhost:a\r\nExpect: 100-continue\r\nContent-Length: 67584\r\n\r\n",
        "POST /blocks HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        "GET /blocks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
        "OPTIONS * HTTP/1.1\r\nHost:\r\nX-Empty:\r\n!#$%&'*+-.^_`|~: \t x \t\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /HASH HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .map(|text| text.replace("HASH", HASH).into_bytes())
    .into()
}

/// Whether `bytes` begin with a head that is accepted.
///
/// # Panics
/// When the parser is wrong about them, or about the first so many of them.
pub fn check(bytes: &[u8]) -> bool {
    let cut = Dice::of(bytes).below(bytes.len() + 1);
    let parsed = http::parse(bytes);
    let Some((request, length)) = parsed else {
        // Nobody can have the server wait for ever longer heads.
        assert!(bytes.len() <= MAX_HEAD + 3);
        assert_eq!(http::parse(&bytes[..cut]), None, "a head that was there");
        return false;
    };
    assert!((1..=bytes.len()).contains(&length));
    let broken = matches!(request.wanted, Wanted::Refusal(status) if status != Status::NOT_FOUND);
    // What came first stays what it was, however much has followed.
    if let Some((first, first_length)) = http::parse(&bytes[..cut]) {
        let same_length = if broken { cut } else { length };
        // A method is known only once it is there.
        let head_only = first.head_only;
        assert_eq!(
            first,
            Request {
                head_only,
                ..request
            }
        );
        assert_eq!(first_length, same_length);
    } else {
        assert!(broken || cut < length);
    }
    if broken {
        assert!(request.after == After::Close && length == bytes.len());
    } else {
        let head = &bytes[..length];
        assert_eq!(http::parse(head), parsed);
        assert_eq!(http::parse(&head[..length - 1]), None);
        assert_reads_as(head, &request);
    }
    check_answers(&request);
    !broken
}

/// A second reading, of a head that was accepted.
fn assert_reads_as(head: &[u8], request: &Request) {
    assert!(head.len() <= MAX_HEAD);
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines = head.split(|&c| c == b'\n').map(|line| {
        // Every line has its CRLF, and no other CR.
        assert!(line.is_empty() || line.iter().position(|&c| c == b'\r') == Some(line.len() - 1));
        String::from_utf8_lossy(&line[..line.len().saturating_sub(1)]).to_ascii_lowercase()
    });
    let lines: Vec<_> = lines.collect();
    // The first empty line is the last but for what split() finds behind the last LF.
    assert_eq!(
        lines.iter().position(String::is_empty),
        Some(lines.len() - 2)
    );
    assert!(!head.contains(&0));
    let words: Vec<_> = lines[0].split(' ').collect();
    let [method, target, version] = words[..] else {
        panic!("{:?} is no request line", lines[0]);
    };
    let modern = version != "http/1.0";
    assert!(version.starts_with("http/1.") && version.len() == 8);
    let values = |name: &str| -> Vec<&str> {
        let fields = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let named = fields.filter(|(key, _)| *key == name);
        named
            .map(|(_, value)| value.trim_matches([' ', '\t']))
            .collect()
    };
    assert!(values("host").len() == 1 || (!modern && values("host").is_empty()));
    assert_eq!(values("transfer-encoding"), [""; 0]);
    let lengths = values("content-length");
    assert!(lengths.len() <= 1);
    let length: u64 = lengths.first().map_or(0, |digits| digits.parse().unwrap());
    let connection = values("connection").join(",");
    let says = |word| {
        connection
            .split(',')
            .any(|option| option.trim_matches([' ', '\t']) == word)
    };
    let keeps_alive = matches!(request.after, After::KeepAlive | After::AnnouncedKeepAlive);
    if keeps_alive {
        assert!(!says("close") && (modern || says("keep-alive")));
    }
    assert_eq!(
        request.after == After::AnnouncedKeepAlive,
        keeps_alive && !modern
    );
    assert_eq!(request.head_only, method == "head");
    match request.wanted {
        Wanted::Index => assert!(target == "/" || target.starts_with("http://")),
        Wanted::Peers => assert!(target.ends_with("/peers") && method != "post"),
        Wanted::Block(hash) => {
            let hash = format!("/{hash}");
            assert!(target == hash || (target.starts_with("http://") && target.ends_with(&hash)));
            let as_sent = head.windows(hash.len()).any(|part| part == hash.as_bytes());
            assert!(as_sent, "a hash in other letters");
        }
        Wanted::Blocks(list) => {
            assert!(method == "post" && target.ends_with("/blocks"));
            assert!(list.length as u64 == length && lengths.len() == 1 && length <= 67_584);
            assert!(list.max_lines() <= 1024 && list.chunked == modern);
            assert!(
                !list.awaits_continue || (modern && values("expect").contains(&"100-continue"))
            );
        }
        Wanted::NotAllowed(_) | Wanted::Refusal(_) => {}
    }
    if !matches!(request.wanted, Wanted::Blocks(_)) {
        assert!(!keeps_alive || length == 0, "a body that nobody reads");
    }
}

/// The head of an answer ends where it should, and says what becomes of the connection.
fn check_answers(request: &Request) {
    let mut out = Vec::new();
    match request.wanted {
        Wanted::Block(hash) => http::push_block_head(&mut out, request, &hash, 1),
        Wanted::Blocks(list) => http::push_blocks_head(&mut out, request, list),
        Wanted::Index | Wanted::Peers => {
            http::push_text(&mut out, request, Status::OK, b"text\n");
        }
        Wanted::NotAllowed(_) => {
            http::push_text(&mut out, request, Status::METHOD_NOT_ALLOWED, b"text\n");
        }
        Wanted::Refusal(status) => {
            http::push_text(&mut out, request, status, status.text().as_bytes());
        }
    }
    let text = String::from_utf8_lossy(&out);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let closes = matches!(request.after, After::Close | After::CloseNothingFollows);
    assert_eq!(head.contains("\r\nConnection: close"), closes);
    assert!(!request.head_only || body.is_empty());
}
