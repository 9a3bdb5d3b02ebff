# A guest installed on a partitioned disk: it starts from the second partition, sees the table that is there, adds a
# partition itself, and finds all of it again after a reboot.
# shellcheck shell=bash
# shellcheck source=dom0/partitions.sh
. "$lab/dom0/partitions.sh"
image=$(installed_image disk 16 /dev/null)
backend_start
guest_create g --kernel root=/dev/xvda2
attach g xvda "$image"
guest_start g
root_device='sed -n "s| / ext4 .*||p" /proc/mounts'
expect_equal "the root file system is on the second partition" "$(guest_run g "$root_device")" /dev/xvda2
expect_equal "the guest reads the table that dom0 wrote" \
  "$(guest_run g "$(partition_table /dev/xvda)")" "$(eval "$(partition_table "$image")")"
require "the guest adds a partition with a file system" guest_run g '
  set -e
  echo "name=data" | sfdisk -q --no-reread --append /dev/xvda
  partx -a --nr 3 /dev/xvda
  await 10 test -b /dev/xvda3
  mke2fs -q -t ext4 /dev/xvda3
  mount -t ext4 /dev/xvda3 /mnt
  head -c 2097152 /dev/urandom >/mnt/data; sync'
written=$(guest_run g 'sha256sum </mnt/data; umount /mnt')
expect "the guest switches itself off" guest_power_off g
expect "the table on the image is in order" sfdisk -q --verify "$image"
offset=$(($(sfdisk -d "$image" | sed -n 's/.*start= *\([0-9]*\).*name="data".*/\1/p') * 512))
guest_create again --kernel root=/dev/xvda2
attach again xvda "$image"
guest_start again
expect_equal "another guest finds three partitions" "$(guest_run again 'cd /sys/block/xvda && echo xvda?*')" "xvda1 xvda2 xvda3"
expect_equal "with what was written" "$(guest_run again 'mount -t ext4 /dev/xvda3 /mnt && sha256sum </mnt/data')" "$written"
expect "and switches itself off" guest_power_off again
expect "e2fsck finds the new file system clean" e2fsck -fn "$image?offset=$offset"
