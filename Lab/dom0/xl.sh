# What an administrator types: stock xl with disks of backendtype=tap, on Xen's own hotplug scripts.
# What is typed and what comes back goes into $logs/transcript.md too.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scenarios

# xl_begin TITLE: images are in /srv from here on, which is what the disks' targets say
xl_begin() {
  mkdir -p /srv /var/lib/xen/dump
  mount --bind "$images" /srv
  images=/srv
  printf '\n## %s\n\n' "$1" >"$logs/transcript.md"
}

# note TEXT: a paragraph of the transcript
note() { printf '\n%s\n\n' "$*" | fold -s -w 120 | sed 's/ *$//' >>"$logs/transcript.md"; }

# typed LINE...: shown as a block of the transcript
typed() { printf '    %s\n' "$@" >>"$logs/transcript.md"; }

# daemon start|stop|kill: as a line of the transcript, too
daemon() {
  case $1 in
    start) typed '# ringback serve &' ;;
    stop) typed '# kill $(pidof ringback)' ;;
    kill) typed '# kill -KILL $(pidof ringback)' ;;
  esac
  "backend_$1"
}

# admin LINE: runs it in dom0 as a shell does; what it says is kept for `said`. Its status is the line's
admin() {
  local status=0
  echo "# $1"
  typed "# $1"
  eval "$1" >/run/lab/said 2>&1 </dev/null || status=$?
  tee >(sed 's/^/    /; s/[[:space:]]*$//' >>"$logs/transcript.md") </run/lab/said
  wait $!
  [ $status = 0 ] || echo "status $status"
  return $status
}

# said PATTERN: whether what the last line of `admin` printed holds the extended regular expression
said() { grep -E "$1" /run/lab/said; }

# fails LINE: whether xl refuses it
fails() { ! admin "$1"; }

# in_guest NAME LINE: as typed in the guest
in_guest() {
  local status=0
  typed "$1# $2"
  guest_run "$1" "$2" >/run/lab/said 2>&1 || status=$?
  tee >(sed 's/^/    /; s/[[:space:]]*$//' >>"$logs/transcript.md") </run/lab/said
  wait $!
  return $status
}

# tap_disk FORMAT VDEV FILE [MODE]: as xl takes it
tap_disk() { echo "format=$1,vdev=$2,access=${4-rw},backendtype=tap,target=/srv/$3"; }

# xl_guest NAME [--fio | --net] [--kernel WORDS] [--boot-loader LINE] [DISK or CONFIGURATION LINE]...: writes /etc/xen/NAME.cfg
xl_guest() {
  local name=$1 options=() lines=() disks=''; shift
  while :; do
    case ${1-} in
      --fio | --net) options+=("$1"); shift ;;
      --kernel | --boot-loader) options+=("$1" "$2"); shift 2 ;;
      *) break ;;
    esac
  done
  for word in "$@"; do
    case $word in
      format=*) disks+="${disks:+, }'$word'" ;;
      *) lines+=("$word") ;;
    esac
  done
  [ -z "$disks" ] || lines+=("disk=[$disks]")
  guest_describe "$name" "${options[@]}" "${lines[@]}"
  ln -sf "/run/lab/guests/$name" "/etc/xen/$name.cfg"
}

# device_model: puts QEMU, and what it and Xen put into an HVM guest's memory, where libxl looks for them
device_model() {
  mkdir -p /usr/libexec /usr/lib/xen-4.20/boot /usr/share/{seabios,qemu}
  ln -sf /images/hvm/xen-qemu-system-i386 /usr/libexec/
  ln -sf /images/hvm/hvmloader /usr/lib/xen-4.20/boot/
  ln -sf /images/hvm/{*.bin,keymaps} /usr/share/qemu/
  ln -sf /images/hvm/bios-256k.bin /usr/share/seabios/
  ln -sf /images/hvm/lib/* /usr/lib/x86_64-linux-gnu/
}

# xl_create NAME: as described; returns when xl does
xl_create() {
  admin "xl create /etc/xen/$1.cfg" || return
  guest_lookup "$1"
}

# leftovers: what there is of disks, one thing a line; nothing when no guest lives and all is well
leftovers() {
  xenstore-ls -f /local/domain/0/backend 2>/dev/null
  xenstore-ls -f /local/domain/0/error 2>/dev/null
  xenstore-ls -f /libxl 2>/dev/null | grep -v '^/libxl/0'
  domains_left
  taps_left
  ringback tap-ctl list
  leftover_files
}

# leftover_files: processes, sockets, locks and open images, which are no node
leftover_files() {
  local program pid
  for program in qemu-storage-daemon xl tap-ctl; do
    pid=$(pidof "$program") && echo "process $program $pid"
  done
  find /run/blktap-control /dev/shm -name 'nbd*' -o -name 'vbd-*' 2>/dev/null
  [ ! -e /run/lab/daemon.pid ] || daemon_files 2>/dev/null | grep '^/srv/'
  [ ! -e /run/xen-hotplug/block ] || flock -n /run/xen-hotplug/block true || echo "lock /run/xen-hotplug/block"
}

# nothing_left: within two minutes (libxl gives a script 40 s); what there is comes into the output
nothing_left() { await 120 no_leftovers || { cat /run/lab/left; return 1; }; }
no_leftovers() { leftovers >/run/lab/left; [ ! -s /run/lab/left ]; }

# nothing_left_of DOMAIN VDEV: nodes of one disk, in all places where a toolstack and a backend have them
nothing_left_of() { await 120 no_node_of "$1" "$(vdev_number "$2")" || { cat /run/lab/left; return 1; }; }
no_node_of() {
  ! xenstore-ls -f 2>/dev/null | grep -E "/vbd3?/$1/$2( |/)|/$1/device/vbd/$2( |/)" >/run/lab/left
}

# fact TEXT: a line of figures among the results
fact() { report fact "$1"; }

# daemon_figures_fixed: what is countable and must not grow
daemon_figures_fixed() {
  local files
  files=$(daemon_files | wc -l)
  echo "$files descriptors, $(daemon_threads) threads, $(tap-ctl list | wc -l) taps," \
    "$(xenstore-ls -f | grep -c -e '/backend/vbd3/' -e '^/libxl/[1-9]' -e '/error/') nodes, $(daemon_sockets) sockets"
}
daemon_figures() { echo "$(daemon_figures_fixed), $(grants_mapped_all) pages mapped, $(awk '$1 == "VmRSS:" { print $2 }' "/proc/$(cat /run/lab/daemon.pid)/status") kB in memory"; }
daemon_threads() { awk '$1 == "Threads:" { print $2 }' "/proc/$(cat /run/lab/daemon.pid)/status"; }
daemon_sockets() { find /run/blktap-control -type s 2>/dev/null | wc -l; }

# grants_mapped_all: pages of all guests that others hold mapped; console and xenstore are not counted
grants_mapped_all() { grants_mapped_of '[1-9][0-9]*'; }
