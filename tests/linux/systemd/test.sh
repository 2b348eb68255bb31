# In a Debian with systemd as its first process: gyre@.service and gyre@.socket, for real. Stops at the first fault.
set -eu
conf=/usr/local/etc/gyre

say() { echo "systemd: $*"; }
fail() {
  systemctl status --no-pager -n 0 'gyre@*' || true
  journalctl --no-pager -n 40 -o short-monotonic || true
  echo "FAILED: $*"
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

# drop_in INSTANCE FILE
drop_in() {
  mkdir -p "/etc/systemd/system/gyre@$1.service.d"
  cp "$2" "/etc/systemd/system/gyre@$1.service.d/"
}

listens() { cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1F90 [0-9A-F]*:0000 0A '; }  # port 8080

systemd-sysusers
for name in a b c tap user; do
  cat >$conf/$name.conf <<END
kernel=/gyre/button
cmdline=sleep
memory=16M
serial="unix:/run/gyre/$name/serial.sock"
log-level=info
END
done
# Where its thread and its memory are to be: calls that the unit allows for these options alone.
echo 'iothread="io,cpus=0"' >>$conf/a.conf
if [ -d /sys/devices/system/node/node0 ]; then
  sed -i 's/^memory=.*/memory="size=16M,numa=0,policy=bind"/' $conf/a.conf
  say "a has its memory from node 0"
fi
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

# A tap of the group's, and passt, under the unit's hardening and the drop-ins that come with it.
ip tuntap add tap0 mode tap vnet_hdr group gyre
ip link set tap0 up
ip tuntap add eth0 mode tap  # a way out that leads nowhere
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip route add default via 192.0.2.254
echo 'net="tap=tap0"' >>$conf/tap.conf
echo 'net="user,hostfwd=tcp::8080-:80"' >>$conf/user.conf
drop_in tap /gyre/tap.conf
drop_in user /gyre/user-network.conf
systemctl daemon-reload
systemctl start gyre@tap gyre@user || fail "the start with networks"
[ "$(cat /sys/class/net/tap0/carrier)" = 1 ] || fail "nobody has the tap: $(ip link show tap0)"
until_true 60 listens
programs=$(sed 's|.*|/proc/&/comm|' "/sys/fs/cgroup$(property ControlGroup gyre@user)/cgroup.procs" | xargs cat | sort | tr '\n' ' ')
case $programs in
  *gyred*passt*) ;;
  *) fail "in the unit of user: $programs" ;;
esac
gyrectl --timeout 60 user status >/dev/null || fail "gyrectl user status"
systemctl stop gyre@tap gyre@user || fail "the stop of those with networks"
has Result gyre@user success || fail "user ended by $(property Result gyre@user)"
! listens || fail "passt has outlived its VM"
say "a tap and passt carry two"

# A directory: virtiofsd beside the VM, whose confinement is what it was.
if [ -x /usr/lib/qemu/virtiofsd ]; then
  cat >$conf/dir.conf <<END
kernel=/gyre/button
cmdline=sleep
memory=16M
serial="unix:/run/gyre/dir/serial.sock"
log-level=info
share="socket=/run/gyre-share/dir.sock,tag=home"
END
  mkdir -p /srv/gyre/dir
  drop_in dir /gyre/share.conf
  systemctl daemon-reload
  socket=/run/gyre-share/dir.sock
  systemctl start gyre@dir || fail "the start with a directory"
  has SubState gyre-share@dir running || fail "virtiofsd does not run"
  user=$(stat -c %u /proc/"$(property MainPID gyre@dir)")
  [ "$user" != 0 ] || fail "dir runs as root"
  [ "$(stat -c %a:%u $socket)" = "600:$user" ] || fail "not dir's alone is the directory: $(stat -c %a:%u $socket), not $user's"
  main=$(property MainPID gyre-share@dir)
  kill -KILL "$main"
  # sh's own.
  # shellcheck disable=SC2016
  until_true 60 sh -c 'now=$(systemctl show -P MainPID gyre-share@dir); [ "$now" != 0 ] && [ "$now" != "$0" ]' "$main"
  gyrectl --timeout 60 dir status >/dev/null || fail "gyrectl dir status"
  systemctl stop gyre@dir || fail "the stop of the one with a directory"
  has Result gyre@dir success || fail "dir ended by $(property Result gyre@dir)"
  until_true 60 has ActiveState gyre-share@dir inactive
  [ "$(stat -c %a:%u $socket)" = 600:0 ] || fail "the socket is still $(stat -c %u $socket)'s"
  say "virtiofsd serves one, and again after its death"
fi
echo "PASS systemd"
