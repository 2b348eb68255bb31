# What run_case.sh does for a guest that asks for it ("gyre-guest: ask WORDS"), by the control socket $qmp of the VMM whose
# process $work/pid names. Each function tells facts about it, one a line; the guest goes on afterwards.

# qmp JSON: one command's answer.
qmp() { "$GYRECTL" -s "$qmp" raw "$1" 2>&1; }
# number NAME TEXT: the number of a member of a JSON text.
number() { printf '%s\n' "$2" | tr -d ' \n' | sed -n "s/.*\"$1\":\\([0-9]*\\).*/\\1/p"; }
# In MiB.
rss() { sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$(cat "$work/pid")/status" | { read -r kb; echo $((kb / 1024)); }; }

# until_true COMMAND...: for a minute at most.
until_true() {
  tries=0
  until "$@" || [ $tries = 300 ]; do
    sleep 0.2
    tries=$((tries + 1))
  done
  [ $tries != 300 ]
}

# rss NAME: how much it is now, by that name.
answer_rss() {
  rss >"$work/rss.$1"
  echo "rss $1 $(cat "$work/rss.$1")"
}
# fell NAME BEFORE MIB: waits until it is so much less than it was by the name BEFORE; rose: more.
has_fallen() { [ "$(rss)" -le $(($(cat "$work/rss.$1") - $2)) ]; }
has_risen() { [ "$(rss)" -ge $(($(cat "$work/rss.$1") + $2)) ]; }
answer_fell() {
  until_true has_fallen "$2" "$3"
  answer_rss "$1"
}
answer_rose() {
  until_true has_risen "$2" "$3"
  answer_rss "$1"
}

# balloon MIB: asks the guest to have so much, and waits until it has.
has_actual() { [ "$(number actual "$(qmp '{"execute": "query-balloon"}')")" = "$1" ]; }
answer_balloon() {
  bytes=$(($1 * 1048576))
  qmp "{\"execute\": \"balloon\", \"arguments\": {\"value\": $bytes}}" >/dev/null
  until_true has_actual $bytes
  echo "balloon $(number actual "$(qmp '{"execute": "query-balloon"}')")"
}
# What the guest tells of its memory: that it does, and how much it has, in MiB.
has_statistics() { [ "$(number last-update "$(qmp '{"execute": "query-balloon-stats"}')")" != 0 ]; }
answer_statistics() {
  until_true has_statistics
  first=$(number last-update "$(qmp '{"execute": "query-balloon-stats"}')")
  is_later() { [ "$(number last-update "$(qmp '{"execute": "query-balloon-stats"}')")" -gt "$first" ]; }
  until_true is_later && echo "statistics later $(($(number stat-total-memory "$(qmp '{"execute": "query-balloon-stats"}')") / 1048576))"
}
# How many of the queues of the only device have had chains taken of them.
answer_queues() {
  report=$(qmp '{"execute": "human-monitor-command", "arguments": {"command-line": "info report"}}')
  echo "used $(printf '%s' "$report" | grep -o 'queue [01]: [1-9][0-9]* chains' | cut -d: -f1 | sort -u | wc -l)"
}
# pressure TEXT: what the host's pressure file says from now on; a second argument grows it for as many seconds.
answer_pressure() {
  total=$1 seconds=$2
  while [ "$seconds" -ge 0 ]; do
    total=$((total + 500000))
    echo "some avg10=50.00 avg60=0.00 avg300=0.00 total=$total" >"$work/pressure.new"
    mv "$work/pressure.new" "$work/pressure"
    sleep 1
    seconds=$((seconds - 1))
  done
  echo "auto $(number target "$(qmp '{"execute": "query-balloon-auto"}')")"
}

# resize MIB: the memory device's size that the guest is to have, and has after a while.
has_size() { [ "$(number size "$(qmp '{"execute": "query-memory-devices"}')")" = "$1" ]; }
answer_resize() {
  bytes=$(($1 * 1048576))
  qmp "{\"execute\": \"memory-device-resize\", \"arguments\": {\"id\": \"mem0\", \"size\": $bytes}}" >/dev/null
  until_true has_size $bytes
  echo "resized $(($(number size "$(qmp '{"execute": "query-memory-devices"}')") / 1048576))"
}
# The map's slots of it.
answer_slots() { echo "slots $(qmp '{"execute": "x-query-mtree"}' | grep -o 'mem0@' | wc -l)"; }

# events NAME: how many of that name a client that follows them has seen.
answer_events() {
  sleep 2
  echo "events $1 $(grep -c "$1" "$work/events")"
}

# have_way_out: this machine's network has one, as passt wants.
have_way_out() {
  [ -z "$(busybox ip route show default)" ] || return
  busybox tunctl -t out0 >/dev/null
  busybox ip addr add 10.88.0.2/24 dev out0
  busybox ip link set out0 up
  busybox ip route add default via 10.88.0.1
}

# serves WHO: who serves the queues of $device, a network or a vsock device, which is that one soon.
server() { qmp "{\"execute\": \"qom-get\", \"arguments\": {\"path\": \"/machine/$device\", \"property\": \"served-by\"}}" | grep -o 'kernel\|gyred\|nobody' | tail -n 1; }
is_served_by() { [ "$(server)" = "$1" ]; }
answer_serves() {
  until_true is_served_by "$1"
  echo "serves $(server)"
}
# pause WHO: for two seconds; who serves meanwhile and, soon, afterwards.
answer_pause() {
  sleep 0.3
  qmp '{"execute": "stop"}' >/dev/null
  sleep 2
  echo "paused $(server)"
  qmp '{"execute": "cont"}' >/dev/null
  answer_serves "$1"
}
# The kernel's threads that serve this VMM's, by whose number they are named, and whether they have done anything.
answer_threads() {
  threads=0 ticks=0 pid=$(cat "$work/pid")
  for task in /proc/[0-9]* "/proc/$pid"/task/*; do
    [ "$(cat "$task/comm" 2>/dev/null)" = "vhost-$pid" ] || continue
    threads=$((threads + 1))
    ticks=$((ticks + $(cut -d' ' -f15 "$task/stat")))
  done
  echo "threads $threads $([ $ticks -gt 0 ] && echo busy || echo idle)"
}

# exec: commands in the guest by its agent, with what has become of each.
in_guest() { "$GYRECTL" -s "$qmp" exec "$@"; }
answer_exec() {
  until_true in_guest true
  said=$(in_guest -w /proc -e 'WORD=two words' sh -c 'pwd; echo "$WORD"; exit 7')
  echo "exec status $? $(echo "$said" | tr '\n' ' ')"
  dd if=/dev/urandom of="$work/bytes" bs=64k count=64 2>/dev/null
  echo "exec sum $([ "$(in_guest md5sum <"$work/bytes")" = "$(md5sum <"$work/bytes")" ] && echo same || echo differs)"
  in_guest cat <"$work/bytes" >"$work/back"
  echo "exec back $? $(cmp -s "$work/bytes" "$work/back" && echo same || echo differs)"
  # Not by the function, whose process would be a shell's.
  "$GYRECTL" -s "$qmp" exec sh -c 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done' >"$work/ready" &
  command=$!
  is_ready() { grep -q ready "$work/ready"; }
  until_true is_ready
  kill -TERM "$command"
  wait "$command"
  echo "exec signalled $?"
  in_guest sh -c 'kill -KILL $$'
  echo "exec killed $?"
  said=$(in_guest -t sh -c 'stty rows 30 columns 90; stty size; tty' | tr -d '\r' | tr '\n' ' ')
  echo "exec terminal $said"
  in_guest no-such-command
  echo "exec missing $?"
  in_guest --port 1021 true
  echo "exec nobody $?"
  count=0 good=0
  while [ $count -lt 100 ]; do
    in_guest true && good=$((good + 1))
    count=$((count + 1))
  done
  echo "exec quick $good"
  echo "exec left $(in_guest sh -c 'grep -cs "^State:.Z" /proc/[0-9]*/status | grep -c ":1$"')"
}
