# A disk is held to its rates, which change while it is used.
# shellcheck shell=bash
only_for ringback "rates" || return 0
image=$(new_image disk 64)
backend_start
guest_create g --fio
attach g xvda "$image" --limit-requests 100
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'

# rate BLOCK: requests a second that the guest sees in six seconds of writing
rate() {
  guest_run g "
    fio --name=rate --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=$1 --time_based --runtime=6 \
      --output-format=terse --terse-version=3" | awk -F';' 'NF > 50 { print $49 }'
}
# An emulated machine that others use as well may do less than it may; never should it do more.
limited() { echo "$1 a second"; [ "$1" -le "$2" ] && [ "$1" -gt 0 ]; }
expect "100 requests a second" limited "$(rate 4k)" 130
ask limit g xvda --requests 20
expect "20 requests a second, while the disk is used" limited "$(rate 4k)" 30
set_nodes g xvda limit-requests 0 limit-bytes 1048576
expect "1 MiB a second: 16 requests of 64 KiB" limited "$(rate 64k)" 24
ask limit g xvda --none
expect_equal "no limit is left" "$(backend_node g xvda limit-bytes)$(backend_node g xvda limit-requests)" ""
expect "and the disk goes on" test "$(rate 4k)" -gt 0
expect_equal "no request failed" "$(counter g xvda errors)" 0
