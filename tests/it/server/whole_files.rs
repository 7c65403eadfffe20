//! `psync server --file`: the blocks of whole files from where they lie, while they are being read,
//! changed, cut, replaced or removed, with nothing beside them and little in memory.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::*;

const BLOCK: u64 = BLOCK_SIZE as u64;

fn command<F: AsRef<OsStr>>(files: impl IntoIterator<Item = F>) -> Run {
    files.into_iter().fold(psync!("server"), |run, file| {
        run.arg("--file").arg(file.as_ref())
    })
}

#[track_caller]
fn serve<F: AsRef<OsStr>>(files: impl IntoIterator<Item = F>) -> Server {
    Server::of(command(files).arg("127.0.0.1:0"))
}

fn frames<'b>(blocks: impl IntoIterator<Item = &'b [u8]>) -> Vec<u8> {
    blocks.into_iter().flat_map(frame).collect()
}

/// What `POST /blocks` answers.
#[track_caller]
fn post(addr: SocketAddr, list: &str) -> Vec<u8> {
    let length = list.len();
    let head = "POST /blocks HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    let mut client = Client::connect(addr);
    client.send(format!("{head}Content-Length: {length}\r\n\r\n{list}"));
    let answer = client.response();
    assert_eq!(answer.status, 200);
    answer.body
}

/// Whether the block is there: right, or else absent.
#[track_caller]
fn has(server: &Server, block: &[u8]) -> bool {
    let answer = get(server.addr(), &format!("/{}", hash_hex(block)));
    match answer.status {
        200 => assert!(answer.body == *block, "wrong bytes"),
        status => assert_eq!(status, 404),
    }
    answer.status == 200
}

/// Whether all blocks of `bytes` are served; 1024 at most.
#[track_caller]
pub fn serves(server: &Server, bytes: &[u8]) -> bool {
    post(server.addr(), &hashlist(bytes)) == frames(blocks(bytes))
}

/// Waits until they are.
#[track_caller]
pub fn wait_for(server: &Server, bytes: &[u8]) {
    wait_until("all blocks", || serves(server, bytes));
}

/// What the server has open, by its descriptor.
fn open_files(server: &Server) -> Vec<(OsString, PathBuf)> {
    let links = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let target = |link: fs::DirEntry| Some((link.file_name(), fs::read_link(link.path()).ok()?));
    links.filter_map(|link| target(link.unwrap())).collect()
}

/// Files that the server has open which have no name any more.
fn nameless(server: &Server) -> usize {
    let files = open_files(server).into_iter();
    files
        .filter(|(_, path)| path.as_os_str().as_bytes().ends_with(b"(deleted)"))
        .count()
}

/// The descriptors by which the server has this file open: a new one where it was opened anew.
fn opened(server: &Server, path: &Path) -> Vec<OsString> {
    let files = open_files(server).into_iter();
    files
        .filter(|(_, open)| open == path)
        .map(|(descriptor, _)| descriptor)
        .collect()
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// A file of zeros that takes no room, but for these blocks at these places; changed long ago, so
/// that it is read once.
pub fn sparse(dir: &Path, size: u64, parts: &[(u64, &[u8])]) -> PathBuf {
    let path = dir.join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    // That was a change too.
    wait_until("the ctime is long ago", || {
        let ctime = u64::try_from(fs::metadata(&path).unwrap().ctime()).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        now > Duration::from_secs(ctime + 4)
    });
    path
}

#[test]
fn files_of_every_size_are_served_with_nothing_beside_them() {
    let dir = TempDir::new();
    let sizes = [0, 1, 4095, 4096, 4097, 8192, 64 * 4096, 300 * 4096 + 5];
    let contents = sizes.map(|size| random(size, size as u64));
    let file = |bytes: &Vec<u8>| dir.file(&bytes.len().to_string(), bytes);
    let files = contents.each_ref().map(file);
    let names = dir.names();
    let server = serve(&files);
    for bytes in &contents {
        wait_for(&server, bytes);
        assert!(blocks(bytes).take(20).all(|block| has(&server, block)));
        let list = dir.file("list", hashlist(bytes));
        if !bytes.is_empty() {
            let got = psync!("get", server.url(), &list).run().ok();
            assert!(got.stdout == *bytes);
        }
    }
    for absent in [&b""[..], &[0; 4096], &contents[7][..4095]] {
        assert!(!has(&server, absent));
    }
    fs::remove_file(dir.join("list")).unwrap();
    assert_eq!(dir.names(), names);
    assert_eq!(server.stop(), "");
    // Each alone too.
    for (file, bytes) in files.iter().zip(&contents) {
        wait_for(&serve([file]), bytes);
    }
}

#[test]
fn a_head_tells_the_length_and_sends_no_block() {
    let (dir, bytes) = (TempDir::new(), random(77, 1));
    let server = serve([dir.file("file", &bytes)]);
    wait_for(&server, &bytes);
    let mut client = Client::connect(server.addr());
    client.send(format!(
        "HEAD /{} HTTP/1.1\r\nHost: test\r\n\r\n",
        hash_hex(&bytes)
    ));
    let answer = client.response_to_head();
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (200, Some("77"))
    );
}

