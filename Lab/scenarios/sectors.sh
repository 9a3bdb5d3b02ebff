# A medium with sectors of 4096 bytes, shown to the guest with sectors of 512 bytes and then with its own: every byte is where
# the guest put it, and a guest boots from it.
# shellcheck shell=bash
only_for ringback "sectors smaller than the medium's" || return 0
# medium FILE: a block device over it that knows only whole sectors of 4096 bytes
medium() { losetup --show --find --sector-size 4096 --direct-io=on "$1"; }
cp /images/root.ext4 "$(new_image root 0)"
disk=$(medium "$(new_image disk 16)") root=$(medium "$images/root")
trap 'losetup -d "$disk" "$root"' EXIT
expect_equal "dom0's medium has sectors of 4096 bytes" "$(blockdev --getss "$disk")" 4096
backend_start
guest_create g --fio
guest_start g

attach g xvda "phy:$disk"
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "with sectors of 512 bytes in blocks of 4096" \
  "$(guest_run g 'cd /sys/block/xvda && cat size queue/logical_block_size queue/physical_block_size' | tr '\n' ' ')" "32768 512 4096 "
# the same pieces go to the disk and to a file in memory; neighbours within a block are written at the same time
require "write whole disk and then pieces from 512 bytes, at places of all kinds" guest_run g '
  set -e
  head -c 16777216 /dev/urandom >/tmp/copy
  dd if=/tmp/copy of=/dev/xvda bs=1M oflag=direct 2>/dev/null
  for ((i = 0; i < 48; i++)); do
    at=$((i * 679 % 32000)) count=$((i % 5 * 3 + 1))
    dd if=/dev/urandom of=/tmp/piece bs=512 count=$count 2>/dev/null
    dd if=/tmp/piece of=/tmp/copy bs=512 seek=$at conv=notrunc 2>/dev/null
    dd if=/tmp/piece of=/dev/xvda bs=512 seek=$at oflag=direct 2>/dev/null
  done'
expect "fio writes sectors in any order, 32 at once" guest_run g '
  fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --randrepeat=0 --rw=randwrite --bs=512 \
    --offset=12m --size=64k --verify=crc32c --verify_fatal=1 &&
  dd if=/dev/xvda of=/tmp/copy bs=512 skip=24576 seek=24576 count=128 iflag=direct conv=notrunc 2>/dev/null'
written=$(guest_run g 'sha256sum </tmp/copy')
expect_equal "the guest reads it back" "$(guest_run g 'dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum')" "$written"
detach g xvda
guest_run g 'disk_gone xvda'
expect_equal "the medium holds it byte by byte" "$(sha256sum <"$disk")" "$written"

attach_by_nodes g xvda params "phy:$disk" logical-sector-size 4096
require "the guest sees the disk again" guest_run g 'disk_ready xvda'
expect_equal "with sectors of 4096 bytes" \
  "$(guest_run g 'cd /sys/block/xvda && cat size queue/logical_block_size queue/physical_block_size' | tr '\n' ' ')" "32768 4096 4096 "
expect_equal "and the same bytes" "$(guest_run g 'dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum')" "$written"
expect "fio writes and verifies in sectors of 4096 bytes" guest_run g '
  fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --randrepeat=0 --rw=randwrite --bsrange=4k-64k \
    --blockalign=4k --io_size=4m --size=100% --verify=crc32c --verify_fatal=1'
written=$(guest_run g 'dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum')
expect_equal "no request failed" "$(counter g xvda errors)" 0
detach g xvda
expect_equal "the medium holds it byte by byte" "$(sha256sum <"$disk")" "$written"
guest_destroy g

guest_create booted --kernel root=/dev/xvda
attach_by_nodes booted xvda params "phy:$root" logical-sector-size 4096
require "the backend takes the disk" backend_reaches booted xvda 2
guest_start booted
expect_equal "a guest boots from sectors of 4096 bytes" \
  "$(guest_run booted 'sed -n "s| / ext4 .*||p" /proc/mounts; cat /sys/block/xvda/queue/logical_block_size' | tr '\n' ' ')" "/dev/xvda 4096 "
written=$(guest_run booted 'head -c 4194304 /dev/urandom | tee /root/data | sha256sum; sync')
require "it switches itself off" guest_power_off booted
backend_forget "$(guest_id booted)"
await 30 no_device_left
require "e2fsck finds the medium clean" e2fsck -fn "$root"
mount -t ext4 -o ro "$root" /mnt
expect_equal "which holds what the guest wrote" "$(sha256sum </mnt/root/data)" "$written"
umount /mnt
