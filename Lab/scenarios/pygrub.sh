# limit: 900
# pygrub, xl's boot loader in domain 0, reads kernel and initial ram disk out of a guest's disk before that guest runs. A raw
# image it opens itself; a VHD libxl attaches to domain 0, and the daemon serves the blkfront of its own domain
# (libxl_disk.c, libxl__device_disk_local_initiate_attach).
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
# shellcheck source=dom0/partitions.sh
. "$lab/dom0/partitions.sh"
xl_begin "pygrub"
mkdir -p /usr/share
ln -sf /images/pygrub/bin/pygrub /usr/lib/xen-4.20/bin/
ln -sf /images/pygrub/bin/python3 /usr/bin/
ln -sfn /images/pygrub/lib /usr/lib/xen-4.20/lib
ln -sfn /images/pygrub/share/terminfo /usr/share/terminfo
ln -sf /images/pygrub/lib/x86_64-linux-gnu/*.so* /usr/lib/x86_64-linux-gnu/
# without a second to count pygrub waits for a key
installed_image alpha.img 40 /images/vmlinuz "mark=$scenario" 1
qemu-img convert -q -f raw -O vpc -o force_size=on /srv/alpha.img /srv/beta.vhd
daemon start
xl_guest alpha --boot-loader "bootloader='pygrub'" "$(tap_disk raw xvda alpha.img)" "memory=256"
xl_guest beta --boot-loader "bootloader='pygrub'" "$(tap_disk vhd xvda beta.vhd)" "memory=256" "on_reboot='restart'"
# served_own NUMBER: whether the daemon has served its own domain so often
served_own() { [ "$(grep -c 'Connected disk=vbd3/0/51712' /run/lab/daemon.log)" = "$1" ]; }
dom0_is_clean() { nothing_left_of 0 xvda && [ ! -e /dev/xvda ]; }

for guest in alpha beta; do
  note "A guest whose kernel pygrub reads out of $(sed -n 's|.*target=||; s|.\]$||p' /etc/xen/$guest.cfg):"
  admin "cat /etc/xen/$guest.cfg"
  require "xl creates $guest with pygrub" xl_create $guest
  expect "nothing is left of it in domain 0" dom0_is_clean
  require "it starts" guest_await_ready $guest
  expect "with the words that its image holds" in_guest $guest "grep -F ' mark=$scenario' /proc/cmdline"
  expect_equal "from its disk" "$(guest_run $guest 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda2
done
expect "domain 0 has had the VHD, as its own disk" served_own 1
expect_equal "two taps" "$(tap-ctl list | wc -l)" 2
written=$(guest_run beta 'head -c 4194304 /dev/urandom | tee /root/data | sha256sum; sync')

note "The guest with the VHD is rebooted: libxl runs pygrub again."
require "xl reboots beta" admin "xl reboot beta"
require "it starts again" guest_await_restart beta
expect "domain 0 has had the VHD again" served_own 2
expect "nothing is left of it in domain 0" dom0_is_clean
expect_equal "the guest finds what it wrote" "$(guest_run beta 'sha256sum </root/data')" "$written"

note "Images that cannot be started from: one that another guest has, and one that holds nothing."
xl_guest gamma --boot-loader "bootloader='pygrub'" "$(tap_disk vhd xvda beta.vhd)"
expect "a second guest with the same VHD is refused" fails "xl create /etc/xen/gamma.cfg"
admin "xl block-detach 0 xvda" || true   # what libxl leaves of a local attach that failed, with any backend
qemu-img create -q -f vpc -o force_size=on /srv/empty.vhd 16M
xl_guest gamma --boot-loader "bootloader='pygrub'" "$(tap_disk vhd xvda empty.vhd)"
expect "and a VHD without a kernel" fails "xl create /etc/xen/gamma.cfg"
rm /run/lab/guests/gamma
expect "nothing is left in domain 0" dom0_is_clean
expect_equal "two taps still" "$(tap-ctl list | wc -l)" 2

note "A VHD that an administrator attaches to domain 0:"
qemu-img create -q -f vpc -o force_size=on /srv/own.vhd 16M
require "xl attaches it" admin "xl block-attach 0 '$(tap_disk vhd xvdb own.vhd)'"
require "domain 0 sees it" await 30 test -b /dev/xvdb
head -c 2097152 /dev/urandom >/run/lab/data
expect "and writes to it" admin 'dd if=/run/lab/data of=/dev/xvdb bs=64k oflag=direct conv=fsync'
expect "what it wrote comes back" eval 'dd if=/dev/xvdb bs=64k count=32 iflag=direct | cmp - /run/lab/data'
expect "xl detaches it" admin "xl block-detach 0 xvdb"
expect "nothing is left of it" nothing_left_of 0 xvdb
qemu-img convert -f vpc -O raw /srv/own.vhd /srv/own.img
expect "the image holds it" cmp -n 2097152 /srv/own.img /run/lab/data

require "xl shuts both guests down" admin "xl shutdown -a -w"
expect "nothing is left" nothing_left
expect_equal "no page of domain 0 is mapped" "$(grants_mapped_of 0)" 0
qemu-img convert -f vpc -O raw /srv/beta.vhd /srv/beta.img
expect "the file system in the VHD is clean" e2fsck -fn "/srv/beta.img?offset=$((41 << 20))"
