import RingKit

/// Whether the kernel carries the I/O, and the limits of the process that does it.
struct EngineChecks {
  let tree: SystemTree
  var threadCount: Int
  var threads = DataThreadConfiguration()

  /// What came of opening a ring.
  enum Probe: Equatable, Sendable {
    case uring
    /// libaio does the work; for what reason, unless it was asked for.
    case aio(reason: String?)
    case failed(String)

    /// Opens a ring as a data thread does.
    init(_ engine: IOEngine, entries: UInt32) {
      do {
        let ring = try IORing.open(entries: entries, engine: engine)
        self = ring.engine == .aio ? .aio(reason: ring.fallbackReason.map { "\($0)" }) : .uring
      } catch {
        self = .failed("\(error)")
      }
    }
  }

  func engine(_ probe: Probe) -> Check {
    let forbidden = tree.number("/proc/sys/kernel/io_uring_disabled") ?? 0
    let allow = "sysctl -w kernel.io_uring_disabled=0, and a file in /etc/sysctl.d for all boots to come"
    switch probe {
    case .uring:
      let some = " (of this user; kernel.io_uring_disabled is \(forbidden))"
      return .ok("engine", "io_uring carries the I/O\(forbidden == 0 ? "" : some)")
    case .aio(nil):
      return .ok("engine", "libaio carries the I/O, as asked for")
    case .aio(let reason?):
      let finding = "libaio carries the I/O, which costs more processor time: \(reason)"
      return .failure("engine", .warning, finding, orMend: allow)
    case .failed(let reason):
      return .failure("engine", .problem, reason, orMend: allow)
    }
  }

  /// Room in the machine's table of libaio requests; nil when libaio is not used.
  func requestRoom(_ probe: Probe) -> Check? {
    guard case .aio = probe, let limit = tree.number("/proc/sys/fs/aio-max-nr") else { return nil }
    let used = tree.number("/proc/sys/fs/aio-nr") ?? 0
    let left = limit > used ? limit - used : 0
    let wanted = UInt64(threadCount) * (UInt64(threads.ringEntries) * 2 + 1)
    let finding = "fs.aio-max-nr leaves room for \(left) requests; \(threadCount) data threads want \(wanted)"
    let remedy = "sysctl -w fs.aio-max-nr=1048576, and a file in /etc/sysctl.d for all boots to come"
    if left < UInt64(threadCount) * 65 { return .problem("libaio room", finding, mend: remedy) }
    return left < wanted
      ? .warning("libaio room", finding, mend: remedy) : .ok("libaio room", finding)
  }

  // MARK: Limits of the daemon's process, or of this one while there is none

  /// The hard limit of open files, up to which the daemon raises its own.
  func openFiles(daemon: Int32?) -> Check {
    guard let limit = limit("Max open files", of: daemon) else { return unreadable("open files", daemon) }
    // An image, and what belongs to it; sockets, rings and event channels are few.
    let finding = "\(limit == .max ? "any number of" : "\(limit)") open files are allowed \(whose(daemon))"
    guard limit >= 4096 else {
      return .warning(
        "open files", "\(finding): enough for about \(limit / 8) disks",
        mend: "LimitNOFILE=65536 in the service (systemctl edit ringback), or ulimit -n 65536 before it")
    }
    return .ok("open files", finding)
  }

  /// Locked memory, in which io_uring keeps the data threads' buffers.
  func lockedMemory(_ probe: Probe, daemon: Int32?) -> Check? {
    guard probe == .uring else { return nil }
    let wanted = UInt64(threads.poolByteCount) * UInt64(threadCount)
    if mayLockMemory(daemon) {
      return .ok("locked memory", "any amount may be locked \(whose(daemon)) (CAP_IPC_LOCK)")
    }
    guard let limit = limit("Max locked memory", of: daemon) else {
      return unreadable("locked memory", daemon)
    }
    let finding = "\(limit == .max ? "any amount" : "\(ByteCount(limit))") may be locked \(whose(daemon))"
    guard limit >= wanted else {
      return .warning(
        "locked memory",
        "\(finding); the buffers of \(threadCount) data threads have \(ByteCount(wanted)), and I/O costs more"
          + " processor time when they cannot be kept registered",
        mend:
          "LimitMEMLOCK=infinity in the service (systemctl edit ringback), or ulimit -l unlimited before it")
    }
    return .ok("locked memory", finding)
  }

  private func whose(_ daemon: Int32?) -> String { daemon.map { "to the daemon (pid \($0))" } ?? "here" }

  private func unreadable(_ name: String, _ daemon: Int32?) -> Check {
    .warning(name, "the limits cannot be read", mend: "mount /proc, and run as root")
  }

  private func directory(_ daemon: Int32?) -> String { "/proc/\(daemon.map { "\($0)" } ?? "self")" }

  /// The hard limit: proc(5), /proc/pid/limits, whose columns are 26 and 21 characters wide.
  private func limit(_ name: String, of daemon: Int32?) -> UInt64? {
    let lines = tree.text("\(directory(daemon))/limits")?.split(separator: "\n") ?? []
    guard let line = lines.first(where: { $0.hasPrefix(name + " ") }) else { return nil }
    let words = line.dropFirst(name.count).split(separator: " ")
    guard words.count >= 2 else { return nil }
    return words[1] == "unlimited" ? .max : UInt64(words[1])
  }

  /// CAP_IPC_LOCK, number 14 (linux/capability.h).
  private func mayLockMemory(_ daemon: Int32?) -> Bool { tree.hasCapability(14, process: daemon) ?? false }
}
