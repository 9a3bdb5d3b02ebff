# Without flushes on offer Linux uses write barriers: they are made durable, and a file system lives by them.
# shellcheck shell=bash
only_for ringback "a choice of what is offered" || return 0
image=$(new_image disk 64)
backend_start --no-flush
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "barriers are offered, flushes are not" \
  "$(backend_node g xvda feature-barrier) $(backend_node g xvda feature-flush-cache)" "1 0"
expect "the guest uses them" guest_run g 'dmesg | grep "xvda: barrier: enabled"'

barriers() { "$ringback" stats --json | jq '.[0].total.requests.barrier.completed'; }
before=$(barriers) syncs=$(counter g xvda fsyncs)
expect "10 writes with fsync" guest_run g '
  set -e
  for ((i = 0; i < 10; i++)); do dd if=/dev/urandom of=/dev/xvda bs=4k count=1 seek=$i oflag=direct conv=fsync; done'
expect_equal "each fsync is one barrier" $(($(barriers) - before)) 10
expect "each barrier is made durable" test $(($(counter g xvda fsyncs) - syncs)) -ge 10

require "a file system writes and syncs, and the guest dies without warning" guest_run g '
  set -e
  mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt
  for ((i = 0; i < 20; i++)); do head -c 100000 /dev/urandom >/mnt/$i; sync; done
  sha256sum /mnt/* 2>/dev/null | sha256sum >/tmp/sums; cat /tmp/sums'
written=$(guest_run g 'cat /tmp/sums')
expect "barriers with data were among them" test "$(barriers)" -ge 30
expect_equal "no request failed" "$(counter g xvda errors)" 0
guest_destroy g
await 30 no_device_left
require "the journal makes the image clean" eval 'e2fsck -fy "$image" || [ $? = 1 ]'
mount -t ext4 -o loop "$image" /mnt
expect_equal "all that was synced is there" "$(sha256sum /mnt/* 2>/dev/null | sha256sum)" "$written"
umount /mnt
