# limit: 1500
# The same guests on the same bridge in one boot, on ringback's interfaces and on those of Linux's xen-netback: what arrives
# a second, and what a gigabyte costs dom0.
# shellcheck shell=bash
only_for ringback "a comparison of both backends" || return 0
xl_begin "Beside xen-netback"
bridge_begin
tests=(to from between)
declare -A rate cost delay

# measure TEST BACKEND COMMAND...: adds to the sums of what arrives, and of dom0's seconds for it
measure() {
  local key=$1-$2 before
  before=$(processor_time_of_dom0)
  require "$2: TCP $1" iperf "$key" "${@:3}"
  cost[$key]=$(awk "BEGIN { print ${cost[$key]-0} + $(processor_time_of_dom0) - $before }")
  rate[$key]=$(awk "BEGIN { print ${rate[$key]-0} + $(gigabytes "$key") }")
}

# compare BACKEND: two guests on it
compare() {
  xl_guest a --net "vif=['$(vif_on_bridge 2)']"
  xl_guest b --net "vif=['$(vif_on_bridge 3)']"
  for guest in a b; do require "$1: xl creates guest $guest" xl_create $guest; done
  local n=2
  for guest in a b; do
    guest_await_ready $guest
    require "$1: guest $guest is connected" net_up $guest $((n++))
  done
  dom0_pings 10.0.0.2
  require "$1: dom0 reaches the guest" guest_run a "$(pings 10.0.0.1)"
  delay[$1]=$(guest_run a 'cat /tmp/pings' | sed -n 's|.* = \([0-9.]*\)/.*|\1|p')
  guest_run b 'iperf3 --server --daemon'
  measure to "$1" a 10.0.0.1 $seconds
  measure from "$1" a 10.0.0.1 $seconds --reverse
  measure between "$1" a 10.0.0.3 $seconds
  for guest in a b; do guest_destroy $guest; done
  expect "$1: nothing is left" nothing_left
}

seconds=5 turns=2
for ((turn = 0; turn < turns; turn++)); do
  interfaces_start
  compare ringback
  require "ringback stops" interfaces_stop
  require "xen-netback is loaded" netback_load
  compare netback
  require "xen-netback is unloaded" netback_unload
done
fact "ping, shortest of the last turn, ms: ringback ${delay[ringback]}, xen-netback ${delay[netback]}"
for test in "${tests[@]}"; do
  fact "$(awk -v test="$test" -v time=$((seconds * turns)) -v gb="${rate[$test-ringback]}" -v cpu="${cost[$test-ringback]}" \
    -v gb2="${rate[$test-netback]}" -v cpu2="${cost[$test-netback]}" 'BEGIN {
      printf "TCP %s: ringback %.0f Mbit/s, %.2f s of dom0 a GB; xen-netback %.0f Mbit/s, %.2f s; ratio %.2f of its speed, %.2f of its time",
        test, gb * 8000 / time, cpu / gb, gb2 * 8000 / time, cpu2 / gb2, gb / gb2, (cpu / gb) / (cpu2 / gb2) }')"
done
