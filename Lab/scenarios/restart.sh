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

require "the guest keeps 32 requests in flight" writer_start g xvda --iodepth=32 --bs=4k --io_size=33m
for time in first second third; do
  require "the daemon stops cleanly" backend_stop
  backend_start
  expect "the guest goes on after the $time stop" await 60 counter_reaches g xvda writes 50
done
expect "all that the guest wrote came back" writer_stop g

require "the guest keeps one request in flight" writer_start g xvda --iodepth=1 --bs=4k --io_size=2m
for time in first second third; do
  backend_kill
  backend_start
  expect "the guest goes on after the $time kill -9" await 60 counter_reaches g xvda writes 50
done
expect "all that the guest wrote came back" writer_stop g
expect_equal "the guest still holds the disk Connected" "$(frontend_node g xvda state)" 4
