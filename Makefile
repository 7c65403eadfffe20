# What can be done here: `make help`. Only wraps cargo and the scripts of tests/; holds no logic of psync.

PREFIX ?= /usr/local
# Fresh from rustup, cargo is not yet on the PATH of the shell that installed it.
export PATH := $(PATH):$(HOME)/.cargo/bin

RUST   := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
BUILD  := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(BUILD)/release/psync
SOURCE := Cargo.toml Cargo.lock $(shell find src -type f)

define need-cargo
@command -v cargo >/dev/null || { \
    echo "psync needs Rust $(RUST) or newer, and cargo is missing: install it from https://rustup.rs or as your distribution's package" >&2; exit 1; }
endef

.PHONY: all demo test test-root test-cross test-peers test-bare fuzz mutants lint static cross dist bench install clean help

all: $(BINARY)                 # the release binary

$(BINARY): $(SOURCE)
	$(need-cargo)
	cargo build --locked --release

demo: $(BINARY)                # export, serve, get and compare a real file (or FILE=...)
	@PSYNC='$(BINARY)' FILE='$(FILE)' sh tests/demo.sh

test:                          # every test, and with the feature tls those that it may change (or ONLY=name)
	$(need-cargo)
	@ONLY='$(ONLY)' sh tests/run.sh test

test-root:                     # the slow tests and, for root, those that only root can run (or ONLY=name)
	$(need-cargo)
	@ONLY='$(ONLY)' sh tests/run.sh root

test-cross:                    # psync for other processors, in emulation, with the one of this machine
	$(need-cargo)
	@ONLY='$(ONLY)' sh tests/run.sh cross

test-peers:                    # psync behind and by way of the large proxies
	$(need-cargo)
	@ONLY='$(ONLY)' sh tests/run.sh peers

test-bare:                     # what make test does on a machine without the programs that its tests run
	$(need-cargo)
	@sh tests/bare.sh

fuzz:                          # what strangers send, mutated, for SECONDS=20 each (tests/fuzz/README.md)
	$(need-cargo)
	cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml --target-dir '$(BUILD)/fuzz'
	for target in head hashlist body answer; do \
	    '$(BUILD)/fuzz/release/fuzz' $$target $(or $(SECONDS),20) $(or $(SEED),0) || exit; done

# The tests of tests/it that hold what unit tests leave of a file: all would take minutes for each change.
HOLDS_src/block.rs       := together::smoke:: get::local:: store::export::
HOLDS_src/get/sources/servers.rs := get::servers:: get::spread:: get::peers::
HOLDS_src/hashlist.rs    := get::hashlist::
HOLDS_src/root.rs        := get::by_root::
HOLDS_src/server/http.rs := server::http:: server::wire:: server::post_blocks::
HOLDS_src/store.rs       := store::block_dir:: want_of_descriptors server::http::
# A jobserver's descriptors would be missing to the tests that count them. CI, since a skipped test tells nothing.
MUTANTS := env -u CARGO_TARGET_DIR CI=true cargo mutants --jobserver false --config tests/mutants.toml --output '$(BUILD)'

mutants:                       # which changes of FILE=src/... no test tells (or TESTS="get::by_root get::runs" of tests/it)
	$(need-cargo)
	@cargo mutants --version >/dev/null 2>&1 || { echo 'cargo-mutants is missing: cargo install --locked cargo-mutants' >&2; exit 1; }
	@test -f '$(FILE)' || { echo 'usage: make mutants FILE=src/hash.rs' >&2; exit 2; }
	$(MUTANTS) --file '$(FILE)' -- --bin psync || [ $$? -le 3 ]
	$(MUTANTS) --file '$(FILE)' --iterate -- --test it -- $(or $(TESTS),$(HOLDS_$(FILE)),together::smoke::) || [ $$? = 3 ]

lint:                          # formatting, clippy, shellcheck
	$(need-cargo)
	cargo fmt --check
	cargo fmt --check --manifest-path tests/skippable/Cargo.toml
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features tls -- -D warnings
	cargo check --locked --manifest-path tests/fuzz/Cargo.toml --target-dir '$(BUILD)/fuzz'
	@if command -v shellcheck >/dev/null; then set -x; shellcheck -x .ci/run tests/*.sh tests/bench/*.sh share/psync.init share/completions/psync.bash; \
	else echo 'shellcheck is not installed: the shell scripts go unchecked'; fi

static:                        # a binary that needs no library of the machine it runs on
	$(need-cargo)
	@sh tests/static.sh

cross:                         # the same for TARGET=armv7-unknown-linux-gnueabihf, or another of Rust's
	$(need-cargo)
	@test -n '$(TARGET)' || { echo 'which? make cross TARGET=...; rustc --print target-list names them all' >&2; exit 1; }
	@sh tests/static.sh '$(TARGET)'

dist:                          # tarball, Debian package and sums, of the static binary (or of TARGET=...)
	$(need-cargo)
	@sh tests/dist.sh $(TARGET)

bench: $(BINARY)               # how fast it is beside other programs (or ONLY="export get link delta server")
	cargo build --locked --release --example relay
	@PSYNC='$(BINARY)' RELAY='$(BUILD)/release/examples/relay' ONLY='$(ONLY)' sh tests/bench/run.sh

install: $(BINARY)             # into DESTDIR, PREFIX (/usr/local)
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 $(BINARY) '$(DESTDIR)$(PREFIX)/bin/psync'
	for name in export server get; do ln -sf psync "$(DESTDIR)$(PREFIX)/bin/psync-$$name"; done
	install -d '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	sed 's|/usr/local/|$(PREFIX)/|' share/psync.service >'$(DESTDIR)$(PREFIX)/lib/systemd/system/psync.service'
	cd '$(DESTDIR)$(PREFIX)' && install -d share/man/man1 share/bash-completion/completions \
	    share/zsh/site-functions share/fish/vendor_completions.d
	install -m 644 share/psync.1 '$(DESTDIR)$(PREFIX)/share/man/man1/psync.1'
	install -m 644 share/completions/psync.bash '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/psync'
	install -m 644 share/completions/_psync '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_psync'
	install -m 644 share/completions/psync.fish '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/psync.fish'
	cd '$(DESTDIR)$(PREFIX)/share' && for name in export server get; do \
	    ln -sf psync.1 "man/man1/psync-$$name.1" && \
	    ln -sf psync "bash-completion/completions/psync-$$name" && \
	    ln -sf psync.fish "fish/vendor_completions.d/psync-$$name.fish" || exit; done

clean:                         # what was built
	$(need-cargo)
	cargo clean

help:                          # this
	@sed -n 's/^\([a-z-]*\):.*#/  make \1\t/p' Makefile | expand -t 20
	@echo 'Each test target first installs what the machine lacks of these, where it may use apt-get:'
	@awk '!/^#/ && NF && !seen[$$1, $$3]++ { of[$$1] = of[$$1] " " $$3 } \
	    END { print "  make test\t" of["test"]; print "  make test-peers\t" of["peers"]; \
	        print "  make test-root\tthose of make test," of["root"]; \
	        print "  make test-cross\tthose of make test," of["cross"] }' tests/programs | expand -t 20
