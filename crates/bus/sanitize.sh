#!/bin/sh
# Runs the tests of this crate under AddressSanitizer, ThreadSanitizer and the loom model checker.
#
#   crates/bus/sanitize.sh [address] [thread] [loom]      (none: all)
#
# Needs a nightly toolchain and its sources: rustup component add rust-src --toolchain nightly
set -eu

cd "$(dirname "$0")"
host=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target}/sanitize"
export PROPTEST_CASES="${PROPTEST_CASES:-64}"

sanitized() {
    # The standard library is built with the sanitizer too: ThreadSanitizer would not see its synchronisation.
    RUSTFLAGS="-Zsanitizer=$1" RUSTDOCFLAGS="-Zsanitizer=$1" \
        cargo +nightly test --profile model -Zbuild-std --target "$host" --lib --tests
}

[ $# -gt 0 ] || set -- address thread loom
for check; do
    echo "== $check"
    case $check in
        address | thread) sanitized "$check" ;;
        loom) RUSTFLAGS="--cfg loom" cargo test --profile model --test loom ;;
        *)
            echo "unknown check: $check (address, thread or loom)" >&2
            exit 2
            ;;
    esac
done
