#!/usr/bin/env bash
# Sallypost beside Postfix + Dovecot: the same namespaces, the same generator, the same accounting,
# alternating in one run. beside-postfix.sh [REPETITIONS] ["PARTS"]; parts are
#   e2e accept lat   between hosts on one switch
#   shaped           100 ms round trip, 1 % loss each way, 10 Mbit/s, a queue of 256 KiB: 4 KiB text, 64 KiB
#                    base64, and one message alone
#   large            on the same line, one message alone while a body of 200 MB is in transfer
#   outage           the same line is cut for 30 s while 50 messages/s arrive
#   outbound         from inside to 1 and to 100 domains outside, whose hosts answer at once, and each command 50 ms late
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
declare -A messages_shaped=([postfix]=500 [sallypost]=3000)
declare -A messages_out=([postfix]=2000 [sallypost]=10000)
line='--rtt-ms 100 --loss 1 --mbit 10 --queue-kb 256'
large_bytes=200000000

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
cp "$repository"/tests/bench/{sallypost.sh,target-sallypost.json,beside.py,caught_up.py,outbound.py} "$bench/"
cd "$bench"
./net.sh up
./pki.sh >/dev/null
./postfix.sh conf tuned
# Room for the large body.
sed -i 's/^message_size_limit = .*/message_size_limit = 0/' run/{edge,big}/etc/main.cf
./sallypost.sh conf

# smtp COUNT SIZE: sends messages of random base64 to one mailbox.
smtp() {
  ip netns exec pfgen ./mload.bin smtp --host 198.18.1.2 --port 25 --rcpt latuser@perf.test \
    --count "$1" --size "$2" --kind b64
}

# measure PRODUCT PART: one repetition of one part.
measure() {
  local target=target-$1.json
  case $2 in
    e2e) python3 bench.py "$target" e2e reps=1 quiet=20 "m=50:${messages[$1]}:4096" ;;
    accept) python3 bench.py "$target" accept reps=1 quiet=20 "m=50:${messages[$1]}:4096" ;;
    lat) python3 bench.py "$target" lat reps=1 quiet=20 sizes=4096 ;;
    shaped)
      python3 bench.py "$target" e2e reps=1 quiet=20 label=shaped 'extra=--kind text' \
        "m=50:${messages_shaped[$1]}:4096"
      python3 bench.py "$target" e2e reps=1 quiet=20 label=shaped-b64 'extra=--kind b64' m=50:200:65536
      python3 bench.py "$target" lat reps=1 quiet=20 label=shaped n=40
      ;;
    large)
      # What empties the queues before a measurement would take the large body with it.
      sed 's/"reset_cmd": *"[^"]*"/"reset_cmd":"true"/' "$target" >large-"$target"
      smtp 1 "$large_bytes" >/dev/null
      python3 bench.py large-"$target" lat reps=1 quiet=5 label=large n=20
      ;;
    outage)
      ./caught_up.py "$target" results/"$1".jsonl 50 30 &
      python3 bench.py "$target" outage reps=1 quiet=20 rate=50 n=3000 at=10 cutfor=30
      wait $!
      ;;
    outbound) ./outbound.py "$1" "${messages_out[$1]}" ;;
    *) echo "there is no part $2" >&2 && exit 2 ;;
  esac
}

# path PART: the line between the nodes; made before they start, for they bind to its addresses.
path() {
  case $1 in
    shaped | large | outage) ./net.sh tun "$line" ;;
    *) ./net.sh plain ;;
  esac
}

# How often Sallypost's mailboxes are looked at, in microseconds: one message alone often, many not.
declare -A every=([lat]=300 [shaped]=1000 [large]=300)

for repetition in $(seq "$repetitions"); do
  for product in postfix sallypost; do
    for part in $parts; do
      echo "== repetition $repetition, $product, $part (load $(cut -d' ' -f1 /proc/loadavg))"
      path "$part"
      # postfix.sh ends with what it found to complain about, which is nothing to go by.
      "./$product.sh" start || [ "$product" = postfix ]
      [ "$product" = postfix ] || ./sallypost.sh count "${every[$part]:-20000}"
      measure "$product" "$part"
      "./$product.sh" stop || [ "$product" = postfix ]
      # The next part starts without what is left of a large body.
      [ "$part" != large ] || if [ "$product" = postfix ]; then ./postfix.sh reset; else ./sallypost.sh conf; fi
    done
  done
done
./net.sh plain
./beside.py results/postfix.jsonl results/sallypost.jsonl
