# limit: 1800
# The same guest on the same bridge in one boot, on ringback's interface and on that of Linux's xen-netback: what arrives a
# second, and what a gigabyte costs dom0 (its iperf3 included).
# shellcheck shell=bash
only_for ringback "a comparison of both backends" || return 0
xl_begin "Beside xen-netback"
bridge_begin
seconds=5 turns=${rounds:-1}
declare -A data time cost delay

# measure TEST BACKEND COMMAND...: adds to the sums of what arrives, how long that took, and dom0's time meanwhile
measure() {
  local key=$1-$2 before
  before=$(processor_time_of_dom0)
  require "$2: TCP $1 dom0" iperf "$key" "${@:3}"
  cost[$key]=$(jq -n "${cost[$key]-0} + $(processor_time_of_dom0) - $before")
  data[$key]=$(jq -n "${data[$key]-0} + $(gigabytes "$key")")
  time[$key]=$(jq -n "${time[$key]-0} + $(jq .end.sum_received.seconds "$logs/iperf-$key.json")")
}

# measure_on BACKEND: with a new guest
measure_on() {
  xl_guest g --net "vif=['$(vif_on_bridge 2)']"
  require "$1: xl creates the guest" xl_create g
  guest_await_ready g
  require "$1: its interface comes up" net_up g 2
  require "$1: it reaches dom0" guest_run g "$(pings 10.0.0.1)"
  delay[$1]=$(guest_run g 'cat /tmp/pings' | sed -n 's|.* = \([0-9.]*\)/.*|\1|p')
  measure to "$1" g 10.0.0.1 $seconds
  measure from "$1" g 10.0.0.1 $seconds --reverse
  guest_destroy g
  expect "$1: nothing is left" nothing_left
}

for ((turn = 0; turn < turns; turn++)); do
  interfaces_start
  measure_on ringback
  require "ringback stops" interfaces_stop
  require "xen-netback is loaded" netback_load
  measure_on xen-netback
  require "xen-netback is unloaded" netback_unload
done
fact "ping, shortest of the last turn, ms: ringback ${delay[ringback]}, xen-netback ${delay[xen-netback]}"
for test in to from; do
  ours=$test-ringback theirs=$test-xen-netback
  fact "$(awk -v test=$test -v a="${data[$ours]} ${time[$ours]} ${cost[$ours]}" \
    -v b="${data[$theirs]} ${time[$theirs]} ${cost[$theirs]}" 'BEGIN {
      split(a, ours); split(b, theirs)
      printf "TCP %s dom0, Mbit/s: ringback %.0f, xen-netback %.0f, ratio %.2f; dom0 s/GB: %.1f, %.1f, ratio %.2f",
        test, 8000 * ours[1] / ours[2], 8000 * theirs[1] / theirs[2], ours[1] * theirs[2] / ours[2] / theirs[1],
        ours[3] / ours[1], theirs[3] / theirs[1], ours[3] * theirs[1] / ours[1] / theirs[3] }')"
done
