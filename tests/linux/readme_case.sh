#!/bin/sh
# readme_case.sh NAME SECONDS LINE GYRED --kernel FILE --initrd FILE...: as run_case.sh, but what is run is README.md's VM
# with network, disk and a shared directory: $GYRE_README has what is typed for it. As $GYRE_USER, if there is one. What the
# guest gets from the host by network and what the host gets from it are in the shared directory, too, where the guest compares.
here=$(dirname "$0") name=$1 limit=$2 line=$3 gyred=$4 kernel=$6 initrd=$8
. "$here/answers.sh"
home=$(mktemp -d "${TMPDIR:-/tmp}/gyre-readme.XXXXXX") || exit 1
mkdir "$home/bin" "$home/www"
ln -s "$kernel" "$home/vmlinuz"
ln -s "$initrd" "$home/initrd.img"
ln -s "$gyred" "$home/bin/gyred"
dd if=/dev/urandom of="$home/www/data" bs=64k count=16 2>/dev/null
if [ -n "$GYRE_USER" ]; then
  mkdir -p /var/run 2>/dev/null || { mount -t tmpfs tmpfs /var && mkdir /var/run; }
  chmod 1777 "${TMPDIR:-/tmp}"
  # newuidmap and newgidmap, which are root whoever runs them, and util-linux's unshare.
  for program in /gyre/user/*; do cp "$program" "$home/bin"; done
  chmod 666 /dev/kvm
  chown -R "$GYRE_USER" "$home"
  chown root "$home/bin/"new*idmap
  chmod 4755 "$home/bin/"new*idmap
  have_way_out
fi
busybox httpd -f -p 127.0.0.1:8078 -h "$home/www" 2>/dev/null &
server=$!
{
  until [ -d "$home/shared" ]; do sleep 0.2; done
  cp "$home/www/data" "$home/shared/data"
  until timeout 20 busybox wget -q -O "$home/up" http://127.0.0.1:8080/up; do sleep 0.5; done 2>/dev/null
  mv "$home/up" "$home/shared/fetched"
} &
fetcher=$!
typed="cd '$home' && PATH='$home/bin':\$PATH && . '$GYRE_README'"
if [ -n "$GYRE_USER" ]; then
  set -- su -s /bin/sh -c "$typed" "$GYRE_USER"
else
  set -- sh -c "$typed"
fi
sh "$here/run_case.sh" "$name" "$limit" "$line" "$@"
kill "$server" "$fetcher" 2>/dev/null
rm -rf "$home"
