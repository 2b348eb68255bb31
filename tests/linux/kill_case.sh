#!/bin/sh
# kill_case.sh NAME SECONDS LINE COMMAND...: starts a VMM on one disk again and again. Each time its guest checks what
# is there and writes records; at a random moment after the first that it has told, the VMM is killed. After three times
# and $KILL_SECONDS of that it is started once more, for the guest to check and to end. An argument's @disk@ becomes an
# image of 16 MiB, @last@ the last record that was told, and @write@ "on", or "off" for the last start. The markers
# are run_case.sh's. Here and in the nested machine, by whatever sh there is.
name=$1 limit=$2 line=$3
shift 3
kills=${KILL_SECONDS:-45}
work=$(mktemp -d "${TMPDIR:-/tmp}/gyre-case.XXXXXX") || exit 1
dd if=/dev/zero of="$work/disk" bs=1 count=0 seek=16777216 2>/dev/null
mkfifo "$work/in"
exec 3<>"$work/in"
last=0

uptime_seconds() { cut -d. -f1 /proc/uptime; }

# start WRITE COMMAND...: $pid is the VMM.
start() {
  write=$1
  shift
  count=$#
  while [ "$count" -gt 0 ]; do
    argument=$(printf '%s' "$1" | sed "s|@disk@|$work/disk|g; s|@last@|$last|g; s|@write@|$write|g")
    shift
    set -- "$@" "$argument"
    count=$((count - 1))
  done
  : >"$work/out"
  "$@" <"$work/in" >"$work/out" 2>>"$work/err" &
  pid=$!
}

# await PATTERN: true once the guest has said it; false if the VMM has ended, or the case's time has.
await() {
  until grep -q "$1" "$work/out"; do
    [ "$(uptime_seconds)" -lt $((begun + limit)) ] || { status=timeout; return 1; }
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.05
  done
}

# Reads a file that another may still write: only whole lines count.
last_told() { sed -n 's/^gyre-guest: record \([0-9]*\) \.\r*$/\1/p' "$work/out" | tail -n 1; }

tell() { echo; grep -v '^gyre-guest: record ' "$work/out"; echo; }

random_pause() {
  random=$(busybox hexdump -n 2 -e '"%u"' /dev/urandom)
  sleep "$((random % 2)).$((random % 1000 + 1000))"
}

echo "@@gyre:case $name begin $(date -u +%s)"
begun=$(uptime_seconds)
status=0
killed=0
while [ $status = 0 ] && { [ $killed -lt 3 ] || [ $(($(uptime_seconds) - begun)) -lt "$kills" ]; }; do
  start on "$@"
  if await '^gyre-guest: type a line' && printf '%s\n' "$line" >&3 && await '^gyre-guest: record '; then
    random_pause
  elif [ $status = 0 ]; then
    status=early
  fi
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  told=$(last_told)
  last=${told:-$last}
  tell
  echo "gyre-guest: killed $last"
  killed=$((killed + 1))
done
if [ $status = 0 ]; then
  start off "$@"
  await '^gyre-guest: type a line' && printf '%s\n' "$line" >&3
  while kill -0 "$pid" 2>/dev/null; do
    [ "$(uptime_seconds)" -lt $((begun + limit)) ] || kill -KILL "$pid"
    sleep 0.05
  done
  wait "$pid"
  status=$?
  tell
fi
exec 3>&-
echo
sed "s/^/@@gyre:stderr $name /" "$work/err"
echo "@@gyre:case $name end $status $(($(uptime_seconds) - begun))"
rm -rf "$work"
