# Network interfaces: stock xl, Xen's own vif-bridge, a bridge in dom0, and Linux's xen-netfront in guests.
# shellcheck shell=bash
# Addresses are 10.0.0.N and fd00::N; dom0 is 1 on the bridge.

# load_modules FOLDER ORDER: those which are not there yet
load_modules() {
  local module name
  while read -r module; do
    name=${module%.ko} name=${name//-/_}
    grep -q "^$name " /proc/modules || insmod "$1/$module"
  done <"$1/$2"
}

# bridge_begin: dom0 on xenbr0, an iperf3 that waits there, and TAPs
bridge_begin() {
  load_modules /images/net order
  ip link set lo up
  ip link add xenbr0 type bridge stp_state 0 forward_delay 0
  ip link set xenbr0 up
  ip address add 10.0.0.1/24 dev xenbr0
  ip address add fd00::1/64 dev xenbr0 nodad
  iperf3 --server --daemon --pidfile /run/lab/iperf3.pid
}

# bridge_end: for clean-up, after the guests' end
bridge_end() {
  openvswitch_end
  [ ! -e /run/lab/dnsmasq.pid ] || { kill "$(cat /run/lab/dnsmasq.pid)"; rm /run/lab/dnsmasq.pid; }
  [ -e /sys/class/net/xenbr0 ] || return 0
  [ ! -e /run/lab/iperf3.pid ] || kill "$(tr -d '\0' </run/lab/iperf3.pid)"
  ip link delete xenbr0
  netback_unload
}

# addresses_begin MAC ADDRESS: dnsmasq on xenbr0, with one address that is meant for MAC
addresses_begin() {
  [ -e /etc/passwd ] || echo root:x:0:0:root:/:/bin/bash >/etc/passwd
  [ -e /etc/group ] || echo root:x:0: >/etc/group
  dnsmasq --port=0 --interface=xenbr0 --bind-interfaces --dhcp-range=10.0.0.50,10.0.0.99,1h --dhcp-host="$1,$2" \
    --dhcp-leasefile=/run/lab/leases --user=root --conf-file=/dev/null --pid-file=/run/lab/dnsmasq.pid \
    --log-dhcp --log-facility="$logs/dnsmasq.log"
}

# openvswitch_begin: a switch ovsbr0 with dom0 on it as 10.0.3.1; openvswitch_end for clean-up
openvswitch_begin() {
  load_modules /images/net openvswitch-order
  mkdir -p /run/openvswitch
  export OVS_RUNDIR=/run/openvswitch
  ovsdb-tool create /run/openvswitch/conf.db /images/net/vswitch.ovsschema
  ovsdb-server --detach --pidfile --log-file="$logs/ovsdb-server.log" --remote=punix:/run/openvswitch/db.sock \
    /run/openvswitch/conf.db
  ovs-vsctl --no-wait init
  ovs-vswitchd --detach --pidfile --log-file="$logs/ovs-vswitchd.log" unix:/run/openvswitch/db.sock
  ovs-vsctl add-br ovsbr0
  ip address add 10.0.3.1/24 dev ovsbr0
  ip link set ovsbr0 up
}
openvswitch_end() {
  [ -e /run/openvswitch/conf.db ] || return 0
  [ ! -e /sys/class/net/ovsbr0 ] || ovs-vsctl --timeout=10 del-br ovsbr0
  local daemon
  for daemon in ovs-vswitchd ovsdb-server; do kill "$(tr -d '\0' </run/openvswitch/$daemon.pid)"; done
  rm -r /run/openvswitch
}

# Linux's xen-netback takes every interface as long as it is loaded.
netback_load() { load_modules /images/net netback-order; }
netback_unload() { ! grep -q '^xen_netback ' /proc/modules || rmmod xen_netback; }

# vif_on_bridge N [OPTION]: as xl takes it
vif_on_bridge() { echo "mac=00:16:3e:00:00:0$1,bridge=xenbr0${2:+,$2}"; }

# net_up GUEST N [INTERFACE]: the guest gives the interface its addresses, and answers for them on no other one
net_up() {
  guest_run "$1" "
    echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
    await 60 test -e /sys/class/net/${3-eth0} && ip link set lo up && ip link set ${3-eth0} up &&
    ip address add 10.0.0.$2/24 dev ${3-eth0} && ip address add fd00::$2/64 dev ${3-eth0} nodad"
}

# vif_of GUEST [NUMBER]: the name of its interface in dom0
vif_of() { echo "vif$(guest_id "$1").${2-0}"; }
in_bridge() { [ -e "/sys/class/net/xenbr0/brif/$1" ]; }
no_interface() { [ ! -e "/sys/class/net/$1" ]; }

# taps_left: interfaces of guests that dom0 still has
taps_left() { find /sys/class/net -name 'vif*' -exec basename {} \;; }

# vif_node GUEST NUMBER NODE: of the backend; front_node GUEST NUMBER NODE: of the frontend
vif_node() { xenstore-read "/local/domain/0/backend/vif/$(guest_id "$1")/$2/$3" 2>/dev/null || true; }
front_node() { xenstore-read "/local/domain/$(guest_id "$1")/device/vif/$2/$3" 2>/dev/null || true; }
vif_connected() { await 60 state_among "/local/domain/0/backend/vif/$(guest_id "$1")/${2-0}/state" 4; }

# pings ADDRESS [BYTES]: twenty, every one of which is answered. Both shells know this line
pings() { echo "ping -q -c 20 -i 0.1 -W 5 -s ${2-56} $1 >/tmp/pings; cat /tmp/pings; grep -q ' 0% packet loss' /tmp/pings"; }
dom0_pings() { eval "$(pings "$@")"; }

# iperf NAME GUEST ADDRESS SECONDS [OPTION of iperf3]...: from the guest; its report is $logs/iperf-NAME.json
iperf() {
  guest_run "$2" "iperf3 --json --client $3 --time $4 ${*:5}" >"$logs/iperf-$1.json" ||
    { jq -r .error "$logs/iperf-$1.json"; return 1; }
  echo "$(megabits "$1") Mbit/s"
}
# megabits NAME: that arrived a second
megabits() { jq '.end.sum_received.bits_per_second / 1e6 | round' "$logs/iperf-$1.json"; }
# gigabytes NAME: that arrived
gigabytes() { jq '.end.sum_received.bytes / 1e9' "$logs/iperf-$1.json"; }

# checksum_errors: packets that this kernel has dropped for their checksums. Both shells know these lines
checksum_errors='awk "
  \$1 ~ /:\$/ && \$1 == last { for (i = 2; i <= NF; i++) if (name[i] == \"InCsumErrors\") sum += \$i }
  { last = \$1; for (i = 2; i <= NF; i++) name[i] = \$i }
  \$1 ~ /InCsumErrors\$/ { sum += \$2 }
  END { print sum + 0 }" /proc/net/snmp /proc/net/snmp6'
no_checksum_errors() {
  expect_equal "no checksum was wrong in dom0" "$(eval "$checksum_errors")" 0
  local guest
  for guest in "$@"; do expect_equal "nor in $guest" "$(guest_run "$guest" "$checksum_errors")" 0; done
}

# processor_time_of_dom0: seconds, in tenths
processor_time_of_dom0() { xl list Domain-0 | awk 'NR == 2 { print $NF }'; }
