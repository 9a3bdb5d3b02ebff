# The guest's driver lets go of the disk and another frontend takes it from the same backend device, as after kexec: no
# page stays mapped in between, the data stays.
# shellcheck shell=bash
only_for ringback "a device outlives its frontend" || return 0
image=$(new_image disk 32)
backend_start --threads 2
# Linux sets 1 MiB of pages aside for each slot of such a ring: with order 4 they are more than this guest has
guest_create g --fio --kernel "xen_blkfront.max_ring_page_order=1 xen_blkfront.max_indirect_segments=256" vcpus=2
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
written=$(guest_run g 'head -c 8388608 /dev/urandom | tee /tmp/data | sha256sum')
require "write to it" guest_run g 'dd if=/tmp/data of=/dev/xvda bs=1M oflag=direct conv=fsync'

# new_frontend GUEST VDEV: Linux takes a disk again only as a new device, so the frontend's folder goes and comes back.
# A booting kernel finds the backend in InitWait; so does this one, which would give up at a backend still Closed.
new_frontend() {
  local folder nodes
  folder=/local/domain/$(guest_id "$1")/device/vbd/$(vdev_number "$2")
  nodes=("$folder/backend" "$(xenstore-read "$folder/backend")" "$folder/backend-id" 0 "$folder/virtual-device" "$(vdev_number "$2")")
  xenstore-rm "$folder"
  guest_run "$1" "await 60 test ! -e /sys/bus/xen/devices/vbd-$(vdev_number "$2")" || return
  xl pause "$1"
  xenstore-write "$folder" ""
  xenstore-chmod "$folder" "n$(guest_id "$1")" r0
  xenstore-write "${nodes[@]}" "$folder/device-type" disk "$folder/state" 1
  backend_reaches "$1" "$2" 2 || return
  xl unpause "$1"
  guest_run "$1" "disk_ready $2"
}

for time in first second third; do
  require "the driver lets go the $time time" guest_run g '
    echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind && disk_gone xvda'
  expect "the backend closes" backend_reaches g xvda 6
  expect_equal "no page is mapped" "$(grants_mapped g)" 0
  require "another frontend takes it" new_frontend g xvda
  expect_equal "with the data" "$(guest_run g 'dd if=/dev/xvda bs=1M count=8 iflag=direct 2>/dev/null | sha256sum')" "$written"
done
expect "fio writes and verifies" guest_run g '
  fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --randrepeat=0 \
    --rw=randwrite --bs=16k --io_size=8m --size=100% --verify=crc32c --verify_fatal=1'

require "the driver lets go in the middle of I/O" guest_run g '
  dd if=/dev/urandom of=/dev/xvda bs=64k oflag=direct 2>/dev/null &
  sleep 1
  echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind
  wait; disk_gone xvda'
expect "the backend closes" backend_reaches g xvda 6
expect_equal "no page is mapped" "$(grants_mapped g)" 0
