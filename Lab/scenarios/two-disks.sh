# Two disks of one guest, written at the same time: each image holds what was written to its disk.
# shellcheck shell=bash
backend_start
guest_create g
attach g xvda "$(new_image first 16)"
attach g xvdb "$(new_image second 24)"
guest_start g
require "the guest sees both disks" guest_run g 'disk_ready xvda && disk_ready xvdb'
expect_equal "each has its own size" "$(guest_run g 'cat /sys/block/xvda/size /sys/block/xvdb/size' | tr '\n' ' ')" "32768 49152 "
require "write both at once" guest_run g '
  for disk in xvda xvdb; do
    head -c 4194304 /dev/urandom >/tmp/$disk
    dd if=/tmp/$disk of=/dev/$disk bs=64k oflag=direct conv=fsync &
  done
  wait'
written=$(guest_run g 'cat /tmp/xvda /tmp/xvdb | sha256sum')
expect_equal "the guest reads back what it wrote" \
  "$(guest_run g 'for disk in xvda xvdb; do dd if=/dev/$disk bs=64k count=64 iflag=direct 2>/dev/null; done | sha256sum')" "$written"
detach g xvda
expect "the second disk works without the first" guest_run g '
  disk_gone xvda && dd if=/dev/xvdb of=/dev/null bs=64k count=64 iflag=direct'
detach g xvdb
expect_equal "each image holds its disk's data" \
  "$(for name in first second; do head -c 4194304 "$images/$name"; done | sha256sum)" "$written"
