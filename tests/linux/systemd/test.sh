# In a Debian with systemd as its first process: gyre@.service and gyre@.socket, for real. Stops at the first fault.
set -eu
conf=/usr/local/etc/gyre

say() { echo "systemd: $*"; }
fail() {
  echo "FAILED: $*"
  systemctl status --no-pager -n 0 'gyre@*' || true
  journalctl --no-pager -n 60 -o short-monotonic || true
  exit 1
}
# until_true SECONDS COMMAND...
until_true() {
  left=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ $left -gt 0 ] || fail "not in time: $*"
    sleep 0.2
  done
}
property() { systemctl show -P "$1" "$2"; }
has() { [ "$(property "$1" "$2")" = "$3" ]; }

systemd-sysusers
for name in a b c; do
  cat >$conf/$name.conf <<END
kernel=/gyre/button
cmdline=sleep
memory=16M
serial="unix:/run/gyre/$name/serial.sock"
log-level=info
END
done
# An emulated machine may stall for a while by itself. One of them is to be bitten, though.
mkdir -p /etc/systemd/system/gyre@.service.d /etc/systemd/system/gyre@b.service.d
printf '[Service]\nWatchdogSec=120\n' >/etc/systemd/system/gyre@.service.d/watchdog.conf
printf '[Service]\nWatchdogSec=15\n' >/etc/systemd/system/gyre@b.service.d/watchdog.conf
systemctl daemon-reload

systemctl start gyre@a gyre@b || fail "the start"
say "two are ready"
for name in a b; do
  until_true 60 has StatusText gyre@$name suspended
  gyrectl --timeout 30 $name status || fail "gyrectl $name status"
  [ "$(gyrectl --timeout 30 --json $name status | tr -d ' ' | grep -c '"status":"suspended"')" = 1 ] || fail "$name is not suspended"
done
[ "$(gyrectl --timeout 60 list --names | tr '\n' ' ')" = "a b " ] || fail "gyrectl list: $(gyrectl list)"
timeout 60 gyrectl a console </dev/null >/tmp/console --timeout 3 || true
grep -q ready /tmp/console || fail "the console of a: $(cat /tmp/console)"
say "both answer"

main=$(property MainPID gyre@a)
[ "$(stat -c %U /proc/"$main")" != root ] || fail "a runs as root"
kill -KILL "$main"
until_true 60 has NRestarts gyre@a 1
until_true 60 has SubState gyre@a running
until_true 60 has StatusText gyre@a suspended
[ "$(property MainPID gyre@a)" != "$main" ] || fail "a is the old one"
gyrectl --timeout 30 a status >/dev/null || fail "a does not answer after its restart"
say "the killed one was restarted"

main=$(property MainPID gyre@b)
kill -STOP "$main"
until_true 180 has NRestarts gyre@b 1
until_true 60 has SubState gyre@b running
until_true 60 has StatusText gyre@b suspended
journalctl --no-pager -u gyre@b | grep -q 'Watchdog timeout' || fail "b was not restarted by the watchdog"
gyrectl --timeout 30 b status >/dev/null || fail "b does not answer after its restart"
say "the frozen one was restarted"

systemctl reload gyre@a || fail "the reload"
has SubState gyre@a running || fail "a after the reload"

systemctl stop gyre@a gyre@b || fail "the stop"
for name in a b; do
  has Result gyre@$name success || fail "$name ended by $(property Result gyre@$name)"
  until_true 30 sh -c "journalctl --no-pager GYRE_VM=$name -o cat | grep -q 'SHUTDOWN guest=true reason=guest-shutdown'"
  journalctl --no-pager GYRE_VM=$name GYRE_STATE=suspended -n 1 -o cat | grep -q . || fail "no GYRE_STATE of $name"
done
say "both guests have powered off"

systemctl start gyre@c.socket || fail "the socket"
has SubState gyre@c dead || fail "c runs already"
[ "$(stat -c %a:%U:%G /run/gyre/c/qmp.sock)" = 600:root:root ] || fail "others may talk to c"
until_true 120 gyrectl --timeout 60 c status
has SubState gyre@c running || fail "c was not started by its socket"
gyrectl --timeout 60 c quit --wait || fail "gyrectl c quit"
until_true 60 has SubState gyre@c dead
say "the socket has started one"
echo "PASS systemd"
