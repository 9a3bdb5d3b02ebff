# Requests larger than a ring slot can describe: as large as the guest's driver asks for, up to 1 MiB in one.
# shellcheck shell=bash
image=$(new_image disk 128)
backend_start
while read -r segments requests; do
  guest_create g --fio --kernel "xen_blkfront.max_indirect_segments=$segments"
  attach g xvda "$image"
  guest_start g
  require "the guest sees the disk" guest_run g 'disk_ready xvda'
  expect_equal "256 segments are offered" "$(backend_node g xvda feature-max-indirect-segments)" 256
  expect_equal "the guest uses $segments" "$(guest_run g 'cat /sys/block/xvda/queue/max_segments')" "$segments"
  before=$(counter g xvda writes)
  require "32 writes of 1 MiB" guest_run g 'dd if=/dev/zero of=/dev/xvda bs=1M count=32 oflag=direct'
  expect_equal "are $requests requests" $(($(counter g xvda writes) - before)) "$requests"
  expect "fio writes and verifies pieces of all sizes" guest_run g '
    fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --randrepeat=0 --rw=randwrite --bsrange=4k-1m \
      --blockalign=4k --io_size=48m --size=100% --norandommap --verify=crc32c --verify_fatal=1 --verify_backlog=32 --fdatasync=32'
  if only_for ringback "no request failed"; then
    expect_equal "no request failed" "$(counter g xvda errors)" 0
  fi
  detach g xvda
  expect_equal "no page is mapped at the end" "$(grants_mapped g)" 0
  guest_destroy g
done <<'SIZES'
256 32
32 256
SIZES
