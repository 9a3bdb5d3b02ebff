# The daemon is replaced under a running guest, which goes on as if it had waited: after a clean stop with 32 requests
# in flight, and after kill -9 with one (a response takes a request's place in the ring: of several, a dead daemon leaves
# too little behind).
# shellcheck shell=bash
only_for ringback "a guest outlives the daemon" || return 0
image=$(new_image disk 64)
backend_start
guest_create g --fio
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'

# start_writer DEPTH: the guest writes and checks at random places until stop_writer
start_writer() {
  guest_run g "
    until xenstore-exists data/enough; do
      fio --name=restart --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=$1 --randrepeat=0 \
        --rw=randwrite --bs=4k --io_size=$((1 + $1))m --size=100% --verify=crc32c --verify_fatal=1 --verify_backlog=64 || exit 1
    done" &
  writer=$!
  await 60 counter_reaches g xvda writes 50
}
# stop_writer: its status tells whether all that was written came back
stop_writer() {
  xenstore-write "/local/domain/$(guest_id g)/data/enough" 1
  local status=0
  wait "$writer" || status=$?
  xenstore-rm "/local/domain/$(guest_id g)/data/enough"
  return $status
}

require "the guest keeps 32 requests in flight" start_writer 32
for time in first second third; do
  require "the daemon stops cleanly" backend_stop
  backend_start
  expect "the guest goes on after the $time stop" await 60 counter_reaches g xvda writes 50
done
expect "all that the guest wrote came back" stop_writer

require "the guest keeps one request in flight" start_writer 1
for time in first second third; do
  backend_kill
  backend_start
  expect "the guest goes on after the $time kill -9" await 60 counter_reaches g xvda writes 50
done
expect "all that the guest wrote came back" stop_writer
expect_equal "the guest still holds the disk Connected" "$(frontend_node g xvda state)" 4
