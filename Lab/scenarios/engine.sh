# Where the kernel forbids io_uring the daemon uses libaio, of its own accord or when told to.
# shellcheck shell=bash
only_for ringback "a choice of the kernel's interface" || return 0
image=$(new_image disk 64)
use_disk() {
  guest_create g --fio
  attach g xvda "$image"
  guest_start g
  require "the guest sees the disk" guest_run g 'disk_ready xvda'
  expect "fio writes and verifies" guest_run g '
    fio --name=verify --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=32 --randrepeat=0 --rw=randwrite --bsrange=4k-128k \
      --blockalign=4k --norandommap --io_size=16m --size=100% --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fdatasync=64'
  expect "a file system is made, filled and read" guest_run g '
    mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt && head -c 16777216 /dev/urandom | tee /mnt/file | sha256sum >/tmp/sum &&
    umount /mnt && mount -t ext4 /dev/xvda /mnt && sha256sum </mnt/file | cmp - /tmp/sum && umount /mnt'
  expect_equal "no request failed" "$(counter g xvda errors)" 0
  detach g xvda
  guest_destroy g
  expect "e2fsck finds the image clean" e2fsck -fn "$image"
}
# the last line about it is the running daemon's
says_engine() { [ "$(sed -n 's/.* serving .* engine=\([a-z_]*\).*/\1/p' /run/lab/daemon.log | tail -n 1)" = "$1" ]; }

backend_start
expect "the daemon prefers io_uring" await 30 says_engine io_uring
require "it stops" backend_stop

backend_start --io-engine libaio
expect "it uses libaio when told to" await 30 says_engine libaio
use_disk
require "the daemon stops" backend_stop

echo 2 >/proc/sys/kernel/io_uring_disabled
trap 'echo 0 >/proc/sys/kernel/io_uring_disabled' EXIT
mv /run/lab/daemon.log /run/lab/daemon-told.log
backend_start
expect "where io_uring is forbidden it chooses libaio" await 30 says_engine libaio
expect "and the log says why" grep io_uring /run/lab/daemon.log
use_disk
require "the daemon stops" backend_stop
expect "and refuses to be told otherwise" eval '! timeout 60 "$ringback" serve --kind $backend_kind --hypervisor xen --io-engine io_uring'
