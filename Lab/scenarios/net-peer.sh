# limit: 1800
# The same guest on the same bridge in one boot, on ringback's interface and on that of Linux's xen-netback: what arrives a
# second, and what a gigabyte costs dom0 (its iperf3 included, less what dom0 takes to run a command in the guest).
# shellcheck shell=bash
only_for ringback "a comparison of both backends" || return 0
xl_begin "Beside xen-netback"
bridge_begin
seconds=10 turns=${rounds:-1}
declare -A data time cost delay own idle

# daemon_ticks: of the daemon's processor time, in user space and in the kernel
daemon_ticks() {
  [ -e /run/lab/daemon.pid ] || { echo 0 0; return; }
  awk '{ print $14, $15 }' "/proc/$(cat /run/lab/daemon.pid)/stat" 2>/dev/null || echo 0 0
}

# measure TEST BACKEND COMMAND...: adds to the sums of what arrives, how long that took, and dom0's time meanwhile
measure() {
  local key=$1-$2 before ticks
  before=$(processor_time_of_dom0) ticks=$(daemon_ticks)
  require "$2: TCP $1 dom0" iperf "$key" "${@:3}"
  cost[$key]=$(jq -n "${cost[$key]-0} + $(processor_time_of_dom0) - $before - ${idle[$2]}")
  own[$key]="$ticks $(daemon_ticks)"
  data[$key]=$(jq -n "${data[$key]-0} + $(gigabytes "$key")")
  time[$key]=$(jq -n "${time[$key]-0} + $(jq .end.sum_received.seconds "$logs/iperf-$key.json")")
}

# measure_on BACKEND: with a new guest
measure_on() {
  local before
  xl_guest g --net "vif=['$(vif_on_bridge 2)']"
  require "$1: xl creates the guest" xl_create g
  guest_await_ready g
  require "$1: its interface comes up" net_up g 2
  require "$1: it reaches dom0" guest_run g "$(pings 10.0.0.1)"
  delay[$1]=$(guest_run g 'cat /tmp/pings' | sed -n 's|.* = \([0-9.]*\)/.*|\1|p')
  before=$(processor_time_of_dom0)
  guest_run g "sleep $seconds"
  idle[$1]=$(jq -n "$(processor_time_of_dom0) - $before")
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
fact "dom0 without traffic, s: ringback ${idle[ringback]}, xen-netback ${idle[xen-netback]}"
for test in to from; do
  # shellcheck disable=SC2086
  fact "$(printf 'TCP %s dom0, the daemon alone, 1/100 s of the last turn: %s %s -> %s %s (user, kernel)' $test ${own[$test-ringback]})"
  ours=$test-ringback theirs=$test-xen-netback
  fact "$(awk -v test=$test -v a="${data[$ours]} ${time[$ours]} ${cost[$ours]}" \
    -v b="${data[$theirs]} ${time[$theirs]} ${cost[$theirs]}" 'BEGIN {
      split(a, ours); split(b, theirs)
      printf "TCP %s dom0, Mbit/s: ringback %.0f, xen-netback %.0f, ratio %.2f; dom0 s/GB: %.1f, %.1f, ratio %.2f",
        test, 8000 * ours[1] / ours[2], 8000 * theirs[1] / theirs[2], ours[1] * theirs[2] / ours[2] / theirs[1],
        ours[3] / ours[1], theirs[3] / theirs[1], ours[3] * theirs[1] / ours[1] / theirs[3] }')"
done
