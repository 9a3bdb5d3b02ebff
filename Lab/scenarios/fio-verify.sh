# fio writes random blocks with checksums and reads them back, one at a time and 32 at once, small and large.
# shellcheck shell=bash
image=$(new_image disk 256)
backend_start
guest_create g --fio
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'

# depth, block in KiB, requests
while read -r depth block requests; do
  [ -z "$short" ] || requests=$((requests / 2))
  # reading back what was written a little earlier mixes reads with writes
  expect "no error with $requests times $block KiB at depth $depth" guest_run g "
    fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=$depth --randrepeat=0 \
      --rw=randwrite --bs=${block}k --io_size=$((requests * block))k --size=100% --fdatasync=100 \
      --verify=crc32c --verify_fatal=1 --verify_backlog=128"
done <<'JOBS'
1 4 400
1 128 200
32 4 2000
32 128 600
JOBS
expect "the backend saw the writes" test "$(counter g xvda writes)" -ge 500
expect "the backend saw the reads" test "$(counter g xvda reads)" -ge 500
if only_for ringback "no request failed"; then
  expect_equal "no request failed" "$(counter g xvda errors)" 0
fi
