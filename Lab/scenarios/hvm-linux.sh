# limit: 900
# Linux as an HVM guest with a VHD: at first on the disk that QEMU emulates, which has the image over NBD; started again it
# has QEMU unplug that, which lets the image go, and takes the disk by its ring.
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
xl_begin "Linux in an HVM guest"
device_model
# hvm_guest NAME WORDS: without noearly Linux asks QEMU for every PCI device that there could be, which takes a minute here
hvm_guest() {
  xl_guest "$1" --kernel "noxsave pci=noearly $2" "$(tap_disk vhd xvda disk.vhd)" "type='hvm'" "memory=256" \
    "kernel='/images/vmlinuz'" "ramdisk='/images/guest-ata.cpio'" "vga='none'" "vnc=0" "nographic=1" "usb=0"
  require "xl creates the guest" xl_create "$1"
  require "it starts" guest_await_ready "$1"
  expect_equal "it is HVM" "$(guest_run "$1" 'cat /sys/hypervisor/guest_type')" HVM
}
write_to() { echo "head -c 2097152 /dev/urandom >/tmp/data && dd if=/tmp/data of=/dev/$1 bs=64k conv=fsync 2>/dev/null && sha256sum </tmp/data"; }
image_sum() { qemu-img convert -f vpc -O raw /srv/disk.vhd /srv/copy && head -c 2097152 /srv/copy | sha256sum; }
qemu-img create -q -f vpc -o force_size=on /srv/disk.vhd 32M
backend_start

hvm_guest emulated xen_emul_unplug=never
require "it has an emulated disk, and none by a ring" guest_run emulated 'disk_ready sda && [ ! -e /dev/xvda ]'
written=$(guest_run emulated "$(write_to sda)")
expect_equal "what it writes comes back" "$(guest_run emulated 'dd if=/dev/sda bs=64k count=32 iflag=direct 2>/dev/null | sha256sum')" "$written"
expect "the guest switches itself off" guest_power_off emulated
expect "nothing is left" nothing_left
expect_equal "the image holds what it wrote" "$(image_sum)" "$written"

hvm_guest g ""
require "it has a disk by its ring, and none that is emulated" guest_run g 'disk_ready xvda && [ ! -e /dev/sda ]'
expect_equal "QEMU has had the image both times" "$(grep -c 'disk.vhd is served over NBD' /run/lab/daemon.log)" 2
expect_equal "the daemon has connected it" "$(backend_node g xvda state)" 4
expect_equal "it reads what was written" "$(guest_run g 'dd if=/dev/xvda bs=64k count=32 iflag=direct 2>/dev/null | sha256sum')" "$written"
written=$(guest_run g "$(write_to xvda)")
expect "by $(counter g xvda writes) requests in the ring" counter_reaches g xvda writes 10
expect "the guest switches itself off" guest_power_off g
expect "nothing is left" nothing_left
expect_equal "the image holds what it wrote" "$(image_sum)" "$written"
