import Logging
import RingKit

/// What systemd is told of the daemon.
extension Daemon {
  /// The state in a line, for `systemctl status`.
  var statusLine: String {
    let guests = Set(disks.keys.map(\.domain)).union(vifs.devices.keys.map(\.domain)).count
    func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
    let interfaces = vifs.devices.isEmpty ? "" : " and " + count(vifs.devices.count, "interface")
    let verb = isStopping ? "Stopping: draining" : "Serving"
    return "\(verb) \(count(disks.count, "disk"))\(interfaces) of \(count(guests, "guest")) on "
      + count(threads.count + vifs.threads.count, "thread")
  }

  /// When there is something to tell systemd next.
  func serviceDue(atNanoseconds now: UInt64) -> UInt64? {
    [service.watchdogNanoseconds == nil ? nil : chores.watchdogDue, service.nextNanoseconds(after: now)]
      .compactMap { $0 }.min()
  }

  /// Milliseconds until there is something to tell systemd.
  func timeToService(atMostMilliseconds longest: Int32) -> Int32 {
    let now = MonotonicClock.nowNanoseconds()
    guard let due = serviceDue(atNanoseconds: now) else { return longest }
    return due <= now ? 0 : Int32(min(UInt64(longest), (due - now) / 1_000_000 + 1))
  }

  /// Everything is open, and the disks that were there are looked at.
  func beginServing() {
    isServing = true
    service.tell(.ready)
    tellService(atNanoseconds: MonotonicClock.nowNanoseconds())
  }

  /// Tells systemd what is new, and that all is well if it is.
  func tellService(atNanoseconds now: UInt64) {
    guard service.isHeard else { return }
    guard isServing else { return service.tell(.starting) }
    service.sendAgain()
    service.tell(.status(statusLine))
    if let interval = service.watchdogNanoseconds, now >= chores.watchdogDue {
      // A thread is asked at each quarter and judged at the next, so that one that is silent has more than half
      // of the time left to answer.
      chores.watchdogDue = now + interval / 4
      feedWatchdog()
    }
    if let trouble = service.takeTrouble() { logger.warning("\(trouble)") }
  }

  private func feedWatchdog() {
    let silences = pulses.silences
    for silence in silences where !silentThreads.contains(silence.thread) {
      logger.warning(
        silence.isInKernel
          ? "data thread \(silence.thread) waits in the kernel, most likely for storage; its devices wait with it"
          : "data thread \(silence.thread) does not answer; systemd's watchdog will end the daemon if it stays so"
      )
    }
    silentThreads = Set(silences.map(\.thread))
    guard silences.allSatisfy(\.isInKernel) else { return }
    service.tell(.alive)
    // Questions do not pile up before a thread that waits.
    guard silences.isEmpty else { return }
    pulses.ask { [threads, vifs] number, answer in
      // Interfaces' threads are numbered on from the disks'.
      if number < threads.count {
        threads[number].perform { _ in answer() }
      } else {
        vifs.threads[number - threads.count].perform { _ in answer() }
      }
    }
  }
}
