# Images that QEMU's storage daemon serves: a guest boots from qcow2 and from VHD, and sees only latency when that daemon is
# killed under load.
# shellcheck shell=bash
only_for ringback "images by QEMU's block layer" || return 0
storage_daemons() { pidof qemu-storage-daemon | tr ' ' '\n' | sort -n; }
no_storage_daemon() { [ -z "$(storage_daemons)" ]; }
# convert FORMAT FILE: the guests' root file system in another format, owned by somebody without rights
convert() { qemu-img convert -q -f raw -O "$1" /images/root.ext4 "$2" && chown 1234:1234 "$2"; }
# image_is_sound FILE: 3 is the status for clusters that nobody uses
image_is_sound() {
  local status=0
  qemu-img check -f qcow2 "$1" || status=$?
  [ $status = 0 ] || [ $status = 3 ]
}
convert qcow2 "$images/root.qcow2"
convert vpc "$images/root.vhd"
qemu-img create -q -f qcow2 "$images/data.qcow2" 64M
chown 1234:1234 "$images"/data.qcow2
chmod 755 "$images"
backend_start

guest_create booted --kernel root=/dev/xvda
attach booted xvda "qcow2:$images/root.qcow2"
expect_equal "the storage daemon runs as the image's owner" \
  "$(awk '$1 == "Uid:" || $1 == "Gid:" || $1 == "CapEff:" { print $3 + 0 == 0 ? $2 : $3 }' "/proc/$(storage_daemons)/status" | tr '\n' ' ')" \
  "1234 1234 0000000000000000 "
guest_start booted
expect_equal "a guest boots from qcow2" "$(guest_run booted 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda
written=$(guest_run booted 'head -c 8388608 /dev/urandom | tee /root/data | sha256sum; sync')
expect "it trims what it does not use" guest_run booted 'fstrim -v /'
require "it switches itself off" guest_power_off booted
expect "the storage daemon ends with the disk" await 60 no_storage_daemon
expect "the image is sound" qemu-img check -f qcow2 "$images/root.qcow2"
qemu-img convert -f qcow2 -O raw "$images/root.qcow2" "$images/root.raw"
require "so is its file system" e2fsck -fn "$images/root.raw"
expect_equal "the image holds what the guest wrote" \
  "$(debugfs -R 'cat /root/data' "$images/root.raw" 2>/dev/null | sha256sum)" "$written"

guest_create vhd --kernel root=/dev/xvda
attach vhd xvda "vhd:$images/root.vhd"
guest_start vhd
expect_equal "a guest boots from VHD" "$(guest_run vhd 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda
require "it switches itself off" guest_power_off vhd
expect "the storage daemon ends with the disk" await 60 no_storage_daemon

guest_create g --fio
attach g xvda "qcow2:$images/data.qcow2"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
require "it writes" writer_start g xvda --iodepth=16 --bs=16k --io_size=8m --fdatasync=100
for time in first second third; do
  old=$(storage_daemons) before=$(counter g xvda writes)
  kill -KILL "$old"
  expect "the guest goes on after the $time kill -9 of the storage daemon" await 60 counter_reaches g xvda writes $((before + 200))
  expect "which is another one" test "$(storage_daemons)" != "$old"
done
expect "all that the guest wrote came back" writer_stop g
expect_equal "no request failed" "$(counter g xvda errors)" 0
written=$(guest_run g 'dd if=/dev/xvda bs=1M iflag=direct 2>/dev/null | sha256sum')
detach g xvda
expect "the storage daemon ends with the disk" await 60 no_storage_daemon
expect "the image is sound, but for clusters that the killed ones took and never used" image_is_sound "$images/data.qcow2"
qemu-img convert -f qcow2 -O raw "$images/data.qcow2" "$images/data.raw"
expect_equal "and holds what the guest read last" "$(sha256sum <"$images/data.raw")" "$written"
