# A PVH guest: the same kernel without a PV MMU, its root file system on our disk, which its blkfront keeps through work.
# shellcheck shell=bash
image=$images/root.img
cp /images/root.ext4 "$image"
backend_start
guest_create g --kernel "root=/dev/xvda noxsave" "type='pvh'"
attach g xvda "$image"
guest_start g
expect_equal "the guest is PVH" "$(guest_run g 'cat /sys/hypervisor/guest_type')" PVH
expect_equal "the root file system is on the disk" "$(guest_run g 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda
written=$(guest_run g 'head -c 4194304 /dev/urandom | tee /root/data | sha256sum; sync')
expect "the guest switches itself off" guest_power_off g
require "e2fsck finds the image clean" e2fsck -fn "$image"
mount -t ext4 -o loop,ro "$image" /mnt
expect_equal "the image holds what the guest wrote" "$(sha256sum </mnt/root/data)" "$written"
umount /mnt
