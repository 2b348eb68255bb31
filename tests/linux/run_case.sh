#!/bin/sh
# run_case.sh NAME SECONDS LINE COMMAND...: runs a VMM with the guest's console on its stdin and stdout, types LINE
# when the guest asks for it, presses its power button when it asks for that (SIGPWR), and tells the exit status. Here and in the nested machine, by whatever sh there is.
name=$1 limit=$2 line=$3
shift 3
# An argument's @disk@ becomes an image of 64 MiB, whose sum is told at the end, and @port@ a file, whose lines are told.
# @qmp@ becomes a socket, by which $GYRECTL makes the disk "data" 72 MiB large when the guest asks for that.
. "$(dirname "$0")/answers.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/gyre-case.XXXXXX") || exit 1
mkfifo "$work/in"
: >"$work/out"
# One with @tap@ names a tap that is configured once it is there: 10.77.0.1 serves /data by HTTP on port 8077 and takes
# one upload on port 5077, whose sums are told at the end.
# One with @peer@ besides gets the address of a second VM, which is the same but that it serves (gyre.then=serve), on a tap of its
# own; packets go by this machine. What that one tells of itself is told at the end.
# One with @hostport@ gets a TCP port of this machine's, forwarded to the guest's port 80, from which a file is fetched when it
# asks for that; what the guest finds by its gateway at the port behind it is /data again.
# One with @damaged@ gets a directory: a first start, which fails for want of a disk, leaves its kernel unpacked there, and
# a byte of that is changed.
# A guest that asks for it is told a line by the pseudoterminal that the VMM's log names first; its answer is told.
# One with @uds@ gets the path of a socket, beside which vsock_peer serves, and by which it talks to the guest when that
# asks for it; $GYRE_VSOCK_PEER says where that program is. One with @cid@ gets a CID, and the same by AF_VSOCK.
# One with @agent@ gets a CID and a socket for gyrectl exec, one with @agentcid@ a CID alone; what is done with it is answers.sh's.
# One with @pmem@ is an image of 16 MiB, whose sum is told at the end, and one with @pressure@ a file like
# /proc/pressure/memory. With @qmp@, what the guest asks for is done by answers.sh.
# One with @blockserver@ or @shareserver@ gets the socket of a back end: qemu-storage-daemon with a copy of $GYRE_QCOW2, which
# is killed and started again when the guest asks for that, and virtiofsd with a directory, whose files' sums are told at the end;
# one with @sharedir@ gets the directory itself.
image='' tap='' port='' damaged='' qmp='' vsock='' device=net/net0 pmem='' blocks='' shared='' directory='' peer=''
count=$#
while [ "$count" -gt 0 ]; do
  argument=$1
  shift
  case $argument in *@disk@*)
    image=$work/disk
    dd if=/dev/zero of="$image" bs=1 count=0 seek=67108864 2>/dev/null
    argument=${argument%%@disk@*}$image${argument#*@disk@} ;;
  *@qmp@*)
    qmp=$work/qmp
    argument=${argument%%@qmp@*}$qmp${argument#*@qmp@} ;;
  *@port@*) argument=$(printf '%s' "$argument" | sed "s|@port@|$work/port|g") ;;
  esac
  case $argument in *@pmem@*)
    pmem=$work/pmem
    dd if=/dev/zero of="$pmem" bs=1 count=0 seek=16777216 2>/dev/null
    argument=${argument%%@pmem@*}$pmem${argument#*@pmem@} ;;
  esac
  case $argument in *@pressure@*)
    echo "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" >"$work/pressure"
    argument=${argument%%@pressure@*}$work/pressure${argument#*@pressure@} ;;
  esac
  case $argument in *@damaged@*)
    damaged=$work/kernels
    argument=${argument%%@damaged@*}$damaged${argument#*@damaged@} ;;
  esac
  case $argument in *@tap@*)
    tap=gyre$$
    argument=${argument%%@tap@*}$tap${argument#*@tap@} ;;
  esac
  case $argument in *@peer@*)
    peer=10.78.0.2
    argument=${argument%%@peer@*}$peer${argument#*@peer@} ;;
  esac
  case $argument in *@uds@*)
    vsock=$work/vsock
    argument=${argument%%@uds@*}$vsock${argument#*@uds@} ;;
  esac
  case $argument in *@cid@*)
    vsock=cid=$((1000 + $$)) device=vsock/vsock0
    argument=${argument%%@cid@*}$vsock${argument#*@cid@} ;;
  esac
  case $argument in
  *@agent@*) argument=${argument%%@agent@*}cid=7,uds=$work/agent${argument#*@agent@} ;;
  *@agentcid@*) argument=${argument%%@agentcid@*}cid=$((1000 + $$))${argument#*@agentcid@} ;;
  esac
  case $argument in *@blockserver@*)
    blocks=$work/blocks
    argument=${argument%%@blockserver@*}$blocks${argument#*@blockserver@} ;;
  esac
  case $argument in *@shareserver@*)
    shared=$work/shared
    directory=$work/www
    argument=${argument%%@shareserver@*}$shared${argument#*@shareserver@} ;;
  esac
  case $argument in *@sharedir@*)
    directory=$work/www
    argument=${argument%%@sharedir@*}$directory${argument#*@sharedir@} ;;
  esac
  case $argument in *@hostport@*)
    port=$((20000 + $$ % 20000))
    argument=${argument%%@hostport@*}$port${argument#*@hostport@} ;;
  esac
  set -- "$@" "$argument"
  count=$((count - 1))
done

# tell_tasks WORD PID: where each of a process's threads is, behind that word.
tell_tasks() {
  for task in /proc/"$2"/task/*; do
    echo "$1: $(cat "$task/comm") $(cut -d' ' -f3,14,15 "$task/stat") in $(cat "$task/wchan") syscall $(cut -d' ' -f1-3 "$task/syscall")"
  done
}

# tell_hang PID: what a VMM that does not end is doing, for who reads the case's output. Its log has what it counts.
tell_hang() {
  kill -USR2 "$1"
  tell_tasks hang "$1"
  dmesg | grep -i tsc | sed 's/^/hang: /'
  tracing=/sys/kernel/tracing
  mount -t tracefs tracefs $tracing 2>/dev/null
  mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
  [ -d $tracing/events/kvm ] || return
  echo 1 >$tracing/events/kvm/enable
  sleep 1
  echo 0 >$tracing/events/kvm/enable
  grep -v '^#' $tracing/trace | head -n 40 | sed 's/^/hang: /'
  grep -v '^#' $tracing/trace | tail -n 20 | sed 's/^/hang: /'
  (cd /sys/kernel/debug/kvm && grep -s . $(ls -p . | grep -v /) | grep -v ":0$" | sed "s/^/hang: /")
  return 0
}

# tell_stall PID: what a VMM counts whose network carries nothing, and what passt waits for.
tell_stall() {
  kill -USR2 "$1"
  sleep 1
  for process in /proc/[0-9]*; do
    case $(cat "$process/comm" 2>/dev/null) in
    passt* | gyred*) tell_tasks stall "${process#/proc/}" ;;
    esac
  done
  grep passt /proc/net/unix | sed 's/^/stall: /'
  return 0
}

# serve: what the guest finds behind its network.
serve() {
  busybox ip addr add 10.77.0.1/24 dev "$tap"
  busybox ip link set "$tap" up
  mkdir "$work/www"
  dd if=/dev/urandom of="$work/www/data" bs=64k count=48 2>/dev/null
  busybox httpd -f -p 10.77.0.1:8077 -h "$work/www" 2>/dev/null &
  servers=$!
  # Its input has no end, or it would end with it.
  mkfifo "$work/idle"
  busybox nc -l -p 5077 <>"$work/idle" >"$work/upload" 2>/dev/null &
  servers="$servers $!"
  TMPDIR=$work iperf3 -s -B 10.77.0.1 >"$work/iperf3" 2>&1 &
  servers="$servers $!"
}

# start_peer COMMAND...: the second VM.
start_peer() {
  count=$#
  while [ "$count" -gt 0 ]; do
    argument=$(printf '%s' "$1" | sed "s/tap=$tap,mac=02:00:00:00:00:77/tap=${tap}p,mac=02:00:00:00:00:78/; s/gyre\\.then=pair/gyre.then=serve/")
    shift
    set -- "$@" "$argument"
    count=$((count - 1))
  done
  mkfifo "$work/peer_in"
  exec 4<>"$work/peer_in"
  timeout -s KILL "$limit" "$@" <"$work/peer_in" >"$work/peer" 2>>"$work/err" &
  peer_vm=$!
}

# join_peers: the two VMs' taps are networks, and what comes from one goes to the other.
join_peers() {
  busybox ip addr add 10.77.0.1/24 dev "$tap"
  busybox ip addr add 10.78.0.1/24 dev "${tap}p"
  for each in "$tap" "${tap}p"; do
    busybox ip link set "$each" up
    echo 1 >"/proc/sys/net/ipv4/conf/$each/forwarding"
  done
  joined=1
}

# serve_user: the same by this machine's own network.
serve_user() {
  have_way_out
  mkdir "$work/www"
  dd if=/dev/urandom of="$work/www/data" bs=64k count=48 2>/dev/null
  busybox httpd -f -p "127.0.0.1:$((port + 1))" -h "$work/www" 2>/dev/null &
  servers=$!
}

# await_file NAME: that it is there, for a minute at most.
await_file() {
  waited=0
  until [ -e "$1" ] || [ $waited = 600 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
}

# serve_blocks: a qcow2 image by vhost-user; written through, or its death would lose what it has told as written and holds
# back until a flush.
serve_blocks() {
  rm -f "$blocks"
  qemu-storage-daemon --blockdev driver=file,node-name=file,filename="$work/qcow2" --blockdev driver=qcow2,node-name=image,file=file \
    --export type=vhost-user-blk,id=disk,node-name=image,writable=on,writethrough=on,addr.type=unix,addr.path="$blocks" 2>>"$work/servers" &
  block_server=$!
  await_file "$blocks"
}

# serve_share: a directory by vhost-user.
serve_share() {
  # Where virtiofsd writes its process's number.
  mkdir -p /var/run/virtiofsd 2>/dev/null || { mount -t tmpfs tmpfs /var && mkdir -p /var/run/virtiofsd; }
  /usr/lib/qemu/virtiofsd --socket-path="$shared" -o source="$directory" -f 2>>"$work/servers" &
  servers="$servers $!"
  await_file "$shared"
}

uptime_seconds() { cut -d. -f1 /proc/uptime; }

servers=''
[ -z "$port" ] || serve_user
if [ -n "$damaged" ]; then
  "$@" --disk path=/nowhere/disk 2>/dev/null
  for entry in "$damaged"/[0-9a-f][0-9a-f][0-9a-f]*; do
    printf 'gyre' | dd of="$entry" bs=1 seek=5000000 conv=notrunc 2>/dev/null
  done
fi
if [ -n "$vsock" ]; then
  "$GYRE_VSOCK_PEER" serve "$vsock" 5000 &
  servers=$!
  "$GYRE_VSOCK_PEER" serve-messages "$vsock" 5001 &
  servers="$servers $!"
fi
block_server=''
if [ -n "$blocks" ]; then
  export PATH="$PATH:/usr/bin"
  cp "$GYRE_QCOW2" "$work/qcow2"
  serve_blocks
fi
if [ -n "$directory" ]; then
  mkdir "$directory"
  dd if=/dev/urandom of="$directory/data" bs=64k count=48 2>/dev/null
  [ -z "$shared" ] || serve_share
fi
peer_vm='' joined='' peer_typed=''
[ -z "$peer" ] || start_peer "$@"
echo "@@gyre:case $name begin $(date -u +%s)"
begun=$(uptime_seconds)
# Both ends are open here, so that no end waits for the other, and a VMM that is gone is no broken pipe.
exec 3<>"$work/in"
{
  timeout -s KILL "$limit" sh -c 'echo $$ >"$0"; exec "$@"' "$work/pid" "$@" <"$work/in" 2>"$work/err"
  echo $? >"$work/status.part"
  mv "$work/status.part" "$work/status"
} | tee "$work/out" &
# The guest may end without asking; the VMM's bound is ours too.
killed='' typed='' answered='' pressed='' told='' fetched='' resized='' talked='' messages='' asked=0 follower=''
until [ -e "$work/status" ]; do
  [ -z "$tap" ] || [ -n "$peer" ] || [ -n "$servers" ] || [ ! -e "/sys/class/net/$tap" ] || serve
  [ -z "$peer" ] || [ -n "$joined" ] || [ ! -e "/sys/class/net/$tap" ] || [ ! -e "/sys/class/net/${tap}p" ] || join_peers
  if [ -n "$peer" ] && [ -z "$peer_typed" ] && grep -q '^gyre-guest: type a line' "$work/peer"; then
    printf '%s\n' "$line" >&4
    peer_typed=1
  fi
  if [ -z "$typed" ] && grep -q '^gyre-guest: type a line' "$work/out"; then
    printf '%s\n' "$line" >&3
    typed=1
  fi
  if [ -n "$port" ] && [ -z "$fetched" ] && grep -q '^gyre-guest: fetch it' "$work/out"; then
    timeout 150 busybox wget -q -O "$work/upload" "http://127.0.0.1:$port/up" || tell_stall "$(cat "$work/pid")" >>"$work/err" 2>&1
    printf 'fetched\n' >&3
    fetched=1
  fi
  if [ -n "$qmp" ] && [ -z "$resized" ] && grep -q '^gyre-guest: resize it' "$work/out"; then
    "$GYRECTL" -s "$qmp" raw '{"execute": "block_resize", "arguments": {"device": "data", "size": 75497472}}' >>"$work/err" 2>&1
    resized=1
  fi
  if [ -n "$qmp" ] && [ -z "$follower" ] && [ -S "$qmp" ]; then
    "$GYRECTL" -s "$qmp" --json events --follow >"$work/events" 2>&1 &
    follower=$!
  fi
  if [ -n "$qmp" ] && [ "$(grep -c '^gyre-guest: ask ' "$work/out")" -gt "$asked" ]; then
    asked=$((asked + 1))
    words=$(grep '^gyre-guest: ask ' "$work/out" | sed -n "${asked}p" | tr -d '\r')
    # Words of ours, by blanks.
    # shellcheck disable=SC2086
    set -- ${words#gyre-guest: ask }
    answer=answer_$1
    shift
    "$answer" "$@" >>"$work/answers" 2>>"$work/err"
    printf 'done\n' >&3
  fi
  if [ -n "$vsock" ] && [ -z "$talked" ] && grep -q '^gyre-guest: talk to it' "$work/out"; then
    talked=$(timeout 150 "$GYRE_VSOCK_PEER" drive "$vsock" 6000 300 24 2>&1)
    messages=$(timeout 150 "$GYRE_VSOCK_PEER" drive-messages "$vsock" 6001 20 2 2>&1)
    printf 'talked\n' >&3
  fi
  if [ -z "$answered" ] && grep -q '^gyre-guest: talk on the port' "$work/out"; then
    pts=$(sed -n 's|.*\(/dev/pts/[0-9][0-9]*\).*|\1|p' "$work/err" | head -n 1)
    printf 'the host says hello\n' >"$pts"
    answered=$(timeout 150 head -n 1 <"$pts")
  fi
  if [ -n "$blocks" ] && [ -z "$killed" ] && grep -q '^gyre-guest: kill it' "$work/out"; then
    kill -KILL "$block_server"
    sleep 1
    serve_blocks
    killed=1
  fi
  if [ -z "$pressed" ] && grep -q '^gyre-guest: press the button' "$work/out"; then
    kill -PWR "$(cat "$work/pid")"
    pressed=1
  fi
  if [ -z "$told" ] && [ $(($(uptime_seconds) - begun)) -ge $((limit - 5)) ]; then
    tell_hang "$(cat "$work/pid")" >"$work/hang" 2>&1
    told=1
  fi
  sleep 0.1
done
if [ -n "$peer" ]; then
  # It ends by itself, once it has what it was sent.
  waited=0
  while kill -0 "$peer_vm" 2>/dev/null && [ $waited != 200 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  kill "$peer_vm" 2>/dev/null
  echo
  tr -d '\r' <"$work/peer" | grep '^gyre-guest: \(served\|taken\)'
fi
for server in $servers $follower $block_server; do kill "$server" 2>/dev/null; done
wait
exec 3>&-
[ -z "$answered" ] || { echo; echo "gyre-guest: answered $answered"; }
[ -z "$vsock" ] || { echo; echo "gyre-guest: peer host $talked"; echo "gyre-guest: messages host $messages"; }
[ -z "$servers$directory" ] || [ -n "$vsock" ] || { echo; echo "gyre-guest: served $(md5sum <"$work/www/data")"; echo "gyre-guest: taken $(md5sum <"$([ -n "$directory" ] && echo "$work/www/up" || echo "$work/upload")")"; }
if [ -n "$blocks" ]; then
  magic=$(head -c 3 "$work/qcow2") size=$(wc -c <"$work/qcow2")
  echo
  echo "gyre-guest: image $magic $([ "$size" -gt 1048576 ] && echo grown || echo "$size")"
  sed "s/^/@@gyre:stderr $name server: /" "$work/servers"
fi
[ -z "$image" ] || { echo; echo "gyre-guest: outside $(md5sum <"$image")"; }
[ -z "$pmem" ] || { echo; echo "gyre-guest: outside $(md5sum <"$pmem")"; }
[ ! -e "$work/answers" ] || { echo; sed 's/^/gyre-guest: /' "$work/answers"; }
[ ! -e "$work/port" ] || { echo; sed 's/^/gyre-guest: /' "$work/port"; }
seconds=$(($(uptime_seconds) - begun))
status=$(cat "$work/status")
[ "$seconds" -lt "$limit" ] || status=timeout
echo
[ -z "$told" ] || cat "$work/hang" >>"$work/err"
sed "s/^/@@gyre:stderr $name /" "$work/err"
echo "@@gyre:case $name end $status $seconds"
rm -rf "$work"
