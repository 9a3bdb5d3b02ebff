# A guest's fsync reaches the image, and nothing else does: one flush for each.
# shellcheck shell=bash
image=$(new_image disk 16)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "the guest uses a write-back cache" "$(guest_run g 'cat /sys/block/xvda/queue/write_cache')" "write back"

before=$(counter g xvda flushes)
expect "32 writes" guest_run g 'dd if=/dev/zero of=/dev/xvda bs=4k count=32 oflag=direct'
expect_equal "writes alone cause no flush" "$(($(counter g xvda flushes) - before))" 0

before=$(counter g xvda flushes)
[ "$backend" != ringback ] || syncs=$(counter g xvda fsyncs)
expect "10 writes with fsync" guest_run g '
  set -e
  for ((i = 0; i < 10; i++)); do dd if=/dev/urandom of=/dev/xvda bs=4k count=1 seek=$i oflag=direct conv=fsync; done'
expect_equal "each fsync is one flush" "$(($(counter g xvda flushes) - before))" 10
if only_for ringback "each flush is one fsync of the image"; then
  expect_equal "each flush is one fsync of the image" "$(($(counter g xvda fsyncs) - syncs))" 10
fi