/// `get -o` and `server --file` make a peer.
#[test]
fn who_has_got_a_file_serves_it_to_the_next() {
    let (a, b, c) = (TempDir::new(), TempDir::new(), TempDir::new());
    let bytes = random(500 * BLOCK_SIZE + 9, 3);
    let image = a.file("image", &bytes);
    let list = psync!("export", "-d", a.join("blocks"), image).run().ok();
    let list = a.file("list", list.stdout);
    let first = Server::start(a.join("blocks"));
    let (at_b, at_c) = (b.join("image"), c.join("image"));
    psync!("get", "-o", &at_b, first.url(), &list).run().ok();
    first.stop();
    let second = serve([&at_b]);
    wait_for(&second, &bytes);
    psync!("get", "-o", &at_c, second.url(), &list).run().ok();
    assert!(fs::read(at_c).unwrap() == bytes);
    assert_eq!(
        (b.names(), c.names()),
        (vec!["image".to_owned()], vec!["image".to_owned()])
    );
}

#[test]
fn a_get_that_renames_a_new_version_into_place_is_noticed() {
    let (dir, other) = (TempDir::new(), TempDir::new());
    let old = random(20 * BLOCK_SIZE, 1);
    let mut new = old.clone();
    new[7 * BLOCK_SIZE..8 * BLOCK_SIZE].copy_from_slice(&random(BLOCK_SIZE, 2));
    let file = dir.file("file", &old);
    let server = serve([&file]);
    wait_for(&server, &old);
    let blocks = other.join("blocks");
    let list = other.file("list", write_blocks(&blocks, &new));
    let from = Server::start(&blocks);
    psync!("get", "-o", &file, from.url(), &list).run().ok();
    // What the two have in common is there all the time.
    let common = &old[8 * BLOCK_SIZE..];
    let (common, due) = (hashlist(common), frames(common.chunks(BLOCK_SIZE)));
    wait_until("the new block", || {
        assert!(post(server.addr(), &common) == due);
        has(&server, &new[7 * BLOCK_SIZE..8 * BLOCK_SIZE])
    });
    wait_for(&server, &new);
    wait_until("the old file is let go", || nameless(&server) == 0);
    assert!(!has(&server, &old[7 * BLOCK_SIZE..8 * BLOCK_SIZE]));
    assert_eq!(server.stop(), "");
}

#[test]
fn a_block_that_is_overwritten_is_absent_and_the_new_one_is_found() {
    let (dir, bytes) = (TempDir::new(), random(9 * BLOCK_SIZE, 1));
    let file = dir.file("file", &bytes);
    let server = serve([&file]);
    wait_for(&server, &bytes);
    let new = random(BLOCK_SIZE, 2);
    overwrite(&file, 3 * BLOCK, &new);
    assert!(!has(&server, &bytes[3 * BLOCK_SIZE..4 * BLOCK_SIZE]));
    assert!(has(&server, &bytes[4 * BLOCK_SIZE..5 * BLOCK_SIZE]));
    wait_until("the new block", || has(&server, &new));
    assert!(!has(&server, &bytes[3 * BLOCK_SIZE..4 * BLOCK_SIZE]));
}

