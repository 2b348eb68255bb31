#!/bin/sh
# run_case.sh NAME SECONDS LINE COMMAND...: runs a VMM with the guest's console on its stdin and stdout, types LINE
# when the guest asks for it, presses its power button when it asks for that (SIGPWR), and tells the exit status. Here and in the nested machine, by whatever sh there is.
name=$1 limit=$2 line=$3
shift 3
# An argument's @disk@ becomes an image of 16 MiB, whose sum is told at the end.
work=$(mktemp -d "${TMPDIR:-/tmp}/gyre-case.XXXXXX") || exit 1
mkfifo "$work/in"
: >"$work/out"
image=''
count=$#
while [ "$count" -gt 0 ]; do
  argument=$1
  shift
  case $argument in *@disk@*)
    image=$work/disk
    dd if=/dev/zero of="$image" bs=1 count=0 seek=16777216 2>/dev/null
    argument=${argument%%@disk@*}$image${argument#*@disk@} ;;
  esac
  set -- "$@" "$argument"
  count=$((count - 1))
done

# tell_hang PID: what a VMM that does not end is doing, for who reads the case's output.
tell_hang() {
  for task in /proc/"$1"/task/*; do
    echo "hang: $(cat "$task/comm") $(cut -d' ' -f3,14,15 "$task/stat") in $(cat "$task/wchan") syscall $(cut -d' ' -f1-3 "$task/syscall")"
  done
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

uptime_seconds() { cut -d. -f1 /proc/uptime; }

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
typed='' pressed='' told=''
until [ -e "$work/status" ]; do
  if [ -z "$typed" ] && grep -q '^gyre-guest: type a line' "$work/out"; then
    printf '%s\n' "$line" >&3
    typed=1
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
wait
exec 3>&-
[ -z "$image" ] || { echo; echo "gyre-guest: outside $(md5sum <"$image")"; }
seconds=$(($(uptime_seconds) - begun))
status=$(cat "$work/status")
[ "$seconds" -lt "$limit" ] || status=timeout
echo
[ -z "$told" ] || cat "$work/hang" >>"$work/err"
sed "s/^/@@gyre:stderr $name /" "$work/err"
echo "@@gyre:case $name end $status $seconds"
rm -rf "$work"
