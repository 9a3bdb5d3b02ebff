# A disk attached read-only can be read, and nothing the guest does changes its image.
# shellcheck shell=bash
image=$(new_image disk 32)
mke2fs -q -t ext4 -d "$lab/scenarios" "$image"
before=$(sum_of "$image")
backend_start
guest_create g
attach g xvda "$image" --mode r
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "the guest knows that it is read-only" "$(guest_run g 'cat /sys/block/xvda/ro')" 1
expect_equal "files can be read" \
  "$(guest_run g 'mount -t ext4 -o ro,noload /dev/xvda /mnt && cat /mnt/*.sh | sha256sum; umount /mnt')" \
  "$(cat "$lab"/scenarios/*.sh | sha256sum)"
expect "a write is refused" guest_run g '! dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct'
expect "a write is refused after blockdev --setrw" guest_run g '
  blockdev --setrw /dev/xvda; ! dd if=/dev/zero of=/dev/xvda bs=4k count=1 oflag=direct,sync'
# the journal of a clean file system needs no replay; mount falls back to read-only by itself
expect "a mount gives no right to write" guest_run g 'mount -t ext4 /dev/xvda /mnt && ! touch /mnt/file; umount /mnt'
detach g xvda
expect_equal "the image is unchanged" "$(sum_of "$image")" "$before"
