# The daemon stops under a running guest, again and again: with the next one the guest goes on as if it had waited.
# shellcheck shell=bash
only_for ringback "a guest outlives the daemon" || return 0
image=$(new_image disk 64)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda && head -c 1048576 /dev/urandom >/tmp/data'

# writes block after block and checks each, until told to stop
guest_run g '
  for ((i = 0; ; i = (i + 1) % 48)); do
    dd if=/tmp/data of=/dev/xvda bs=64k seek=$((i * 16)) oflag=direct conv=fsync 2>/dev/null &&
      dd if=/dev/xvda of=/tmp/back bs=64k skip=$((i * 16)) count=16 iflag=direct 2>/dev/null &&
      cmp /tmp/data /tmp/back || exit 1
    ! xenstore-exists data/enough || exit 0
  done' & writer=$!
require "the guest writes" await 30 counter_reaches g xvda writes 100

require "the daemon stops cleanly" backend_stop
backend_start
expect "the next daemon serves the guest" await 60 counter_reaches g xvda writes 100
for time in second third; do
  expect "the $time daemon stops cleanly too" backend_stop
  backend_start
  expect "and the one after it serves the guest" await 60 counter_reaches g xvda writes 50
done
expect_equal "the disk was Connected all the time" "$(frontend_node g xvda state)" 4
xenstore-write "/local/domain/$(guest_id g)/data/enough" 1
expect "the guest read back all that it wrote" wait $writer
