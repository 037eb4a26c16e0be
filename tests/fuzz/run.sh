#!/usr/bin/env bash
# Fuzzes one target until its record says that it was run so often:
#
#   tests/fuzz/run.sh TARGET [EXECUTIONS]
#
# TARGET is hello, frames, units, session, records, mime, smtp, reply, pop3, address or topology.
# Coverage-guided, with libFuzzer on the stable toolchain. Debug assertions and overflow checks are on. A
# record, tests/jobs/fuzz-TARGET.log, gets one line for each chunk of a million executions, so the job may be
# stopped and goes on where it was; a chunk that was not finished is run again. A crash becomes a file of
# the target's corpus, which `cargo test` replays, and ends the job with exit 1; so does an input that takes more than
# a second, also when it is run alone, or 64 MB (promises §6 row 12), the fuzzer's own some 30 MB included. Needs a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?the target}
wanted=${2:-10000000}
chunk=1000000
# As `BYTES_MAX` in tests/src/fuzz; a session's steps are small, and many of them are slow.
length=4096
[ "$target" != session ] || length=1024
memory=64
host=$(rustc -vV | sed -n 's/^host: //p')
build=../../target/fuzz
record=../jobs/fuzz-$target.log
found=$build/corpus/$target

[ -d "corpus/$target" ] || { echo "there is no target «$target»" >&2; exit 2; }
flags='-Cpasses=sancov-module'
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
flags+=' --cfg fuzzing -Ccodegen-units=1'
# With --target, so that build scripts and macros are not instrumented.
RUSTFLAGS=$flags cargo build --release --locked --quiet --target "$host" --target-dir "$build" --bin "$target"

mkdir -p "$found" "$build/crashes"
[ -e "$record" ] || echo "# tests/fuzz/run.sh $target $wanted" >"$record"
grep -qvE '^(#|chunk [0-9]+, seed [0-9]+, executions [0-9]+, in all [0-9]+, )' "$record" &&
  { echo "$record has a line that is not a chunk's" >&2; exit 2; }
while true; do
  chunks=$(grep -c '^chunk ' "$record" || true)
  sum=$(sed -n 's/^chunk .* in all \([0-9]*\),.*/\1/p' "$record" | tail -n 1)
  sum=${sum:-0}
  [ "$sum" -lt "$wanted" ] || break
  number=$((chunks + 1))
  runs=$((wanted - sum < chunk ? wanted - sum : chunk))
  status=0
  nice "$build/$host/release/$target" -seed="$number" -runs="$runs" -max_len="$length" -timeout=1 \
    -rss_limit_mb="$memory" -malloc_limit_mb="$memory" -verbosity=1 -print_final_stats=1 -artifact_prefix="$build/crashes/$target-" \
    "$found" "corpus/$target" >"$build/$target.out" 2>&1 || status=$?
  # Interrupted from outside: nothing is recorded.
  [ "$status" -lt 128 ] || exit "$status"
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target.out")
  [ -n "$executed" ] || { tail "$build/$target.out" >&2; exit 2; }
  seen=$(sed -n 's/^#[0-9]*\s[A-Za-z]*\s*cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\)\/.*/coverage \1, features \2, corpus \3/p' \
    "$build/$target.out" | tail -n 1)
  crashes=0
  waited=0
  for artifact in "$build/crashes/$target-"*; do
    [ -e "$artifact" ] || continue
    if [[ $artifact == *-timeout-* ]]; then
      # A second by the clock is not a second of work for what is niced: by itself it has to take one, too.
      if "$build/$host/release/$target" -timeout=1 -rss_limit_mb="$memory" -malloc_limit_mb="$memory" "$artifact" \
        >"$build/$target.alone" 2>&1; then
        rm "$artifact"
        waited=1
        continue
      fi
    fi
    crashes=$((crashes + 1))
    mv "$artifact" "corpus/$target/${artifact##*/"$target-"}"
  done
  # The chunk ended at that input: it is run again from the corpus there is by now.
  if [ "$waited" != 0 ] && [ "$crashes" = 0 ]; then
    echo "$target: an input took a second beside other work, and not by itself; chunk $number is run again" >&2
    continue
  fi
  line="chunk $number, seed $number, executions $executed, in all $((sum + executed)), $seen, crashes $crashes"
  echo "$line" | tee -a "$record"
  if [ "$status" != 0 ] || [ "$crashes" != 0 ]; then
    grep -m 3 -A 2 'panicked at\|ERROR: libFuzzer' "$build/$target.out" >&2 || true
    echo "$target: found something; see tests/fuzz/corpus/$target" >&2
    exit 1
  fi
done
echo "fuzz $target: $sum executions, crashes $(awk '/^chunk /{sum += $NF} END {print sum + 0}' "$record")"
