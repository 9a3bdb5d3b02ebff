# limit: 900
# Xen's other scripts, as they are: vif-route, vif-nat and vif-openvswitch set the interface up, and take it away again.
# shellcheck shell=bash
xl_begin "Routed, translated and switched"
bridge_begin
require "Open vSwitch starts" openvswitch_begin
interfaces_start
mac() { echo "mac=00:16:3e:00:01:0$1"; }
xl_guest g --net "vif=['$(mac 0),script=vif-route,gatewaydev=xenbr0,ip=10.0.1.2',
  '$(mac 1),script=vif-nat,ip=10.0.2.2', '$(mac 2),script=vif-openvswitch,bridge=ovsbr0']"
require "xl creates a guest with three interfaces" xl_create g
require "it starts" guest_await_ready g
for number in 0 1 2; do
  require "interface $number is connected" vif_connected g $number
  expect_equal "its script says so" "$(vif_node g $number hotplug-status)" connected
done
require "the guest sets them up" guest_run g '
  echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
  for number in 0 1 2; do
    await 60 test -e /sys/class/net/eth$number && ip link set eth$number up || exit
  done
  ip address add 10.0.1.2/32 dev eth0 && ip route add 10.0.0.1 dev eth0 &&
  ip address add 10.0.2.2/24 dev eth1 && ip address add 10.0.3.2/24 dev eth2'
ip route
expect "vif-route has made a route to the guest" dom0_pings 10.0.1.2
expect "and the guest reaches dom0 by it" guest_run g "$(pings 10.0.0.1)"
expect "vif-nat has made one, too" dom0_pings 10.0.2.2
expect "dom0 is the guest's gateway there" guest_run g "$(pings 10.0.2.129)"
expect_equal "vif-openvswitch has made a port" "$(ovs-vsctl list-ports ovsbr0)" "$(vif_of g 2)"
expect "through which dom0 reaches the guest" dom0_pings 10.0.3.2
expect "and the guest dom0" guest_run g "$(pings 10.0.3.1 8000)"
no_checksum_errors g
expect "the guest switches itself off" guest_power_off g
expect "nothing is left" nothing_left
expect_equal "no port of the switch" "$(ovs-vsctl list-ports ovsbr0)" ""
expect_equal "no route" "$(ip route | grep -c vif)" 0
