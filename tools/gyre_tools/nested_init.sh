#!/bin/busybox sh
# The outer machine's first process: loads KVM, runs the script that came by fw_cfg, says how it ended.
export PATH=/bin HOME=/tmp
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr
echo "@@gyre:outer-up"
sh /load_kvm.sh
# Guests may be larger than this machine: only the pages that they touch count.
echo 1 >/proc/sys/vm/overcommit_memory
ip link set lo up 2>/dev/null
cat /sys/firmware/qemu_fw_cfg/by_name/opt/run/raw >/tmp/run.sh
cd /tmp
# From here on the console is the script's; the kernel speaks up only when it dies.
dmesg -n 3
echo "@@gyre:body"
# A session with a controlling terminal of its own, so that the console works as one.
setsid -c sh /tmp/run.sh
status=$?
# The end of that session hung the terminal up.
exec </dev/ttyS0 >/dev/ttyS0 2>&1
echo
echo "@@gyre:done $status"
# The exit port ends the machine; what is left in the console's FIFO goes first.
sleep 0.1
if [ $status -eq 0 ]; then outb 0xf4 42; else outb 0xf4 21; fi
# Not reached; a machine that comes here died, for the host.
echo o >/proc/sysrq-trigger
sleep 5
