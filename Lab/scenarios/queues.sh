# Two rings of 16 pages, one for each of the guest's processors: four jobs write and verify at once, each in a part of its own.
# shellcheck shell=bash
image=$(new_image disk 128)
if [ "$backend" = ringback ]; then backend_start --threads 2; else backend_start; fi
guest_create g --fio --kernel xen_blkfront.max_ring_page_order=4 vcpus=2
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
if only_for ringback "two queues, on a dom0 with one processor"; then
  expect_equal "two queues are offered" "$(backend_node g xvda multi-queue-max-queues)" 2
  expect_equal "the frontend takes both" "$(frontend_node g xvda multi-queue-num-queues)" 2
  expect_equal "the guest's kernel has them" "$(guest_run g 'ls /sys/block/xvda/mq | wc -l')" 2
  expect_equal "the daemon too" "$(counter g xvda queues)" 2
  expect_equal "with 512 slots each" "$(counter g xvda ringSlots)" 512
fi
expect_equal "the rings have 16 pages" "$(frontend_node g xvda ring-page-order)" 4

expect "four jobs write and verify" guest_run g '
  fio --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --randrepeat=0 --rw=randwrite --io_size=4m --size=25% \
    --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fdatasync=64 --cpus_allowed=0-1 --cpus_allowed_policy=split \
    --name=a --bs=4k --name=b --offset=25% --bs=16k --name=c --offset=50% --bs=64k --name=d --offset=75% --bs=4k'
expect "depth 256 on one job" guest_run g '
  fio --name=deep --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=256 --randrepeat=0 --rw=randwrite --bs=4k \
    --io_size=8m --size=100% --verify=crc32c --verify_fatal=1 --verify_backlog=512'
if only_for ringback "no request failed"; then
  expect_equal "no request failed" "$(counter g xvda errors)" 0
fi
detach g xvda
expect_equal "no page is mapped at the end" "$(grants_mapped g)" 0
