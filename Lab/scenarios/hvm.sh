# An HVM guest: at first it uses the disk that QEMU emulates for it, which has the image over NBD; started again it has
# Linux unplug that and takes the disk by its ring.
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
# shellcheck source=dom0/xl.sh
. "$lab/dom0/xl.sh"
xl_begin "An HVM guest"
mkdir -p /usr/libexec /usr/lib/xen-4.20/boot /usr/share/{seabios,qemu}
ln -sf /images/hvm/xen-qemu-system-i386 /usr/libexec/
ln -sf /images/hvm/hvmloader /usr/lib/xen-4.20/boot/
ln -sf /images/hvm/{*.bin,keymaps} /usr/share/qemu/
ln -sf /images/hvm/bios-256k.bin /usr/share/seabios/
ln -sf /images/hvm/lib/* /usr/lib/x86_64-linux-gnu/

# hvm_guest NAME WORDS: its console is the emulated serial port
hvm_guest() {
  xl_guest "$1" --kernel "noxsave console=ttyS0 $2" "$(tap_disk raw xvda disk)" "type='hvm'" "memory=256" "kernel='/images/vmlinuz'" \
    "ramdisk='/images/guest-ata.cpio'" "vga='none'" "vnc=0" "nographic=1" "usb=0" "serial='file:$logs/serial-$1.log'"
  require "xl creates the guest" xl_create "$1"
  guest_await_ready "$1"
  expect_equal "the guest is HVM" "$(guest_run "$1" 'cat /sys/hypervisor/guest_type')" HVM
}

head -c 16777216 /dev/urandom >/srv/disk
before=$(sum_of /srv/disk)
backend_start
hvm_guest emulated xen_emul_unplug=never
expect_equal "it reads the emulated disk" "$(guest_run emulated 'disk_ready sda && sha256sum </dev/sda')" "$before  -"
written=$(guest_run emulated '
  head -c 1048576 /dev/urandom >/tmp/data && dd if=/tmp/data of=/dev/sda bs=64k conv=fsync,notrunc 2>/dev/null && sha256sum </tmp/data')
expect_equal "the image holds what it wrote" "$(head -c 1048576 /srv/disk | sha256sum)" "$written"
expect "the guest switches itself off" guest_power_off emulated
expect "nothing is left" nothing_left

hvm_guest g ""
expect "it has a disk by its ring" guest_run g 'disk_ready xvda && [ ! -e /dev/sda ]'
expect_equal "it reads what was written" "$(guest_run g 'head -c 1048576 /dev/xvda | sha256sum')" "$written"
written=$(guest_run g 'head -c 1048576 /dev/urandom >/tmp/data && dd if=/tmp/data of=/dev/xvda bs=64k conv=fsync 2>/dev/null && sha256sum </tmp/data')
expect_equal "the image holds what it wrote" "$(head -c 1048576 /srv/disk | sha256sum)" "$written"
expect "the guest switches itself off" guest_power_off g
expect "nothing is left" nothing_left
