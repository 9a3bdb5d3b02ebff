# The image grows under a mounted file system that is being written: the guest sees the new size and uses it.
# shellcheck shell=bash
only_for ringback "an image that grows" || return 0
image=$(new_image disk 32)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
require "mkfs.ext4" guest_run g 'mke2fs -q -t ext4 -O resize_inode,^has_journal /dev/xvda && mount -t ext4 /dev/xvda /mnt'
guest_run g '
  until xenstore-exists data/enough; do
    head -c 2097152 /dev/urandom | tee /mnt/file | sha256sum >/tmp/sum; sync; echo 1 >/proc/sys/vm/drop_caches
    sha256sum </mnt/file | cmp - /tmp/sum || exit 1
  done' &
writer=$!
require "it writes" await 60 counter_reaches g xvda writes 10

truncate -s 64M "$image"
require "resize" ask resize g xvda
expect_equal "the new size is published" "$(backend_node g xvda sectors)" 131072
truncate -s 96M "$image"
expect "the daemon notices the next growth by itself" await 60 eval '[ "$(backend_node g xvda sectors)" = 196608 ]'
xenstore-write "/local/domain/$(guest_id g)/data/enough" 1
expect "the guest wrote and read all the time" wait $writer
expect "the guest sees the size" guest_run g "await 60 eval '[ \$(cat /sys/block/xvda/size) = 196608 ]'"
require "the mounted file system grows" guest_run g 'resize2fs /dev/xvda'
expect "and takes a file larger than the old disk" guest_run g '
  head -c 67108864 /dev/urandom >/mnt/large && sync && sha256sum </mnt/large >/tmp/sum && echo 1 >/proc/sys/vm/drop_caches &&
  sha256sum </mnt/large | cmp - /tmp/sum'
require "unmount" guest_run g 'umount /mnt'
detach g xvda
require "e2fsck finds the image clean" e2fsck -fn "$image"
