# One line for each check, appended to a file that the host follows. Needs $scenario.
# shellcheck shell=bash

uptime_hundredths() { local up; read -r up _ </proc/uptime; echo $((10#${up/./})); }
mark_time() { uptime_hundredths >/run/mark; }

# report ok|FAIL|skip|fact TEXT: with the time since the line before it
report() {
  local spent=$(($(uptime_hundredths) - $(cat /run/mark)))
  printf '  %-5s %s: %s (%d.%d s)\n' "$1" "$scenario" "${2//$'\n'/, }" $((spent / 100)) $((spent % 100 / 10)) | tee -a /out/results.log
  mark_time
}
