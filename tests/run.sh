#!/usr/bin/env bash
# Runs every test of the project: `tests/run.sh [--long] [arguments of the test runner]`.
# --long adds a hundred times as many cases of every property, and the long forms of the proofs, which take
# minutes and measure the release build; the checker takes VESTIBULE_MINUTES of them, 60 by default.
# Missing tools are installed with apt-get where that is possible.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
long=false
for argument in "$@"; do
  case "$argument" in
    --long) long=true ;;
    -h | --help)
      sed -n '2,5s/^# //p' tests/run.sh
      exit 0
      ;;
    *) arguments+=("$argument") ;;
  esac
done

step="preparation"
finish() {
  local status=$?
  if [ "$status" -eq 0 ]; then
    echo "tests: PASSED"
  else
    echo "tests: FAILED in: $step (exit $status)" >&2
  fi
}
trap finish EXIT

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# need COMMAND PACKAGE: COMMAND is there afterwards, or this script ends.
need() {
  command -v "$1" >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    echo "tests: $1 is needed; install it and run this again" >&2
    return 1
  fi
  echo "tests: installing $2 for $1"
  as_root apt-get update -qq
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -qq -y --no-install-recommends "$2" >/dev/null
}

step="installing redis-server"
need redis-server redis-server
step="installing faketime"
need faketime faketime
if "$long"; then
  step="installing generators to compare with"
  need wrk wrk
  need h2load nghttp2-client
fi

step="installing chromium"
need chromium chromium

if command -v cargo-nextest >/dev/null; then
  step="cargo nextest run"
  cargo nextest run --locked --no-fail-fast "${arguments[@]}" # one failure hides no other
  step="cargo test --doc"
  cargo test --locked --doc # nextest does not run these
else
  step="cargo test"
  cargo test --locked --no-fail-fast "${arguments[@]}"
fi

if "$long"; then
  step="the properties in 25,600 cases"
  seed="${PROPTEST_RNG_SEED:-$RANDOM}"
  echo "tests: PROPTEST_RNG_SEED=$seed"
  PROPTEST_CASES=25600 PROPTEST_RNG_SEED="$seed" cargo test --locked --lib
  step="cargo build --release"
  cargo build --locked --release
  step="the long proofs"
  ulimit -n "$(ulimit -Hn)" # they hold thousands of connections
  export VESTIBULE_LONG=1 VESTIBULE_PROGRAM="${CARGO_TARGET_DIR:-$PWD/target}/release/vestibule"
  cargo test --locked --test it -- proofs:: consistency:: checker:: --nocapture --test-threads 1
fi
