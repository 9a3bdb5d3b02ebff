import Foundation
import Glibc
import Loopback

/// What a machine and this process hold at a moment; what grows with every connection is a leak.
struct HeldResources: CustomStringConvertible {
  /// Loopback's books.
  var machine: LoopbackMachine.Statistics
  /// Open descriptors of the process, without the one that counts them.
  var descriptors: Int
  /// Its threads.
  var threads: Int
  /// Its memory mappings, by /proc/self/maps.
  var mappings: Int
  /// Bytes that malloc has given out.
  var heapBytes: Int
  /// Resident memory in KiB.
  var residentKilobytes: Int

  /// Looks at them now.
  init(_ host: LoopbackHost) throws {
    machine = host.machine.statistics
    descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count - 1
    threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count
    mappings = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8).split(separator: "\n").count
    heapBytes = try Self.heapBytes()
    let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    guard pages.count > 1, let resident = Int(pages[1]) else { throw WorldFailure("/proc/self/statm") }
    residentKilobytes = resident * 4
  }

  var description: String {
    "mapped pages \(machine.mappedPageCount), granted pages \(machine.grantedPageCount), "
      + "ports \(machine.portCount), connections \(machine.connectionCount), descriptors \(descriptors), "
      + "threads \(threads), mappings \(mappings), heap \(heapBytes) B, resident \(residentKilobytes) KiB"
  }

  /// What the process's descriptors are open on, each with its number, for whoever looks for a leak.
  static var openFiles: String {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    let targets = names.map { name in
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")) ?? "gone"
    }
    // Sockets and pipes have numbers of their own.
    let kinds = targets.map { String($0.prefix { $0 != "[" }) }
    return Dictionary(grouping: kinds) { $0 }.map { "\($1.count) x \($0)" }.sorted().joined(separator: ", ")
  }

  /// What malloc has given out, from its own account; its functions have no header in Swift's module.
  private static func heapBytes() throws -> Int {
    typealias Trim = @convention(c) (Int) -> Int32
    typealias Info = @convention(c) (Int32, UnsafeMutablePointer<FILE>) -> Int32
    // Sound: malloc.h declares the functions so; the stream is open until the end of this function.
    guard let trim = unsafe dlsym(nil, "malloc_trim"), let info = unsafe dlsym(nil, "malloc_info"),
      let stream = unsafe tmpfile()
    else { throw WorldFailure("malloc does not tell") }
    defer { unsafe fclose(stream) }
    _ = unsafe unsafeBitCast(trim, to: Trim.self)(0)
    _ = unsafe unsafeBitCast(info, to: Info.self)(0, stream)
    unsafe rewind(stream)
    var text = ""
    var line = [CChar](repeating: 0, count: 256)
    while unsafe fgets(&line, Int32(line.count), stream) != nil {
      text += String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    // The totals of all arenas stand last.
    func last(_ prefix: String) throws -> Int {
      guard let range = text.range(of: prefix, options: .backwards),
        let size = text[range.upperBound...].firstMatch(of: /size="(\d+)"/), let number = Int(size.1)
      else { throw WorldFailure("malloc does not tell of \(prefix)") }
      return number
    }
    return try last("<system type=\"current\"") - last("<total type=\"fast\"") - last("<total type=\"rest\"")
      + last("<total type=\"mmap\"")
  }

  /// What has grown since `start`, in words; empty when nothing has. Memory may by `heapSlack` bytes: what
  /// malloc keeps for each thread counts as given out, and so it goes up and down.
  func growth(since start: HeldResources, heapSlack: Int) -> [String] {
    var found: [String] = []
    func compare(_ name: String, _ before: Int, _ now: Int, slack: Int = 0) {
      if now > before + slack { found.append("\(name) from \(before) to \(now)") }
    }
    compare("mapped pages", start.machine.mappedPageCount, machine.mappedPageCount)
    compare("granted pages", start.machine.grantedPageCount, machine.grantedPageCount)
    compare("shares", start.machine.shareCount, machine.shareCount)
    compare("ports", start.machine.portCount, machine.portCount)
    compare("connections", start.machine.connectionCount, machine.connectionCount)
    compare("domains", start.machine.domainCount, machine.domainCount)
    compare("descriptors", start.descriptors, descriptors)
    // io_uring's own workers come and go.
    compare("threads", start.threads, threads, slack: 4)
    // The kernel joins and splits neighbours as they come.
    compare("mappings", start.mappings, mappings, slack: 8)
    compare("heap bytes", start.heapBytes, heapBytes, slack: heapSlack)
    return found
  }
}
