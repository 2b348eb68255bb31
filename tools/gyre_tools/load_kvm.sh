#!/bin/sh
# Loads the outer machine's modules, KVM's among them, and says when /dev/kvm is there.
# KVM keeps the TSC's frequency of the moment when it loads. Where the kernel refines it later by more than 250 parts
# in a million, as under a busy emulation it may, KVM cannot scale the TSC for its guests and leaves their ratio at 0:
# their TSC stands still for it, and a guest's first timer comes as late as the machine has been up. So the
# refinement is waited for: the clock source is tsc-early until then.
source=/sys/devices/system/clocksource/clocksource0/current_clocksource
tries=0
while [ "$(cat $source)" = tsc-early ] && [ $tries -lt 300 ]; do
  sleep 0.05
  tries=$((tries + 1))
done
for module in /modules/*.ko; do
  insmod "$module"
done
if [ -c /dev/kvm ]; then echo "@@gyre:kvm-up $(cat $source)"; fi
