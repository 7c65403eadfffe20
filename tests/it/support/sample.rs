//! What most tests begin with: of the server one block, of `get` a file, its hashlist, and the command
//! line that resolves it.

use std::fmt::Display;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    BLOCK_SIZE, BlockMap, HostileServer, Output, Run, TempDir, block_map, blocks, hash_hex,
    hashlist, psync, random, write_blocks,
};

/// A directory with one block, and the block's target.
pub fn one_block() -> (TempDir, String) {
    let (dir, block) = (TempDir::new(), random(BLOCK_SIZE, 1));
    write_blocks(&dir, &block);
    (dir, format!("/{}", hash_hex(&block)))
}

/// A list of so many lines, whose blocks, in `blocks` of the directory, are four in turn.
pub fn long_list(dir: &TempDir, lines: usize) -> PathBuf {
    let list = write_blocks(dir.join("blocks"), &random(4 * BLOCK_SIZE, 8));
    dir.file("list", list.repeat(lines / 4))
}

/// Runs a `get` that succeeds, its output thrown away, and returns the most memory that it took, in KiB.
#[track_caller]
pub fn peak_of(get: Run) -> u64 {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let get = get.stdout_to(null).limit(Duration::from_secs(300));
    let (out, peak) = get.measured();
    assert_eq!(out.status, 0, "{out}");
    peak
}

#[derive(Debug)]
pub struct Sample {
    pub bytes: Vec<u8>,
    pub dir: TempDir,
    /// The hashlist, in `dir`.
    pub list: PathBuf,
}

impl Sample {
    /// So many whole blocks and a short one.
    pub fn new(whole: usize) -> Self {
        let bytes = random(whole * BLOCK_SIZE + 5, 41);
        let dir = TempDir::new();
        let list = dir.file("list", hashlist(&bytes));
        Self { bytes, dir, list }
    }

    pub fn map(&self) -> BlockMap {
        block_map(&self.bytes)
    }

    /// Those blocks whose number, from 0, is such a one.
    pub fn having(&self, has: impl Fn(usize) -> bool) -> BlockMap {
        let had = blocks(&self.bytes).enumerate().filter(|(n, _)| has(*n));
        had.map(|(_, block)| (hash_hex(block), block.to_vec()))
            .collect()
    }

    /// The nth block, from 0.
    pub fn block(&self, n: usize) -> &[u8] {
        blocks(&self.bytes).nth(n).unwrap()
    }

    pub fn hash(&self, n: usize) -> String {
        hash_hex(self.block(n))
    }

    pub fn honest(&self) -> HostileServer {
        HostileServer::honest(&self.bytes)
    }

    /// `psync get SERVER... HASHLIST`, one request at a time and no second round; options that
    /// follow come first.
    pub fn get(&self, servers: &[&dyn Display]) -> Run {
        let servers = servers.iter().map(ToString::to_string);
        // Where there is no network, looking up a name that does not exist shall fail soon.
        psync!("get")
            .args(servers)
            .arg(&self.list)
            .args(["-j", "1", "--retry", "0"])
            .env("RES_OPTIONS", "timeout:1 attempts:1")
    }

    /// The whole file on stdout, exit 0, and not a word.
    #[track_caller]
    pub fn is_whole(&self, output: Output) {
        assert!(output.ok().stdout == self.bytes, "not the file");
    }

    /// The file as far as block `n`, from 0, which nobody gave for these reasons: `SERVER: REASON`.
    #[track_caller]
    pub fn ends_before(&self, n: usize, output: Output, reasons: &[&str]) {
        let reasons = reasons
            .iter()
            .map(|why| format!("psync: ask http://{why}\n"));
        let stderr = self.lacks(n) + &reasons.collect::<String>();
        let output = output.fails(3, &stderr);
        assert!(
            output.stdout == self.bytes[..n * BLOCK_SIZE],
            "not the file's beginning"
        );
    }

    /// The first line of the complaint that block `n` is missing.
    pub fn lacks(&self, n: usize) -> String {
        let (hash, number, of) = (self.hash(n), n + 1, blocks(&self.bytes).len());
        format!(
            "psync: get {hash}: block {number} of {of}: no server gave it; the output ends before it\n"
        )
    }
}
