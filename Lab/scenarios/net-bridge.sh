# limit: 1200
# A guest on a bridge by stock xl and vif-bridge: pings, TCP and UDP in both directions and over both families, another
# interface that comes and goes, a reboot, and an end without notice.
# shellcheck shell=bash
xl_begin "A guest on a bridge"
bridge_begin
interfaces_start
xl_guest g --net "vif=['$(vif_on_bridge 2)']" "on_reboot='restart'"
require "xl creates a guest with an interface" xl_create g
require "it starts" guest_await_ready g
require "its interface comes up" net_up g 2
require "the backend is connected" vif_connected g
require "the interface is in the bridge" in_bridge "$(vif_of g)"
expect "xl lists it" admin "xl network-list g"
echo "of each other: $(xenstore-ls "/local/domain/0/backend/vif/$(guest_id g)/0"; xenstore-ls "/local/domain/$(guest_id g)/device/vif/0")"
expect_equal "the guest has the address that xl gave" "$(guest_run g 'cat /sys/class/net/eth0/address')" 00:16:3e:00:00:02
expect "dom0 reaches the guest" dom0_pings 10.0.0.2
expect "the guest reaches dom0" guest_run g "$(pings 10.0.0.1)"
expect "with packets in pieces" guest_run g "$(pings 10.0.0.1 8000)"
expect "in both directions" dom0_pings 10.0.0.2 8000
expect "and over IPv6" guest_run g "$(pings fd00::1)"
expect "in pieces, too" dom0_pings fd00::2 8000

guest_run g 'ethtool -k eth0 | grep -v fixed' || true
for address in 10.0.0.1 fd00::1; do
  expect "the guest sends TCP to $address" iperf "to-$address" g $address 4
  expect "and takes it" iperf "from-$address" g $address 4 --reverse
done
expect "it sends UDP" iperf udp g 10.0.0.1 2 --udp --bitrate 20M
expect "and takes it" iperf udp-reverse g 10.0.0.1 2 --udp --bitrate 20M --reverse
expect "with its own checksums it sends TCP" guest_run g 'ethtool -K eth0 tx off >/dev/null; iperf3 -c 10.0.0.1 -t 2 >/tmp/iperf || { cat /tmp/iperf; false; }'
expect "and takes it without segmentation" guest_run g 'ethtool -K eth0 gso off gro off >/dev/null; iperf3 -R -c 10.0.0.1 -t 2 >/tmp/iperf || { cat /tmp/iperf; false; }'
no_checksum_errors g
ip -s link show "$(vif_of g)"
guest_run g 'ip -s link show eth0'
fact "a guest and dom0, Mbit/s: $(megabits to-10.0.0.1) to dom0, $(megabits from-10.0.0.1) from it; IPv6: $(megabits to-fd00::1) and $(megabits from-fd00::1)"

second=$(vif_of g 1)
for time in first second; do
  require "xl attaches another interface, the $time time" admin "xl network-attach g $(vif_on_bridge 3)"
  require "it comes up" net_up g 3 eth1
  require "and is connected" vif_connected g 1
  require "it is in the bridge" in_bridge "$second"
  expect "dom0 reaches it" dom0_pings 10.0.0.3
  require "xl detaches it" admin "xl network-detach g 1"
  expect "it goes in dom0" await 30 no_interface "$second"
  expect "and in the guest" guest_run g 'await 30 test ! -e /sys/class/net/eth1'
  expect_equal "its nodes too" "$(vif_node g 1 state)$(front_node g 1 state)" ""
done
expect "the first one goes on" dom0_pings 10.0.0.2

old=$(guest_id g) name=$(vif_of g)
guest_send g 'reboot -f'
require "the guest reboots" guest_await_restart g
expect "its old interface is gone" await 30 no_interface "$name"
require "the new one comes up" net_up g 2
expect "and reaches dom0" guest_run g "$(pings 10.0.0.1)"
expect "it takes TCP" iperf again g 10.0.0.1 2 --reverse
expect_equal "no page of the old domain is mapped" "$(grants_mapped_of "$old")" 0

name=$(vif_of g) old=$(guest_id g)
guest_send g 'iperf3 -c 10.0.0.1 -t 100'
sleep 2   # in the middle of it, wherever that is
expect "xl destroys it while it sends" admin "xl destroy g"
expect "nothing is left" nothing_left
expect_equal "no page is mapped" "$(grants_mapped_of "$old")" 0
