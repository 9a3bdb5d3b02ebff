# What a guest gives back becomes room in dom0: fstrim of a file system, blkdiscard beside other I/O and of the whole disk.
# shellcheck shell=bash
image=$(new_image disk 128)
megabytes() { du -m "$image" | cut -f1; }
backend_start
guest_create g --fio
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "discards are offered" "$(backend_node g xvda feature-discard)" 1
require "a file system with 64 MiB in it" guest_run g '
  mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && head -c 4194304 /dev/urandom >/mnt/kept &&
  head -c 67108864 /dev/urandom >/mnt/file && sync && sha256sum </mnt/kept >/tmp/sum'
full=$(megabytes)
expect "takes room in dom0 ($full MiB)" test "$full" -ge 64
require "its file goes, and fstrim tells" guest_run g 'rm /mnt/file && sync && fstrim -v /mnt'
expect "room comes back ($(megabytes) MiB)" test "$(megabytes)" -le $((full - 60))
expect "what stays is whole" guest_run g '
  umount /mnt && mount -t ext4 /dev/xvda /mnt && sha256sum </mnt/kept | cmp - /tmp/sum && umount /mnt'
expect "the backend counts them" counter_reaches g xvda discards 1

expect "fio verifies one half while the other is discarded again and again" guest_run g '
  (until [ -e /tmp/done ]; do
    dd if=/dev/urandom of=/dev/xvda bs=1M seek=64 count=8 oflag=direct 2>/dev/null
    blkdiscard -o 67108864 -l 67108864 /dev/xvda || exit 1
  done) &
  fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --randrepeat=0 --rw=randwrite --bs=16k \
    --io_size=16m --size=64m --verify=crc32c --verify_fatal=1 --verify_backlog=64
  status=$?
  touch /tmp/done; wait $! && exit $status'
expect_equal "what was given back reads as zeros" \
  "$(guest_run g 'blkdiscard -o 67108864 -l 8388608 /dev/xvda; dd if=/dev/xvda bs=1M skip=64 count=8 iflag=direct 2>/dev/null | sha256sum')" \
  "$(head -c 8388608 /dev/zero | sha256sum)"
guest_send g 'fio --name=load --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --rw=randread --bs=16k --time_based --runtime=5'
require "the whole disk is given back at once while fio reads" guest_run g 'blkdiscard /dev/xvda'
expect "nothing is left of it in dom0 ($(megabytes) MiB)" test "$(megabytes)" -le 2
if only_for ringback "no request failed"; then
  expect_equal "no request failed" "$(counter g xvda errors)" 0
fi
detach g xvda
guest_run g 'disk_gone xvda'

if only_for ringback "discard-mode and discard-enable"; then
  attach_by_nodes g xvda params "raw:$image" discard-mode zeroes
  require "a disk that keeps its room and gives zeros" guest_run g 'disk_ready xvda'
  require "is filled and discarded" guest_run g '
    dd if=/dev/urandom of=/dev/xvda bs=1M count=32 oflag=direct conv=fsync && blkdiscard -o 8388608 -l 16777216 /dev/xvda'
  expect_equal "reads as zeros" "$(guest_run g 'dd if=/dev/xvda bs=1M skip=8 count=16 iflag=direct 2>/dev/null | sha256sum')" \
    "$(head -c 16777216 /dev/zero | sha256sum)"
  expect "and takes the room it took ($(megabytes) MiB)" test "$(megabytes)" -ge 32
  detach g xvda
  guest_run g 'disk_gone xvda'

  attach_by_nodes g xvda params "raw:$image" discard-enable 0
  require "a disk that may not be discarded" guest_run g 'disk_ready xvda'
  expect_equal "does not offer it" "$(backend_node g xvda feature-discard)" 0
  expect "and the guest cannot" guest_run g '[ "$(cat /sys/block/xvda/queue/discard_max_bytes)" = 0 ] && ! blkdiscard /dev/xvda'
fi