/// As `cp -p` or `rsync --inplace -t` leaves it.
#[test]
fn a_change_that_keeps_size_and_mtime_is_noticed() {
    let dir = TempDir::new();
    let versions = [1, 2, 3].map(|seed| random(9 * BLOCK_SIZE, seed));
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let stamped = |name: &str, bytes: &Vec<u8>| {
        let path = dir.file(name, bytes);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(then).unwrap();
        path
    };
    let file = stamped("file", &versions[0]);
    let server = serve([&file]);
    wait_for(&server, &versions[0]);
    let before = fs::metadata(&file).unwrap();
    // The first might be found because the file was made just now; the second is not.
    for new in &versions[1..] {
        tool!("cp", "-p", stamped("new", new), &file).run().ok();
        let after = fs::metadata(&file).unwrap();
        assert_eq!(
            (after.ino(), after.len(), after.modified().unwrap()),
            (before.ino(), before.len(), then)
        );
        wait_for(&server, new);
    }
    assert!(!has(&server, &versions[1][..BLOCK_SIZE]));
    assert_eq!(server.stop(), "");
}

/// Which change the ctime as a change of the content does.
#[test]
fn a_new_mode_or_link_costs_a_reading_and_no_block() {
    let dir = TempDir::new();
    let size = 256 << 20;
    let (first, last) = (random(BLOCK_SIZE, 1), random(BLOCK_SIZE, 2));
    let file = sparse(&dir, size, &[(0, &first), (size - BLOCK, &last)]);
    let server = serve([&file]);
    wait_for(&server, &last);
    let change: [&dyn Fn(); 2] = [
        &|| fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap(),
        &|| fs::hard_link(&file, dir.join("link")).unwrap(),
    ];
    for change in change {
        let before = opened(&server, &file);
        change();
        wait_until("it is read anew, and only then let go", || {
            assert!(has(&server, &first) && has(&server, &last));
            let now = opened(&server, &file);
            now.len() == 1 && now != before
        });
        assert!(has(&server, &first) && has(&server, &last));
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn of_a_block_that_lies_at_many_places_another_is_tried() {
    let (dir, one, other) = (TempDir::new(), random(BLOCK_SIZE, 1), random(BLOCK_SIZE, 2));
    let zeros = vec![0; 50 * BLOCK_SIZE];
    let bytes = [&one[..], &zeros, &one, &one, &zeros].concat();
    let file = dir.file("file", &bytes);
    let server = serve([&file]);
    wait_for(&server, &bytes);
    overwrite(&file, 0, &other);
    assert!(has(&server, &one) && has(&server, &zeros[..BLOCK_SIZE]));
    wait_until("the new block", || has(&server, &other));
    assert!(has(&server, &one));
}

#[test]
fn a_file_that_is_cut_or_grows_is_served_as_far_as_it_is_right() {
    let (dir, bytes) = (TempDir::new(), random(9 * BLOCK_SIZE + 100, 1));
    let file = dir.file("file", &bytes);
    let server = serve([&file]);
    wait_for(&server, &bytes);
    let open = OpenOptions::new().append(true).open(&file).unwrap();
    // Into the middle of block 4, whose beginning becomes the last block.
    let cut = 4 * BLOCK_SIZE + 50;
    open.set_len(cut as u64).unwrap();
    for n in 4..10 {
        assert!(!has(&server, blocks(&bytes).nth(n).unwrap()), "{n}");
    }
    assert!(has(&server, &bytes[3 * BLOCK_SIZE..4 * BLOCK_SIZE]));
    wait_for(&server, &bytes[..cut]);
    (&open).write_all(&bytes[cut..]).unwrap();
    assert!(!has(&server, &bytes[4 * BLOCK_SIZE..cut]));
    wait_for(&server, &bytes);
    open.set_len(0).unwrap();
    assert!(!has(&server, &bytes[..BLOCK_SIZE]));
    assert_eq!(server.stop(), "");
}

#[test]
fn a_file_without_a_name_is_served_on_until_there_is_another() {
    let (dir, old, new) = (TempDir::new(), random(9000, 1), random(9000, 2));
    let file = dir.file("file", &old);
    let server = serve([&file]);
    wait_for(&server, &old);
    fs::remove_file(&file).unwrap();
    wait_for(&server, &old);
    // What cannot be served is told once, and changes nothing.
    fs::create_dir(&file).unwrap();
    let told = server.wait_stderr(|told| told.ends_with(b"\n"));
    let told = String::from_utf8(told).unwrap();
    let due = format!("psync: serve {}: is a directory\n", file.display());
    assert_eq!(told.to_lowercase(), due);
    wait_for(&server, &old);
    assert_eq!(nameless(&server), 1);
    fs::remove_dir(&file).unwrap();
    fs::write(&file, &new).unwrap();
    wait_for(&server, &new);
    wait_until("the old file is let go", || nameless(&server) == 0);
    assert!(!has(&server, &old[..BLOCK_SIZE]));
    assert_eq!(server.stop().to_lowercase(), due);
}

#[test]
fn what_is_read_already_is_served_while_the_rest_is_still_read() {
    let (dir, first, last) = (TempDir::new(), random(BLOCK_SIZE, 1), random(BLOCK_SIZE, 2));
    // Takes seconds to hash on any machine.
    let size = 16 << 30;
    let file = sparse(&dir, size, &[(0, &first), (size - BLOCK, &last)]);
    let later = dir.file("later", random(BLOCK_SIZE, 3));
    let server = serve([&file, &later]);
    let list = hashlist(&[&first[..], &last].concat());
    let halfway = [&frames([&first[..]])[..], &[0, 0]].concat();
    wait_until("the first block", || {
        let answer = post(server.addr(), &list);
        answer == halfway || answer != [0; 4] && panic!("the last block is there too early")
    });
    // It may even be cut meanwhile, to its last block.
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    open.set_len(BLOCK).unwrap();
    wait_for(&server, &first);
    wait_for(&server, &random(BLOCK_SIZE, 3));
    assert!(!has(&server, &last));
    assert_eq!(server.stop(), "");
}

#[test]
fn blocks_come_from_the_files_and_from_the_directory() {
    let (dir, blocks_dir) = (TempDir::new(), TempDir::new());
    let both = random(3 * BLOCK_SIZE, 1);
    let (in_file, in_dir) = (random(BLOCK_SIZE, 2), random(BLOCK_SIZE, 3));
    let file = dir.file("file", [&both[..], &in_file].concat());
    write_blocks(&blocks_dir, &[&both[..], &in_dir].concat());
    let run = command([&file]).arg("-d").arg(&blocks_dir);
    let server = Server::of(run.arg("127.0.0.1:0"));
    let absent = random(BLOCK_SIZE, 4);
    let due = [
        &frames([&in_dir[..], &in_file])[..],
        &[0, 0],
        &frames(both.chunks(BLOCK_SIZE)),
    ];
    let due = due.concat();
    let list = hashlist(&[&in_dir[..], &in_file, &absent, &both].concat());
    wait_until("all of them", || post(server.addr(), &list) == due);
    // Damaged in the directory, damaged in the file, damaged in both.
    let stored = |n: usize| blocks_dir.join(hash_hex(&both[n * BLOCK_SIZE..][..BLOCK_SIZE]));
    for n in [0, 2] {
        fs::write(stored(n), "damaged").unwrap();
    }
    overwrite(&file, BLOCK + 5, b"damaged");
    overwrite(&file, 2 * BLOCK + 5, b"damaged");
    let there = [0, 1, 2].map(|n| has(&server, &both[n * BLOCK_SIZE..][..BLOCK_SIZE]));
    assert_eq!(there, [true, true, false]);
}

#[test]
fn the_default_directory_need_not_be_there_nor_be_known() {
    let (dir, bytes) = (TempDir::new(), random(9000, 1));
    let file = dir.file("file", &bytes);
    let run = || command([&file]).arg("127.0.0.1:0");
    wait_for(&Server::of(run().no_env("HOME")), &bytes);
    wait_for(
        &Server::of(run().env("PSYNC_DIR", dir.join("none"))),
        &bytes,
    );
    assert_eq!(dir.names(), ["file"]);
    let none = dir.join("none");
    let out = run().arg("-d").arg(&none).run();
    out.fails(
        1,
        &format!(
            "psync: serve {}: No such file or directory\n",
            none.display()
        ),
    );
}

#[test]
fn what_is_no_file_is_told_at_once() {
    let dir = TempDir::new();
    let good = dir.file("good", "x");
    fs::create_dir(dir.join("directory")).unwrap();
    let fifo = dir.join("fifo");
    tool!("mkfifo", &fifo).run().ok();
    symlink("nowhere", dir.join("dangling")).unwrap();
    let neither = "neither a file nor a block device";
    for (name, cause) in [
        ("missing", "No such file or directory"),
        ("dangling", "No such file or directory"),
        ("good/x", "Not a directory"),
        ("directory", "is a directory"),
        ("fifo", neither),
        ("/dev/null", neither),
    ] {
        let path = dir.join(name);
        let out = command([&good, &path]).arg("127.0.0.1:0").run();
        assert!(out.stdout.is_empty());
        out.fails(1, &format!("psync: serve {}: {cause}\n", path.display()));
    }
    let private = dir.file("private", "x");
    fs::set_permissions(&private, PermissionsExt::from_mode(0o000)).unwrap();
    let out = command([&private]).arg("127.0.0.1:0").powerless().run();
    out.fails(
        1,
        &format!("psync: serve {}: Permission denied\n", private.display()),
    );
    let out = psync!("server", "127.0.0.1:0", "--file").run();
    out.fails_naming(2, &["--file: its value is missing"]);
}

#[test]
fn a_file_may_be_given_twice_and_have_any_name() {
    let (dir, bytes) = (TempDir::new(), random(9000, 1));
    let file = dir.file("file", &bytes);
    let link = dir.join("link");
    symlink(&file, &link).unwrap();
    wait_for(&serve([&file, &file, &link]), &bytes);
    for name in [
        OsStr::from_bytes(b"\xff"),
        OsStr::new("-x"),
        OsStr::new("-"),
        OsStr::new("a=b\n\x1b[31m"),
    ] {
        fs::rename(&file, dir.join(name)).unwrap();
        let server = Server::of(command([name]).arg("127.0.0.1:0").cwd(&dir));
        wait_for(&server, &bytes);
        fs::rename(dir.join(name), &file).unwrap();
    }
    let server = Server::of(psync!("server", "--file=file", "127.0.0.1:0").cwd(&dir));
    wait_for(&server, &bytes);
}

#[test]
fn few_descriptors_are_enough_and_too_few_are_told() {
    let (dir, bytes) = (TempDir::new(), random(9000, 1));
    let files = [0, 1, 2].map(|n| dir.file(&n.to_string(), &bytes[n..]));
    let run = command(&files).arg("127.0.0.1:0");
    let server = Server::of(run.sh("ulimit -n 12"));
    for n in 0..3 {
        wait_for(&server, &bytes[n..]);
    }
    let many: Vec<_> = (0..40).map(|n| dir.file(&n.to_string(), "x")).collect();
    let out = command(&many).arg("127.0.0.1:0").sh("ulimit -n 12").run();
    out.fails_naming(
        1,
        &["psync: serve ", ": Too many open files; see ulimit -n\n"],
    );
}

#[test]
fn an_index_takes_ten_bytes_a_block() {
    let (dir, last) = (TempDir::new(), random(5, 1));
    let small = serve([dir.file("small", &last)]);
    wait_for(&small, &last);
    // A GiB, 2.5 MiB.
    let large = serve([sparse(&dir, 1 << 30, &[(1 << 30, &last)])]);
    wait_for(&large, &last);
    let more = peak_kib(large.pid()).saturating_sub(peak_kib(small.pid()));
    // And the buffers of four threads.
    assert!(more < 2560 + 2048, "{more} KiB");
}

#[test]
fn what_does_not_fit_into_memory_is_told_once_and_the_rest_is_served() {
    let (dir, bytes) = (TempDir::new(), random(9000, 1));
    let good = dir.file("good", &bytes);
    let large = sparse(&dir, 0, &[]);
    let open = OpenOptions::new().write(true).open(&large).unwrap();
    for (tebibytes, mebibytes) in [(15, 38400), (17, 43520)] {
        if open.set_len(tebibytes << 40).is_err() {
            // ext4 ends at 16 TiB.
            continue;
        }
        let run = command([&large, &good]).arg("127.0.0.1:0");
        let server = Server::of(run.sh("ulimit -v 1000000"));
        wait_for(&server, &bytes);
        let due = format!(
            "psync: serve {}: its index of {mebibytes} MiB does not fit into memory\n",
            large.display()
        );
        if tebibytes == 15 {
            // Made smaller it is served, and nothing more is told.
            open.set_len(BLOCK).unwrap();
            wait_for(&server, &[0; BLOCK_SIZE]);
        }
        assert_eq!(server.stop(), due);
    }
}

#[test]
fn a_terminal_is_shown_how_far_the_index_is() {
    let (dir, bytes) = (TempDir::new(), random(200 * BLOCK_SIZE, 1));
    let file = dir.file("file", &bytes);
    let command = "exec \"$PSYNC\" server --file \"$FILE\" 127.0.0.1:0 >\"$OUT\"";
    let (script, _typist) = at_terminal(command);
    let script = script.env("FILE", &file).env("OUT", dir.join("out"));
    let running = script.start();
    let clear = "\r\x1b[K";
    let screen =
        running.wait_stdout(|screen| screen.len() > 3 && screen.ends_with(clear.as_bytes()));
    let screen = String::from_utf8(screen).unwrap();
    let mut drawn = screen.split(clear).filter(|line| !line.is_empty());
    let is_progress = |line: &str| line.contains("/200 blocks  ") && line.ends_with("  indexed");
    assert!(
        drawn.clone().count() > 0 && drawn.all(is_progress),
        "{screen:?}"
    );
    let out = fs::read_to_string(dir.join("out")).unwrap();
    assert!(out.starts_with("listening on ") && out.lines().count() == 1);
}

/// Bytes that the process has read, files and sockets.
fn bytes_read(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
#[ignore = "ten seconds"]
fn slow_a_file_that_is_written_all_the_time_is_not_read_all_the_time() {
    let dir = TempDir::new();
    let size = 64 << 20;
    let (last, new) = (random(5, 1), random(5, 2));
    let file = sparse(&dir, size, &[(size, &last)]);
    let server = serve([&file]);
    wait_for(&server, &last);
    let before = bytes_read(server.pid());
    let end = Instant::now() + Duration::from_secs(10);
    for n in 0.. {
        overwrite(&file, n % 1000 * BLOCK, b"new");
        if Instant::now() > end {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let read = bytes_read(server.pid()) - before;
    assert!(read < size, "{read} bytes");
    overwrite(&file, size, &new);
    wait_for(&server, &new);
    let read = bytes_read(server.pid()) - before;
    assert!((size..3 * size).contains(&read), "{read} bytes");
}

/// A change in the same tick of the clock would not show.
#[test]
#[ignore = "ten seconds each, and the server must start within two"]
fn slow_a_file_that_was_changed_just_now_is_read_once_more() {
    // With the second only the ctime is of now.
    for modified in [SystemTime::now(), SystemTime::UNIX_EPOCH] {
        let dir = TempDir::new();
        let size = 64 << 20;
        let file = sparse(&dir, size, &[]);
        let open = OpenOptions::new().write(true).open(&file).unwrap();
        open.set_modified(modified).unwrap();
        let server = serve([&file]);
        let twice = || (2 * size..3 * size).contains(&bytes_read(server.pid()));
        wait_until("read twice", twice);
        thread::sleep(Duration::from_secs(5));
        assert!(twice(), "and no more");
    }
}

#[test]
#[ignore = "hashes five gigabytes"]
fn slow_five_sparse_gigabytes_are_served_to_the_last_byte() {
    let (dir, last) = (TempDir::new(), random(7, 1));
    let size = 5 << 30;
    let server = serve([sparse(&dir, size, &[(size, &last)])]);
    wait_for(&server, &last);
    wait_for(&server, &[0; BLOCK_SIZE]);
    let zeros = hash_hex(&[0; BLOCK_SIZE]) + "\n";
    let list = zeros.repeat((size / BLOCK) as usize) + &hashlist(&last);
    let (list, out) = (dir.file("list", list), dir.join("out"));
    let got = psync!("get", "-o", &out, server.url(), &list).limit(Duration::from_secs(180));
    got.run().ok();
    assert_eq!(fs::metadata(out).unwrap().len(), size + 7);
}

#[test]
#[ignore = "a loop device"]
fn root_a_block_device_is_served() {
    let (dir, bytes) = (TempDir::on_disk(), random(300 * BLOCK_SIZE, 1));
    let image = dir.file("image", &bytes);
    let out = tool!("losetup", "--show", "-f", &image).run();
    if out.status != 0 {
        skip!("no loop device: {}", out.stderr);
    }
    let device = out.text().trim().to_owned();
    let server = serve([&device]);
    let whole = std::panic::catch_unwind(|| {
        wait_for(&server, &bytes);
        // What is written by the same name changes the times of that.
        for at in 1..3 {
            let new = random(BLOCK_SIZE, at + 1);
            overwrite(Path::new(&device), at * BLOCK, &new);
            let at = at as usize * BLOCK_SIZE;
            assert!(!has(&server, &bytes[at..at + BLOCK_SIZE]));
            wait_until("the new block", || has(&server, &new));
        }
    });
    drop(server);
    tool!("losetup", "-d", device).run().ok();
    assert!(whole.is_ok());
}
