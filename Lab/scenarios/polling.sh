# The daemon looks at the rings for a while before it sleeps: nothing is lost at either end of a sleep.
# shellcheck shell=bash
only_for ringback "polling" || return 0
image=$(new_image disk 64)
backend_start --poll 200
guest_create g --fio
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
while read -r depth pause requests; do
  expect "fio at depth $depth, a pause of $pause us after each request" guest_run g "
    fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=$depth --randrepeat=0 --rw=randwrite --bs=4k \
      --thinktime=$pause --io_size=$((requests * 4))k --size=100% --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fdatasync=50"
done <<'JOBS'
1 0 150
1 300 150
32 0 2000
32 1000 300
JOBS
expect_equal "no request failed" "$(counter g xvda errors)" 0
# with nothing to do it sleeps: what it was charged for two seconds stays far from two seconds (in hundredths)
ticks() { awk '{ print $14 + $15 }' "/proc/$(cat /run/lab/daemon.pid)/stat"; }
before=$(ticks)
sleep 2
expect "an idle daemon sleeps" test $(($(ticks) - before)) -lt 50
