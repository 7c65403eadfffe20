//! Answers to `get`, of servers that send anything at all: the whole of `psync get`, over a socket.
//! Whatever comes, only right blocks may be written, and the file only if it is complete.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::{env, fs, process, thread};

use crate::block::BLOCK_SIZE;
use crate::cli::{self, Command};
use crate::get;
use crate::hash::Hash;

/// Stands for the whole block in what is mutated, so that most mutations meet what surrounds it.
const MARK: u8 = 0xb1;
const LAST: &[u8] = b"last.";

/// Good answers, of every kind: two blocks in frames, in one chunk or more, by length or to the end
/// of the connection; one, or none; refusals.
pub fn good() -> Vec<Vec<u8>> {
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}\r\n").into_bytes();
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let length = |n: usize| head(&format!("Content-Length: {n}\r\n"));
    let block: &[u8] = &[MARK];
    vec![
        [
            &chunked,
            &b"1009\r\n\x10\0"[..],
            block,
            b"\0\x05last.\r\n0\r\n\r\n",
        ]
        .concat(),
        [
            &chunked,
            &b"1002\r\n\x10\0"[..],
            block,
            b"\r\n7\r\n\0\x05last.\r\n0\r\n\r\n",
        ]
        .concat(),
        [&chunked, &b"4\r\n\0\0\0\0\r\n0\r\n\r\n"[..]].concat(),
        [&length(4105), &b"\x10\0"[..], block, b"\0\x05last."].concat(),
        [
            &head("Connection: close\r\n"),
            &b"\x10\0"[..],
            block,
            b"\0\0",
        ]
        .concat(),
        [&length(4096), block].concat(),
        [&length(5), LAST].concat(),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nNot Found\n".to_vec(),
        b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec(),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\0\0".to_vec(),
    ]
}

/// A server that answers every request with the same bytes.
struct World {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    dir: PathBuf,
    block: Vec<u8>,
    file: Vec<u8>,
}

static WORLD: OnceLock<World> = OnceLock::new();

fn world() -> &'static World {
    WORLD.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::clone(&answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(&stream, &answers);
            }
        });
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() {
            memory
        } else {
            env::temp_dir()
        };
        let dir = base.join(format!("psync-fuzz-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let block: Vec<u8> = (0..BLOCK_SIZE).map(|n| (n * 7 % 251) as u8).collect();
        // Zeros are not asked for: with them the list is long enough for one request for the others.
        let file = [&[0; 2 * BLOCK_SIZE][..], &block, LAST].concat();
        let lines = file
            .chunks(BLOCK_SIZE)
            .map(|block| Hash::of(block).to_string() + "\n");
        fs::write(dir.join("list"), lines.collect::<String>()).unwrap();
        World {
            address,
            answer,
            dir,
            block,
            file,
        }
    })
}

/// One answer a connection, so that nothing has to be told apart.
fn serve(mut stream: &TcpStream, answer: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
                rest.lines()
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0)
            });
            if body.len() >= length {
                break;
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
    let answer = answer.lock().unwrap().clone();
    stream.write_all(&answer)
}

/// Whether these answers bring the whole file.
///
/// # Panics
/// When `psync get` does, writes what is wrong, or says anything else than done or not to be had.
pub fn check(data: &[u8]) -> bool {
    let world = world();
    let answer = data.iter().flat_map(|byte| match *byte {
        MARK => &world.block[..],
        _ => std::slice::from_ref(byte),
    });
    // The mark is one byte long, and many of them are much.
    *world.answer.lock().unwrap() = answer.copied().take(1 << 20).collect();
    let file = &world.file;
    let (out, part) = (world.dir.join("out"), world.dir.join("out.part"));
    let words = [
        "psync",
        "get",
        "-q",
        "-j",
        "1",
        "--retry",
        "0",
        "--timeout",
        "20",
        "-o",
    ];
    let mut words: Vec<OsString> = words.map(OsString::from).into();
    words.extend([
        out.clone().into(),
        format!("http://{}", world.address).into(),
        world.dir.join("list").into(),
    ]);
    let Ok(Command::Get(options)) = cli::parse(words.into_iter(), |_| None) else {
        panic!("the command line is not understood");
    };
    let is_whole = match get::run(options) {
        Ok(()) => {
            assert!(fs::read(&out).unwrap() == *file);
            true
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 3);
            assert!(!out.exists());
            let part = fs::read(&part).unwrap_or_default();
            for (part, block) in part.chunks(BLOCK_SIZE).zip(file.chunks(BLOCK_SIZE)) {
                assert!(part == &block[..part.len()] || part.iter().all(|&byte| byte == 0));
            }
            false
        }
    };
    let _ = fs::remove_file(&out);
    let _ = fs::remove_file(&part);
    is_whole
}

/// Takes away what was written.
pub fn clean() {
    if let Some(world) = WORLD.get() {
        let _ = fs::remove_dir_all(&world.dir);
    }
}
