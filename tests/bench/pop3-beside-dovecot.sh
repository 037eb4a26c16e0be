#!/usr/bin/env bash
# Sallypost's POP3 beside Dovecot's: one client, the same messages of 4 KiB, alternating in one run on loopback.
# pop3-beside-dovecot.sh [BENCH-OPTIONS]; `bench pop3 --help` says which, and what is measured.
#
# Under TLS from the first octet, by STLS, and in the clear, which only the edge that the bench starts takes, and only
# on loopback. Ours are a little larger, by the trace that the edge puts on top. Needs root on a Debian with dovecot-pop3d.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || {
  echo 'pop3-beside-dovecot.sh starts Dovecot: run it as root' >&2
  exit 2
}
[ -x /usr/lib/dovecot/pop3 ] || {
  echo 'Dovecot is not here: apt-get install dovecot-pop3d' >&2
  exit 2
}
if [ -z "${BIN:-}" ]; then
  (cd "$repository" && cargo build --release --locked -p tests --bin bench)
  BIN=${CARGO_TARGET_DIR:-$repository/target}/release
fi

folder=$(mktemp -d /tmp/pop3-beside.XXXXXX)
chmod 755 "$folder" # Dovecot's own accounts pass through
finish() {
  kill "$dovecot" 2>/dev/null || true
  wait "$dovecot" 2>/dev/null || true
  rm -rf "$folder"
}
mkdir "$folder"/{run,state,mail}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench.test \
  -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null
for number in $(seq 0 1000); do
  echo "u$number:{PLAIN}secret:65534:65534::$folder/mail/u$number::"
done >"$folder/users"
# Tuned for many sessions at once: login processes that stay and serve many, no delays against guessing.
cat >"$folder/dovecot.conf" <<CONF
protocols = pop3
base_dir = $folder/run
state_dir = $folder/state
log_path = $folder/log
listen = 127.0.0.1
ssl = yes
disable_plaintext_auth = no
ssl_cert = <$folder/certificate.pem
ssl_key = <$folder/key.pem
mail_location = maildir:~/Maildir
auth_mechanisms = plain
auth_failure_delay = 0
auth_cache_size = 10M
first_valid_uid = 1
mail_max_userip_connections = 1000
pop3_no_flag_updates = yes
passdb {
  driver = passwd-file
  args = $folder/users
}
userdb {
  driver = passwd-file
  args = $folder/users
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service pop3-login {
  chroot =
  service_count = 0
  process_min_avail = 2
  client_limit = 1000
  inet_listener pop3 {
    address = 127.0.0.1
    port = 18110
  }
  inet_listener pop3s {
    address = 127.0.0.1
    port = 18995
    ssl = yes
  }
}
service pop3 {
  process_limit = 1000
  process_min_avail = 8
}
CONF
dovecot -F -c "$folder/dovecot.conf" &
dovecot=$!
trap finish EXIT
# Dovecot opens its ports when it is ready.
for _ in $(seq 100); do
  (: </dev/tcp/127.0.0.1/18995) 2>/dev/null && break
  sleep 0.1
done
"$BIN/bench" pop3 --beside 127.0.0.1:18110,127.0.0.1:18995 --maildirs "$folder/mail" "$@"
