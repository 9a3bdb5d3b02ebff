# limit: 1800
# The same with a PV guest. GRUB has to unpack the kernel itself then, and knows gzip, but not the Zstandard of Debian's.
# shellcheck shell=bash
# shellcheck source=dom0/partitions.sh
. "$lab/dom0/partitions.sh"
image=$(installed_image disk 40 /images/vmlinux.gz "mark=$scenario")
backend_start
guest_create g --boot-loader "kernel='/images/grub-x86_64-xen.bin'" "memory=256"
attach g xvda "$image"
guest_start g
expect_equal "the guest is PV" "$(guest_run g 'cat /sys/hypervisor/guest_type')" PV
expect "with the words that the image holds" guest_run g "grep -F ' mark=$scenario' /proc/cmdline"
expect_equal "the root file system is on the disk" "$(guest_run g 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda2
written=$(guest_run g 'head -c 4194304 /dev/urandom | tee /root/data | sha256sum; sync')
expect_equal "it can be read back" "$(guest_run g 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/data')" "$written"
expect "the guest switches itself off" guest_power_off g
