# Everybody tells the same numbers: `ringback stats`, `ringback top`, and xentop, which reads them in shared memory.
# shellcheck shell=bash
only_for ringback "statistics" || return 0
image=$(new_image disk 32)
ifconfig lo 127.0.0.1
backend_start --metrics-listen 127.0.0.1:9753 --metrics-file /run/lab/ringback.prom --metrics-interval 1
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'

# number KIND FIELD: what `ringback stats` says of a kind of request
number() { "$ringback" stats --domain "$(guest_id g)" --json | jq ".[0].total.requests.$1.$2"; }
reads=$(number read completed) writes=$(number write completed) flushes=$(number flush completed) bytes=$(number write bytes)
require "100 writes of 32 KiB, 50 reads and a flush" guest_run g '
  dd if=/dev/zero of=/dev/xvda bs=32k count=100 oflag=direct conv=fsync &&
  dd if=/dev/xvda of=/dev/null bs=32k count=50 iflag=direct'
expect_equal "stats: 100 writes" $(($(number write completed) - writes)) 100
expect_equal "stats: 3276800 bytes written" $(($(number write bytes) - bytes)) 3276800
expect_equal "stats: 50 reads" $(($(number read completed) - reads)) 50
expect_equal "stats: one flush" $(($(number flush completed) - flushes)) 1
expect "stats: no error" test "$(number read failed)$(number write failed)" = 00
{ printf 'GET /metrics HTTP/1.0\r\n\r\n' >&7; timeout 30 cat <&7 >"$logs/metrics.txt"; } 7<>/dev/tcp/127.0.0.1/9753
# metric NAME WORDS: its value
metric() { grep "^$1{.*$2" "$logs/metrics.txt" | sed 's/.* //'; }
expect_equal "metrics: bytes written" "$(metric ringback_disk_bytes_total 'request="write"')" "$(number write bytes)"
expect_equal "metrics: reads" "$(metric ringback_disk_requests_total 'request="read",result="okay"')" "$(number read completed)"
expect "metrics in a file" await 30 grep -q "^ringback_disk_requests_total.*request=\"read\",result=\"okay\"} $(number read completed)\$" /run/lab/ringback.prom
expect "stats in words" eval '"$ringback" stats --queues'
expect "latencies are in order" eval '"$ringback" stats --json | jq -e ".[0].total.requests.write.latency | .median > 0 and .median <= .p99 and .p99 <= .maximum"'

guest_send g 'while :; do dd if=/dev/zero of=/dev/xvda bs=32k count=500 oflag=direct; done'
require "the guest writes" await 60 counter_reaches g xvda writes 200
"$ringback" top --once --interval 2 >"$logs/top.txt"
cat "$logs/top.txt"
expect "top shows the disk at work" grep -q xvda "$logs/top.txt"
guest_destroy g
await 30 no_device_left

guest_create again
attach again xvda "$image"
guest_start again
require "a quiet guest" guest_run again 'disk_ready xvda && dd if=/dev/xvda of=/dev/null bs=32k count=300 iflag=direct && sleep 2'
# libxenstat shows what the kernel lists below /sys/bus/xen-backend
xentop -b -i 1 -x | tee "$logs/xentop.txt"
xentop_says() { grep -E '51712' "$logs/xentop.txt" | sed -E "s/.* $1: *([0-9]+).*/\\1/"; }
list_number() { counter again xvda "$1"; }
expect_equal "xentop: reads" "$(xentop_says RD)" "$(list_number reads)"
expect_equal "xentop: sectors read" "$(xentop_says RSECT)" "$(list_number sectorsRead)"
expect_equal "xentop: writes" "$(xentop_says WR)" "$(list_number writes)"
detach again xvda
expect_equal "the disk's file is gone with it" "$(find /dev/shm/td3-* -name 'vbd-*')" ""
require "the daemon stops cleanly" backend_stop
expect_equal "and takes its folder away" "$(find /dev/shm -name 'td3-*')" ""
