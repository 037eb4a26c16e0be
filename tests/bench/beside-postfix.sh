#!/usr/bin/env bash
# Sallypost beside Postfix + Dovecot: the same namespaces, the same generator, the same accounting,
# alternating in one run. beside-postfix.sh [REPETITIONS] ["PARTS"]; parts are e2e, accept and lat.
#
# The bench that drives both lies outside the repository, in ../shared/bench or where SHARED_BENCH says;
# its README tells what is measured and how. This needs root (network namespaces, cgroup v1) and a Debian
# to install Postfix and Dovecot on. Every message has a connection of its own; both sync before a 250.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
shared=${SHARED_BENCH:-$repository/../shared/bench}
repetitions=${1:-3}
parts=${2:-e2e lat accept}
# Enough messages for some seconds of each product.
declare -A messages=([postfix]=3000 [sallypost]=20000)

[ -x "$shared/setup.sh" ] || {
  echo "the side-by-side bench is not at $shared; set SHARED_BENCH to where it is" >&2
  exit 2
}
[ "$(id -u)" = 0 ] || {
  echo "beside-postfix.sh makes network namespaces: run it as root" >&2
  exit 2
}

if [ -z "${BIN:-}" ]; then
  (cd "$repository" && cargo build --release -p big-node -p edge-node -p tests --bin big-node --bin edge-node --bin bench)
  BIN=${CARGO_TARGET_DIR:-$repository/target}/release
fi
export BIN

bench=$(mktemp -d /tmp/beside.XXXXXX)
chmod 755 "$bench" # Postfix's own accounts pass through
finish() {
  cd "$bench"
  ./sallypost.sh stop || true
  ./postfix.sh stop || true
  ./net.sh down || true
  rm -rf "$bench"
}
trap finish EXIT
(unset CARGO_TARGET_DIR && "$shared/setup.sh" "$bench")
cp "$repository"/tests/bench/{sallypost.sh,target-sallypost.json,beside.py} "$bench/"
cd "$bench"
./net.sh up
./pki.sh >/dev/null
./postfix.sh conf tuned
./sallypost.sh conf

# measure PRODUCT PART: one repetition of one part.
measure() {
  local target=target-$1.json
  case $2 in
    e2e) python3 bench.py "$target" e2e reps=1 quiet=20 "m=50:${messages[$1]}:4096" ;;
    accept) python3 bench.py "$target" accept reps=1 quiet=20 "m=50:${messages[$1]}:4096" ;;
    lat) python3 bench.py "$target" lat reps=1 quiet=20 sizes=4096 ;;
    *) echo "there is no part $2" >&2 && exit 2 ;;
  esac
}

for repetition in $(seq "$repetitions"); do
  for product in postfix sallypost; do
    for part in $parts; do
      echo "== repetition $repetition, $product, $part"
      # postfix.sh ends with what it found to complain about, which is nothing to go by.
      "./$product.sh" start || [ "$product" = postfix ]
      # One message alone is looked for often, many are not.
      [ "$product" = postfix ] || ./sallypost.sh count "$([ "$part" = lat ] && echo 300 || echo 20000)"
      measure "$product" "$part"
      "./$product.sh" stop || [ "$product" = postfix ]
    done
  done
done
./beside.py results/postfix.jsonl results/sallypost.jsonl
