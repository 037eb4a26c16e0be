#!/usr/bin/env bash
# The pair in the namespaces of the side-by-side bench, as postfix.sh there is for the other product.
# sallypost.sh conf | start | stop | settle | count MICROSECONDS; BIN is the folder of the three programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=$here/run/sallypost
topology=$run/topology.toml
bin=${BIN:?the folder that holds big-node, edge-node and bench}
people=${NRCPT:-1000}

# What runs in the namespace $1 is accounted to the cgroup of that name.
in_place() {
  local place=$1
  shift
  for group in "cpuacct/$place" "memory/$place" cpu/pf; do
    mkdir -p "/sys/fs/cgroup/$group"
    echo "$BASHPID" >"/sys/fs/cgroup/$group/cgroup.procs"
  done
  exec ip netns exec "$place" "$@"
}

# serve NAME NAMESPACE: starts a node and waits for its ready line.
serve() {
  : >"$run/$1.ready"
  (in_place "$2" "$bin/$1-node" serve --topology "$topology") >"$run/$1.ready" 2>>"$run/$1.log" </dev/null &
  echo $! >"$run/$1.pid"
  for _ in $(seq 200); do
    [ -s "$run/$1.ready" ] && return
    sleep 0.05
  done
  echo "$1-node is not ready after 10 s; see $run/$1.log" >&2
  exit 1
}

stop() {
  local pid
  for name in count big edge; do
    [ -f "$run/$name.pid" ] || continue
    pid=$(cat "$run/$name.pid")
    rm -f "$run/$name.pid"
    kill "$pid" 2>/dev/null || continue
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
  done
}

conf() {
  stop
  rm -rf "$run"
  mkdir -p "$run"
  cat >"$topology" <<TOML
[site]
domains = ["perf.test"]
postmaster = "user000"
[big]
state = "big"
[edge]
hostname = "edge.perf.test"
state = "edge"
smtp = ["198.18.1.2:25"]
submission = ["198.18.1.2:587"]
submissions = ["198.18.1.2:465"]
pop3 = ["198.18.1.2:110"]
pop3s = ["198.18.1.2:995"]
receivers = 300
size_max = 300_000_000
[edge.authentication]
dmarc = "off"
[edge.dns]
servers = ["198.18.1.53:53"]
dnssec = false # nobody signs here, nor does the other product ask
[edge.outbound]
concurrency = 50 # as the tuned Postfix
private_addresses = true # the hosts outside are in the range for benches
mta_sts = false
[link]
listen = "198.18.2.1:7625"
dial = "198.18.2.1:7625"
TOML
  "$bin/edge-node" init --topology "$topology" >"$run/edge.log" 2>&1
  "$bin/big-node" init --topology "$topology" >"$run/big.log" 2>&1
  start
  "$bin/edge-node" invite --json --topology "$topology" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["ticket"])' |
    "$bin/big-node" pair - --topology "$topology"
  for name in $(seq -f 'user%03g' 0 $((people - 1))) latuser; do
    "$bin/big-node" person add "$name" --topology "$topology" >/dev/null
  done
  settle
  stop
}

start() {
  serve edge pfedge
  serve big pfbig
}

# Waits until everything that edge has is confirmed by big.
settle() {
  for _ in $(seq 600); do
    "$bin/edge-node" link status --json --topology "$topology" | python3 -c '
import json, sys
link = json.load(sys.stdin)
sys.exit(not (link["connected"] and all(lane["sent"] == lane["confirmed"] for lane in link["lanes"])))' && return
    sleep 0.1
  done
  echo "edge still has unconfirmed units after 60 s" >&2
  exit 1
}

# Keeps the number of messages filed in a file, looking again every $1 microseconds.
count() {
  [ ! -f "$run/count.pid" ] || kill "$(cat "$run/count.pid")"
  (in_place pfgen "$bin/bench" count --control "$run/big/control" --into "$run/filed" --every "$1") \
    >/dev/null 2>&1 </dev/null &
  echo $! >"$run/count.pid"
  until [ -s "$run/filed" ]; do sleep 0.02; done
}

"$@"
