# The daemon stops and another one starts while a guest uses its disk: the guest sees only time pass.
# shellcheck shell=bash
image=$(new_image disk 64)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'

if only_for ringback "its daemon hands guests over"; then
  guest_run g 'dd if=/dev/urandom of=/tmp/data bs=1M count=2 2>/dev/null &&
    for round in 1 2 3 4 5 6; do dd if=/tmp/data of=/dev/xvda bs=16k oflag=direct conv=fsync 2>/dev/null || exit 1; done' &
  writer=$!
  expect "a clean stop while the guest writes" backend_stop
  expect_equal "the disk is still Connected" "$(backend_node g xvda state)" 4
  backend_start
  expect "the guest's writes go on without an error" wait $writer
  expect "the guest reads what it wrote" guest_run g \
    'dd if=/dev/xvda of=/tmp/back bs=64k count=32 iflag=direct 2>/dev/null && cmp /tmp/data /tmp/back'
  expect_equal "the image holds it" \
    "$(head -c 2097152 "$image" | sha256sum)" "$(guest_run g 'sha256sum </tmp/data')"
fi
