# An HVM guest starts from its disk: the firmware and a boot sector use the disk that QEMU emulates, which has a VHD image
# over NBD (a raw one QEMU opens itself, libxl_disk.c).
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
# shellcheck source=dom0/xl.sh
. "$lab/dom0/xl.sh"
xl_begin "An HVM guest"
device_model

# The boot sector, in real mode: int 13h reads the second sector to 0x7e00 and writes that into the third; its text goes
# to the serial port, byte by byte until one is zero; then it halts for ever.
truncate -s 16M /srv/raw
printf '%b' '\x31\xc0\x8e\xd8\x8e\xc0\x8e\xd0\xbc\x00\x7c' \
  '\xb8\x01\x02\xbb\x00\x7e\xb9\x02\x00\x30\xf6\xcd\x13' '\xb8\x01\x03\xb9\x03\x00\xcd\x13' \
  '\xbe\x00\x7e\xba\xf8\x03\xac\x84\xc0\x74\x03\xee\xeb\xf8\xf4\xeb\xfd' | dd of=/srv/raw conv=notrunc status=none
printf '\x55\xaa' | dd of=/srv/raw bs=1 seek=510 conv=notrunc status=none
text="the second sector says $RANDOM"
printf '%s\n' "$text" | dd of=/srv/raw bs=512 seek=1 conv=notrunc status=none
qemu-img convert -f raw -O vpc -o force_size=on /srv/raw /srv/disk.vhd

backend_start
serial=/run/lab/serial.log
guest_describe g --boot-loader "boot='c'" "disk=['$(tap_disk vhd xvda disk.vhd)']" "type='hvm'" "memory=64" "vga='none'" \
  "vnc=0" "nographic=1" "usb=0" "serial='file:$serial'"
ln -sf /run/lab/guests/g /etc/xen/g.cfg
require "xl creates the guest" xl_create g
expect "it starts from the disk, and reads it" await 90 grep -F "$text" $serial
expect "QEMU has it over NBD" pidof qemu-storage-daemon
expect "it is destroyed" admin "xl destroy g"
rm /run/lab/guests/g
expect "nothing is left" nothing_left
qemu-img convert -f vpc -O raw /srv/disk.vhd /srv/copy
expect_equal "what it wrote is in the image" "$(dd if=/srv/copy bs=512 skip=2 count=1 status=none | head -n 1 | tr -d '\0')" "$text"
