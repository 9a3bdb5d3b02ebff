import Blkback
import Foundation
import RingKit
import Synchronization

/// A daemon in miniature: one control thread that looks at every disk whenever anything changed, with the
/// data threads and disks of the real one.
final class FrontendDaemon: Sendable {
  private enum Message: Sendable {
    case disk(DeviceAddress, VbdEvent)
    case command(DeviceAddress, @Sendable (Vbd?) -> Void)
    case stop
  }

  /// What the administrator would read.
  struct LogLine: Sendable, CustomStringConvertible {
    var severity: DeviceSeverity
    var disk: DeviceAddress
    var message: String
    var description: String { "\(severity) \(disk): \(message)" }
  }

  /// Opens a disk's image.
  typealias StoreOpening = @Sendable (VbdConfiguration) throws(VbdError) -> any BlockStore

  private let log = Mutex<[LogLine]>([])
  private let inbox: Mailbox<Message>
  private let opened = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)
  private let failure = Mutex<String?>(nil)
  /// The kind of backend that it serves.
  let kind: String
  /// What tells it from other daemons.
  let name = "daemon \(UUID().uuidString.prefix(8))"
  /// Those that have not ended.
  private static let living = Mutex<Set<String>>([])

  /// Starts serving; throws when it cannot open what it needs.
  init(
    hypervisor: any Hypervisor, kind: String = "vbd", offer: VbdOffer, threadCount: Int,
    sizes: DataThreadConfiguration, opening: @escaping StoreOpening
  ) throws {
    self.kind = kind
    inbox = try Mailbox()
    Self.living.withLock { _ = $0.insert(name) }
    let thread = Thread { [self] in
      do {
        let control = try Control(
          daemon: self, hypervisor: hypervisor, offer: offer, threadCount: threadCount,
          sizes: sizes, opening: opening)
        opened.signal()
        try control.run()
      } catch {
        failure.withLock { $0 = "\(error)" }
        opened.signal()
      }
      Self.living.withLock { _ = $0.remove(name) }
      ended.signal()
    }
    thread.name = "daemon"
    thread.start()
    guard opened.wait(timeout: .now() + 20) == .success else {
      throw WorldFailure("the daemon does not start")
    }
    if let failure = failure.withLock({ $0 }) { throw WorldFailure("the daemon: \(failure)") }
  }

  /// Everything logged so far.
  var lines: [LogLine] { log.withLock { $0 } }

  /// Empties the log, so that it does not grow while memory is counted.
  func forgetLines() { log.withLock { $0 = [] } }

  /// Has the control thread do something to a disk, and waits for the answer.
  func ask<Answer: Sendable>(
    _ disk: DeviceAddress,
    _ question: @escaping @Sendable (Vbd, _ answer: @escaping @Sendable (Answer) -> Void) -> Void
  ) throws -> Answer {
    let answer = Mutex<Answer?>(nil)
    let answered = DispatchSemaphore(value: 0)
    inbox.post(
      .command(disk) { found in
        guard let found else {
          answered.signal()
          return
        }
        question(found) { value in
          answer.withLock { $0 = value }
          answered.signal()
        }
      })
    guard answered.wait(timeout: .now() + 20) == .success else {
      throw WorldFailure("no answer to a command; the log: \(lines)")
    }
    guard let answer = answer.withLock({ $0 }) else { throw WorldFailure("there is no disk \(disk)") }
    return answer
  }

  /// Waits until the control thread has come round.
  func turn() throws {
    let answered = DispatchSemaphore(value: 0)
    inbox.post(
      .command(DeviceAddress(kind: kind, domain: DomainID(rawValue: 0), device: 0)) { _ in answered.signal() }
    )
    guard answered.wait(timeout: .now() + 20) == .success else {
      throw WorldFailure("the daemon hangs: \(lines)")
    }
  }

  /// Drains every disk and ends; a failure or a hang is thrown.
  func stop() throws {
    inbox.post(.stop)
    guard ended.wait(timeout: .now() + 20) == .success else { throw WorldFailure("the daemon does not stop") }
    if let failure = failure.withLock({ $0 }) { throw WorldFailure("the daemon: \(failure)") }
  }

  /// What belongs to the control thread.
  private final class Control: VbdEnvironment {
    let store: any StoreSession
    let threads: [DataThread<BlockQueue>]
    let offer: VbdOffer
    let bufferShareByteCount: Int
    let ownDomain: DomainID
    let post: @Sendable (DeviceAddress, VbdEvent) -> Void
    private let opening: StoreOpening
    private let client: StoreClient
    private let daemon: FrontendDaemon
    private var disks: [DeviceAddress: Vbd] = [:]
    private var nextThread = 0
    private var isStopping = false
    private let kindPath: String
    /// A disk has ended, in whose place another one may be by now.
    private var hasRoom = false

    init(
      daemon: FrontendDaemon, hypervisor: any Hypervisor, offer: VbdOffer, threadCount: Int,
      sizes: DataThreadConfiguration, opening: @escaping StoreOpening
    ) throws {
      self.opening = opening
      self.daemon = daemon
      self.offer = offer
      client = try hypervisor.openStore()
      store = client
      ownDomain = try client.ownDomain()
      bufferShareByteCount = max(BufferPool.largestByteCount, sizes.poolByteCount / 4)
      threads = try (0..<threadCount).map {
        try DataThread<BlockQueue>(number: $0, hypervisor: hypervisor, configuration: sizes)
      }
      post = { [inbox = daemon.inbox] in inbox.post(.disk($0, $1)) }
      kindPath = "/local/domain/\(ownDomain)/backend/\(daemon.kind)"
      try client.watch(kindPath, token: "kind")
    }

    func run() throws {
      var poll = DescriptorPoll()
      poll.set([(client.descriptor, false), (daemon.inbox.descriptor, false)])
      while !(isStopping && disks.isEmpty) {
        _ = try poll.wait(timeoutMilliseconds: hasRoom ? 0 : 5000)
        for message in daemon.inbox.take() {
          switch message {
          case .disk(let identity, let event): disks[identity]?.handle(event)
          case .command(let identity, let body): body(disks[identity])
          case .stop:
            isStopping = true
            for disk in Array(disks.values) { disk.stop() }
          }
        }
        var changed = hasRoom
        hasRoom = false
        while try client.nextWatchEvent() != nil { changed = true }
        if changed { try lookAtAll() }
      }
      threads.forEach { $0.stop() }
      for thread in threads {
        if let failure = thread.join() { throw WorldFailure("data thread \(thread.number): \(failure)") }
      }
    }

    private func lookAtAll() throws {
      for domain in try client.list(kindPath) ?? [] {
        for device in try client.list("\(kindPath)/\(domain)") ?? [] {
          guard let domain = UInt16(domain), let number = UInt32(device) else { continue }
          let identity = DeviceAddress(
            kind: daemon.kind, domain: DomainID(rawValue: domain), device: number)
          guard disks[identity] == nil, !isStopping, try isThere(identity) else { continue }
          disks[identity] = Vbd(identity, environment: self)
        }
      }
      for (identity, disk) in disks {
        if try client.exists("\(kindPath)/\(identity.domain)/\(identity.device)") {
          disk.refresh()
        } else {
          disk.vanish()
        }
      }
    }

    /// As the program has it: a disk that is let go stays in the store until its toolstack has seen it
    /// Closed.
    private func isThere(_ disk: DeviceAddress) throws -> Bool {
      let path = "\(kindPath)/\(disk.domain)/\(disk.device)"
      return try client.state("\(path)/state") != .closed || client.read("\(path)/online") == "1"
    }

    var serverName: String? { daemon.name }
    func isServing(_ server: String) -> Bool { FrontendDaemon.living.withLock { $0.contains(server) } }

    func isLettingGo(ofImage parameters: String, besides disk: DeviceAddress) -> Bool {
      disks.values.contains { $0.identity != disk && $0.isAboutToLetGo(of: parameters) }
    }

    func frontendToken(of disk: DeviceAddress) -> String { "frontend/\(disk)" }

    func openStore(_ configuration: VbdConfiguration) throws(VbdError) -> any BlockStore {
      try opening(configuration)
    }

    func claimThread(count: Int) -> Int {
      defer { nextThread = (nextThread + count) % threads.count }
      return nextThread
    }

    func log(_ severity: DeviceSeverity, _ message: String, about disk: DeviceAddress) {
      daemon.log.withLock { $0.append(LogLine(severity: severity, disk: disk, message: message)) }
    }

    func forget(_ disk: DeviceAddress) {
      disks[disk] = nil
      hasRoom = !isStopping
      for other in Array(disks.values) { other.imageMayBeFree() }
    }
  }
}
