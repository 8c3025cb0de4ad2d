#!/usr/bin/env bash
# Runs every test of the project: `tests/run.sh [--long] [arguments of the test runner]`.
# --long adds a hundred times as many cases of every property, and the long forms of the proofs, which measure the
# release build: all of it is made to take less than an hour on two processors. VESTIBULE_ROUNDS is how much of the
# proofs is tried that mostly wait for servers, in percent (30), VESTIBULE_MINUTES how long the checker's series are
# together (8), and PROPTEST_RNG_SEED and VESTIBULE_SEED are what cases and plans follow from.
# No part keeps another from being run: a summary of all comes at the end.
# Missing tools are installed with apt-get where that is possible.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
long=false
for argument in "$@"; do
  case "$argument" in
    --long) long=true ;;
    -h | --help)
      sed -n '2,9s/^# //p' tests/run.sh
      exit 0
      ;;
    *) arguments+=("$argument") ;;
  esac
done

output="$(mktemp)"
summary=()
failed=()
step="preparation"
began=$SECONDS

finish() {
  local status=$?
  rm -f "$output"
  if [ -n "$step" ]; then
    summary+=("$(printf '%-28s %8s   %s' "$step" '' "BROKEN OFF")")
    failed+=("$step")
  fi
  echo
  echo "tests: summary"
  printf 'tests:   %s\n' "${summary[@]}"
  printf 'tests:   %-28s %8s\n' "all" "$(minutes $((SECONDS - began)))"
  if [ "${#failed[@]}" -eq 0 ]; then
    echo "tests: PASSED"
  else
    printf -v names '%s; ' "${failed[@]}"
    echo "tests: FAILED in: ${names%; }" >&2
    [ "$status" -ne 0 ] || status=1
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# counts: how many tests passed and failed by what the test runners said in $output.
counts() {
  awk '
    { gsub(/\033\[[0-9;]*m/, "") }
    /^test result:/ { passed += $4; failed += $6 }
    /^ *Summary \[/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^(failed|timed)/) failed += $(i - 1)
      }
    }
    END { if (passed + failed) printf "%d passed, %d failed", passed, failed }
  ' "$output"
}

# part NAME COMMAND...: runs it and notes for the summary what came of it; fails with it.
part() {
  local name="$1" begun=$SECONDS status=0 result=passed
  shift
  step="$name"
  echo "tests: $name"
  "$@" 2>&1 | tee "$output" || status=${PIPESTATUS[0]}
  if [ "$status" -ne 0 ]; then
    result="FAILED (exit $status)"
    failed+=("$name")
  fi
  summary+=("$(printf '%-28s %8s   %-22s %s' "$name" "$(minutes $((SECONDS - begun)))" "$result" "$(counts)")")
  step=""
  return "$status"
}

# omit NAME WHY: notes that a part could not be run.
omit() {
  summary+=("$(printf '%-28s %8s   %s' "$1" '' "NOT RUN: $2")")
  failed+=("$1")
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# need COMMAND PACKAGE: COMMAND is there afterwards, or this script ends.
need() {
  step="installing $1"
  command -v "$1" >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    echo "tests: $1 is needed; install it and run this again" >&2
    return 1
  fi
  echo "tests: installing $2 for $1"
  as_root apt-get update -qq
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -qq -y --no-install-recommends "$2" >/dev/null
}

need redis-server redis-server
need faketime faketime
need chromium chromium
if "$long"; then # generators to compare with
  need wrk wrk
  need h2load nghttp2-client
fi
step=""

if command -v cargo-nextest >/dev/null; then
  # One failure hides no other.
  part "all tests" cargo nextest run --locked --no-fail-fast "${arguments[@]}" || true
  part "examples" cargo test --locked --doc || true # nextest does not run these
else
  part "all tests and examples" cargo test --locked --no-fail-fast "${arguments[@]}" || true
fi

# proofs THREADS FILTER...: long forms, so many at a time.
proofs() {
  local threads="$1"
  shift
  cargo test --locked --no-fail-fast --test it -- "$@" --nocapture --test-threads "$threads"
}

# Those that measure have the machine to themselves. The others mostly wait, for servers that replace one another.
measuring=(black_holes cancellations event_streams idle_clients large_bodies load_figures look_ups renewals revocations
  session_memory slots store_outages websockets)

long_proofs() {
  local names=("${measuring[@]/#/proofs::}") skips=() name
  for name in "${names[@]}"; do skips+=(--skip "$name::"); done
  ulimit -n "$(ulimit -Hn)" # they hold thousands of connections
  export VESTIBULE_LONG=1 VESTIBULE_PROGRAM="${CARGO_TARGET_DIR:-$PWD/target}/release/vestibule"
  part "proofs that measure" proofs 1 "${names[@]/%/::}" || true
  part "proofs that wait" proofs 4 proofs:: consistency:: "${skips[@]}" || true
  part "the checker" proofs 2 checker:: || true
}

if "$long"; then
  export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-$RANDOM}"
  export VESTIBULE_SEED="${VESTIBULE_SEED:-$((RANDOM * 32768 + RANDOM))}"
  export VESTIBULE_MINUTES="${VESTIBULE_MINUTES:-8}" VESTIBULE_ROUNDS="${VESTIBULE_ROUNDS:-30}"
  for name in PROPTEST_RNG_SEED VESTIBULE_SEED VESTIBULE_MINUTES VESTIBULE_ROUNDS; do
    echo "tests: $name=${!name}"
    summary+=("$name=${!name}")
  done
  if part "release build" cargo build --locked --release; then
    # Optimised: without that, they take most of an hour.
    part "properties in 25,600 cases" env PROPTEST_CASES=25600 cargo test --locked --release --no-fail-fast --lib || true
    long_proofs
  else
    for name in "properties in 25,600 cases" "proofs that measure" "proofs that wait" "the checker"; do
      omit "$name" "there is no release build"
    done
  fi
fi
